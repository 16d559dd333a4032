"""`distdqn train --mode lockstep` and `distdqn resume` as processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_parts import start, wait_until_training


def lockstep(tmp_path, *words, steps=40_000, period=20):
    return start(
        tmp_path,
        "--mode=lockstep",
        f"--total-env-steps={steps}",
        f"--checkpoint.period-rounds={period}",
        "--eval.period-env-steps=none",
        *words,
    )


def resume(tmp_path, *words):
    return subprocess.run(
        [sys.executable, "-m", "distdqn", "resume", "run", f"--runs-dir={tmp_path}", *words],
        capture_output=True,
        text=True,
        timeout=300,
    )


def wait_for_checkpoints(tmp_path, process, count):
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "run" / "checkpoints").glob("step_*/manifest.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The summary of the run that was not broken off."""
    process = lockstep(tmp_path_factory.mktemp("whole"), "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path, whole):
    process = lockstep(tmp_path)
    wait_for_checkpoints(tmp_path, process, 2)
    process.kill()
    process.communicate(timeout=300)

    done = resume(tmp_path, "--json")

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["weights_sha256"] == whole["weights_sha256"]
    assert "going on after round" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_next_checkpoint_and_the_run_can_be_resumed(
    tmp_path, whole, number, status
):
    process = lockstep(tmp_path, "--json")
    wait_until_training(tmp_path, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    summary = json.loads(out)
    assert summary["stopped_by"] == number.name and summary["env_steps"] < 40_000
    newest = tmp_path / "run" / "checkpoints" / f"step_{summary['env_steps']}"
    assert (newest / "run_state.msgpack").exists()
    assert "Traceback" not in err

    done = resume(tmp_path, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights_sha256"] == whole["weights_sha256"]


def test_a_second_interrupt_does_not_wait(tmp_path):
    process = lockstep(tmp_path, steps=50_000_000, period=10_000_000)
    wait_until_training(tmp_path, process)
    process.send_signal(signal.SIGINT)
    at_the_end = "stopping (SIGINT) at the end, which comes before the next checkpoint"
    while at_the_end not in (line := process.stderr.readline()):
        assert process.poll() is None
    assert "all the work, there is none yet, is lost" in line

    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)  # at once it would count as the same press of a key
        process.send_signal(signal.SIGINT)

    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "ended at once" in err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "stopped"
    assert "no checkpoint to resume from" in resume(tmp_path).stderr


def test_lockstep_in_one_process_needs_no_ray(tmp_path):
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from distdqn.cli.main import main\n"
        f"sys.exit(main(['train', '--mode=lockstep', '--total-env-steps=2000',"
        f" '--eval.final-episodes=1', '--eval.video-episodes=0', '--runs-dir={tmp_path}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=os.environ
    )

    assert done.returncode == 0, done.stderr


def test_resuming_what_is_not_there_is_one_line(tmp_path):
    done = resume(tmp_path)

    assert done.returncode == 2
    assert (
        done.stderr.startswith("distdqn resume: no run 'run' in") and "\n" not in done.stderr[:-1]
    )
