"""What a shard tells of its replay, whoever asks."""

import dataclasses

import numpy as np
import ray_parts

from distdqn.replay.shard import ShardAccount
from distdqn.types import WeightsVersion


def make_shard():
    return ShardAccount(ray_parts.build_replay(0, 0, prioritized=True), 0)


def version(counter):
    return WeightsVersion(1, counter)


def block(num, weights, sequence=0):
    return dataclasses.replace(ray_parts.block(num, sequence), weights_version=weights)


def test_a_shard_measures_age_against_the_newest_weights_of_all():
    shard = make_shard()
    shard.add(block(10, version(0)), version(0))

    ages = [
        shard.report(version(counter), is_last=True).diagnostics.stale_fraction_10
        for counter in (10, 11)
    ]

    assert ages == [0.0, 1.0]


def test_a_shard_counts_how_far_behind_each_block_was_when_it_came():
    shard = make_shard()
    shard.add(block(10, version(0)), version(0))
    shard.add(block(5, version(0), sequence=1), version(3))

    counts = shard.report(version(3), is_last=True).staleness_counts

    assert counts[0] == 10 and counts[3] == 5 and counts.sum() == 15


def test_a_restored_shard_samples_and_reports_as_the_one_before():
    shard, restored = make_shard(), make_shard()
    shard.add(block(10, version(0)), version(2))
    restored.set_state(shard.get_state(0, 0))

    np.testing.assert_array_equal(shard.sample(2, 4).item_ids, restored.sample(2, 4).item_ids)
    reports = [part.report(version(2), is_last=True) for part in (shard, restored)]
    np.testing.assert_array_equal(*(report.staleness_counts for report in reports))
    assert reports[0].counters == reports[1].counters


def test_the_time_inside_the_replay_is_counted_and_storing_apart():
    shard = make_shard()
    for sequence in range(20):
        shard.add(block(10, version(0), sequence), version(0))
    adding = shard.report(version(0))
    shard.sample(4, 32)
    both = shard.report(version(0))

    assert adding.busy_s == adding.adding_s > 0
    assert both.busy_s > both.adding_s == adding.adding_s
