"""What is planned: every run can be made, keeps its data, and has the stated bounds."""

from __future__ import annotations

import dataclasses

import pytest

from distdqn.config import EnvConfig, to_values
from distdqn.envs.tables import CLIFF_WALKING, TAXI, transition_table
from distdqn.tabular.plan import (
    CARTPOLE,
    LAKE,
    SETTINGS,
    Bound,
    planned,
    runs_of,
    standard_runs,
)

FULL = standard_runs(full=True)


def values_of(run):
    return to_values(run.config("runs", 5))


def planned_for(env_id, **kwargs):
    settings = EnvConfig(env_id, kwargs)
    return runs_of(settings, transition_table(settings))


def test_a_bound_includes_its_limit():
    error, reward = Bound("max_error", 0.03, True), Bound("greedy_return", 7.8, False)

    assert error.holds(0.03) and not error.holds(0.0301)
    assert reward.holds(7.8) and not reward.holds(7.79)
    assert not error.holds(float("nan")) and not reward.holds(float("nan"))
    assert (str(error), str(reward)) == ("at most 0.03", "at least 7.8")


def test_the_stated_bounds_are_those_of_the_tables():
    bounds = {run.name: {(b.figure, str(b)) for b in run.bounds} for run in FULL if run.bounds}

    assert bounds == {
        "frozenlake-table": {("max_error", "at most 0.03"), ("greedy_return", "at least 0.735")},
        "cliffwalking-table": {("max_error", "at most 0.05")},
        "taxi-table": {("greedy_return", "at least 7.8")},
    }
    assert all(not run.config("runs", 1).network.hidden for run in FULL if run.bounds)


def test_all_four_environments_are_learned_as_tables_and_by_an_mlp():
    learned = {(run.values["env.id"], run.learner) for run in FULL}

    for env_id in ("FrozenLake-v1", "FrozenLake8x8-v1", CLIFF_WALKING, TAXI):
        assert {(env_id, "table"), (env_id, "MLP")} <= learned
    standard = {(run.values["env.id"], run.learner) for run in standard_runs()}
    assert learned - standard == {("FrozenLake8x8-v1", "MLP"), (TAXI, "MLP")}


@pytest.mark.parametrize("run", FULL, ids=lambda run: run.name)
def test_a_run_keeps_all_its_transitions_and_comes_to_its_last_step_size(run):
    config = run.config("runs", 5)

    assert (config.run_name, config.runs_dir, config.seed) == (run.name, "runs", 5)
    assert config.replay.capacity == config.total_env_steps
    rate = config.learner.learning_rate
    assert rate.end < rate.start / 50 and rate.env_steps <= config.total_env_steps
    assert config.mode == "async" and config.learner.discount == 0.99
    assert config.env.reward_scale == 1.0 and config.env.reward_clip is None


def test_names_of_runs_are_their_own():
    ablation = [planned(setting, seed) for setting in SETTINGS for seed in (1, 2)]
    names = [run.name for run in FULL + ablation]

    assert len(set(names)) == len(names)


def test_the_residual_run_differs_from_its_twin_in_the_gradient_and_the_budget():
    twin, residual = (
        values_of(next(run for run in FULL if run.name == name))
        for name in ("frozenlake-table", "frozenlake-residual")
    )

    different = {key for key in twin if twin[key] != residual[key]}
    assert different == {
        "run_name",
        "learner.gradient",
        "learner.learning_rate",
        "replay.capacity",
        "total_env_steps",
    }


def test_settings_of_the_ablation_differ_in_what_they_are_named_for_alone():
    keys = {
        "has_replay": "replay.kind",
        "has_target_network": "learner.target_period",
        "double": "learner.double",
    }
    for problem in (CARTPOLE, LAKE):
        first, *others = [setting for setting in SETTINGS if setting.problem == problem]
        for other in others:
            before, after = values_of(planned(first, 1)), values_of(planned(other, 1))
            named = {
                key for field, key in keys.items() if getattr(first, field) != getattr(other, field)
            }
            assert {key for key in before if before[key] != after[key]} == named | {"run_name"}


def test_the_ablation_crosses_replay_and_target_network_and_doubles_with_a_target_network():
    cartpole = [dataclasses.astuple(s)[1:] for s in SETTINGS if s.problem == CARTPOLE]

    assert {row[:2] for row in cartpole if not row[2]} == {(a, b) for a in (0, 1) for b in (0, 1)}
    assert [row for row in cartpole if row[2]] == [(True, True, True)]
    assert SETTINGS[3].title == "no replay, no target network"


def test_any_env_with_a_table_is_learned_three_ways_without_bounds():
    runs = planned_for("FrozenLake-v1", is_slippery=False)

    assert [run.learner for run in runs] == ["table", "table, residual gradient", "MLP"]
    assert not any(run.bounds for run in runs)
    assert all(run.config("runs", 1).env.kwargs == {"is_slippery": False} for run in runs)


def test_step_sizes_of_a_table_follow_the_rewards():
    cliff, lake = (planned_for(env_id)[0] for env_id in (CLIFF_WALKING, "FrozenLake-v1"))

    rates = [run.config("runs", 1).learner.learning_rate for run in (cliff, lake)]
    assert rates[0].start == pytest.approx(100 * rates[1].start)
    assert rates[0].end == pytest.approx(100 * rates[1].end)
