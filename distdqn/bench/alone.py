"""The update alone and acting alone: what a pipeline of both can reach.

Each does its work in turn with the other, without a queue, a message or a replay, in a
process of its own at the priority of the caller: nothing of the run is beside it.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from distdqn.bench.children import without_ctrl_c
from distdqn.bench.measure import Rates, in_turn
from distdqn.errors import DistDQNError, RunError
from distdqn.run.factory import Factory

if TYPE_CHECKING:
    from distdqn.acting.rollout import Rollout
    from distdqn.learning.learner import Learner

_COMPILE_TIMEOUT_S = 300.0
_START_TIMEOUT_S = 120.0  # of a process with torch in it
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
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(
        target=_child, args=(sender, factory, seconds, repeats), daemon=True, name="distdqn-alone"
    )
    with without_ctrl_c():
        child.start()
    try:
        sender.close()  # the child's death then ends the wait
        answer = _answer(receiver, 2 * seconds * (repeats + 1))
    finally:
        child.kill()
        child.join()
        receiver.close()
    if isinstance(answer, DistDQNError):
        raise answer
    return answer


def _answer(receiver: Connection, measuring_s: float) -> Any:
    limit_s = _START_TIMEOUT_S + _COMPILE_TIMEOUT_S + 2 * measuring_s
    try:
        if receiver.poll(limit_s):
            return receiver.recv()
    except EOFError:
        return RunError(
            "the process that measures learner and rollout alone died; was its memory used up?"
        )
    return RunError(
        f"learner and rollout alone were not measured within {limit_s:g} s; does the env hang?"
    )


def _child(sender: Connection, factory: Factory, seconds: float, repeats: int) -> None:
    try:
        answer: Any = alone_here(factory, seconds, repeats)
    except DistDQNError as error:
        answer = error
    except Exception as error:  # users' envs and networks raise what they like
        line = (str(error).strip().splitlines() or [""])[0]
        answer = RunError(f"learner and rollout alone: {type(error).__name__}: {line}")
    sender.send(answer)


def alone_here(factory: Factory, seconds: float, repeats: int) -> Alone:
    """As `measure_alone`, in this process."""
    stepper = factory.stepper(factory.config.workers.envs_per_worker)
    rollout = factory.rollout(0, 0, stepper)
    learner, has_mask = factory.learner(), stepper.action_mask is not None
    updating = bare_updates(learner, has_mask)
    updating()  # on a GPU it captures the graph
    note = learner.swap_refused
    if (compiling := factory.start_compiling(learner, has_mask)) is not None:
        note = _compile(learner, compiling)
    rates = in_turn({"learner": updating, "rollout": collecting(rollout)}, seconds, repeats)
    return Alone(rates["learner"], rates["rollout"], learner.compiled, note, learner.device.type)


def collecting(rollout: Rollout) -> Callable[[], int]:
    """Acts for a moment and throws the blocks away; gives the env steps taken."""

    def work() -> int:
        before, until = rollout.stepped, time.monotonic() + _SLICE_S
        while time.monotonic() < until:
            rollout.collect(_MANY, until)
        return rollout.stepped - before

    return work


def bare_updates(learner: Learner, has_mask: bool) -> Callable[[], int]:
    """Some updates, always on one minibatch; gives their number."""
    import torch

    from distdqn.machine.cpu_threads import cpu_threads

    arguments, minibatch = learner.example_arguments(has_mask), learner.example_minibatch(has_mask)

    def work() -> int:
        update = learner.update_of(minibatch)
        with cpu_threads(learner.num_threads):
            for _ in range(_UPDATES):
                update(*arguments)
        torch.get_device_module(learner.device).synchronize()
        return _UPDATES

    return work


def _compile(learner: Learner, compiling: Any) -> str:
    """Puts the compiled update in place; why not, or ""."""
    deadline = time.monotonic() + _COMPILE_TIMEOUT_S
    while compiling.state == "compiling" and time.monotonic() < deadline:
        time.sleep(0.05)
    function = compiling.poll()
    if function is None:
        compiling.cancel()
        return compiling.reason or f"not compiled within {_COMPILE_TIMEOUT_S:g} s"
    return "" if learner.swap(function) else learner.swap_refused
