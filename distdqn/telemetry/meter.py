"""Measures what the parts of a run spend, and what everything else takes."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Collection, Iterable, Iterator

from distdqn.machine.cpu import ThreadClock, machine_busy_s, usable_cores
from distdqn.telemetry.usage import Spent


class Meter:
    """Measures a part by its working thread, in which it is made and its waits are marked.

    wait_s: seconds of the marked waits that have ended.
    """

    def __init__(self) -> None:
        self._clock = ThreadClock()
        self._host, self._cores = platform.node(), usable_cores()
        self._began = time.monotonic()
        self.wait_s = self._wait_queued_s = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks a wait for another part; 6 microseconds, for the queue after waking up."""
        started, queued_s = time.monotonic(), self._clock.read().queued_s
        try:
            yield
        finally:
            self._wait_queued_s += self._clock.read().queued_s - queued_s
            self.wait_s += time.monotonic() - started

    def spent(self) -> Spent:
        """So far, of a thread that works unless it waits for another part."""
        times = self._clock.read()
        work_s = time.monotonic() - self._began - self.wait_s
        return self._spent(work_s, min(times.queued_s - self._wait_queued_s, work_s - times.cpu_s))

    def spent_running(self, known_s: float) -> Spent:
        """So far, of a process that works only while it runs; known_s: its work at least.

        All its threads count: those that put an answer into shared memory, or send it, take
        turns with the one that made it, by the interpreter's lock.
        """
        queued_s = self._clock.read().queued_s
        return self._spent(max(time.process_time() + queued_s, known_s), queued_s)

    def _spent(self, work_s: float, queued_s: float) -> Spent:
        queued_s = max(queued_s, 0.0)
        return Spent(1, work_s, queued_s, time.process_time(), self._host, self._cores)


class RestMeter:
    """Measures everything that is no worker, shard or learner, from control's process."""

    def __init__(self) -> None:
        self._host, self._cores = platform.node(), usable_cores()
        self._total = self._last = 0.0
        self._was_alone: bool | None = None

    def cores(self, parts: Iterable[Spent]) -> int:
        """Of all hosts together."""
        by_host = {part.host: part.cores for part in sorted(parts, key=lambda part: part.cores)}
        return sum((by_host | {self._host: self._cores}).values())

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
