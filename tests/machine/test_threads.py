"""How many threads may still be started: the lowest of the limits, by its name."""

import math

import pytest

from distdqn.machine import threads
from distdqn.machine.threads import free_threads


def system(tmp_path, pid_max=32768, threads_max=100_000, there=500):
    """A proc file system that says so, for a process in the control group a/b."""
    proc = tmp_path / "proc"
    (proc / "sys" / "kernel").mkdir(parents=True)
    (proc / "self").mkdir()
    (proc / "loadavg").write_text(f"0.1 0.2 0.3 2/{there} 12345\n")
    (proc / "sys" / "kernel" / "pid_max").write_text(f"{pid_max}\n")
    (proc / "sys" / "kernel" / "threads-max").write_text(f"{threads_max}\n")
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    return tmp_path / "group", proc


def limit(group, where, most, there):
    folder = group / where
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pids.max").write_text(f"{most}\n")
    (folder / "pids.current").write_text(f"{there}\n")


@pytest.fixture(autouse=True)
def no_limit_of_the_user(monkeypatch):
    monkeypatch.setattr(threads, "_of_user", lambda: iter(()))


def test_the_lower_of_the_kernels_limits_counts(tmp_path):
    assert free_threads(*system(tmp_path)) == (32768 - 500, "kernel.pid_max")


def test_a_group_around_the_processs_own_counts_too(tmp_path):
    group, proc = system(tmp_path)
    limit(group, "a", 1_000, 400)
    limit(group, "a/b", "max", 300)
    assert free_threads(group, proc) == (600, "the control group's pids.max")


def test_what_is_used_up_is_none_and_what_is_unknown_has_no_limit(tmp_path):
    group, proc = system(tmp_path, there=40_000)
    assert free_threads(group, proc)[0] == 0
    assert free_threads(tmp_path / "nothing", tmp_path / "nothing") == (math.inf, "")
