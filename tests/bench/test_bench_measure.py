"""Repeated timings in turn, and the machine they were taken on."""

from __future__ import annotations

import dataclasses
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

import distdqn
from distdqn.bench.measure import (
    Rates,
    cpu_clock_of,
    in_turn,
    peak_bytes,
    rate_case,
    reset_peak,
)
from distdqn.bench.result import describe_machine, new_result
from distdqn.machine.cpu import usable_cores


def test_a_rate_is_the_work_done_over_the_time_it_took(monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 0.5))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("time.process_time", lambda: 7.0)
    # A call lasts half a second and does 3 units: 6 a second, whatever the length.
    rates = in_turn({"work": lambda: 3}, seconds=2.0, repeats=3)["work"]
    assert rates.per_s == (6.0, 6.0, 6.0) and rates.cpu_s == 0.0


def test_works_are_measured_in_turn_and_every_second_round_backwards(monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 1.0))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    calls = []

    def work(name, units):
        return lambda: calls.append(name) or units

    # A call lasts a second, as long as a repetition; the warm-up is one call of each.
    rates = in_turn({"a": work("a", 3), "b": work("b", 5)}, seconds=1.0, repeats=3)

    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert rates["a"].per_s == (3.0,) * 3 and rates["b"].per_s == (5.0,) * 3


def test_cpu_time_is_that_of_the_work_alone_and_per_unit(monkeypatch):
    seconds = iter(np.arange(0.0, 100.0, 1.0))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))
    spent = [0.0]

    def busy():
        spent[0] += 0.5
        return 2

    rates = in_turn({"busy": busy, "idle": lambda: 1}, 1.0, 2, cpu_clock=lambda: spent[0])

    assert rates["busy"].cpu_s == 0.25 and rates["idle"].cpu_s == 0.0


def test_a_case_has_the_share_of_its_limit_in_each_repetition():
    case = rate_case("a", {"size": 1}, "x/s", Rates((2.0, 3.0), 0.1), Rates((4.0, 4.0), 0.2), "cap")

    assert (case.value.median, case.limit.median, case.limit_name) == (2.5, 4.0, "cap")
    assert (case.share.min, case.share.max, case.cpu_s) == (0.5, 0.75, 0.1)
    assert rate_case("a", {}, "x/s", Rates((2.0,), 0.1)).share is None


def test_the_cpu_clock_counts_other_processes():
    code = "import sys\nfor _ in sys.stdin:\n sum(range(3_000_000))\n print('done', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        clock = cpu_clock_of([other.pid])
        alone, before = cpu_clock_of([]), clock()
        own = alone()
        for _ in range(3):  # 10 ms is the least that the system counts
            other.stdin.write("go\n")
            other.stdin.flush()
            other.stdout.readline()
        assert clock() - before > alone() - own
        other.stdin.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="only Linux resets it")
def test_the_peak_of_memory_can_be_counted_anew():
    with mmap.mmap(-1, 50_000_000) as large:  # what malloc gives back, it may keep
        large[:] = b"1" * 50_000_000
        with_it = peak_bytes()
    reset_peak()

    assert with_it - peak_bytes() > 30_000_000


def test_the_machine_is_described_without_loading_what_is_named():
    code = (
        "import sys; from distdqn.bench.result import describe_machine as d; m = d(); "
        "assert m['ray'] and m['gymnasium'] and m['torch'] and m['numba'], m; "
        "sys.exit(len({'ray', 'torch', 'gymnasium', 'numba'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0

    machine = describe_machine()
    assert machine["cores"] == usable_cores()
    assert machine["memory_bytes"] > 2**28 and len(machine["load_average"]) == 3
    assert machine["gpu"] is None and machine["numpy"] == np.__version__


def test_a_new_result_says_how_and_with_what_it_was_measured():
    @dataclasses.dataclass(frozen=True)
    class Options:
        sizes: tuple[int, ...] = (1, 2)
        device: str = "cpu"

    result = new_result("replay", Options(), [], ["a note"])

    assert result.options == {"sizes": (1, 2), "device": "cpu"} and result.notes == ("a note",)
    assert result.version == distdqn.__version__ and result.created[:2] == "20"
