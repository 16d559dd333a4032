"""Threads: set for a while, and how many by default."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from distdqn.machine.cpu_threads import cpu_threads, default_num_threads


def test_the_number_holds_within_and_the_former_one_afterwards():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="within"), cpu_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        raise RuntimeError("within")
    assert torch.get_num_threads() == before
    with cpu_threads(before):
        assert torch.get_num_threads() == before


WIDE = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(1000, 500))  # half a million parameters


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (4, 3), (64, 8)])
def test_large_convolutional_networks_get_most_cores_up_to_eight(monkeypatch, cores, expected):
    monkeypatch.setattr("distdqn.machine.cpu_threads.usable_cores", lambda: cores)
    assert default_num_threads(WIDE) == expected


def test_dense_and_small_networks_get_one_thread(monkeypatch):
    monkeypatch.setattr("distdqn.machine.cpu_threads.usable_cores", lambda: 4)
    assert default_num_threads(nn.Sequential(nn.Linear(1000, 900), nn.Linear(900, 2))) == 1
    assert default_num_threads(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(1000, 400))) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_cores_that_the_process_may_not_use_do_not_count():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from distdqn.machine.cpu_threads import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    assert done.stdout.split() == [b"1"]
