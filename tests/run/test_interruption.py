"""A signal breaks off what takes too long, and ends the process where nothing else does."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from distdqn.run import interruption as module
from distdqn.run.interruption import BOUNDS_S, Interruption

LONG_S = 60.0


def send(name, pid=None):
    os.kill(pid or os.getpid(), getattr(signal, name))


def handlers():
    return [signal.getsignal(getattr(signal, name)) for name in BOUNDS_S]


def bounded(**bounds_s):
    interruption = Interruption()
    interruption.bounds_s = BOUNDS_S | bounds_s
    return interruption


@pytest.fixture(autouse=True)
def not_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("name", "raised", "status"),
    [
        ("SIGINT", KeyboardInterrupt, None),
        ("SIGTERM", SystemExit, 143),
        ("SIGHUP", SystemExit, 129),
    ],
)
def test_where_nothing_is_lost_a_signal_breaks_off_at_once(name, raised, status):
    before = handlers()
    interruption = Interruption()
    with pytest.raises(raised) as left, interruption.heard(), interruption.until(0):
        send(name)
        time.sleep(LONG_S)
    assert interruption.name == name
    assert getattr(left.value, "code", None) == status
    assert handlers() == before


def test_elsewhere_it_is_noted_and_breaks_off_what_goes_on_for_too_long():
    interruption = bounded(SIGINT=LONG_S)
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
    interruption = bounded(SIGINT=math.inf)
    with interruption.heard(), interruption.until(0.001):
        send("SIGINT")
        time.sleep(0.3)
    assert not interruption.passed(0.001)


def test_what_is_broken_off_can_be_left_out():
    interruption = bounded(SIGINT=LONG_S)
    with interruption.heard():
        send("SIGINT")
        with interruption.left_out_after(0.005):
            time.sleep(LONG_S)
    assert interruption.name == "SIGINT"


def test_without_a_signal_a_keyboard_interrupt_is_not_left_out():
    with pytest.raises(KeyboardInterrupt), Interruption().left_out_after(0.5):
        raise KeyboardInterrupt


def test_a_second_interrupt_from_python_raises_at_once_even_where_things_are_left_out():
    interruption = bounded(SIGINT=3600.0)
    with pytest.raises(KeyboardInterrupt), interruption.heard():
        send("SIGINT")
        time.sleep(0.3)
        threading.Timer(0.1, send, ["SIGINT"]).start()
        with interruption.left_out_after(0.5):
            time.sleep(LONG_S)
    assert interruption.passed(0.5)  # what else there is to do has no time


def test_a_key_that_arrives_twice_counts_once(monkeypatch):
    monkeypatch.setattr(module, "_SAME_KEY_S", LONG_S)
    interruption = Interruption()
    with interruption.heard():
        send("SIGINT")
        send("SIGINT")
        time.sleep(0.3)
    assert interruption.name == "SIGINT"


def test_the_bounds_are_those_that_users_are_told():
    assert BOUNDS_S == {"SIGINT": 10.0, "SIGTERM": 20.0, "SIGHUP": 20.0}


def test_a_main_thread_that_does_not_come_back_is_left_a_core(monkeypatch):
    breaks, kill = [], signal.pthread_kill
    monkeypatch.setattr(signal, "pthread_kill", lambda *given: breaks.append(kill(*given)))
    interruption, began = bounded(SIGINT=LONG_S), time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruption.heard(), interruption.until(0.001):
        send("SIGINT")
        hashlib.pbkdf2_hmac("sha256", b"", b"", 3 * 10**6)  # handlers wait, a second or more
    assert 1 <= len(breaks) <= 1 + (time.monotonic() - began) / module._LOOK_S


def test_under_nohup_a_closed_terminal_is_not_heard():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = Interruption()
    with interruption.heard(), interruption.until(0):
        send("SIGHUP")
        time.sleep(0.2)
    assert not interruption.name


def test_no_interrupt_is_lost_in_a_destructor(monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    class Ends:
        def __del__(self):
            send("SIGINT")
            time.sleep(0.05)

    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt), interruption.heard(), interruption.until(0):
        Ends()
        time.sleep(LONG_S)
    assert not lost


FORKING = """
import os, signal, subprocess, time
from distdqn.run.interruption import Interruption

def hook():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)

os.register_at_fork(after_in_parent=hook)
interruption = Interruption()
with interruption.heard(), interruption.until(0):
    subprocess.Popen(["true"], preexec_fn=int).wait()  # forks, as Ray's start does
    time.sleep(60)
"""


def test_no_interrupt_is_lost_in_what_a_fork_calls():
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=LONG_S
    )
    assert done.returncode == -signal.SIGINT
    assert "Exception ignored" not in done.stderr


STUCK = """
import hashlib, signal, sys
from distdqn.run.interruption import BOUNDS_S, Interruption
signal.signal(signal.SIGHUP, signal.SIG_DFL)
interruption = Interruption(by_force=True)
interruption.bounds_s = dict.fromkeys(BOUNDS_S, float(sys.argv[1]))
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


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_process_that_does_not_obey_is_ended_by_force(name, status):
    out, err, returned = stuck(1.0, name)
    assert (out, returned) == ("last act\n", status)
    assert f"did not end in time after {name}: ended by force" in err


@pytest.mark.parametrize("first", BOUNDS_S)
def test_a_second_interrupt_ends_a_process_at_once_whatever_it_does(first):
    out, err, returned = stuck(3600.0, first, "SIGINT")
    assert (out, returned) == ("last act\n", 130)
    assert "distdqn: ended at once" in err
