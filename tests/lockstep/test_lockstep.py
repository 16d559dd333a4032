"""The schedule, over parts that only note what they are asked."""

import dataclasses

import numpy as np
import pytest
from ray_parts import block

from distdqn.config import from_values
from distdqn.lockstep.members import Done
from distdqn.lockstep.schedule import Lockstep
from distdqn.rate_limiter import RateLimiter
from distdqn.telemetry.reports import WorkerReport
from distdqn.types import PriorityUpdate, ShardCounters, WeightsVersion

CONFIG = {
    "mode": "lockstep",
    "total_env_steps": 100,
    "workers.block_transitions": 10,  # of 2 envs: 5 vector steps
    "workers.envs_per_worker": 2,
    "learner.superbatch": 3,
    "learner.batch_size": 4,
    "checkpoint.period_rounds": 2,
    "replay.kind": "prioritized",
    "replay.min_size_to_sample": 8,
    "replay.capacity": 1_000,
    "seed": 0,
}


class Parts:
    """Workers, shards and a learner that note every ask in `events`.

    A worker takes all the steps that it may and collects what it stepped, but for
    `lag` transitions in open windows until it is flushed.
    """

    def __init__(self, num_workers=2, num_shards=2, lag=0, **changes):
        self.events = []
        self.lag, self.open = lag, [0] * num_workers
        self.inserts = [0] * num_shards
        self.done = [None] * num_workers
        self.lockstep = Lockstep(
            [self.asked("worker", i) for i in range(num_workers)],
            [self.asked("shard", i) for i in range(num_shards)],
            self.asked("learner", 0),
            RateLimiter(1.0, 8, 100.0, None, 4),
            from_values({**CONFIG, **{k.replace("__", "."): v for k, v in changes.items()}}),
        )

    def asked(self, kind, index):
        def ask(method, *arguments):
            plain = [x.value if isinstance(x, Done) else x for x in arguments]
            self.events.append((kind, index, method, *plain))
            return Done(getattr(self, f"{kind}_{method}")(index, *plain))

        return ask

    def worker_begin(self, index, number):
        assert self.open[index] == 0, "windows are open over a border"
        self.done[index] = WorkerReport(index, number)

    def worker_collect(self, index, snapshot, vector_steps, allowance, flush):
        stepped = min(allowance, vector_steps * 2)
        held = self.open[index] + stepped
        self.open[index] = 0 if flush else min(self.lag, held)
        num = held - self.open[index]
        made = block(num, worker=index) if num else None
        done = self.done[index]
        self.done[index] = dataclasses.replace(
            done, stepped=done.stepped + stepped, collected=done.collected + num
        )
        return made, self.done[index]

    def shard_add(self, index, made, newest):
        self.inserts[index] += made.num_transitions
        return self.counters(index)

    def shard_sample(self, index, num_batches, batch_size):
        return (index, num_batches, batch_size)

    def shard_update_priorities(self, index, update):
        return self.counters(index)

    def learner_snapshot(self, index, version, env_steps):
        return ("weights", version, env_steps)

    def learner_update(self, index, batch, probability, num_items, env_steps):
        return PriorityUpdate(np.array([batch[0]]), np.array([probability]))

    def counters(self, index):
        inserts = self.inserts[index]
        return ShardCounters(index, 0, inserts, inserts, float(inserts))

    def names(self):
        return [event[:3] for event in self.events]


def test_a_round_is_collect_insert_learn_publish_in_this_order():
    parts = Parts()
    parts.events.clear()

    parts.lockstep.advance()

    begin = [("worker", 0, "begin"), ("worker", 1, "begin")]
    collect = [("worker", 0, "collect"), ("worker", 1, "collect")]
    insert = [("shard", 1, "add"), ("shard", 0, "add")]  # worker w in round r: shard w + r
    (shard,) = {event[1] for event in parts.events if event[2] == "sample"}
    learn = [
        ("shard", shard, "sample"),
        ("learner", 0, "update"),
        ("shard", shard, "update_priorities"),
    ]
    publish = [("learner", 0, "snapshot")]
    assert parts.names() == begin + collect + insert + learn + publish


def test_every_worker_acts_with_the_one_version_of_the_round():
    parts = Parts()
    parts.lockstep.advance()
    parts.events.clear()

    parts.lockstep.advance()

    snapshots = [event[3] for event in parts.events if event[2] == "collect"]
    assert snapshots == [("weights", WeightsVersion(1, 1), 20)] * 2


def test_blocks_take_turns_over_the_shards():
    parts = Parts(num_workers=1, num_shards=3, total_env_steps=60)
    while not parts.lockstep.finished:
        parts.lockstep.advance()

    assert [event[1] for event in parts.events if event[2] == "add"] == [1, 2, 0, 1, 2, 0]


def test_workers_begin_anew_after_each_border_and_their_windows_are_flushed_in_it():
    parts = Parts(lag=3)
    for _ in range(5):
        parts.lockstep.advance()

    begins = [event[3] for event in parts.events if event[:3] == ("worker", 0, "begin")]
    flushes = [event[-1] for event in parts.events if event[:3] == ("worker", 0, "collect")]
    assert begins == [0, 2, 4]
    assert flushes[:4] == [False, True, False, True]


@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("total", [100, 97, 81, 20])
def test_all_steps_are_taken_and_all_updates_owed_are_made(total, lag):
    parts = Parts(total_env_steps=total, lag=lag)
    while not parts.lockstep.finished:
        parts.lockstep.advance()

    updates = sum(event[3] for event in parts.events if event[2] == "sample")
    assert parts.lockstep.env_steps == sum(parts.inserts) == total
    assert updates == (total - 8) // 4


def test_superbatches_are_as_large_as_may_be_and_the_last_is_shorter():
    parts = Parts(num_workers=1, num_shards=1, workers__block_transitions=40, total_env_steps=40)
    parts.lockstep.advance()

    assert [event[3] for event in parts.events if event[2] == "sample"] == [3, 3, 2]


def test_shards_are_drawn_in_proportion_to_their_mass():
    changes = {"learner__superbatch": 1, "workers__block_transitions": 4}
    parts = Parts(num_workers=1, num_shards=2, total_env_steps=40_000, **changes)
    counters = parts.counters
    parts.counters = lambda index: dataclasses.replace(counters(index), mass=[1.0, 3.0][index])
    while not parts.lockstep.finished:
        parts.lockstep.advance()

    drawn = [index for _, index, method, *_ in parts.events if method == "sample"]
    assert len(drawn) > 9_000
    np.testing.assert_allclose(np.mean(drawn[10:]), 0.75, atol=4 * np.sqrt(0.75 * 0.25 / 9_000))
    probabilities = {event[4] for event in parts.events if event[2] == "update"}
    assert {0.25, 0.75} <= probabilities


def test_breaking_off_closes_every_window_and_makes_the_updates_owed():
    parts = Parts(lag=3)
    parts.lockstep.advance()

    parts.lockstep.break_off()

    assert parts.open == [0, 0]
    assert sum(parts.inserts) == 20
    assert sum(event[3] for event in parts.events if event[2] == "sample") == (20 - 8) // 4


def test_a_state_taken_at_a_border_asks_for_the_same_from_there_on():
    whole, first, second = Parts(lag=2), Parts(lag=2), Parts(lag=2)
    while not whole.lockstep.finished:
        whole.lockstep.advance()
    for _ in range(2):
        first.lockstep.advance()
    second.inserts = list(first.inserts)
    second.lockstep.set_state(first.lockstep.get_state())
    second.events.clear()
    while not second.lockstep.finished:
        second.lockstep.advance()

    assert second.names() == whole.names()[-len(second.names()) :]
    samples = [e for e in second.events if e[2] == "sample"]
    assert samples == [e for e in whole.events if e[2] == "sample"][-len(samples) :]
