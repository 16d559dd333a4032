"""The update alone, on a minibatch that is on the device.

It is what feeding a learner can reach at most, and so the limit of several benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from distdqn.learning.compilation import compile_in_background
from distdqn.learning.learner import Learner
from distdqn.machine.cpu_threads import cpu_threads

COMPILE_TIMEOUT_S = 300.0
_COLUMNS = 6  # of a minibatch without action masks


def bare_updates(learner: Learner, count: int, has_mask: bool = False) -> Callable[[], int]:
    """`count` updates in a call, always on one minibatch; gives their number."""
    minibatch = learner.example_arguments(has_mask)[-_COLUMNS - has_mask :]
    kind: dict[str, Any] = {"dtype": learner.settings.dtype, "device": learner.device}
    abs_td_errors = torch.empty(learner.settings.batch_size, **kind)
    figures = torch.empty(4, **kind)

    def work() -> int:
        with cpu_threads(learner.num_threads):
            for _ in range(count):
                learner.update_minibatch(minibatch, abs_td_errors, figures)
        torch.get_device_module(learner.device).synchronize()
        return count

    return work


def compile_now(learner: Learner, has_mask: bool = False) -> str:
    """Puts the compiled update in place (`learner.compiled`); how that went, in a line."""
    if learner.device.type == "cuda":  # the first update captures the graph
        return learner.swap_refused or "captured as a CUDA graph"
    with cpu_threads(learner.num_threads):
        compiling = compile_in_background(
            learner.update_function,
            learner.example_arguments(has_mask),
            nice=0,
            build=learner.build_update,
        )
    deadline = time.monotonic() + COMPILE_TIMEOUT_S
    while compiling.state == "compiling" and time.monotonic() < deadline:
        time.sleep(0.05)
    function = compiling.poll()
    if function is None:
        reason = compiling.reason or f"not compiled within {COMPILE_TIMEOUT_S:g} s"
        compiling.cancel()
        return reason
    if not learner.swap(function):
        return learner.swap_refused
    return f"compiled in {compiling.seconds:.1f} s ({compiling.state})"
