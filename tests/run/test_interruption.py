"""A signal breaks off what takes too long, and ends the process where nothing else does."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest

from distdqn.run.interruption import BOUNDS_S, Interruption

LONG_S = 60.0


def send(name, pid=None):
    os.kill(pid or os.getpid(), getattr(signal, name))


@pytest.mark.parametrize(
    ("name", "raised"), [("SIGINT", KeyboardInterrupt), ("SIGTERM", SystemExit)]
)
def test_where_nothing_is_lost_a_signal_breaks_off_at_once(name, raised):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interruption = Interruption()
    with pytest.raises(raised) as left, interruption.heard(), interruption.until(0):
        send(name)
        time.sleep(LONG_S)
    assert interruption.name == name
    assert name == "SIGINT" or left.value.code == 143
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_elsewhere_it_is_noted_and_breaks_off_what_goes_on_for_too_long():
    interruption = Interruption({"SIGINT": LONG_S, "SIGTERM": LONG_S})
    broken = False
    with interruption.heard():
        send("SIGINT")
        assert interruption.name == "SIGINT" and not interruption.passed(0.5)
        try:
            with interruption.until(0.005):
                time.sleep(LONG_S)
        except KeyboardInterrupt:
            broken = True
        time.sleep(0.3)  # outside it comes no more
    assert broken and interruption.passed(0.005)


def test_without_a_bound_the_run_takes_its_time():
    interruption = Interruption({"SIGINT": math.inf, "SIGTERM": 20.0})
    with interruption.heard(), interruption.until(0.001):
        send("SIGINT")
        time.sleep(0.3)
    assert not interruption.passed(0.001)


def test_a_key_that_arrives_twice_counts_once():
    interruption = Interruption()
    with interruption.heard():
        send("SIGINT")
        send("SIGINT")
        time.sleep(0.3)
    assert interruption.name == "SIGINT"


def test_the_bounds_are_those_that_users_are_told():
    assert BOUNDS_S == {"SIGINT": 10.0, "SIGTERM": 20.0}


STUCK = """
import hashlib, sys
from distdqn.run.interruption import Interruption
interruption = Interruption({"SIGINT": float(sys.argv[1]), "SIGTERM": float(sys.argv[1])})
interruption.last_acts += [lambda: 1 / 0, lambda: print("last act", flush=True)]
with interruption.heard(), interruption.until(0):
    print("stuck", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # handlers in Python have to wait for it
"""


def stuck(bound_s, *names):
    """A process whose main thread is lost in a library gets signals; what it says, its status."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(bound_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "stuck\n"
        time.sleep(0.3)  # now it is
        for name in names:
            send(name, process.pid)
            time.sleep(0.5)
        out, err = process.communicate(timeout=LONG_S)
    return out, err, process.returncode


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_process_that_does_not_obey_is_ended_by_force(name, status):
    out, err, returned = stuck(1.0, name)
    assert (out, returned) == ("last act\n", status)
    assert f"did not end in time after {name}: ended by force" in err


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_interrupt_ends_a_process_at_once_whatever_it_does(first):
    out, err, returned = stuck(3600.0, first, "SIGINT")
    assert (out, returned) == ("last act\n", 130)
    assert "distdqn: ended at once" in err
