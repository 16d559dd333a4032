"""The learner's sampling side on real shards: what it draws, owes, and survives."""

import time

import numpy as np
from ray_parts import block, shard_map, shards  # noqa: F401

from distdqn.types import BEFORE_ANY, PriorityUpdate

TIMEOUT_S = 300


def make_prefetcher(total=1000, min_size=100, spi=4.0, superbatch=2, batch_size=10, **changes):
    from distdqn.learning.prefetch import Prefetcher
    from distdqn.rate_limiter import RateLimiter

    limiter = RateLimiter(
        samples_per_insert=spi,
        min_size_to_sample=min_size,
        error_band=changes.pop("error_band", 1000.0),
        total_env_steps=total,
        batch_size=batch_size,
    )
    return limiter, Prefetcher(limiter, superbatch, batch_size, prefetch=2, seed=0)


def drain(prefetcher, until_exhausted=True):
    taken, deadline = [], time.monotonic() + TIMEOUT_S
    while not prefetcher.exhausted:
        assert time.monotonic() < deadline, f"{len(taken)} superbatches and no end"
        superbatch = prefetcher.get(0.05)
        if superbatch is not None:
            taken.append(superbatch)
    return taken


def test_exactly_the_owed_samples_are_drawn_and_the_last_superbatch_is_shorter(shards):  # noqa: F811
    import ray

    handles = shards(2)
    ray.get([handles[0].add.remote(block(300)), handles[1].add.remote(block(123))], timeout=300)
    limiter, prefetcher = make_prefetcher(superbatch=4)
    prefetcher.shards = shard_map(handles)
    prefetcher.start()
    prefetcher.collection_finished = True
    taken = drain(prefetcher)
    prefetcher.stop()
    owed_minibatches = int(4.0 * (423 - 100)) // 10
    assert sum(len(s.batch.a_tm1) for s in taken) == owed_minibatches == 129
    assert sorted({len(s.batch.a_tm1) for s in taken}) == [1, 4]
    assert limiter.samples == 1290


def test_nothing_is_drawn_before_the_minimum_of_inserts(shards):  # noqa: F811
    import ray

    handles = shards(1)
    ray.get(handles[0].add.remote(block(99)), timeout=300)
    _, prefetcher = make_prefetcher()
    prefetcher.shards = shard_map(handles)
    prefetcher.start()
    assert prefetcher.get(0.5) is None
    ray.get(handles[0].add.remote(block(1, sequence=1)), timeout=300)
    assert prefetcher.get(TIMEOUT_S) is not None
    prefetcher.stop()


def test_shards_are_drawn_in_proportion_to_their_items(shards):  # noqa: F811
    import ray

    handles = shards(2)
    ray.get([handles[0].add.remote(block(100)), handles[1].add.remote(block(300))], timeout=300)
    _, prefetcher = make_prefetcher(superbatch=1, error_band=4000.0)
    prefetcher.shards = shard_map(handles)
    prefetcher.start()
    taken = []
    while len(taken) < 300:
        superbatch = prefetcher.get(TIMEOUT_S)
        assert superbatch is not None
        taken.append(superbatch)
    prefetcher.stop()
    assert {(s.shard, s.shard_probability) for s in taken} == {(0, 0.25), (1, 0.75)}
    share = np.mean([s.shard == 1 for s in taken])
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / len(taken))
    for s in taken:
        np.testing.assert_allclose(s.shard_probability * s.batch.probabilities, 1 / 400)


def test_priorities_reach_the_shard_they_belong_to(shards):  # noqa: F811
    import ray

    handles = shards(1, prioritized=True)
    ray.get(handles[0].add.remote(block(200)), timeout=300)
    _, prefetcher = make_prefetcher()
    prefetcher.shards = shard_map(handles)
    prefetcher.start()
    superbatch = prefetcher.get(TIMEOUT_S)
    ids = superbatch.batch.item_ids[0, :1]
    prefetcher.send_priorities(0, PriorityUpdate(ids, np.array([50.0], np.float32)))
    deadline = time.monotonic() + TIMEOUT_S
    while ray.get(handles[0].grant.remote(0, BEFORE_ANY), timeout=300).mass < 205:
        assert time.monotonic() < deadline
        prefetcher.get(0.01)
    prefetcher.stop()


def test_a_dead_shard_is_passed_over_and_its_successor_taken_up(shards):  # noqa: F811
    import ray

    handles = shards(2)
    ray.get([h.add.remote(block(200)) for h in handles], timeout=300)
    _, prefetcher = make_prefetcher(superbatch=1, error_band=4000.0)
    prefetcher.shards = shard_map(handles)
    prefetcher.start()
    assert prefetcher.get(TIMEOUT_S).num_items == 400
    ray.kill(handles[1])
    deadline = time.monotonic() + TIMEOUT_S
    while (superbatch := prefetcher.get(TIMEOUT_S)).num_items != 200:
        assert time.monotonic() < deadline
    assert superbatch.shard == 0
    (_, successor) = shards(2, epoch=1)
    from distdqn.types import ShardMap

    prefetcher.shards = ShardMap(1, (handles[0], successor), (0, 1))
    ray.get(successor.add.remote(block(50, sequence=5)), timeout=300)
    while prefetcher.get(TIMEOUT_S).num_items != 250:
        assert time.monotonic() < deadline
    assert prefetcher.limiter.inserts == 450  # inserts of the dead shard stay counted
    prefetcher.stop()
