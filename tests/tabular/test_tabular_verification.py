"""Planned runs are made, measured and told about; an interrupt ends it all."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tabular_parts import solution_of, tiny

from distdqn import train
from distdqn.config import EnvConfig
from distdqn.files.checkpoint import checkpoints
from distdqn.policy import load_policy
from distdqn.tabular import plan, verification
from distdqn.tabular.counterexamples import divergence
from distdqn.tabular.plan import Bound

unseen = partial(train, display=False)


def verify(folder, runs, ablation_seeds=(), seed=1, say=str, train=unseen):
    return verification.verify(folder, runs, ablation_seeds, seed, train, say)


def test_each_planned_run_is_an_ordinary_run_folder_and_a_result(tmp_path):
    lines: list[str] = []
    impossible = Bound("max_error", 1e-9, True)
    runs = [tiny("first", (impossible,)), tiny("second", env__kwargs={"is_slippery": False})]

    found = verify(tmp_path, runs, seed=4, say=lines.append)

    assert [result.planned.name for result in found.results] == ["first", "second"]
    for result in found.results:
        folder = Path(result.summary["run_folder"])
        assert folder.parent == tmp_path and (folder / "config.yaml").is_file()
        assert result.config.seed == result.summary["seed"] == 4
        assert result.learned.visits.sum() == result.summary["transitions_accepted"]
    assert found.results[1].solution.optimal_return == 1.0  # solved for its own arguments
    assert len(found.complaints) == 1 and found.complaints[0].startswith("first: max_error is ")
    assert lines[0] == f"2 runs, in {tmp_path}" and lines[2].startswith("2/2 FrozenLake 4x4")


@pytest.fixture
def small_ablation(monkeypatch):
    """Two settings of a few hundred steps."""
    budget = {"total_env_steps": 320, "replay.capacity": 320, "checkpoint.period_rounds": 4}
    monkeypatch.setattr(plan, "CARTPOLE_VALUES", {**plan.CARTPOLE_VALUES, **budget})
    monkeypatch.setattr(plan, "NOISY_LAKE_VALUES", {**plan.NOISY_LAKE_VALUES, **budget})
    monkeypatch.setattr(verification, "SETTINGS", (plan.SETTINGS[3], plan.SETTINGS[6]))


def test_the_ablation_makes_each_setting_with_each_seed(tmp_path, small_ablation):
    lines: list[str] = []

    found = verify(tmp_path, [], ablation_seeds=(7, 8), say=lines.append)

    made = [(outcome.setting.problem, outcome.seed) for outcome in found.outcomes]
    lake = "FrozenLake 4x4"
    assert made == [("CartPole", 7), ("CartPole", 8), (lake, 7), (lake, 8)]
    assert len(lines) == 5 and lines[-1].startswith("4/4 FrozenLake 4x4, replay")
    cartpole, last = found.outcomes[0], found.outcomes[-1]
    assert cartpole.q_bound == pytest.approx(100.0) and np.isnan(cartpole.exact_start_value)
    assert not found.complaints
    assert last.exact_start_value == pytest.approx(solution_of().q_star[0].max())
    assert [env_steps for env_steps, _ in cartpole.start_values][-1] == 320


def test_start_values_are_means_of_the_best_values_at_first_observations(tmp_path):
    summary = train(tiny().config(str(tmp_path), seed=1), display=False)
    starts = verification.first_observations(EnvConfig("CartPole-v1"))
    assert starts.shape == (100, 4) and np.abs(starts).max() <= 0.05
    np.testing.assert_array_equal(starts, verification.first_observations(EnvConfig("CartPole-v1")))

    values = verification.start_values(summary.run_folder, np.array([0, 4, 4], np.int32))

    assert len(values) == len(checkpoints(summary.run_folder))
    q = load_policy(summary.run_folder, "newest").q_values(np.array([0, 4]))
    assert values[-1] == (1_024, pytest.approx((q[0].max() + 2 * q[1].max()) / 3))


@pytest.mark.parametrize(
    ("stopped_by", "error", "status"),
    [("SIGINT", KeyboardInterrupt, None), ("SIGTERM", SystemExit, 143)],
)
def test_what_interrupts_a_run_ends_the_verification(tmp_path, stopped_by, error, status):
    made = []

    def stopped(config):
        made.append(config.run_name)
        return dataclasses.make_dataclass("Summary", ["stopped_by", "exit_status"])(
            stopped_by, {"SIGINT": 130, "SIGTERM": 143}[stopped_by]
        )

    with pytest.raises(error) as caught:
        verify(tmp_path, [tiny("first"), tiny("second")], say=str, train=stopped)

    assert made == ["first"]
    assert status is None or caught.value.code == status


def test_the_counterexamples_diverge_and_converge_as_their_names_say():
    baird, weights = divergence()

    assert all(values[0] == pytest.approx(12.0) for values in baird.values())
    assert baird["semi-gradient"][-1] > 1e6
    held = baird["semi-gradient, target network held 1,000 sweeps"]
    assert held.max() < 20 and held[-1] < held[1_000]
    assert baird["residual gradient"][-1] < 3
    assert {d: bool(w[-1] > 1) for d, w in weights.items()} == {
        0.7: False,
        0.8: False,
        0.9: True,
        0.99: True,
    }
