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
        return cls(
            count,
            sum(part.work_s for part in known),
            sum(part.queued_s for part in known),
            sum(part.cpu_s for part in known),
        )

    @property
    def running_s(self) -> float:
        """`work_s` without the queues: what the work would take with a CPU at hand."""
        return max(self.work_s - self.queued_s, 0.0)

    def since(self, earlier: PartUsage) -> PartUsage:
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
    cores: int = 1
    compiled: bool = False
    compiling: bool = False
    device: str = "cpu"

    @property
    def cpu_s(self) -> float:
        """On a CPU, everything that is known."""
        parts = (self.workers, self.shards, self.learner)
        return self.rest_cpu_s + sum(part.cpu_s for part in parts)

    def since(self, earlier: Usage) -> Usage:
        """What was spent after `earlier`."""
        return Usage(
            at_s=self.at_s - earlier.at_s,
            env_steps=self.env_steps - earlier.env_steps,
            gradient_steps=self.gradient_steps - earlier.gradient_steps,
            env_s=self.env_s - earlier.env_s,
            inference_s=self.inference_s - earlier.inference_s,
            adding_s=self.adding_s - earlier.adding_s,
            replay_s=self.replay_s - earlier.replay_s,
            workers=self.workers.since(earlier.workers),
            shards=self.shards.since(earlier.shards),
            learner=self.learner.since(earlier.learner),
            rest_cpu_s=self.rest_cpu_s - earlier.rest_cpu_s,
            cores=self.cores,
            compiled=self.compiled,
            compiling=self.compiling,
            device=self.device,
        )


class UsageWindow:
    """The steady part of a run: from the first update to the last step but one.

    Begins anew once the update is compiled. What comes after the last env step, when the
    learner makes the updates still owed, is left out.

    total_env_steps: where collection ends.
    """

    def __init__(self, total_env_steps: int):
        self._total = total_env_steps
        self._starts: list[Usage] = []
        self._newest = Usage()

    def hear(self, usage: Usage) -> None:
        """Takes the totals at one more moment, in order."""
        if usage.gradient_steps <= 0 or usage.env_steps >= self._total:
            return
        if not self._starts or (usage.compiled and not self._starts[-1].compiled):
            self._starts.append(usage)
        self._newest = usage

    @property
    def spent(self) -> Usage | None:
        """What the newest window of a second at least took; None without one.

        A run that ends soon after its update was compiled is judged by the time before.
        """
        for start in reversed(self._starts):
            spent = self._newest.since(start)
            enough = spent.at_s >= MIN_WINDOW_S and spent.env_steps > 0
            if enough and spent.gradient_steps > 0:
                return spent
        return None
