"""A shard's waiting: adds wait for credit, nothing else waits for an add."""

import asyncio

import numpy as np
import pytest

from distdqn.replay.replay import Replay
from distdqn.replay.sampling import PlainSampler, PrioritizedSampler
from distdqn.replay.shard import ReplayShard, ShardAccount
from distdqn.types import (
    BEFORE_ANY,
    ObservationSpec,
    PriorityUpdate,
    TransitionBlock,
    WeightsVersion,
)

TIMEOUT_S = 10


def make_shard(insert_limit=4, reports=None, capacity=64, epoch=0, prioritized=False):
    def build():
        spec = ObservationSpec((1,), "float32")
        replay = Replay(
            capacity=capacity,
            observation=spec,
            num_actions=2,
            sampler=(
                PrioritizedSampler(capacity, 0.5, 1e-6) if prioritized else PlainSampler(capacity)
            ),
            seed=0,
            epoch=epoch,
        )
        return ShardAccount(replay, 0)

    return ReplayShard(build, insert_limit, ([] if reports is None else reports).append, 0.01)


def block(sequence, num=4, worker=0, incarnation=0, collected=None, counter=0, refused=0):
    return TransitionBlock(
        worker=worker,
        incarnation=incarnation,
        sequence=sequence,
        collected=(sequence + 1) * num if collected is None else collected,
        refused=refused,
        weights_version=WeightsVersion(1, counter) if counter else BEFORE_ANY,
        frames=np.arange(num + 1, dtype=np.float32)[:, None],
        tm1=np.arange(num, dtype=np.int32),
        t=np.arange(1, num + 1, dtype=np.int32),
        tm1_depth=np.zeros(num, np.uint8),
        t_depth=np.zeros(num, np.uint8),
        a_tm1=np.zeros(num, np.int32),
        r_t=np.ones(num, np.float32),
        discount_t=np.ones(num, np.float32),
    )


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT_S))


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_an_add_beyond_the_credit_waits_until_the_learner_grants_more():
    async def scenario():
        shard, events = make_shard(insert_limit=4), []
        assert await shard.add(block(0))
        waiting = asyncio.ensure_future(shard.add(block(1)))
        waiting.add_done_callback(lambda _: events.append("added"))
        await settle()
        reply = await shard.sample(1, 2, 4, BEFORE_ANY)
        events.append(f"sampled with {reply.counters.inserts} inserts")
        await settle()
        events.append("granting")
        await shard.grant(8, BEFORE_ANY)
        assert await waiting
        await settle()
        return events

    assert run(scenario()) == ["sampled with 4 inserts", "granting", "added"]


def test_credit_is_never_taken_back():
    async def scenario():
        shard = make_shard(insert_limit=8)
        await shard.add(block(0))
        await shard.grant(1, BEFORE_ANY)
        return await shard.add(block(1))

    assert run(scenario())


def test_a_repeated_sequence_is_stored_once_and_answered_alike():
    async def scenario():
        shard = make_shard(insert_limit=100)
        answers = [await shard.add(block(0)), await shard.add(block(0)), await shard.add(block(1))]
        return answers, shard.report()

    answers, report = run(scenario())
    assert answers == [True, True, True]
    assert report.counters.inserts == 8
    assert report.streams[0, 0].accepted == 8


def test_a_repeat_of_a_block_that_still_waits_waits_with_it():
    async def scenario():
        shard = make_shard(insert_limit=4)
        await shard.add(block(0))
        first = asyncio.ensure_future(shard.add(block(1)))
        second = asyncio.ensure_future(shard.add(block(1)))
        await settle()
        assert not first.done() and not second.done()
        await shard.grant(5, BEFORE_ANY)
        assert await first and await second
        return shard.report().counters.inserts

    assert run(scenario()) == 8


def test_an_empty_shard_takes_a_block_without_credit():
    async def scenario():
        shard = make_shard(insert_limit=0, epoch=3)
        assert await shard.add(block(0))
        waiting = asyncio.ensure_future(shard.add(block(1)))
        await settle()
        done = waiting.done()
        waiting.cancel()
        return done

    assert not run(scenario())


def test_the_same_sequence_of_another_incarnation_is_another_block():
    async def scenario():
        shard = make_shard(insert_limit=100)
        await shard.add(block(0))
        await shard.add(block(0, incarnation=1))
        return shard.report()

    report = run(scenario())
    assert report.counters.inserts == 8
    assert set(report.streams) == {(0, 0), (0, 1)}


def test_closing_refuses_waiting_and_later_blocks_and_counts_them():
    async def scenario():
        shard = make_shard(insert_limit=4)
        await shard.add(block(0, refused=1))
        waiting = asyncio.ensure_future(shard.add(block(1)))
        await settle()
        await shard.close()
        answers = [await waiting, await shard.add(block(2))]
        return answers, shard.report().streams[0, 0]

    answers, stream = run(scenario())
    assert answers == [False, False]
    assert (stream.accepted, stream.refused, stream.collected) == (4, 8, 12)
    assert stream.worker_refused == 1


def test_an_empty_shard_answers_a_sample_without_a_batch():
    reply = run(make_shard().sample(2, 8, 4, BEFORE_ANY))
    assert reply.batch is None
    assert reply.counters.size == 0


def test_a_superbatch_has_the_asked_shape():
    async def scenario():
        shard = make_shard(insert_limit=100)
        await shard.add(block(0))
        return await shard.sample(3, 8, 100, BEFORE_ANY)

    batch = run(scenario()).batch
    assert batch.obs_tm1.shape == (3, 8, 1)
    np.testing.assert_array_equal(batch.obs_t, batch.obs_tm1 + 1)


def test_staleness_is_taken_when_a_block_is_accepted():
    async def scenario():
        shard = make_shard(insert_limit=100)
        await shard.add(block(0, counter=3))  # before the learner told of any version
        await shard.grant(100, WeightsVersion(1, 8))
        await shard.add(block(1, counter=3))
        await shard.add(block(2, counter=8))
        return shard.report().staleness_counts

    counts = run(scenario())
    assert counts[5] == 4
    assert counts[0] == 4
    assert counts.sum() == 8


def test_a_report_tells_how_old_the_items_are_and_how_they_are_prioritized():
    async def scenario():
        shard = make_shard(insert_limit=100, prioritized=True)
        empty = shard.report().diagnostics
        await shard.add(block(0, num=3, counter=9))
        await shard.add(block(1, num=1, counter=150))
        await shard.grant(100, WeightsVersion(1, 160))
        update = PriorityUpdate(np.arange(3), np.array([0.5, 0.5, 4.0], np.float32))
        await shard.update_priorities(update)
        await asyncio.sleep(0.1)  # or the empty one may be given again
        return empty, shard.report().diagnostics

    empty, diagnostics = run(scenario())
    assert empty.priorities.total == 0 and np.isnan(empty.stale_fraction_10)
    assert diagnostics.stale_fraction_10 == 0.75  # 151 and 10 versions behind
    assert diagnostics.stale_fraction_100 == 0.75
    assert diagnostics.priorities.total == 4
    assert diagnostics.priorities.largest == pytest.approx(4.0, rel=1e-4)
    assert diagnostics.priorities.quantile(0.5) == pytest.approx(0.5, rel=0.1)


def test_a_uniform_shard_has_no_priorities_to_tell_of():
    async def scenario():
        shard = make_shard(insert_limit=100)
        await shard.add(block(0))
        return shard.report().diagnostics

    assert run(scenario()).priorities.total == 0


def test_priority_updates_for_another_epoch_change_nothing():
    async def scenario():
        shard = make_shard(insert_limit=100, epoch=1, prioritized=True)
        await shard.add(block(0))
        before = shard.report().priority_max
        await shard.update_priorities(PriorityUpdate(np.array([0]), np.array([99.0], np.float32)))
        return before, shard.report().priority_max

    before, after = run(scenario())
    assert before == after < 99


def test_reports_go_out_until_the_end():
    async def scenario():
        reports = []
        running = asyncio.ensure_future(make_shard(reports=reports).run())
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return len(reports)

    assert run(scenario()) >= 3
