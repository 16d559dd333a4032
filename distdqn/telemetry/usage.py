"""What the parts of a run have spent so far.

Running totals: the difference of two of them says what went into the time between, so a
verdict can leave out the start and the end of a run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

MIN_WINDOW_S = 1.0  # reports come four times a second; what is shorter cannot be told


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """What one part (one incarnation of it) has spent since it began; seconds.

    work_s, queued_s, cpu_s: see `PartUsage`.
    host, cores: where it runs, and how many cores it may use there.
    """

    work_s: float = 0.0
    queued_s: float = 0.0
    cpu_s: float = 0.0
    host: str = ""
    cores: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class PartUsage:
    """Sums over all parts of one kind, those that have died included; seconds.

    count: alive now.
    work_s: wall clock in which the parts' working threads did not wait for other parts.
      Time in which an env sleeps is in it, and so is `queued_s`.
    queued_s: of these, ready to run but without a CPU; 0 where the system does not tell.
    cpu_s: on a CPU, with all threads of the processes.
    """

    count: int = 0
    work_s: float = 0.0
    queued_s: float = 0.0
    cpu_s: float = 0.0

    @classmethod
    def of(cls, count: int, parts: Iterable[Spent | None]) -> PartUsage:
        """The sum of `parts`, those alive and those dead; None: nothing is known of it."""
        known = [part for part in parts if part is not None]
        names = ("work_s", "queued_s", "cpu_s")
        return cls(count, *(sum(getattr(part, name) for part in known) for name in names))

    @property
    def running_s(self) -> float:
        """`work_s` without the queues: what the work would take with a CPU at hand."""
        return max(self.work_s - self.queued_s, 0.0)

    def __sub__(self, earlier: PartUsage) -> PartUsage:
        return PartUsage(
            self.count,
            self.work_s - earlier.work_s,
            self.queued_s - earlier.queued_s,
            self.cpu_s - earlier.cpu_s,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """A run's totals at one moment, or, after `since`, those of the time between two.

    at_s: `time.monotonic()` of control's host, or the seconds between.
    env_steps, gradient_steps: steps that yielded a transition; updates.
    env_s, inference_s: of the workers' `work_s`, in the env and in choosing actions.
    adding_s, replay_s: of the shards' `work_s`, storing blocks; all inside the replay.
    workers, shards, learner: see `PartUsage`.
    rest_cpu_s: seconds on a CPU of everything else on the machine, other programs too; on
      several machines, of control alone.
    cores: that all these processes may use together, over their hosts.
    compiled, compiling: whether the learner's update is the compiled one by now, or may be.
    device: of the learner, "cpu" or "cuda".
    """

    at_s: float = 0.0
    env_steps: int = 0
    gradient_steps: int = 0
    env_s: float = 0.0
    inference_s: float = 0.0
    adding_s: float = 0.0
    replay_s: float = 0.0
    workers: PartUsage = PartUsage()
    shards: PartUsage = PartUsage()
    learner: PartUsage = PartUsage()
    rest_cpu_s: float = 0.0
    cores: float = 1
    compiled: bool = False
    compiling: bool = False
    device: str = "cpu"

    @property
    def kinds(self) -> dict[str, PartUsage]:
        return {"workers": self.workers, "learner": self.learner, "shards": self.shards}

    @property
    def cpu_s(self) -> float:
        """On a CPU, everything that is known."""
        return self.rest_cpu_s + sum(kind.cpu_s for kind in self.kinds.values())

    def since(self, earlier: Usage) -> Usage:
        """What was spent after `earlier`; what is no total stays."""
        spent = {name: getattr(self, name) - getattr(earlier, name) for name in _TOTALS}
        return dataclasses.replace(self, **spent)


_STATES = {"cores", "compiled", "compiling", "device"}
_TOTALS = [field.name for field in dataclasses.fields(Usage) if field.name not in _STATES]


class UsageWindow:
    """The steady part of a run: from the first update to the last step but one.

    Begins anew once the update is compiled. What comes after the last env step, when the
    learner makes the updates still owed, is left out.

    total_env_steps: where collection ends.
    """

    def __init__(self, total_env_steps: int):
        self._total = total_env_steps
        self._first: Usage | None = None
        self._steady: list[Usage] = []
        self._newest = self._last = Usage()

    def hear(self, usage: Usage) -> None:
        """Takes the totals at one more moment, in order."""
        self._first, self._last = self._first or usage, usage
        if usage.gradient_steps <= 0 or usage.env_steps >= self._total:
            return
        if not self._steady or (usage.compiled and not self._steady[-1].compiled):
            self._steady.append(usage)
        self._newest = usage

    @property
    def spent(self) -> Usage:
        """What the newest window of a second at least took; without one, all that was heard.

        A run that ends soon after its update was compiled is judged by the time before.
        """
        for start in reversed(self._steady):
            spent = self._newest.since(start)
            if spent.at_s >= MIN_WINDOW_S and spent.env_steps > 0 and spent.gradient_steps > 0:
                return spent
        return self._last.since(self._first or self._last)
