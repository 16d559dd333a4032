"""How an asynchronous run ends, without Ray: the system is a plain object that writes a list."""

import os
import signal
import time
from types import SimpleNamespace

import pytest
from run_parts import small

from distdqn.errors import EnvFailure, RunError
from distdqn.reporting.progress import Progress
from distdqn.run.async_run import AsyncRun
from distdqn.run.interruption import BOUNDS_S, Interruption

LONG_S = 60.0
QUICK_S = 1.0  # the bound of a signal, in place of seconds


class System:
    """Ends as it is told; events: what was asked of it."""

    finished = False

    def __init__(self, first_poll=lambda: None, wind_down=lambda: None, save_s=0.0):
        self.events, self._wind_down, self._save_s = [], wind_down, save_s
        self._polls = iter([first_poll])

    def start(self, initial):
        self.events.append("start")

    def poll(self, timeout_s):
        next(self._polls, lambda: None)()
        time.sleep(min(timeout_s, 0.02))

    def last_poll(self):
        self.events.append("last poll")

    def wind_down(self, hear):
        self.events.append("wind down")
        self._wind_down()
        self.events.append("wound down")

    def learner_state(self):
        time.sleep(self._save_s)
        self.events.append("save")
        return {"inserts": 8, "learner": {"online": None}}


def send():
    os.kill(os.getpid(), signal.SIGINT)


def wait():
    time.sleep(LONG_S)


def fail(error):
    raise error


def train(tmp_path, system, finish=lambda stopped_by, *_: stopped_by):
    interruption = Interruption()
    interruption.bounds_s = dict.fromkeys(BOUNDS_S, QUICK_S)
    run = AsyncRun(
        SimpleNamespace(config=small(tmp_path), made_with=[], network_description=lambda: {}),
        SimpleNamespace(path=tmp_path, argument="run"), Progress(enabled=False), interruption,
    )  # fmt: skip
    checkpointer = SimpleNamespace(save=lambda state, env_steps: tmp_path / f"step_{env_steps}")
    run._record = SimpleNamespace(
        started=lambda: None, hear=lambda poll: None, state="", env_steps=8,
        checkpointer=checkpointer, finish=finish,
    )  # fmt: skip
    with interruption.heard():
        return run._train(system, None)


def test_after_a_signal_the_weights_are_saved_first_and_once_more_at_the_end(tmp_path):
    system = System(first_poll=send)
    assert train(tmp_path, system) == "SIGINT"
    assert system.events == ["start", "save", "wind down", "wound down", "save"]


def test_a_save_that_takes_too_long_leaves_the_wind_down_its_time(tmp_path):
    system = System(first_poll=send, save_s=LONG_S)
    assert train(tmp_path, system) == "SIGINT"
    assert system.events == ["start", "wind down", "wound down"]


def test_a_signal_as_a_failed_run_winds_down_breaks_that_off_and_the_weights_are_saved(tmp_path):
    failed = EnvFailure("the environment raised")
    system = System(first_poll=lambda: fail(failed), wind_down=lambda: (send(), wait()))
    began = time.monotonic()
    with pytest.raises(EnvFailure):
        train(tmp_path, system)
    assert system.events == ["start", "wind down", "save", "last poll"]
    assert time.monotonic() - began < LONG_S


def test_what_fails_at_the_very_end_saves_the_weights_too(tmp_path):
    system = System()
    system.finished = True
    with pytest.raises(RunError):
        train(tmp_path, system, finish=lambda *_: fail(RunError("the disk is full")))
    assert system.events == ["start", "save", "save", "last poll"]
