"""The replay's benchmark: what it measures where, and the limits it holds that against."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import signal
import weakref

import numpy as np
import pytest

from distdqn.bench import replay as bench
from distdqn.bench.replay import (
    Copying,
    Point,
    ReplayWork,
    Shards,
    changed_nodes,
    needed_bytes,
)
from distdqn.errors import RunError
from distdqn.replay.sum_tree import SumTree

TINY = bench.Options(
    observations=("cartpole", "pictures"),
    sizes=(600, 1_100),
    batch_sizes=(8, 16),
    superbatch=2,
    blocks=(64, 128),
    compressions=("none", "lz4"),
    shards=(),
    repeats=2,
    seconds=0.002,
)
POINT = Point("cartpole", "prioritized", 600, 8, 2, 64)


def test_sizes_and_kinds_are_crossed_and_the_rest_varied_around_the_first():
    cases = bench.run(TINY, lambda line: None).cases
    of = {name: [c.settings for c in cases if c.name == name] for name in {c.name for c in cases}}

    for observation, compressions in (("cartpole", 0), ("pictures", 1)):
        here = {
            name: [s for s in settings if s["obs"] == observation] for name, settings in of.items()
        }
        assert {(s["size"], s["kind"]) for s in here["sample"]} == {
            (size, kind) for size in TINY.sizes for kind in TINY.kinds
        }
        assert len(here["add"]) == 4 + 1 + compressions  # sizes x kinds, blocks, compressions
        assert len(here["sample"]) == 4 + 1 + compressions
        assert len(here["update priorities"]) == 2 + 1  # of the prioritized ones alone
    assert len({case.label for case in cases}) == len(cases)
    for case in cases:
        assert case.limit and case.share and case.value.min > 0 and case.peak_bytes > 1e7


def test_what_does_not_fit_into_the_memory_allowed_is_left_out_and_named():
    options = dataclasses.replace(
        TINY,
        observations=("pictures",),
        sizes=(600, 100_000),
        kinds=("uniform",),
        compressions=("none",),
        max_memory_mb=100,
    )

    result = bench.run(options, lambda line: None)

    assert {case.settings["size"] for case in result.cases} == {600}
    assert [note for note in result.notes if "100,000 transitions" in note and "left out" in note]


@pytest.mark.parametrize("observation", ["cartpole", "pictures"])
def test_the_memory_needed_is_at_least_what_the_replay_takes(observation):
    point = dataclasses.replace(POINT, observation=observation)
    work = ReplayWork(point)

    assert work.replay.nbytes <= needed_bytes(point) <= 3 * work.replay.nbytes


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_each_work_does_what_it_counts(kind):
    point = dataclasses.replace(POINT, kind=kind)
    work = ReplayWork(point)
    before = work.replay.inserts

    assert work.add() == work.add_limit() == 64
    assert work.replay.inserts == before + 64 and work.replay.size == 600
    assert work.sample() == work.sample_limit() == 2 * 8


def test_priorities_are_updated_of_live_items_alone_whatever_was_added():
    work = ReplayWork(POINT)
    for _ in range(20):  # more than the replay holds
        work.add()
    mass = work.replay.mass

    assert work.update() == 16

    assert work.replay.dropped_updates == 0 and work.replay.mass != mass


def test_a_replay_is_let_go_with_its_last_reference():
    work = ReplayWork(POINT)
    work.add()
    held = weakref.ref(work.replay)
    gc.disable()
    try:
        del work
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("capacity", [1, 8, 9, 100, 600])
def test_the_nodes_that_change_are_those_that_a_sum_tree_changes(capacity):
    rng = np.random.default_rng(0)
    tree = SumTree(capacity)
    slots = rng.integers(capacity, size=20)
    tree.set(slots, np.ones(20))

    places = changed_nodes(slots, capacity)

    changed = np.concatenate([np.flatnonzero(tree.nodes), len(tree.nodes) + np.unique(slots)])
    assert sorted(places.tolist()) == changed.tolist()


def test_the_limit_goes_through_as_much_memory_as_the_work():
    copying = Copying(1_000, 5_500, 3_000)
    places = []
    for _ in range(6):
        places.append((copying.read_at, copying.write_at))
        copying()

    assert places == [(0, 0), (1000, 1000), (2000, 2000), (3000, 0), (4000, 1000), (0, 2000)]


def test_shards_sample_in_processes_of_their_own():
    with Shards(POINT, 2) as shards:
        assert len(set(shards.pids)) == 2
        assert shards.run("sample", 0.01) >= 2 * 16
        assert shards.peak_bytes() > 2e7
        os.kill(shards.pids[0], signal.SIGKILL)
        with pytest.raises(RunError, match="a shard of the benchmark: the process died"):
            for _ in range(3):
                shards.run("sample", 0.01)
    assert not multiprocessing.active_children()
