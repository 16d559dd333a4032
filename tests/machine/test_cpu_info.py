"""The words of /proc/cpuinfo."""

import sys

import pytest

from distdqn.machine.cpu import cpu_flags, cpu_info, cpu_model


def test_a_line_that_is_not_there_gives_the_platforms_own_word():
    assert cpu_info("no such line") and "\n" not in cpu_info("no such line")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_values_come_without_their_names():
    for value in (cpu_flags(), cpu_model()):
        assert value and ":" not in value.partition(" ")[0]
