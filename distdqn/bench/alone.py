"""The update alone and acting alone: what a pipeline of both can reach.

The bare update is on a minibatch that is on the device; it is what feeding a learner can
reach at most, and so the limit of several benchmarks. Both together are measured in turn,
without a queue, a message or a replay, in a process of its own at the priority of the
caller: nothing of the run is beside it. Torch is loaded where it is used: the process that
drives a pipeline has none.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distdqn.bench.children import Child
from distdqn.bench.measure import Rates, in_turn

if TYPE_CHECKING:
    from distdqn.learning.learner import Learner

_TIMEOUT_S = 420.0  # beyond the measuring: start of a process with torch in it, compile
_COMPILE_TIMEOUT_S = 300.0
_SLICE_S = 0.02  # of acting, between two looks at the clock
_UPDATES = 16  # between two looks at the clock


def bare_updates(learner: Learner, count: int, has_mask: bool = False) -> Callable[[], int]:
    """`count` updates in a call, always on one minibatch; gives their number."""
    import torch

    from distdqn.machine.cpu_threads import cpu_threads

    minibatch = learner.example_minibatch(has_mask)
    learning_rate = torch.zeros((), dtype=torch.float64, device=learner.device)
    arguments = (*learner.state.values(), learning_rate, *minibatch)

    def work() -> int:
        with cpu_threads(learner.num_threads):
            update = learner.update_of(minibatch)
            for _ in range(count):
                update(*arguments)
        torch.get_device_module(learner.device).synchronize()
        return count

    return work


def compile_now(learner: Learner, has_mask: bool = False) -> str:
    """Puts the compiled update in place (`learner.compiled`); how that went, in a line."""
    from distdqn.learning.compilation import compile_update

    if learner.device.type == "cuda":  # the first update captures the graph
        return learner.swap_refused or "captured as a CUDA graph"
    began = time.monotonic()
    compiling = compile_update(learner, has_mask, nice=0)
    while compiling.state == "compiling" and time.monotonic() < began + _COMPILE_TIMEOUT_S:
        time.sleep(0.05)
    seconds = time.monotonic() - began
    function = compiling.poll()
    if function is None:
        reason = compiling.reason or f"not compiled within {_COMPILE_TIMEOUT_S:g} s"
        compiling.cancel()
        return reason
    if not learner.swap(function):
        return learner.swap_refused
    return f"compiled in {seconds:.1f} s ({compiling.state})"


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


def measure_alone(factory: Any, seconds: float, repeats: int) -> Alone:
    """Measures both in a new process; `seconds` is one repetition of one of them.

    Raises DistDQNError, one line, where either fails.
    """
    with Child("learner and rollout alone", alone_here, factory, seconds, repeats) as child:
        return child.answer(_TIMEOUT_S + 4 * seconds * (repeats + 1))


def alone_here(factory: Any, seconds: float, repeats: int) -> Alone:
    """As `measure_alone`, in this process."""
    stepper = factory.stepper(factory.config.workers.envs_per_worker)
    acting = collecting(factory.rollout(0, 0, stepper))
    learner, has_mask = factory.learner(), stepper.action_mask is not None
    updating = bare_updates(learner, _UPDATES, has_mask)
    updating()  # on a GPU it captures the graph
    how = compile_now(learner, has_mask) if factory.config.learner.compile else ""
    rates = in_turn({"updates": updating, "env_steps": acting}, seconds, repeats)
    note = "" if learner.compiled else how
    both = rates["updates"], rates["env_steps"]
    return Alone(*both, learner.compiled, note, learner.device.type)


def collecting(rollout: Any) -> Callable[[], int]:
    """Acts for a moment and throws the blocks away; gives the env steps taken."""

    def work() -> int:
        before, until = rollout.stepped, time.monotonic() + _SLICE_S
        while time.monotonic() < until:
            rollout.collect(2**62, until)
        return rollout.stepped - before

    return work
