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
        return dataclasses.replace(self, **_differences(self, earlier, _SECONDS))


_SECONDS = ("work_s", "queued_s", "cpu_s")


def sum_of(count: int, parts: Iterable[Spent | None]) -> Spent:
    """Of all parts of a kind, `count` of which are alive; None: nothing is known of it."""
    known = [part for part in parts if part is not None]
    return Spent(count, *(sum(getattr(part, name) for part in known) for name in _SECONDS))


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """A run's totals at one moment, or, after `since`, those of the time between two.

    at_s: `time.monotonic()` of control's host, or the seconds between.
    env_steps, gradient_steps: steps that yielded a transition; updates.
    env_s, inference_s: of the workers' `work_s`, in the env and in choosing actions.
    adding_s, replay_s: of the shards' `work_s`, storing blocks; all inside the replay.
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
        return dataclasses.replace(self, **_differences(self, earlier, _TOTALS))


_STATES = {"cores", "compiled", "compiling", "device"}
_TOTALS = [field.name for field in dataclasses.fields(Usage) if field.name not in _STATES]


def _differences(later: object, earlier: object, names: Iterable[str]) -> dict:
    return {name: getattr(later, name) - getattr(earlier, name) for name in names}


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
