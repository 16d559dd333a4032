"""What the parts of a run spend, and how it is measured.

Running totals: the difference of two of them says what went into the time between, so a
verdict can leave out the start and the end of a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import platform
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from distdqn.machine.cpu import ThreadClock, machine_busy_s, usable_cores

MIN_WINDOW_S = 1.0  # reports come four times a second; what is shorter cannot be told


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """What one incarnation of a part, or all parts of a kind, have spent; seconds.

    count: alive now; the sums hold those that have died, too.
    work_s: wall clock in which the parts' working threads did not wait for other parts.
      Time in which an env sleeps is in it, and so is `queued_s`.
    queued_s: of these, ready to run but without a CPU; 0 where the system does not tell.
    cpu_s: on a CPU, with all threads of the processes.
    host, cores: of one part, where it runs and how many cores it may use there.
    """

    count: int = 0
    work_s: float = 0.0
    queued_s: float = 0.0
    cpu_s: float = 0.0
    host: str = ""
    cores: int = 1

    @property
    def running_s(self) -> float:
        """`work_s` without the queues: what the work would take with a CPU at hand."""
        return max(self.work_s - self.queued_s, 0.0)

    def busy(self, seconds: float) -> float:
        """Share of so many seconds in which the parts that are alive have worked, at most 1."""
        return min(self.work_s / (max(self.count, 1) * seconds), 1.0) if seconds > 0 else 0.0

    def __sub__(self, earlier: Spent) -> Spent:
        return _difference(self, earlier, ("count", "host", "cores"))


def sum_of(count: int, parts: Iterable[Spent | None]) -> Spent:
    """Of all parts of a kind, `count` of which are alive; None: nothing is known of it."""
    known, names = [part for part in parts if part is not None], ("work_s", "queued_s", "cpu_s")
    return Spent(count, *(sum(getattr(part, name) for part in known) for name in names))


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """A run's totals at one moment, or, after `since`, those of the time between two.

    at_s: `time.monotonic()` of control's host, or the seconds between.
    env_steps, gradient_steps: steps that yielded a transition; updates.
    workers_s, learner_s: seconds in which each worker was there to act, summed, and the learner
      to learn; 0 where it is not known.
    env_s, inference_s: of the workers' `work_s`, in the env and in choosing actions.
    adding_s, replay_s: of the shards' `work_s`, storing blocks; all inside the replay.
    rest_cpu_s: seconds on a CPU of everything else on the machine, other programs too; on
      several machines, of control alone.
    cores: that all these processes may use together, over their hosts.
    compiled, compiling: whether the update is compiled; whether a compile is under way.
    device: of the learner, "cpu" or "cuda".
    """

    at_s: float = 0.0
    env_steps: int = 0
    gradient_steps: int = 0
    workers_s: float = 0.0
    learner_s: float = 0.0
    env_s: float = 0.0
    inference_s: float = 0.0
    adding_s: float = 0.0
    replay_s: float = 0.0
    workers: Spent = Spent()
    shards: Spent = Spent()
    learner: Spent = Spent()
    rest_cpu_s: float = 0.0
    cores: float = 1
    compiled: bool = False
    compiling: bool = False
    device: str = "cpu"

    @property
    def kinds(self) -> dict[str, Spent]:
        return {"workers": self.workers, "learner": self.learner, "shards": self.shards}

    @property
    def cpu_s(self) -> float:
        """On a CPU, everything that is known."""
        return self.rest_cpu_s + sum(kind.cpu_s for kind in self.kinds.values())

    def since(self, earlier: Usage) -> Usage:
        """What was spent after `earlier`; what is no total stays."""
        return _difference(self, earlier, ("cores", "compiled", "compiling", "device"))


def _difference(later: Any, earlier: Any, kept: Collection[str]) -> Any:
    """Field by field, but for those `kept` as they are later."""
    names = [field.name for field in dataclasses.fields(later) if field.name not in kept]
    told = {name: getattr(later, name) - getattr(earlier, name) for name in names}
    return dataclasses.replace(later, **told)


class UsageWindow:
    """The steady part of a run: from the first update to the last step but one.

    Begins anew once the update is compiled. What comes after the last env step, when the
    learner makes the updates still owed, is left out.

    total_env_steps: where collection ends.
    """

    def __init__(self, total_env_steps: int):
        self._total = total_env_steps
        self._heard: list[Usage] = []  # the first and the newest
        self._starts: list[Usage] = []
        self._newest = Usage()

    def hear(self, usage: Usage) -> None:
        """Takes the totals at one more moment, in order."""
        self._heard[1:] = [usage]
        if usage.gradient_steps <= 0 or usage.env_steps >= self._total:
            return
        if not self._starts or (usage.compiled and not self._starts[-1].compiled):
            self._starts.append(usage)
        self._newest = usage

    @property
    def spent(self) -> Usage:
        """What the newest window of a second at least took; without one, all that was heard.

        A run that ends soon after its update was compiled is judged by the time before.
        """
        for start in reversed(self._starts):
            spent = self._newest.since(start)
            if spent.at_s >= MIN_WINDOW_S and spent.env_steps > 0 and spent.gradient_steps > 0:
                return spent
        return self._heard[-1].since(self._heard[0]) if self._heard else Usage()


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
        cpu_s = time.process_time()
        return Spent(1, work_s, max(queued_s, 0.0), cpu_s, self._host, self._cores)


class RestMeter:
    """Measures everything that is no worker, shard or learner, from control's process."""

    def __init__(self) -> None:
        self._host, self._cores = platform.node(), usable_cores()
        self._total = self._last = 0.0
        self._was_alone: bool | None = None  # None before the first figure

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
