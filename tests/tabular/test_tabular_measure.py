"""What a run learned: errors by hand, and a small run read back from its folder."""

from __future__ import annotations

import numpy as np
import pytest
from tabular_parts import solution_of, tiny

from distdqn import train
from distdqn.config import EnvConfig
from distdqn.envs.tables import TAXI
from distdqn.errors import EnvError, RunError
from distdqn.files.checkpoint import checkpoints
from distdqn.policy import load_policy
from distdqn.tabular.exact import visiting_frequency
from distdqn.tabular.verification import measure_run, measure_values, policies_over_time, solve


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The summary of a small finished run."""
    folder = tmp_path_factory.mktemp("runs")
    return train(tiny().config(str(folder), seed=3), display=False)


def test_a_solved_env_knows_its_optimum_and_which_pairs_count():
    lake = solution_of()

    assert lake.pairs.sum() == 44 and lake.q_star.shape == (16, 4)
    assert lake.optimal_return == pytest.approx(0.740165, abs=1e-6)
    assert solution_of(TAXI).optimal_return == pytest.approx(7.93)
    with pytest.raises(EnvError, match="no transition table"):
        solve(EnvConfig("CartPole-v1"), 0.99)


def test_exact_values_have_no_error_and_the_optimal_return():
    lake = solution_of()
    uniform = lake.pairs / lake.pairs.sum()

    point = measure_values(lake.q_star, lake, uniform, 7)

    assert (point.env_steps, point.max_error, point.value_error) == (7, 0.0, 0.0)
    assert point.greedy_return == pytest.approx(lake.optimal_return)


def test_one_wrong_value_counts_by_its_share_of_visits_and_of_pairs():
    lake = solution_of()
    visits = np.where(lake.pairs, 2, 0)
    visits[0, 1] = 12  # 12 of 43 x 2 + 12 visits
    q = lake.q_star.copy()
    q[0, 1] -= 0.5

    point = measure_values(q, lake, visiting_frequency(visits, lake.pairs))

    assert point.max_error == pytest.approx(0.5)
    assert point.value_error == pytest.approx(12 / 98 * 0.25)
    assert point.uniform_value_error == pytest.approx(1 / 44 * 0.25)


def test_values_that_do_not_count_change_no_figure():
    taxi = solution_of(TAXI)
    uniform = taxi.pairs / taxi.pairs.sum()
    q = np.where(taxi.pairs, taxi.q_star, 1e6)  # what the mask forbids, and the unreachable

    point = measure_values(q, taxi, uniform)

    assert point.max_error == point.value_error == point.uniform_value_error == 0.0
    assert point.greedy_return == pytest.approx(7.93)


def test_a_run_is_measured_from_its_folder(run):
    lake = solution_of()

    learned = measure_run(run.run_folder, lake)

    assert learned.visits.sum() == run.transitions_accepted == 1_024
    assert not learned.visits[[5, 7, 11, 12, 15]].any()  # nothing starts in a hole or the goal
    expected = load_policy(run.run_folder, "newest").q_values(np.arange(16))
    np.testing.assert_array_equal(learned.q, expected.astype(np.float64))
    frequency = visiting_frequency(learned.visits, lake.pairs)
    assert learned.points[-1] == measure_values(learned.q, lake, frequency, 1_024)


def test_every_checkpoint_is_a_point_in_time(run):
    points = measure_run(run.run_folder, solution_of()).points

    assert [point.env_steps for point in points] == [256, 512, 768, 1_024]
    assert len({point.max_error for point in points}) == 4


def test_of_many_checkpoints_the_first_and_the_newest_are_among_those_taken(run):
    assert len(checkpoints(run.run_folder)) == 4

    taken = [env_steps for env_steps, _ in policies_over_time(run.run_folder, max_points=3)]

    assert taken[0] == 256 and taken[-1] == 1_024 and len(taken) == 3


def test_a_run_without_counted_visits_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"has no visits\.safetensors"):
        measure_run(tmp_path, solution_of())
