"""Memory taken and needed."""

import os

import psutil
import pytest

from distdqn.errors import ResourceError
from distdqn.machine.process_memory import tree_pss_bytes
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


def test_the_tree_takes_at_least_this_process_and_less_than_all_its_mappings():
    pss = tree_pss_bytes(os.getpid())
    process = psutil.Process()
    resident = sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    assert 0 < pss <= resident * 1.1
