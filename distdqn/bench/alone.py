"""The update alone and acting alone: what a pipeline of both can reach.

Each does its work in turn with the other, without a queue, a message or a replay, in a
process of its own at the priority of the caller: nothing of the run is beside it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from distdqn.bench.children import Child
from distdqn.bench.measure import Rates, in_turn
from distdqn.run.factory import Factory

if TYPE_CHECKING:
    from distdqn.acting.rollout import Rollout

_TIMEOUT_S = 420.0  # beyond the measuring: start of a process with torch in it, compile
_SLICE_S = 0.02  # of acting, between two looks at the clock
_MANY = 2**62  # env steps
_UPDATES = 16  # between two looks at the clock


@dataclasses.dataclass(frozen=True, slots=True)
class Alone:
    """What each reaches by itself.

    updates: bare updates per second, always on one minibatch that is on the device.
    env_steps: of one worker's envs, with its inference, its windows and its blocks, which
      nobody takes.
    compiled: whether the update is a compiled one.  note: why not, in a line.
    device: of the update, "cpu" or "cuda".
    """

    updates: Rates
    env_steps: Rates
    compiled: bool
    note: str = ""
    device: str = "cpu"


def measure_alone(factory: Factory, seconds: float, repeats: int) -> Alone:
    """Measures both in a new process; `seconds` is one repetition of one of them.

    Raises DistDQNError, one line, where either fails.
    """
    with Child("learner and rollout alone", alone_here, factory, seconds, repeats) as child:
        return child.answer(_TIMEOUT_S + 4 * seconds * (repeats + 1))


def alone_here(factory: Factory, seconds: float, repeats: int) -> Alone:
    """As `measure_alone`, in this process."""
    from distdqn.bench.bare_updates import bare_updates, compile_now

    stepper = factory.stepper(factory.config.workers.envs_per_worker)
    rollout = factory.rollout(0, 0, stepper)
    learner, has_mask = factory.learner(), stepper.action_mask is not None
    updating = bare_updates(learner, _UPDATES, has_mask)
    updating()  # on a GPU it captures the graph
    how = compile_now(learner, has_mask) if factory.config.learner.compile else ""
    rates = in_turn({"learner": updating, "rollout": collecting(rollout)}, seconds, repeats)
    note = "" if learner.compiled else how
    return Alone(rates["learner"], rates["rollout"], learner.compiled, note, learner.device.type)


def collecting(rollout: Rollout) -> Callable[[], int]:
    """Acts for a moment and throws the blocks away; gives the env steps taken."""

    def work() -> int:
        before, until = rollout.stepped, time.monotonic() + _SLICE_S
        while time.monotonic() < until:
            rollout.collect(_MANY, until)
        return rollout.stepped - before

    return work
