"""Who the lockstep schedule asks, in this process.

Each does what it is told and returns; none waits and none knows where it runs. Only the
worker is lockstep's own: shard, learner and evaluator are `ShardAccount`, `Training` and
`Greedy`, as they stand in the actors of an asynchronous run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from distdqn.telemetry.reports import WorkerReport
from distdqn.types import TransitionBlock, WeightSnapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """The answer of a member in this process."""

    value: Any

    def get(self) -> Any:
        return self.value


def local_member(member: Any) -> Callable[..., Done]:
    """An `Ask` of the lockstep schedule that asks an object."""

    def ask(method: str, *arguments: Any) -> Done:
        plain = [x.value if isinstance(x, Done) else x for x in arguments]
        return Done(getattr(member, method)(*plain))

    return ask


class LockstepWorker:
    """A `Rollout` that begins anew at every border.

    make_stepper: makes the envs, once, when `make_envs` is asked for.
    build: (round, stepper) -> a rollout whose incarnation is that round.
    """

    def __init__(self, make_stepper: Callable[[], Any], build: Callable[[int, Any], Any]):
        self._make_stepper, self._build = make_stepper, build
        self._stepper: Any = None
        self._rollout: Any = None

    def make_envs(self) -> None:
        """Before anything else; a call of its own, since it takes longer than any other."""
        self._stepper = self._make_stepper()

    def begin(self, number: int) -> None:
        """Resets envs and exploration with a seed from (seed, worker, `number`).

        That a NaN came shortly before is forgotten: the next one is refused, too, and is
        no failure yet.
        """
        self._rollout = self._build(number, self._stepper)

    def collect(
        self, snapshot: WeightSnapshot, vector_steps: int, allowance: int, flush: bool
    ) -> tuple[TransitionBlock | None, WorkerReport]:
        """Acts with `snapshot`, see `Rollout.collect_round`; what it has done since `begin`."""
        rollout = self._rollout
        assert rollout is not None, "collect needs a begin before it"
        rollout.set_weights(snapshot)
        block = rollout.collect_round(vector_steps, allowance, flush)
        return block, rollout.report()
