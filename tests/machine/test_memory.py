"""Memory taken, needed, and kept: what is freed is taken again, not asked for anew."""

import os
import platform
import subprocess
import sys
import types

import psutil
import pytest

from distdqn.errors import ResourceError
from distdqn.machine.memory import free_memory, free_swap, tree_pss_bytes
from distdqn.replay.layout import check_replay_fits


def test_a_replay_that_fits_passes_and_one_that_does_not_is_refused_with_both_sizes():
    check_replay_fits(needed_bytes=1 << 20, capacity=1000)
    available = psutil.virtual_memory().available
    with pytest.raises(ResourceError) as caught:
        check_replay_fits(needed_bytes=available * 2, capacity=1_000_000)
    line = str(caught.value)
    assert "replay.capacity 1,000,000 needs" in line
    assert "GiB are free" in line
    assert "lower --replay.capacity" in line


@pytest.mark.parametrize(("limit", "free"), [("3000000", 2_100_000), ("max", None)])
def test_free_is_what_the_control_group_has_left_where_that_is_less(tmp_path, limit, free):
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("1000000")
    (tmp_path / "memory.stat").write_text("anon 900000\ninactive_file 100000\n")
    if free is None:
        assert free_memory(tmp_path) > 3_000_000
    else:
        assert free_memory(tmp_path) == free


def test_the_groups_around_this_one_count_too(tmp_path, monkeypatch):
    proc, own = tmp_path / "proc", tmp_path / "groups" / "outer" / "own"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/outer/own\n")
    own.mkdir(parents=True)
    for folder, limit in ((own, "max"), (own.parent, "3000000")):
        for name in ("memory", "memory.swap"):
            (folder / f"{name}.max").write_text(limit)
            (folder / f"{name}.current").write_text("1000000")
        (folder / "memory.stat").write_text("inactive_file 100000\n")
    monkeypatch.setattr(psutil, "swap_memory", lambda: types.SimpleNamespace(free=10**9))

    assert free_memory(tmp_path / "groups", proc) == 2_100_000
    assert free_swap(tmp_path / "groups", proc) == 2_000_000
    assert free_swap(tmp_path / "nowhere", proc) == 10**9


def test_the_tree_takes_at_least_this_process_and_less_than_all_its_mappings():
    pss = tree_pss_bytes(os.getpid())
    process = psutil.Process()
    resident = sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    assert 0 < pss <= resident * 1.1


FAULTS_OF_TEN_ARRAYS = """
import resource, sys
import numpy as np
from distdqn.machine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def touch():
    np.empty(64 << 20, np.uint8)[::4096] = 1
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    command = [sys.executable, "-c", FAULTS_OF_TEN_ARRAYS, how]
    return int(subprocess.run(command, capture_output=True, check=True, timeout=300).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_arrays_of_64_megabytes_come_from_memory_that_was_freed():
    given_back, kept = page_faults("give back"), page_faults("keep")

    assert given_back >= 10 * 32  # huge pages of 2 MiB at least
    assert kept < given_back / 10
