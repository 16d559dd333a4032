"""`distdqn train` as a process of its own: embedded Ray, a cluster, and signals."""

import json
import os
import signal
import stat
import time

import psutil
import pytest
from command_parts import start, wait_until_training


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_an_embedded_run_with_its_weights_saved(tmp_path, number, status):
    process = start(tmp_path, "--total-env-steps=50000000", "--json")
    wait_until_training(tmp_path, process)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stat.S_IMODE(os.stat(run["token_file"]).st_mode) == 0o600
    ray_modes = {
        child.environ()["RAY_AUTH_MODE"]
        for child in psutil.Process(process.pid).children()
        if child.name() in ("gcs_server", "raylet")
    }
    assert ray_modes == {"token"}
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    summary = json.loads(out)
    assert summary["stopped_by"] == number.name
    assert summary["transitions_collected"] == (
        summary["transitions_accepted"]
        + summary["transitions_refused"]
        + summary["transitions_lost"]
    )
    assert list((tmp_path / "run" / "checkpoints").glob("step_*/manifest.json"))
    assert "Traceback" not in err


def test_a_second_interrupt_ends_at_once(ray_cluster, tmp_path):
    process = start(
        tmp_path,
        "--total-env-steps=50000000",
        f"--address={ray_cluster.address}",
        RAY_AUTH_MODE="disabled",
    )
    wait_until_training(tmp_path, process)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    process.communicate(timeout=300)
    assert process.returncode == 130


def test_the_same_command_runs_on_a_cluster(ray_cluster, tmp_path):
    process = start(
        tmp_path,
        "--total-env-steps=2000",
        f"--address={ray_cluster.address}",
        "--json",
        RAY_AUTH_MODE="disabled",
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["env_steps"] == 2000


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
        ("http://127.0.0.1:8265", "ray job submit --address http://127.0.0.1:8265"),
    ],
)
def test_an_address_that_cannot_be_joined_is_one_line(tmp_path, address, line):
    process = start(tmp_path, f"--address={address}")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    errors = [text for text in err.splitlines() if text.startswith("distdqn: error:")]
    assert len(errors) == 1
    assert line in errors[0]
    assert "Traceback" not in err
