"""Control deals steps, keeps the account and decides when a run is over."""

import dataclasses
import math

import numpy as np
import pytest

from distdqn.control.control import Control
from distdqn.errors import EnvFailure
from distdqn.telemetry import usage
from distdqn.telemetry.histograms import LogHistogram
from distdqn.telemetry.ledger import Ledger, StreamAccount
from distdqn.telemetry.reports import (
    EvaluationReport,
    LearnerReport,
    ReplayDiagnostics,
    ShardReport,
    WorkerReport,
)
from distdqn.telemetry.usage import Spent
from distdqn.types import ShardCounters, ShardMap, WeightsVersion


def make_control(**changes):
    settings = dict(
        total_env_steps=100,
        num_workers=2,
        num_shards=1,
        min_grant=40,
        report_period_s=0.25,
        is_counted=lambda env: env >= 2,
        stop_at_return=None,
    )
    return Control(**{**settings, **changes})


def shard_report(streams, size=0, epoch=0, staleness=()):
    counts = np.zeros(1024, np.int64)
    for versions_behind in staleness:
        counts[versions_behind] += 1
    return ShardReport(
        ShardCounters(0, epoch, size, size, float(size)), 1.0, 0, streams, counts, 0.0, 7
    )


def settle(control, streams=None):
    """Both reports of a shard that settle a dead worker's account."""
    for _ in range(2):
        control.report_shard(shard_report(streams or {}))


def evaluation(mean, env_steps=10):
    return EvaluationReport(env_steps, np.array([mean]), np.zeros(0))


def test_allowances_of_all_workers_never_exceed_the_total():
    control = make_control()
    assert control.report_worker(WorkerReport(0, 0), -1).allowance == 40
    assert control.report_worker(WorkerReport(1, 0), -1).allowance == 40
    last = control.report_worker(WorkerReport(0, 0, stepped=40), -1)
    assert last.allowance == 60
    assert last.finish


def test_a_dead_workers_allowance_goes_to_its_successor():
    control = make_control(min_grant=100)
    control.report_worker(WorkerReport(0, 0), -1)
    assert control.report_worker(WorkerReport(1, 0), -1).allowance == 0
    control.report_worker(WorkerReport(0, 0, stepped=30, collected=20, accepted=20), -1)
    control.bury_worker(0, 0)
    settle(control)
    assert control.report_worker(WorkerReport(0, 1), -1).allowance == 80
    assert control.env_steps == 20


def test_blocks_that_no_report_has_yet_are_not_dealt_again():
    control = make_control(min_grant=100)
    control.report_worker(WorkerReport(0, 0), -1)
    control.report_worker(WorkerReport(0, 0, stepped=60, collected=20, accepted=20), -1)
    control.bury_worker(0, 0)
    assert control.report_worker(WorkerReport(0, 1), -1).allowance == 0
    settle(control, {(0, 0): StreamAccount(40, 0, 40, 0)})
    assert control.report_worker(WorkerReport(0, 1), -1).allowance == 60
    assert control.env_steps == 40


def test_collection_is_finished_when_every_living_worker_says_so():
    control = make_control(total_env_steps=40)
    control.report_worker(WorkerReport(0, 0), -1)
    control.report_worker(WorkerReport(1, 0), -1)
    control.report_worker(WorkerReport(0, 0, 40, 40, 40, finished=True), -1)
    assert not control.collection_finished
    control.report_worker(WorkerReport(1, 0, finished=True), -1)
    assert control.collection_finished
    assert control.report_learner(LearnerReport(), -1).collection_finished


def test_a_worker_buried_after_the_end_reopens_the_collection():
    control = make_control(total_env_steps=40)
    control.report_worker(WorkerReport(0, 0), -1)
    control.report_worker(WorkerReport(0, 0, 40, 30, 30), -1)
    control.report_worker(WorkerReport(1, 0, finished=True), -1)
    control.bury_worker(0, 0)
    assert not control.collection_finished
    settle(control)
    assert control.report_worker(WorkerReport(0, 1), -1).allowance == 10


def test_a_buried_worker_that_still_speaks_is_told_to_stop():
    control = make_control()
    control.bury_worker(0, 0)
    assert control.report_worker(WorkerReport(0, 0, collected=5), -1).stop
    assert control.env_steps == 0


def test_the_account_of_a_dead_worker_comes_from_the_shards_even_of_dead_ones():
    control = make_control()
    control.report_worker(WorkerReport(0, 0, 50, 50, 20, in_flight=30), -1)
    control.report_shard(shard_report({(0, 0): StreamAccount(60, 0, 40, 0)}, size=40))
    control.bury_shard(0, 0)
    control.report_shard(shard_report({(0, 0): StreamAccount(64, 0, 4, 0)}, size=4, epoch=1))
    control.bury_worker(0, 0)
    status = control.status()
    assert status.transitions.collected == 64
    assert status.transitions.accepted == 44
    assert status.transitions.lost == 20
    assert status.transitions == Ledger(64, 44, 0, 0, 20)
    assert status.items_lost == 40
    assert (status.shard_restarts, status.worker_restarts) == (0, 0), "nobody was replaced"
    assert status.shard_items == (4,)


def test_a_shard_is_alive_from_its_first_report_until_it_is_buried():
    control = make_control()

    def alive():
        status = control.status()
        return status.shards_alive, status.replay_size, status.shards_target

    assert alive() == (0, 0, 1)
    control.report_shard(shard_report({}, size=40))
    assert alive() == (1, 40, 1)
    control.bury_shard(0, 0)
    assert alive() == (0, 0, 1)  # dead for a while
    control.report_shard(shard_report({}, size=41))  # was under way when it died
    assert alive() == (0, 0, 1)
    control.report_shard(shard_report({}, size=4, epoch=1))
    assert alive() == (1, 4, 1)


@pytest.mark.parametrize("part", ["worker", "shard", "learner", "evaluator"])
def test_a_restart_of_any_part_is_counted_and_the_run_goes_on(part):
    control = make_control()

    control.count_restart(part)

    status = control.poll().status
    told = {
        "worker": status.worker_restarts,
        "shard": status.shard_restarts,
        "learner": status.learner_restarts,
    }
    assert told == {name: int(name == part) for name in told}


def test_only_the_lowest_epsilons_count_towards_the_return():
    control = make_control()
    control.report_worker(WorkerReport(0, 0, episodes=((0, 5.0, 5), (3, 11.0, 11))), -1)
    poll = control.poll()
    assert poll.status.train_return_mean == 11.0
    assert [episode[1:] for episode in poll.episodes] == [(11.0, 11)]
    assert control.poll().episodes == []


def test_episodes_of_a_report_are_spread_over_its_env_steps():
    control = make_control()
    control.report_worker(WorkerReport(0, 0, collected=10), -1)
    episodes = tuple((3, float(i), 5) for i in range(4))
    control.report_worker(WorkerReport(0, 0, collected=50, episodes=episodes), -1)
    assert [steps for steps, _, _ in control.poll().episodes] == [20, 30, 40, 50]


def test_a_new_shard_map_is_told_once_to_each_part():
    control = make_control()
    control.set_shards(ShardMap(3, ("a",), (0,)))
    assert control.report_worker(WorkerReport(0, 0), 2).shards.handles == ("a",)
    assert control.report_worker(WorkerReport(0, 0), 3).shards is None


def test_reaching_the_return_stops_everybody():
    control = make_control(stop_at_return=100.0)
    assert control.report_evaluation(evaluation(99.0))
    assert not control.report_evaluation(evaluation(100.0))
    assert control.report_worker(WorkerReport(0, 0), -1).stop
    assert control.report_learner(LearnerReport(), -1).stop
    assert not control.evaluator_may_go_on()
    assert control.status().best_eval_return_mean == 100.0


def test_without_a_threshold_no_return_stops_the_run():
    control = make_control()
    assert control.report_evaluation(evaluation(1e9))
    assert not control.report_worker(WorkerReport(0, 0), -1).stop


def test_an_env_failure_is_told_to_the_driver_when_the_worker_is_buried():
    control = make_control()
    hung = EnvFailure("hung")
    control.report_failure(0, 0, hung)
    assert control.bury_worker(0, 0) is hung
    assert control.bury_worker(1, 0) is None


def test_waits_are_shares_of_the_time_since_the_parts_began():
    control = make_control()
    control.report_worker(WorkerReport(0, 0, wait_s=1.0, elapsed_s=4.0), -1)
    control.report_learner(LearnerReport(wait_s=1.0, elapsed_s=10.0), -1)
    status = control.status()
    assert status.worker_wait_fraction == 0.25
    assert status.learner_wait_fraction == 0.1
    assert math.isnan(make_control().status().learner_wait_fraction)


def test_staleness_is_counted_over_all_shards():
    control = make_control()
    control.report_shard(shard_report({}, staleness=[0] * 10 + [4] * 9 + [30]))
    status = control.status()
    assert status.staleness_p50 == 0
    assert status.staleness_p95 == 4


def test_refused_priorities_are_counted_over_all_shards_dead_ones_too():
    control = make_control()
    for epoch in (0, 1):
        report = dataclasses.replace(shard_report({}, epoch=epoch), refused_priorities=2)
        control.report_shard(report)
    control.bury_shard(0, 0)
    assert control.status().refused_priorities == 4


def diagnosed(shard, size, fraction, priorities=()):
    return dataclasses.replace(
        shard_report({}),
        counters=ShardCounters(shard, 0, size, size, float(size)),
        diagnostics=ReplayDiagnostics(
            LogHistogram(np.array(priorities)).scaled(size), fraction, fraction / 2
        ),
    )


def test_values_are_held_against_the_largest_reward_of_any_worker_even_a_dead_one():
    control = make_control(discount=0.9)
    assert math.isnan(control.status().q_bound)
    control.report_worker(WorkerReport(0, 0, reward_abs_max=2.0), -1)
    control.bury_worker(0, 0)
    control.report_worker(WorkerReport(0, 1, reward_abs_max=1.0), -1)
    control.report_learner(LearnerReport(q_abs_max=19.0), -1)
    status = control.status()
    assert status.q_bound == pytest.approx(20.0)
    assert (status.q_abs_max, status.soft_divergence) == (19.0, False)


def test_soft_divergence_is_said_once_and_survives_the_learner():
    control = make_control(discount=0.9)
    control.report_worker(WorkerReport(0, 0, reward_abs_max=1.0), -1)
    control.report_learner(LearnerReport(q_abs_max=11.0, note="eager"), -1)
    notes = control.poll().notes
    assert notes[0] == "eager" and "soft divergence" in notes[1] and len(notes) == 2
    control.report_learner(LearnerReport(), -1)  # of a successor
    poll = control.poll()
    assert (poll.status.q_abs_max, poll.status.soft_divergence, poll.notes) == (11.0, True, [])


def test_without_a_discount_there_is_no_bound():
    control = make_control()
    control.report_worker(WorkerReport(0, 0, reward_abs_max=1.0), -1)
    control.report_learner(LearnerReport(q_abs_max=1e9), -1)
    assert math.isnan(control.status().q_bound) and control.status().soft_divergence is None
    assert control.poll().notes == []


def test_the_start_values_are_those_of_the_newest_evaluation():
    control = make_control()
    for q, realised in ((30.0, 10.0), (50.0, 48.0)):
        report = dataclasses.replace(
            evaluation(1.0),
            start_values=np.array([q - 1, q + 1]),
            discounted_returns=np.array([realised, realised]),
        )
        control.report_evaluation(report)
    status = control.status()
    assert (status.q_start_mean, status.return_start_mean) == (50.0, 48.0)
    control.report_evaluation(evaluation(1.0))  # by someone who does not know
    assert math.isnan(control.status().q_start_mean)


def test_stale_shares_and_priorities_weigh_every_shard_by_its_items():
    control = make_control(num_shards=2)
    control.report_shard(diagnosed(0, 900, 0.1, [1.0]))
    control.report_shard(diagnosed(1, 100, 0.6, [8.0, 8.0]))
    control.report_shard(diagnosed(2, 0, math.nan))  # empty yet
    status = control.status()
    assert status.stale_fraction_10 == pytest.approx((900 * 0.1 + 100 * 0.6) / 1000)
    assert status.stale_fraction_100 == pytest.approx((900 * 0.05 + 100 * 0.3) / 1000)
    assert status.priority_p50 == pytest.approx(1.0, rel=0.1)
    assert status.priority_p95 == pytest.approx(8.0, rel=0.1)
    counts, edges = control.poll().histograms["replay/priorities"]
    assert counts.sum() == pytest.approx(1000) and len(edges) == len(counts) + 1


def test_td_errors_are_the_learners_and_nothing_is_drawn_of_nothing():
    control = make_control()
    assert control.poll().histograms == {}
    errors = LogHistogram(np.array([0.5] * 90 + [2.0] * 9 + [7.0]))
    control.report_learner(LearnerReport(td_errors=errors), -1)
    poll = control.poll()
    assert poll.status.td_error_abs_p50 == pytest.approx(0.5, rel=0.1)
    assert poll.status.td_error_abs_p95 == pytest.approx(2.0, rel=0.1)
    assert poll.status.td_error_abs_max == 7.0
    assert list(poll.histograms) == ["losses/td_error_abs"]
    assert poll.histograms["losses/td_error_abs"][0].sum() == 100


@pytest.fixture
def alone(monkeypatch):
    """A machine named here with 4 cores that have been busy for 50 s."""
    monkeypatch.setattr(usage.platform, "node", lambda: "here")
    monkeypatch.setattr(usage, "usable_cores", lambda: 4)
    monkeypatch.setattr(usage, "machine_busy_s", lambda: 50.0)


def spent(work_s, cpu_s=0.0):
    return Spent(1, work_s, 0.0, cpu_s, "here", 4)


def learner_report(incarnation, gradient_steps, part, compiled=False):
    return LearnerReport(
        gradient_steps=gradient_steps,
        version=WeightsVersion(incarnation, 1),
        spent=part,
        elapsed_s=2.0 * part.work_s,
        compiled=compiled,
    )


def test_every_incarnation_counts_and_the_dead_are_not_alive(alone):
    control = make_control()
    control.report_learner(learner_report(1, 30, spent(1.0, 2.0)), -1)
    control.report_learner(learner_report(1, 40, spent(3.0, 4.0)), -1)
    control.report_learner(learner_report(2, 35, spent(0.5, 0.25), compiled=True), -1)
    for report in (
        WorkerReport(
            0, 0, collected=10, elapsed_s=6.0, env_s=2.0, inference_s=1.0, spent=spent(4.0, 3.0)
        ),
        WorkerReport(
            0, 1, collected=5, elapsed_s=1.5, env_s=0.5, inference_s=0.25, spent=spent(1.0, 1.0)
        ),
        WorkerReport(1, 0),
    ):
        control.report_worker(report, -1)
    control.bury_worker(0, 0)
    for epoch, seconds in enumerate([(2.0, 0.5, 3.0, 2.5), (1.0, 0.25, 1.5, 1.25)]):
        busy_s, adding_s, *own = seconds
        report = dataclasses.replace(
            shard_report({}, epoch=epoch), busy_s=busy_s, adding_s=adding_s, spent=spent(*own)
        )
        control.report_shard(report)
    control.bury_shard(0, 0)

    total = control.poll().usage

    assert total.workers == Spent(2, 5.0, 0.0, 4.0)
    assert total.shards == Spent(1, 4.5, 0.0, 3.75)
    assert total.learner == Spent(1, 3.5, 0.0, 4.25)
    assert (total.env_steps, total.gradient_steps, total.compiled) == (15, 35, True)
    assert (total.env_s, total.inference_s) == (2.5, 1.25)
    assert (total.replay_s, total.adding_s, total.cores) == (3.0, 0.75, 4)
    assert (total.workers_s, total.learner_s) == (7.5, 7.0)
    assert total.rest_cpu_s == 50.0 - (4.0 + 3.75 + 4.25)


def test_a_run_of_which_nothing_was_heard_has_spent_nothing(alone):
    total = make_control().poll().usage
    assert total.workers == total.shards == total.learner == Spent()
    assert dataclasses.replace(total, at_s=0.0, rest_cpu_s=0.0).cpu_s == 0.0


def test_what_was_refused_is_told_by_cause():
    control = make_control()
    by_cause = {"reward not finite": 3, "observation not finite": 1}
    control.report_worker(WorkerReport(0, 0, 9, 9, 2, refused=4, refused_by=by_cause), -1)
    ended = {"refused": 7, "refused_by": {"reward not finite": 5}, "refused_at_end": 2}
    control.report_worker(WorkerReport(1, 0, 9, 9, 2, **ended), -1)
    status = control.status()
    told = {"reward not finite": 8, "observation not finite": 1, "the run ended first": 2}
    assert status.transitions_refused_by == told
    assert sum(told.values()) == status.transitions.refused


def test_what_a_dead_worker_refused_without_saying_why_is_counted_too():
    control = make_control()
    told = {"refused": 1, "refused_by": {"reward not finite": 1}}
    control.report_worker(WorkerReport(0, 0, 9, 9, 2, **told), -1)
    settle(control, {(0, 0): StreamAccount(12, worker_refused=3)})
    control.bury_worker(0, 0)
    status = control.status()
    assert status.transitions_refused_by == {"its worker died": 2, "reward not finite": 1}
    assert status.transitions.refused == 3


def test_the_first_value_that_is_refused_is_said_once():
    control = make_control()
    for worker, note in ((0, ""), (0, "env 1 gave nan"), (1, "env 7 gave inf"), (0, "env 1")):
        control.report_worker(WorkerReport(worker, 0, note=note), -1)
    assert control.poll().notes == ["env 1 gave nan"] and control.poll().notes == []
