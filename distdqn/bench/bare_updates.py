"""The update alone, on a minibatch that is on the device.

It is what feeding a learner can reach at most, and so the limit of several benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from distdqn.learning.compilation import BackgroundCompile
from distdqn.learning.learner import Learner
from distdqn.machine.cpu_threads import cpu_threads

COMPILE_TIMEOUT_S = 300.0


def bare_updates(learner: Learner, count: int, has_mask: bool = False) -> Callable[[], int]:
    """`count` updates in a call, always on one minibatch; gives their number."""
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
    if learner.device.type == "cuda":  # the first update captures the graph
        return learner.swap_refused or "captured as a CUDA graph"
    began = time.monotonic()
    with cpu_threads(learner.num_threads):
        compiling = BackgroundCompile(
            learner.build_update, learner.example_arguments(has_mask), nice=0
        )
    while compiling.state == "compiling" and time.monotonic() < began + COMPILE_TIMEOUT_S:
        time.sleep(0.05)
    seconds = time.monotonic() - began
    function = compiling.poll()
    if function is None:
        reason = compiling.reason or f"not compiled within {COMPILE_TIMEOUT_S:g} s"
        compiling.cancel()
        return reason
    if not learner.swap(function):
        return learner.swap_refused
    return f"compiled in {seconds:.1f} s ({compiling.state})"
