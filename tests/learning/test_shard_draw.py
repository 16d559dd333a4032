"""Shards are drawn by what they hold."""

import numpy as np

from distdqn.learning.shard_draw import draw_shard
from distdqn.types import ShardCounters


def counters(shard, size, mass):
    return ShardCounters(shard, epoch=0, inserts=size, size=size, mass=mass)


def test_a_shard_comes_as_often_as_its_mass_says_with_its_probability():
    known = [counters(0, 10, 1.0), counters(2, 30, 3.0)]
    rng = np.random.default_rng(0)

    drawn = [draw_shard(known, rng) for _ in range(10_000)]

    assert set(drawn) == {(0, 0.25, 40), (2, 0.75, 40)}
    share = np.mean([shard == 2 for shard, _, _ in drawn])
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / len(drawn))


def test_nothing_is_drawn_from_empty_shards():
    rng = np.random.default_rng(0)
    assert draw_shard([], rng) is None
    assert draw_shard([counters(0, 0, 0.0)], rng) is None
