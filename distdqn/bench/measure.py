"""Repeated timings, in turn with their limits.

A rate is measured in repetitions of a fixed length after a warm-up; the median is
reported with the smallest and the largest, since a shared machine has bad moments. What
is to be compared is measured in turn, so that a bad moment meets both sides.
"""

import contextlib
import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from distdqn.bench.result import Case, Setting


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """Of one measurement.

    per_s: units of work per second of each repetition.
    cpu_s: seconds of all the process's threads on a CPU, per unit of work.
    """

    per_s: tuple[float, ...]
    cpu_s: float


def in_turn(
    works: Mapping[str, Callable[[], int]],
    seconds: float,
    repeats: int,
    cpu_clock: Callable[[], float] | None = None,
) -> dict[str, Rates]:
    """Measures several works, repetition by repetition in turn.

    A work returns the units it did, and has waited for the device; it is called over and over for
    `seconds` at least in each repetition, and for half of that before, which is not counted. Every
    second round goes the other way round, so that none always follows the same one.

    cpu_clock: seconds on a CPU so far; by default of this process, see `cpu_clock_of`.
    """
    clock = cpu_clock or time.process_time
    for work in works.values():
        _run(work, seconds / 2)
    per_s: dict[str, list[float]] = {name: [] for name in works}
    cpu_s, units = dict.fromkeys(works, 0.0), dict.fromkeys(works, 0)
    for repeat in range(repeats):
        for name in list(works)[:: -1 if repeat % 2 else 1]:
            cpu_before = clock()
            done, elapsed_s = _run(works[name], seconds)
            cpu_s[name] += clock() - cpu_before
            units[name] += done
            per_s[name].append(done / elapsed_s)
    return {name: Rates(tuple(per_s[name]), cpu_s[name] / units[name]) for name in works}


def rate_case(
    name: str,
    settings: Mapping[str, Setting],
    unit: str,
    rates: Rates,
    limit: Rates | None = None,
    limit_name: str = "",
    **fields: Any,
) -> Case:
    """A case of rates, beside those of its limit from the same `in_turn`; fields: of `Case`."""
    limits = limit.per_s if limit else ()
    fields["cpu_s"] = rates.cpu_s
    return Case.of(name, settings, unit, rates.per_s, limits, limit_name, **fields)


def cpu_clock_of(pids: Iterable[int]) -> Callable[[], float]:
    """A clock for `in_turn`: CPU seconds of this process and of others that go on living."""
    import psutil

    others = [psutil.Process(pid) for pid in pids]

    def clock() -> float:
        times = [process.cpu_times() for process in others]
        return time.process_time() + sum(spent.user + spent.system for spent in times)

    return clock


def _run(work: Callable[[], int], seconds: float) -> tuple[int, float]:
    started, done = time.perf_counter(), 0
    while True:
        done += work()
        if (elapsed_s := time.perf_counter() - started) >= seconds:
            return done, elapsed_s


def peak_bytes(device: str = "cpu") -> int:
    """The most memory that this process has had resident since its start, or `reset_peak`.

    device: "cuda" for what PyTorch had allocated on the GPU.
    """
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    # VmHWM, not ru_maxrss: that one starts with what the parent of a new process had.
    with contextlib.suppress(OSError, ValueError):
        words = Path("/proc/self/status").read_text().split()
        return 1024 * int(words[words.index("VmHWM:") + 1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def reset_peak(device: str = "cpu") -> None:
    """`peak_bytes` counts from now on; where the system cannot, from the start as before."""
    if device == "cuda":
        import torch

        return torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
