"""The verdict: which stage, what would help, and what a user reads."""

import dataclasses
import json
import math

import pytest

from distdqn.reporting.verdict import Setup, capacities, judge, reached
from distdqn.telemetry.usage import Spent, Usage

SETUP = Setup(workers=1, shards=1, batch_size=32, samples_per_insert=8.0)
SECONDS, STEPS, UPDATES = 10.0, 8_000, 2_000  # 800 env steps a second


def window(workers=(1, 1.0), learner=1.0, shards=(1, 1.0), cpu=(0.5, 0.5, 0.5), rest=1.0, cores=8):
    """Seconds of work, (number, seconds of all) and core seconds by stage, of 10 seconds."""
    return Usage(
        at_s=SECONDS,
        env_steps=STEPS,
        gradient_steps=UPDATES,
        env_s=0.75 * workers[1],
        inference_s=0.2 * workers[1],
        adding_s=0.0,
        replay_s=1.0,
        workers=Spent(workers[0], workers[1], 0.0, cpu[0]),
        learner=Spent(1, learner, 0.0, cpu[1]),
        shards=Spent(shards[0], shards[1], 0.0, cpu[2]),
        rest_cpu_s=rest,
        cores=cores,
    )


SLOW_ENV = window(workers=(1, 10.0))
SLOW_LEARNER = window(learner=9.6, workers=(4, 4.0))
SLOW_SHARD = window(shards=(1, 9.0))
FULL_CORES = window(workers=(1, 5.0), learner=9.0, cpu=(5.0, 10.0, 2.0), rest=2.0, cores=2)
NOTHING_BUSY = window(workers=(1, 4.0), learner=5.0)
MISSED = dataclasses.replace(NOTHING_BUSY, workers_s=4.0, learner_s=8.0)


def changes(verdict):
    return [(c.setting, c.value, c.at_most) for c in verdict.changes]


@pytest.mark.parametrize(
    ("spent", "limit", "bottleneck"),
    [
        (SLOW_ENV, "workers", "env"),
        (dataclasses.replace(SLOW_ENV, inference_s=9.0), "workers", "inference"),
        (SLOW_LEARNER, "learner", "learner"),
        (SLOW_SHARD, "shards", "replay"),
        (NOTHING_BUSY, "transfer", "transfer"),
        (MISSED, "absence", "env"),
        (dataclasses.replace(MISSED, workers_s=10.0), "absence", "env"),
        (dataclasses.replace(MISSED, workers_s=9.5, learner_s=9.5), "transfer", "transfer"),
        (dataclasses.replace(MISSED, workers_s=0.0, learner_s=0.0), "transfer", "transfer"),
        (dataclasses.replace(MISSED, learner=Spent(1, 9.5)), "learner", "learner"),
        (FULL_CORES, "cores", "learner"),
        (window(cpu=(15.0, 2.0, 1.0), cores=2), "cores", "env"),
        (window(cpu=(2.0, 1.0, 15.0), cores=2), "cores", "replay"),
    ],
)
def test_the_smallest_capacity_is_the_limit(spent, limit, bottleneck):
    verdict = judge(spent, dataclasses.replace(SETUP, restarts=1))
    assert (verdict.limit, verdict.bottleneck) == (limit, bottleneck)


def test_where_nothing_was_replaced_a_silent_learner_tells_of_too_short_a_run():
    verdict = judge(MISSED, SETUP)
    assert verdict.limit == "" and verdict.line() == (
        "not measured (the run was too short: the learner has told of 8.0 of 10.0 s)"
    )


def test_workers_that_were_only_late_have_left_nothing_in_the_log():
    verdict = judge(dataclasses.replace(MISSED, learner_s=10.0), SETUP)
    assert verdict.limit == "absence"
    assert verdict.line() == "parts were missing (workers 60 percent of the time): 800 env steps/s"


def test_workers_are_added_until_the_next_stage_is_the_limit():
    # 800 by one worker; the learner could do 8,000 / 3 = 2,667, so a fourth would be enough.
    verdict = judge(window(workers=(1, 10.0), learner=3.0), SETUP)

    first = verdict.changes[0]

    assert (first.setting, first.value) == ("workers.count", 4)
    assert first.env_steps_per_s == pytest.approx(8_000 / 3.0)
    assert first.gain == pytest.approx(10 / 3)


def test_at_most_four_times_as_many_are_proposed_at_once():
    verdict = judge(SLOW_ENV, SETUP)
    assert changes(verdict)[0] == ("workers.count", 4, False)
    assert verdict.changes[0].env_steps_per_s == pytest.approx(3_200.0)


def test_what_was_not_reached_before_is_not_reached_after():
    spent = window(workers=(1, 8.0))  # 1,000 could be done, 800 are
    assert judge(spent, SETUP).changes[0].env_steps_per_s == pytest.approx(0.8 * 4_000)


def test_a_second_shard_is_predicted_to_meet_the_next_limit():
    verdict = judge(window(workers=(1, 5.0), shards=(1, 10.0)), SETUP)
    assert changes(verdict)[0] == ("replay.shards", 2, False)
    assert verdict.changes[0].env_steps_per_s == pytest.approx(1_600.0)


def test_half_the_ratio_is_predicted_to_free_the_learner():
    verdict = judge(SLOW_LEARNER, SETUP)
    gpu, ratio = verdict.changes
    assert (gpu.setting, gpu.at_most, ratio.at_most) == ("learner.device", True, False)
    # The share of the limit that was reached, 0.96, of twice the capacity 833.3.
    assert (ratio.setting, ratio.value) == ("replay.samples_per_insert", 4.0)
    assert ratio.env_steps_per_s == pytest.approx(0.96 * 2 * 8_000 / 9.6)
    assert gpu.env_steps_per_s == pytest.approx(8_000 / 4.0)


def test_who_has_a_gpu_is_not_told_to_take_one():
    verdict = judge(dataclasses.replace(SLOW_LEARNER, device="cuda"), SETUP)
    assert changes(verdict) == [("replay.samples_per_insert", 4.0, False)]


def test_with_all_cores_busy_more_workers_are_not_proposed():
    verdict = judge(FULL_CORES, SETUP)
    assert changes(verdict) == [("", "", True), ("replay.samples_per_insert", 4.0, False)]
    # 17 core seconds, of which the updates and samples take 12, of 1.8 free cores.
    share = 800 / (1.8 * 8_000 / 17)
    assert verdict.changes[1].env_steps_per_s == pytest.approx(share * 1.8 * 8_000 / 11)


def test_workers_next_to_the_limit_of_the_cores_need_cores_too():
    spent = window(workers=(1, 10.0), cpu=(10.0, 4.0, 4.0), rest=1.0, cores=2)
    assert changes(judge(spent, SETUP)) == [
        ("workers.count", 2, False),
        ("workers.count", 4, True),
    ]
    full = window(workers=(1, 10.0), cpu=(10.0, 5.0, 4.0), rest=0.9, cores=2)
    assert changes(judge(full, SETUP)) == [("workers.count", 4, True)]


def test_a_gain_that_is_none_is_not_proposed():
    for spent in (SLOW_ENV, SLOW_LEARNER, SLOW_SHARD, FULL_CORES, NOTHING_BUSY):
        assert all(change.gain > 1.0 for change in judge(spent, SETUP).changes)


@pytest.mark.parametrize(
    ("spent", "limit"),
    [
        (window(workers=(2, 18.4), learner=5.0), "workers"),
        (window(workers=(2, 10.0), learner=5.0, cpu=(3.0, 4.0, 1.0), rest=11.5, cores=2), "cores"),
    ],
)
def test_what_is_busy_is_the_limit_also_where_costs_promise_more(spent, limit):
    # Half of the updates that the steps owe: as in a run that ends soon after its first one.
    verdict = judge(dataclasses.replace(spent, gradient_steps=UPDATES // 2), SETUP)
    assert verdict.limit == limit
    assert "nothing is busy" not in verdict.line()


def test_a_queue_for_a_core_is_not_taken_for_work():
    part = Spent(1, work_s=10.0, queued_s=5.0, cpu_s=5.0)
    spent = dataclasses.replace(window(cpu=(5.0, 3.0, 0.5), rest=11.0, cores=2), workers=part)

    verdict = judge(spent, SETUP)

    assert verdict.capacities["workers"] == pytest.approx(1_600.0)
    assert verdict.limit == "cores"


@pytest.mark.parametrize(
    ("spent", "bottleneck", "why"),
    [
        (Usage(), "transfer", "the run was too short: 0.0 s of updates, 1 s needed"),
        (Usage(at_s=1.0), "transfer", "no env step was made"),
        (dataclasses.replace(SLOW_ENV, gradient_steps=0), "env", "no update was made"),
        (
            dataclasses.replace(SLOW_LEARNER, at_s=0.9),
            "learner",
            "the run was too short: 0.9 s of updates, 1 s needed",
        ),
    ],
)
def test_too_short_a_run_is_not_judged_and_still_names_a_bottleneck(spent, bottleneck, why):
    verdict = judge(spent, SETUP)
    assert (verdict.limit, verdict.bottleneck) == ("", bottleneck)
    assert verdict.line() == f"not measured ({why})"
    assert not verdict.changes


def test_parts_that_tell_nothing_divide_nothing_by_zero():
    verdict = judge(Usage(at_s=2.0, env_steps=10, gradient_steps=10, cores=2), SETUP)
    assert verdict.limit == "transfer"
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["capacities"]["cores"] is None


@pytest.mark.parametrize(
    ("spent", "line"),
    [
        (
            window(workers=(1, 10.0), learner=4.0),
            "workers 100 percent busy (env 75, inference 20): 800 env steps/s, the learner could "
            "do 2,000; 3 workers for 1 (2,000 env steps/s predicted, 2.5 times)",
        ),
        (
            SLOW_LEARNER,
            "learner 96 percent busy: 800 env steps/s, the workers could do 2,000; a GPU (at most "
            "2,000 env steps/s, 2.5 times) or samples_per_insert 4 for 8 (1,600 env steps/s "
            "predicted, 2.0 times)",
        ),
        (
            SLOW_SHARD,
            "replay shards 90 percent busy: 800 env steps/s, the workers could do 8,000; 4 replay "
            "shards for 1 (3,200 env steps/s predicted, 4.0 times) or samples_per_insert 4 for 8",
        ),
        (
            FULL_CORES,
            "the 2 cores 95 percent busy (workers 0.5, learner 1.0, shards 0.2, Ray and all other "
            "programs 0.2): 800 env steps/s",
        ),
        (
            NOTHING_BUSY,
            "nothing is busy (workers 40, learner 50, replay shards 10, cores 3 percent), the "
            "parts wait for messages: 800 env steps/s",
        ),
        (
            MISSED,
            "parts were missing (workers 60, learner 20 percent of the time): 800 env steps/s; "
            "see errors.log",
        ),
    ],
)
def test_the_line_says_what_limits_and_what_would_help(spent, line):
    assert line in judge(spent, dataclasses.replace(SETUP, restarts=2)).line()


def test_workers_that_are_too_many_are_named():
    four = dataclasses.replace(SETUP, workers=4)
    # 800 reached, 1.2 times of which is 960; four could do 8,000, one of them 2,000.
    assert judge(SLOW_LEARNER, four).spare == "1 worker would do"
    assert "; 2 workers would do; " in judge(window(learner=9.6, workers=(4, 16.0)), four).line()
    assert judge(window(learner=9.6, workers=(4, 30.0)), four).spare == ""


def test_a_verdict_is_plain_values():
    detail = judge(SLOW_LEARNER, SETUP).to_json()
    assert json.loads(json.dumps(detail, allow_nan=False)) == detail
    assert detail["limit"] == "learner" and detail["changes"][1]["value"] == 4.0
    assert detail["line"] == judge(SLOW_LEARNER, SETUP).line()


TURNS = dataclasses.replace(SETUP, in_turns=True)


def turns(env=0.0, inference=0.0, replay=0.0, learner=0.0, workers=1):
    """Shares of 10 seconds; what is left is spent on the way between the parts."""
    seconds = [SECONDS * share for share in (env, inference, replay, learner)]
    return Usage(
        at_s=SECONDS,
        env_steps=STEPS,
        gradient_steps=UPDATES,
        env_s=seconds[0] * workers,
        inference_s=seconds[1] * workers,
        replay_s=seconds[2],
        workers=Spent(workers, (seconds[0] + seconds[1]) * workers),
        shards=Spent(1, seconds[2]),
        learner=Spent(1, seconds[3]),
    )


def test_parts_that_take_turns_could_overlap():
    verdict = judge(turns(env=0.3, inference=0.1, replay=0.1, learner=0.5), TURNS)
    assert (verdict.limit, verdict.bottleneck) == ("turns", "learner")
    assert verdict.line() == (
        "the parts take turns (env 30, inference 10, replay 10, learner 50, transfer 0 percent of "
        "the time): 800 env steps/s; mode async lets them overlap, and compiles the update"
    ), "in a time that is not known"
    assert changes(verdict) == [("mode", "async", False)]
    assert verdict.to_json()["changes"][0]["gain"] is None
    assert verdict.capacities["turns"] == pytest.approx(800.0)


def test_acting_is_one_turn_also_of_workers_that_act_at_once():
    for workers in (1, 4):
        spent = turns(env=0.4, inference=0.35, learner=0.25, workers=workers)
        spent = dataclasses.replace(spent, compiled=True)
        verdict = judge(spent, dataclasses.replace(TURNS, workers=workers))
        assert verdict.bottleneck == "env"
        assert verdict.changes[0].gain == pytest.approx(1 / 0.75)
        assert verdict.busy["env"] == pytest.approx(0.4)
        assert sum(verdict.busy.values()) == pytest.approx(1.0) and not verdict.cores_used


def test_turns_between_which_most_time_passes_are_limited_by_the_way():
    verdict = judge(turns(env=0.1, inference=0.05, replay=0.05, learner=0.1), TURNS)
    assert (verdict.limit, verdict.bottleneck) == ("turns", "transfer")


def test_one_part_that_takes_all_turns_is_no_limit_of_its_own():
    # 1 / (1 / x) may be more than x, and then the part's capacity is the smaller one.
    shares = [share / 100 for share in range(1, 100)]
    assert {judge(turns(learner=share), TURNS).limit for share in shares} == {"turns"}


def test_a_short_run_in_turns_is_judged():
    spent = dataclasses.replace(turns(env=0.03, learner=0.06), at_s=1.0)
    assert judge(dataclasses.replace(spent, at_s=0.9), TURNS).bottleneck == "learner"
    assert judge(Usage(), TURNS).line() == "not measured (no env step was made)"


# Costs and capacities, by numbers worked by hand.

TWO = Setup(workers=2, shards=2, batch_size=32, samples_per_insert=8.0)  # 4 steps per update
SPENT = Usage(
    at_s=10.0,
    env_steps=4_000,
    gradient_steps=1_000,
    env_s=6.0,
    inference_s=2.0,
    adding_s=1.0,
    replay_s=4.0,
    workers=Spent(2, work_s=10.0, queued_s=2.0, cpu_s=4.0),
    shards=Spent(2, work_s=5.0, queued_s=1.0, cpu_s=6.0),
    learner=Spent(1, work_s=9.0, queued_s=1.0, cpu_s=16.0),
    rest_cpu_s=10.0,
    cores=4,
)


def test_capacities_are_what_each_stage_could_do_alone():
    found = capacities(SPENT, TWO)
    # 2 workers, 8 s for 4,000 steps; the learner 8 s for the updates of as many; shards 4 s
    # of two; 26 core seconds, of 4 cores without the one that the rest takes.
    assert found == pytest.approx(
        {"workers": 1_000.0, "learner": 500.0, "shards": 2_000.0, "cores": 3 * 4_000 / 26}
    )


def test_a_smaller_ratio_makes_only_updates_and_samples_cheaper():
    half = dataclasses.replace(TWO, samples_per_insert=4.0)
    found = capacities(SPENT, half)
    # Of a shard's 4 s a quarter is adding: 1 + 3 / 2. Of the cores: 4 + (1.5 + 4.5 / 2) + 8.
    assert found == pytest.approx(
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
        learner=Spent(1, work_s=4.5, queued_s=0.5, cpu_s=8.0),
    )
    assert capacities(behind, TWO)["learner"] == capacities(SPENT, TWO)["learner"]


def test_the_side_that_is_behind_tells_the_rate():
    assert reached(SPENT, TWO) == 400.0
    assert reached(dataclasses.replace(SPENT, gradient_steps=500), TWO) == 200.0
    assert reached(dataclasses.replace(SPENT, env_steps=1_000), TWO) == 100.0


def test_what_costs_nothing_has_no_limit():
    nothing = Usage(at_s=1.0, env_steps=1, gradient_steps=1, cores=1)
    assert set(capacities(nothing, TWO).values()) == {math.inf}


def test_a_machine_taken_by_others_still_leaves_something():
    taken = capacities(dataclasses.replace(SPENT, rest_cpu_s=50.0), TWO)
    assert 0 < taken["cores"] < 100


def test_more_cores_move_only_the_cores():
    before, after = (capacities(dataclasses.replace(SPENT, cores=n), TWO) for n in (4, 7))
    assert after == before | {"cores": pytest.approx(2 * before["cores"])}
