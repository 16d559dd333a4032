"""A signal while `train` or `resume` still checks and reads: nothing is begun, nothing left."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from run_parts import lockstep

import distdqn
from distdqn import api
from distdqn.run.checkpointer import Checkpointer

LONG_S = 60.0


def interrupted(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(LONG_S)


def test_an_interrupt_while_the_environment_is_made_ends_at_once_and_leaves_no_folder(tmp_path):
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        distdqn.train(lockstep(tmp_path), interrupted, display=False)
    assert time.monotonic() - began < LONG_S
    assert not (tmp_path / "runs" / "run").exists()


@pytest.mark.parametrize("place", [(api, "check_address"), (api, "initial_parameters")])
def test_so_does_one_in_any_other_check(tmp_path, monkeypatch, place):
    monkeypatch.setattr(*place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        distdqn.train(lockstep(tmp_path), display=False)
    assert not (tmp_path / "runs" / "run").exists()


def test_an_interrupt_before_a_run_goes_on_leaves_it_to_be_resumed(tmp_path, monkeypatch):
    save = Checkpointer.save_lockstep

    def save_and_interrupt(self, *given):
        os.kill(os.getpid(), signal.SIGINT)
        save(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save_lockstep", save_and_interrupt)
        distdqn.train(lockstep(tmp_path, checkpoint__period_rounds=2), display=False)
    path = tmp_path / "runs" / "run" / "run.json"
    before = path.read_bytes()
    assert json.loads(before)["state"] == "stopped"
    for place in [(api, "make_factory"), (Checkpointer, "load_lockstep")]:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(*place, interrupted)
            distdqn.resume("run", tmp_path / "runs", display=False)
        assert path.read_bytes() == before


STUCK = """
import hashlib, os, pathlib
import gymnasium

def make():
    pathlib.Path(os.environ["MAKING"]).touch()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # handlers in Python have to wait for it

gymnasium.register("Stuck-v0", entry_point=make)
"""


def test_a_commands_second_interrupt_ends_a_check_that_does_not_come_back(tmp_path):
    (tmp_path / "stuck.py").write_text(STUCK)
    making = tmp_path / "making"
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "distdqn", "train", "--env.id=stuck:Stuck-v0", "--mode=lockstep",
         f"--runs-dir={tmp_path / 'runs'}"],
        env=os.environ | {"PYTHONPATH": paths, "MAKING": str(making)},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + LONG_S
    while not making.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(2):
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LONG_S)
    assert process.returncode == 130 and "distdqn: ended at once" in err
    assert not (tmp_path / "runs").exists()
