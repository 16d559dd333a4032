"""Costs and capacities, by numbers worked by hand."""

import dataclasses
import math

import pytest

from distdqn.reporting.stage_costs import Cost, Costs, Setup, reached
from distdqn.telemetry.usage import PartUsage, Usage

SETUP = Setup(workers=2, shards=2, batch_size=32, samples_per_insert=8.0)  # 4 steps per update
SPENT = Usage(
    at_s=10.0,
    env_steps=4_000,
    gradient_steps=1_000,
    env_s=6.0,
    inference_s=2.0,
    adding_s=1.0,
    replay_s=4.0,
    workers=PartUsage(2, work_s=10.0, queued_s=2.0, cpu_s=4.0),
    shards=PartUsage(2, work_s=5.0, queued_s=1.0, cpu_s=6.0),
    learner=PartUsage(1, work_s=9.0, queued_s=1.0, cpu_s=16.0),
    rest_cpu_s=10.0,
    cores=4,
)


def test_capacities_are_what_each_stage_could_do_alone():
    capacities = Costs.of(SPENT).capacities(SETUP)
    # 2 workers, 8 s for 4,000 steps; the learner 8 s for the updates of as many; shards 4 s
    # of two; 26 core seconds, of 4 cores without the one that the rest takes.
    assert capacities == pytest.approx(
        {"workers": 1_000.0, "learner": 500.0, "shards": 2_000.0, "cores": 3 * 4_000 / 26}
    )


def test_a_smaller_ratio_makes_only_updates_and_samples_cheaper():
    half = dataclasses.replace(SETUP, samples_per_insert=4.0)
    capacities = Costs.of(SPENT).capacities(half)
    # Of a shard's 4 s a quarter is adding: 1 + 3 / 2. Of the cores: 4 + (1.5 + 4.5 / 2) + 8.
    assert capacities == pytest.approx(
        {
            "workers": 1_000.0,
            "learner": 1_000.0,
            "shards": 2 * 4_000 / 2.5,
            "cores": 3 * 4_000 / 15.75,
        }
    )


def test_costs_stay_when_the_learner_is_behind():
    behind = dataclasses.replace(
        SPENT,
        gradient_steps=500,
        learner=PartUsage(1, work_s=4.5, queued_s=0.5, cpu_s=8.0),
    )
    assert Costs.of(behind).learner == Costs.of(SPENT).learner
    assert Costs.of(behind).cpu["learner"] == Costs.of(SPENT).cpu["learner"]


def test_the_side_that_is_behind_tells_the_rate():
    assert reached(SPENT, SETUP) == 400.0
    assert reached(dataclasses.replace(SPENT, gradient_steps=500), SETUP) == 200.0
    assert reached(dataclasses.replace(SPENT, env_steps=1_000), SETUP) == 100.0


def test_what_costs_nothing_has_no_limit():
    nothing = Costs.of(Usage(at_s=1.0, env_steps=1, gradient_steps=1, cores=1))
    assert set(nothing.capacities(SETUP).values()) == {math.inf}


def test_a_machine_taken_by_others_still_leaves_something():
    taken = Costs.of(dataclasses.replace(SPENT, rest_cpu_s=50.0))
    assert 0 < taken.free_cores < 1
    assert 0 < taken.capacities(SETUP)["cores"] < 100


def test_without_a_learner_its_cores_are_free():
    without = Costs.of(SPENT).without_learner().capacities(SETUP)
    assert without["learner"] == math.inf
    assert without["cores"] == pytest.approx(3 * 4_000 / 10)


def test_more_cores_move_only_the_cores():
    before, after = Costs.of(SPENT), Costs.of(SPENT).with_cores(6.0)
    assert after.capacities(SETUP)["cores"] == pytest.approx(2 * before.capacities(SETUP)["cores"])
    assert after.workers == before.workers


def test_a_cost_is_per_env_step_and_per_update():
    assert Cost(per_env_step=0.5, per_update=2.0).at(SETUP) == 0.5 + 2.0 / 4
