"""How many CPU threads PyTorch computes with, part by part.

Acting uses one, since workers share the machine; the learner's updates use its own
number, also where both live in one process. A fixed number per part makes results the
same wherever a part runs: sums over threads are rounded differently for each number.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from distdqn.machine.cpu import usable_cores

_MOST = 8
_SMALL = 500_000  # parameters


@contextlib.contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """PyTorch uses so many threads in the calling thread's operations; a microsecond."""
    before = torch.get_num_threads()
    if number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_num_threads(network: nn.Module) -> int:
    """1 for a dense network and for a small one, whose layers are not worth sharing.

    Else, of the cores that this process may use, both of two and all but one of more, at most 8:
    threads of an update wait for each other dozens of times, and a core that others need too holds
    up all of them. Dense is a network without a parameter of three or more axes, as convolutions
    have; small one with fewer than half a million parameters, as MinAtar's.
    """
    parameters = list(network.parameters())
    if all(p.ndim <= 2 for p in parameters) or sum(p.numel() for p in parameters) < _SMALL:
        return 1
    cores = usable_cores()
    return cores if cores <= 2 else min(_MOST, cores - 1)
