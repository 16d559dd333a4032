"""Ctrl-C and SIGTERM while Ray and forty workers start: bounded, and nothing is left."""

import json
import os
import signal
import time
import uuid

import psutil
import pytest
from command_parts import start
from run_parts import small

from distdqn.errors import ResourceError
from distdqn.run.start_budget import check_start_fits

SLOW = """
import os, pathlib, time
import gymnasium

def make():
    if "RAY_RAYLET_PID" in os.environ:  # a worker's process
        pathlib.Path(os.environ["CONSTRUCTING"]).touch()
        time.sleep(600)
    return gymnasium.make("CartPole-v1").unwrapped

gymnasium.register("Slow-v0", entry_point=make, max_episode_steps=500)
"""
BUSY = 1.5  # a machine that others use takes its time, too


@pytest.fixture
def forty(tmp_path):
    """A run with forty workers that take forever to make their environments."""
    try:
        check_start_fits(small(tmp_path, workers__count=40), 0)
    except ResourceError as refusal:
        pytest.skip(f"this machine is too small: {refusal}")
    (tmp_path / "slow.py").write_text(SLOW)
    tag = uuid.uuid4().hex
    process = start(
        tmp_path,
        "--env.id=slow:Slow-v0",
        "--workers.count=40",
        "--workers.num-cpus=0.1",
        CONSTRUCTING=str(tmp_path / "constructing"),
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        OF_TEST=tag,
    )
    yield process
    for left in processes_of(tag):
        left.kill()
    process.communicate(timeout=60)


def processes_of(tag):
    return [process for process in psutil.process_iter() if is_of(process, tag)]


def is_of(process, tag):
    try:
        is_alive = process.status() != psutil.STATUS_ZOMBIE
        return is_alive and process.environ().get("OF_TEST") == tag
    except psutil.Error:
        return False


def wait_for(process, condition, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def end(process, tmp_path, *numbers):
    """Sends signals; (seconds until the end, stderr), once nothing is left of the run."""
    tag = psutil.Process(process.pid).environ()["OF_TEST"]
    sent = time.monotonic()
    for index, number in enumerate(numbers):
        time.sleep(0.3 * (index > 0))
        process.send_signal(number)
    _, err = process.communicate(timeout=300)
    seconds = time.monotonic() - sent
    deadline = time.monotonic() + 30
    while processes_of(tag):
        assert time.monotonic() < deadline, processes_of(tag)
        time.sleep(0.1)
    run = tmp_path / "run" / "run.json"
    if run.exists():
        assert json.loads(run.read_text())["state"] == "stopped"
    assert not (tmp_path / "run" / "ray_token").exists()
    assert "Traceback" not in err
    return seconds, err


@pytest.mark.parametrize(
    ("number", "status", "bound_s"),
    [(signal.SIGINT, 130, 10), pytest.param(signal.SIGTERM, 143, 20, marks=pytest.mark.long)],
)
def test_a_signal_while_forty_workers_start_ends_the_run_in_time(
    forty, tmp_path, number, status, bound_s
):
    wait_for(forty, (tmp_path / "constructing").exists)

    seconds, err = end(forty, tmp_path, number)

    assert forty.returncode == status, err
    assert seconds < BUSY * bound_s


def test_a_second_interrupt_while_ray_starts_ends_it_at_once(forty, tmp_path):
    wait_for(forty, lambda: len(psutil.Process(forty.pid).children()) > 1)

    seconds, err = end(forty, tmp_path, signal.SIGINT, signal.SIGINT)

    assert forty.returncode == 130, err
    assert seconds < BUSY * 4
