"""Memory that is freed is taken again, not asked for anew."""

import platform
import subprocess
import sys

import pytest

FAULTS_OF_TEN_ARRAYS = """
import resource, sys
import numpy as np
from distdqn.machine.process_memory import keep_freed_memory
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
