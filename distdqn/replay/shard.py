"""A replay shard: a replay with the account of its use, and its shell behind Ray.

`add` waits while this shard's inserts are at the limit that the learner last granted; every other
call answers at once, so the calls that would release a waiting `add` are never blocked by it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.machine.cpu import give_way
from distdqn.machine.memory import keep_freed_memory
from distdqn.telemetry.histograms import CountHistogram, LogHistogram
from distdqn.telemetry.ledger import StreamAccount
from distdqn.telemetry.rates import Sparingly
from distdqn.telemetry.reports import ReplayDiagnostics, ShardReport
from distdqn.telemetry.usage import Meter
from distdqn.types import (
    BEFORE_ANY,
    PriorityUpdate,
    ReplayBatch,
    SampleReply,
    ShardCounters,
    TransitionBlock,
    WeightsVersion,
)

if TYPE_CHECKING:  # the driver, which places shards, needs no numba
    from distdqn.replay.replay import Replay

_SAMPLED_PRIORITIES = 10_000
_REMEMBERED_SEQUENCES = 256  # per worker incarnation; a worker's window is far smaller


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
        """Stores a block; newest: version of the weights by now, or BEFORE_ANY."""
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
        """newest: version of the weights.  is_last: measures everything anew."""
        if is_last:
            self._diagnose.expire()
        return ShardReport(
            counters=self.counters(),
            priority_max=self.replay.priority_max,
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
        stale_fraction_10=replay.versions.stale_fraction(newest, 10),
        stale_fraction_100=replay.versions.stale_fraction(newest, 100),
    )


class ReplayShard:
    """One shard of the replay.

    build: makes its replay, with the account, inside this process.
    insert_limit: transitions that may be accepted before the learner's first grant.
    report: called with a `ShardReport` every `report_period_s`.
    """

    def __init__(
        self,
        build: Callable[[], ShardAccount],
        insert_limit: int,
        report: Callable[[ShardReport], Any],
        report_period_s: float,
    ):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        give_way()
        self._account = build()
        keep_freed_memory()
        self._insert_limit = insert_limit
        self._report, self._report_period_s = report, report_period_s
        self._newest = BEFORE_ANY
        self._credit = asyncio.Condition()
        self._closed = False
        self._seen: dict[tuple[int, int], collections.OrderedDict[int, asyncio.Future]] = {}
        self._streams: dict[tuple[int, int], StreamAccount] = {}
        self._meter: Meter | None = None

    async def run(self) -> None:
        """Reports to control until the process ends; its failure tells of a death."""
        self._meter = Meter()  # of the event loop: it alone does the work of every call
        while True:
            self._report(self.report())
            await asyncio.sleep(self._report_period_s)

    async def add(self, block: TransitionBlock) -> bool:
        """Stores a block once there is credit; False where the shard is closed.

        A repeated sequence is answered as the first one was and stored once.
        """
        stream = (block.worker, block.incarnation)
        known = self._streams.get(stream, StreamAccount())
        # On arrival, so that a block that waits for credit is known if its worker dies.
        self._streams[stream] = dataclasses.replace(
            known,
            collected=max(known.collected, block.collected),
            worker_refused=max(known.worker_refused, block.refused),
        )
        seen = self._seen.setdefault(stream, collections.OrderedDict())
        if block.sequence in seen:
            return await asyncio.shield(seen[block.sequence])
        answer = asyncio.get_running_loop().create_future()
        seen[block.sequence] = answer
        if len(seen) > _REMEMBERED_SEQUENCES:
            seen.popitem(last=False)
        async with self._credit:
            await self._credit.wait_for(self._may_add)
        accepted = not self._closed
        if accepted:
            self._account.add(block, self._newest)
        known, name = self._streams[stream], "accepted" if accepted else "refused"
        total = getattr(known, name) + block.num_transitions
        self._streams[stream] = dataclasses.replace(known, **{name: total})
        answer.set_result(accepted)
        return accepted

    async def sample(
        self, num_batches: int, batch_size: int, insert_limit: int, newest: WeightsVersion
    ) -> SampleReply:
        """A superbatch of `num_batches` x `batch_size`, and new insert credit."""
        await self._grant(insert_limit, newest)
        has_any = self._account.replay.size > 0
        batch = self._account.sample(num_batches, batch_size) if has_any else None
        return SampleReply(self._account.counters(), batch)

    async def update_priorities(self, update: PriorityUpdate) -> None:
        self._account.update_priorities(update)

    async def grant(self, insert_limit: int, newest: WeightsVersion) -> ShardCounters:
        """Raises the insert credit; tells the learner how things stand."""
        await self._grant(insert_limit, newest)
        return self._account.counters()

    async def visits(self) -> np.ndarray | None:
        """See `Replay.visits`."""
        return self._account.visits()

    async def close(self) -> None:
        """Refuses every waiting and later block."""
        self._closed = True
        async with self._credit:
            self._credit.notify_all()

    def report(self) -> ShardReport:
        """The account now, and what each worker has sent; once closed, all of it measured anew."""
        report = self._account.report(self._newest, is_last=self._closed)
        spent = None if self._meter is None else self._meter.spent_running(report.busy_s)
        return dataclasses.replace(report, streams=dict(self._streams), spent=spent)

    async def _grant(self, insert_limit: int, newest: WeightsVersion) -> None:
        self._newest = max(self._newest, newest)
        if insert_limit > self._insert_limit:
            self._insert_limit = insert_limit
            async with self._credit:
                self._credit.notify_all()

    def _may_add(self) -> bool:
        """Whether a block may come in: always into an empty shard, which has nothing to sample."""
        replay = self._account.replay
        return self._closed or replay.inserts < self._insert_limit or not replay.size
