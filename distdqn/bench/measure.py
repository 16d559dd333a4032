"""Repeated timings, and what they were taken on.

A rate is measured in repetitions of a fixed length after a warm-up; the median is
reported with the smallest and the largest, since a shared machine has bad moments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """Of one measurement.

    per_s: units of work per second of each repetition.
    cpu_s: seconds of all the process's threads on a CPU, per unit of work.
    """

    per_s: tuple[float, ...]
    cpu_s: float

    def summary(self, units: int = 1) -> dict[str, float]:
        """Median, smallest and largest rate of `units` per unit of work."""
        rates = units * np.array(self.per_s)
        return {
            "median": float(np.median(rates)),
            "min": float(rates.min()),
            "max": float(rates.max()),
        }


def measure(work: Callable[[], int], seconds: float, repeats: int) -> Rates:
    """Calls `work`, which returns the units it did and has waited for the device, over and over.

    Each repetition lasts `seconds` at least; half of that comes first and is not counted.
    """
    _run(work, seconds / 2)
    cpu_before, units, rates = time.process_time(), 0, []
    for _ in range(repeats):
        done, elapsed_s = _run(work, seconds)
        units += done
        rates.append(done / elapsed_s)
    return Rates(tuple(rates), (time.process_time() - cpu_before) / units)


def _run(work: Callable[[], int], seconds: float) -> tuple[int, float]:
    started, done = time.perf_counter(), 0
    while True:
        done += work()
        if (elapsed_s := time.perf_counter() - started) >= seconds:
            return done, elapsed_s


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, GPU and versions."""
    on_gpu = device.type == "cuda"
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def peak_memory_bytes(device: torch.device) -> dict[str, int | None]:
    """Of this process (`host`), and of PyTorch's allocations on a GPU (`device`)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    on_gpu = device.type == "cuda"
    return {
        "host": peak * (1 if sys.platform == "darwin" else 1024),
        "device": torch.cuda.max_memory_allocated(device) if on_gpu else None,
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    return platform.processor() or platform.machine()
