"""What a run writes down of what it hears."""

from __future__ import annotations

import types

import numpy as np
from run_parts import small

from distdqn.files.run_folder import RunFolder
from distdqn.reporting.progress import Progress
from distdqn.run import record as record_module
from distdqn.run.record import RunRecord
from distdqn.telemetry.reports import Poll
from distdqn.telemetry.status import RunStatus


def make_record(tmp_path, **changes) -> tuple[RunRecord, RunFolder]:
    config = small(tmp_path, **changes)
    factory = types.SimpleNamespace(config=config, network_description=dict)
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


def test_the_plot_is_named_after_run_env_and_preset(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        record_module, "plot_learning_curve", lambda *_, title, **__: titles.append(title)
    )
    record, folder = make_record(tmp_path, seed=3)
    record.plot()
    folder.tell(preset="apex")
    record.plot()
    assert titles == ["run · CartPole-v1 · seed 3", "run · CartPole-v1 · preset apex · seed 3"]
