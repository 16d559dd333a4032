"""What each part of a run spends, measured and added up.

A part measures itself with a `Meter`; control adds the newest totals of every
incarnation, dead ones too, so the sums never fall.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Collection, Iterable, Mapping

from distdqn.machine.thread_times import machine_busy_s, usable_cores
from distdqn.telemetry.reports import LearnerReport, ShardReport, WorkerReport
from distdqn.telemetry.usage import PartUsage, Spent, Usage

Incarnation = tuple[int, int]


class RestMeter:
    """Measures everything that is no worker, shard or learner, from control's process."""

    def __init__(self) -> None:
        self._host, self._cores = platform.node(), usable_cores()
        self._total = self._last = 0.0
        self._was_alone: bool | None = None

    def cores(self, parts: Iterable[Spent]) -> int:
        """Of all hosts together."""
        by_host = {self._host: self._cores}
        for part in parts:
            by_host[part.host] = max(part.cores, by_host.get(part.host, 1))
        return sum(by_host.values())

    def cpu_s(self, parts: Collection[Spent]) -> float:
        """So far: everything else on this machine while all parts are here, else this process.

        Only what is added counts, so that a first part on another host changes the kind of
        the figure and not its size.
        """
        busy_s = machine_busy_s()
        alone = not math.isnan(busy_s) and all(part.host == self._host for part in parts)
        now = busy_s - sum(part.cpu_s for part in parts) if alone else time.process_time()
        if self._was_alone is None:
            self._total = now
        elif alone == self._was_alone:
            self._total += now - self._last
        self._was_alone, self._last = alone, now
        return self._total


class UsageAccount:
    """Adds up what the parts report; it keeps the learners' reports, which control does not.

    Incarnations are keyed (index, incarnation), or (shard, epoch).
    """

    def __init__(self) -> None:
        self._rest = RestMeter()
        self._learners: dict[int, LearnerReport] = {}

    def hear_learner(self, report: LearnerReport) -> None:
        self._learners[report.version.incarnation] = report

    def total(
        self,
        env_steps: int,
        workers: Mapping[Incarnation, WorkerReport],
        alive_workers: int,
        shards: Mapping[Incarnation, ShardReport],
        alive_shards: int,
    ) -> Usage:
        """The run's totals now. workers, shards: of all incarnations, dead ones too."""
        learners = list(self._learners.values())
        newest = learners[-1] if learners else LearnerReport()
        parts: list[WorkerReport | ShardReport | LearnerReport] = [*workers.values()]
        parts += [*shards.values(), *learners]
        known = [part.spent for part in parts if part.spent is not None]
        return Usage(
            at_s=time.monotonic(),
            env_steps=env_steps,
            gradient_steps=newest.gradient_steps,
            env_s=sum(report.env_s for report in workers.values()),
            inference_s=sum(report.inference_s for report in workers.values()),
            adding_s=sum(report.adding_s for report in shards.values()),
            replay_s=sum(report.busy_s for report in shards.values()),
            workers=PartUsage.of(alive_workers, (r.spent for r in workers.values())),
            shards=PartUsage.of(alive_shards, (r.spent for r in shards.values())),
            learner=PartUsage.of(min(len(learners), 1), (r.spent for r in learners)),
            rest_cpu_s=self._rest.cpu_s(known),
            cores=self._rest.cores(known),
            compiled=newest.compiled,
            compiling=newest.compiling,
            device=newest.device,
        )
