"""A replay shard: ring and sampler behind Ray.

`add` waits while this shard's inserts are at the limit that the learner last granted;
every other call answers at once, so the calls that would release a waiting `add` are
never blocked by it.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distdqn.machine.niceness import give_way
from distdqn.machine.process_memory import keep_freed_memory
from distdqn.replay.shard_account import ShardAccount
from distdqn.telemetry.ledger import StreamAccount
from distdqn.telemetry.reports import ShardReport
from distdqn.telemetry.usage import Meter
from distdqn.types import (
    BEFORE_ANY,
    PriorityUpdate,
    SampleReply,
    ShardCounters,
    TransitionBlock,
    WeightsVersion,
)

if TYPE_CHECKING:
    import numpy as np

_REMEMBERED_SEQUENCES = 256  # per worker incarnation; a worker's window is far smaller


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
        self._note_totals(stream, block)
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
        self._record(stream, block, accepted)
        answer.set_result(accepted)
        return accepted

    async def sample(
        self, num_batches: int, batch_size: int, insert_limit: int, newest: WeightsVersion
    ) -> SampleReply:
        """A superbatch of `num_batches` x `batch_size`, and new insert credit."""
        await self._grant(insert_limit, newest)
        if not self._account.replay.size:
            return SampleReply(self._account.counters(), None)
        batch = self._account.sample(num_batches, batch_size)
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
        """The account now, with those of the workers; once closed, nothing in it is older."""
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
        """While below the limit; an empty shard would wait for samples that it cannot give."""
        replay = self._account.replay
        return self._closed or replay.inserts < self._insert_limit or not replay.size

    def _note_totals(self, stream: tuple[int, int], block: TransitionBlock) -> None:
        """On arrival, so that a block that waits for credit is known if its worker dies."""
        known = self._streams.get(stream, StreamAccount())
        self._streams[stream] = dataclasses.replace(
            known,
            collected=max(known.collected, block.collected),
            worker_refused=max(known.worker_refused, block.refused),
        )

    def _record(self, stream: tuple[int, int], block: TransitionBlock, accepted: bool) -> None:
        known, num = self._streams[stream], block.num_transitions
        self._streams[stream] = dataclasses.replace(
            known,
            accepted=known.accepted + (num if accepted else 0),
            refused=known.refused + (0 if accepted else num),
        )
