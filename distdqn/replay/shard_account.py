"""A replay with the account of its use: the shard of both modes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.telemetry.histograms import CountHistogram, LogHistogram
from distdqn.telemetry.rates import Sparingly
from distdqn.telemetry.reports import ReplayDiagnostics, ShardReport
from distdqn.types import (
    BEFORE_ANY,
    PriorityUpdate,
    ReplayBatch,
    ShardCounters,
    TransitionBlock,
    WeightsVersion,
)

if TYPE_CHECKING:  # the driver, which places shards, needs no numba
    from distdqn.replay.replay import Replay

_SAMPLED_PRIORITIES = 10_000


class ShardAccount:
    """A `Replay` that answers with its counters and tells of itself.

    A lockstep run asks it as it is; `ReplayShard` puts credit and Ray around it.

    replay: what it keeps account of.  shard: its index.
    """

    def __init__(self, replay: Replay, shard: int):
        self.replay, self._shard = replay, shard
        self._staleness = CountHistogram()
        self._diagnose = Sparingly(_diagnose)
        self._busy_s = self._adding_s = 0.0

    def add(self, block: TransitionBlock, newest: WeightsVersion) -> ShardCounters:
        """Stores a block; newest: of the weights when it comes, if any are known."""
        before_s = self._busy_s
        with self._working():
            self.replay.add(block)
        self._adding_s += self._busy_s - before_s
        if newest > BEFORE_ANY:
            same = block.weights_version.incarnation == newest.incarnation
            behind = newest.counter - block.weights_version.counter if same else 0
            self._staleness.observe(behind, block.num_transitions)
        return self.counters()

    def sample(self, num_batches: int, batch_size: int) -> ReplayBatch:
        with self._working():
            return self.replay.sample(num_batches, batch_size)

    def update_priorities(self, update: PriorityUpdate) -> ShardCounters:
        with self._working():
            self.replay.update_priorities(update)
        return self.counters()

    def counters(self) -> ShardCounters:
        replay = self.replay
        return ShardCounters(self._shard, replay.epoch, replay.inserts, replay.size, replay.mass)

    def report(self, newest: WeightsVersion, is_last: bool = False) -> ShardReport:
        """newest: weights.  is_last: nothing may be older than this call."""
        if is_last:
            self._diagnose.expire()
        return ShardReport(
            counters=self.counters(),
            priority_max=self.replay.priority_max,
            dropped_updates=self.replay.dropped_updates,
            refused_priorities=self.replay.refused_priorities,
            streams={},
            staleness_counts=self._staleness.counts.copy(),
            busy_s=self._busy_s,
            pid=os.getpid(),
            diagnostics=self._diagnose(self.replay, newest),
            adding_s=self._adding_s,
        )

    def visits(self) -> np.ndarray | None:
        """See `Replay.visits`."""
        return self.replay.visits

    def get_state(self, first_item: int, first_frame: int) -> dict[str, Any]:
        """Of the replay, see `Replay.get_state`, with this account's own counts."""
        own = {"staleness": self._staleness.counts, "busy_s": self._busy_s}
        return {**self.replay.get_state(first_item, first_frame), **own}

    def set_state(self, state: dict[str, Any]) -> None:
        self.replay.set_state(state)
        self._staleness = CountHistogram(counts=np.array(state["staleness"]))
        self._busy_s = state["busy_s"]

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._busy_s += time.perf_counter() - started


def _diagnose(replay: Replay, newest: WeightsVersion) -> ReplayDiagnostics:
    """Of a replay now; newest: weights. At most 10,000 items' priorities stand for all."""
    sample = LogHistogram(replay.priorities(_SAMPLED_PRIORITIES))
    return ReplayDiagnostics(
        priorities=sample.scaled(replay.size),
        stale_fraction_10=replay.stale_fraction(newest, 10),
        stale_fraction_100=replay.stale_fraction(newest, 100),
    )
