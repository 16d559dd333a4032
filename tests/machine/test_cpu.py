"""Thread and machine times, against a CPU that is kept busy and files written by hand."""

import math
import os
import threading
import time
from types import SimpleNamespace

import pytest

from distdqn.machine import cpu
from distdqn.machine.cpu import ThreadClock, ThreadTimes, machine_busy_s, usable_cores


def compute(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.fixture
def whole_machine(monkeypatch):
    cores = usable_cores()
    monkeypatch.setattr(os, "cpu_count", lambda: cores)


def proc(tmp_path, line):
    """A proc file system in which this thread has `line` as its schedstat."""
    folder = tmp_path / "self" / "task" / str(threading.get_native_id())
    folder.mkdir(parents=True)
    (folder / "schedstat").write_text(line)
    return tmp_path


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="no thread times in /proc")
def test_a_clock_counts_the_computing_of_its_own_thread_only():
    clock, began = ThreadClock(), time.thread_time()
    before = clock.read()
    other = threading.Thread(target=compute, args=(0.05,))
    other.start()
    other.join()
    compute(0.05)

    spent = clock.read().cpu_s - before.cpu_s

    assert spent == pytest.approx(time.thread_time() - began, abs=0.02)


def test_a_clock_reads_the_first_two_numbers_as_nanoseconds(tmp_path):
    clock = ThreadClock(proc(tmp_path, "2500000000 500000000 12\n"))
    assert clock.read() == ThreadTimes(cpu_s=2.5, queued_s=0.5)


@pytest.mark.parametrize("line", ["", "x y z"])
def test_a_line_that_says_nothing_is_unknown(tmp_path, line):
    assert ThreadClock(proc(tmp_path, line)).read() == ThreadTimes(0.0, 0.0)


def test_a_system_without_thread_times_gives_zeros(tmp_path):
    assert ThreadClock(tmp_path).read() == ThreadTimes(0.0, 0.0)


def test_the_machine_is_busy_whenever_it_does_not_idle(tmp_path, whole_machine):
    ticks = os.sysconf("SC_CLK_TCK")
    user, nice, system, idle, iowait, irq, softirq, steal, guest = 5, 4, 3, 100, 50, 2, 1, 6, 5
    numbers = (user, nice, system, idle, iowait, irq, softirq, steal, guest, 0)
    (tmp_path / "stat").write_text(f"cpu  {' '.join(str(n * ticks) for n in numbers)}\ncpu0 1\n")

    assert machine_busy_s(tmp_path) == 5 + 4 + 3 + 2 + 1 + 6


@pytest.mark.parametrize("text", [None, "cpu  one two\n"])
def test_a_machine_that_does_not_tell_is_unknown(tmp_path, whole_machine, text):
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert math.isnan(machine_busy_s(tmp_path))


def test_a_machine_of_which_this_process_may_use_a_part_is_unknown(monkeypatch):
    more = usable_cores() + 1
    monkeypatch.setattr(os, "cpu_count", lambda: more)
    assert math.isnan(machine_busy_s())


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        (None, 8),
    ],
)
def test_a_quota_limits_the_cores(tmp_path, monkeypatch, quota, cores):
    eight = SimpleNamespace(cpu_count=lambda: 8, sched_getaffinity=lambda _: set(range(8)))
    monkeypatch.setattr(cpu, "os", eight)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)

    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_affinities_all_cores_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "os", SimpleNamespace(cpu_count=lambda: None))
    assert usable_cores(tmp_path / "none") == 1
