"""What a run writes down of what it hears."""

from __future__ import annotations

import types
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from run_parts import read_metrics, small

from distdqn.errors import RunError
from distdqn.files.run_folder import RunFolder
from distdqn.reporting.progress import Progress
from distdqn.run import record as record_module
from distdqn.run.record import RunRecord
from distdqn.telemetry.reports import EvaluationReport, Poll
from distdqn.telemetry.status import RunStatus


def make_record(tmp_path, **changes) -> tuple[RunRecord, RunFolder]:
    config = small(tmp_path, **changes)
    factory: Any = types.SimpleNamespace(config=config, network_description=dict, made_with=[])
    folder = RunFolder.create(tmp_path / "runs", "run", "CartPole-v1", "")
    return RunRecord(factory, folder, Progress(enabled=False)), folder


def poll(env_steps=0, episodes=(), evaluations=(), **status) -> Poll:
    told = RunStatus(state="running", env_steps=env_steps, **status)
    return Poll(told, list(episodes), list(evaluations), [])


def test_the_training_curve_is_bounded_and_goes_from_the_first_to_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "_MOST_EPISODES", 10_000)
    record, folder = make_record(tmp_path)
    for part in range(20):
        steps = range(1_000 * part, 1_000 * (part + 1))
        record.hear(poll(1_000 * part, [(step, float(step), 1) for step in steps]))
    folder.close()
    curve = record.get_state()["train_curve"]
    assert 8_000 < len(curve) <= 10_000
    assert curve[0, 0] == 0.0 and curve[-1, 0] == 19_999.0
    np.testing.assert_array_equal(curve[:, 0], curve[:, 1])
    assert (np.diff(curve[:, 0]) > 0).all()


def test_metrics_ascend_and_an_evaluation_has_its_spread(tmp_path):
    record, folder = make_record(tmp_path)
    late = EvaluationReport(100, np.array([1.0, 2.0, 6.0]), np.zeros(0), np.array([4, 4, 7]))
    record.started()
    record.hear(poll(150, [(120, 8.0, 8)], gradient_steps=5))
    record.hear(poll(300, [(200, 9.0, 9)], [late], gradient_steps=10))
    folder.close()
    lines = read_metrics(tmp_path)
    for clock in ("global_step", "gradient_steps", "time"):
        told = [line[clock] for line in lines]
        assert told == sorted(told), clock
    (line,) = [line for line in lines if "eval/episodic_return" in line]
    del line["time"]
    assert line == {
        "global_step": 300,
        "gradient_steps": 10,
        "eval/env_steps": 100,
        "eval/episodic_return": 3.0,
        "eval/return_std": pytest.approx(np.std([1.0, 2.0, 6.0])),
        "eval/return_min": 1.0,
        "eval/return_max": 6.0,
        "eval/episodic_length": 5.0,
        "eval/episodes": 3.0,
    }


def test_the_display_counts_from_the_start_of_the_run(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(record_module.time, "monotonic", lambda: clock[0])
    record, folder = make_record(tmp_path)
    shown = []
    monkeypatch.setattr(Progress, "update", lambda self, status: shown.append(status.elapsed_s))
    clock[0] += 15.0
    record.hear(poll(1, elapsed_s=2.0))  # control began later
    folder.close()
    assert shown == [15.0]


class Evaluating:
    """A system whose evaluations return what it is told to, in turn."""

    def __init__(self, *means):
        self._means, self.asked = iter(means), []

    def evaluate(self, online, episodes, seed):
        self.asked.append((online[0], seed))
        return EvaluationReport(0, np.full(episodes, next(self._means)), online)

    def record(self, online, seed):
        raise RunError("no pictures")

    def visits(self):
        return []


def finish(tmp_path, monkeypatch, *means):
    """The summary of a run whose evaluations so far returned 5 at best; what `best/` holds."""
    saved = []
    record, folder = make_record(tmp_path)
    monkeypatch.setattr(
        record.checkpointer, "save_best", lambda online, *_: saved.append(online[0])
    )
    record.hear(poll(100, evaluations=[EvaluationReport(90, np.full(2, 5.0), np.full(1, 1.0))]))
    interruption: Any = types.SimpleNamespace(
        name="", until=lambda _: nullcontext(), left_out_after=lambda _: nullcontext()
    )
    system = Evaluating(*means)
    summary = record.finish("total_env_steps", np.full(1, 2.0), system, interruption)
    folder.close()
    return summary, saved, system.asked


def test_last_weights_that_return_more_become_the_best_and_are_evaluated_afresh(
    tmp_path, monkeypatch
):
    summary, saved, asked = finish(tmp_path, monkeypatch, 9.0, 6.0, 8.0)
    assert saved == [1.0, 2.0]
    assert (summary.eval_return_mean, summary.best_eval_return_mean) == (9.0, 8.0)
    assert (summary.best_eval_env_steps, summary.chosen_eval_return_mean) == (100, 9.0)
    assert [weights for weights, _ in asked] == [2.0, 1.0, 2.0]
    assert len({seed for _, seed in asked}) == 3


def test_last_weights_that_return_no_more_leave_the_best_alone(tmp_path, monkeypatch):
    summary, saved, asked = finish(tmp_path, monkeypatch, 6.0, 6.0)
    assert saved == [1.0] and len(asked) == 2
    assert (summary.best_eval_return_mean, summary.best_eval_env_steps) == (6.0, 90)
    assert (summary.samples_per_insert_set, summary.chosen_eval_return_mean) == (2.0, 5.0)
    assert summary.error_band >= 256


def test_a_plot_that_fails_costs_the_plot_alone(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Progress, "say", lambda self, line: said.append(line))
    monkeypatch.setattr(record_module, "plot_learning_curve", lambda *_, **__: 1 / 0)
    record, folder = make_record(tmp_path)
    record.hear(poll())
    record.plot()
    assert "learning_curve.png could not be drawn: ZeroDivisionError: division by zero" in said
    assert "1 / 0" in (folder.path / "errors.log").read_text()


def test_the_plot_is_named_after_run_env_and_preset(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        record_module, "plot_learning_curve", lambda *_, title, **__: titles.append(title)
    )
    record, folder = make_record(tmp_path, seed=3)
    record.hear(poll())
    record.plot()
    folder.tell(preset="apex")
    record.plot()
    assert titles == ["run · CartPole-v1 · seed 3", "run · CartPole-v1 · preset apex · seed 3"]
