"""`distdqn train` as a process of its own: embedded Ray, a cluster, and signals."""

import contextlib
import json
import os
import signal
import stat
import threading
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
    assert not os.path.exists(run["token_file"])
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
        time.sleep(0.3)
    process.communicate(timeout=300)
    assert process.returncode == 130


@pytest.fixture
def terminal():
    """A terminal to write to, and what it has been shown so far."""
    reader, writer = os.openpty()
    shown = bytearray()

    def read():
        with contextlib.suppress(OSError):
            while data := os.read(reader, 65536):
                shown.extend(data)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield writer, shown
    os.close(writer)
    thread.join(timeout=60)
    os.close(reader)


def test_the_same_command_runs_on_a_cluster_and_tells_what_it_waits_for(
    ray_cluster, tmp_path, terminal
):
    writer, shown = terminal
    process = start(
        tmp_path,
        "--total-env-steps=2000",
        f"--address={ray_cluster.address}",
        "--json",
        RAY_AUTH_MODE="disabled",
        stderr=writer,
    )
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    assert json.loads(out)["env_steps"] == 2000
    told = (
        b"joining the Ray cluster: 0 s",
        b"starting 1 worker, 1 shard and the learner: 0 s",
        b"evaluating the last weights, 2 episodes: 0 s",
        b"ending Ray: 0 s",
    )
    places = [shown.find(words) for words in told]
    assert -1 not in places and places == sorted(places), shown


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("nonsense", "--address nonsense is no address"),
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1: Connection refused"),
        ("http://127.0.0.1:8265", "ray job submit --address http://127.0.0.1:8265"),
    ],
)
def test_an_address_that_cannot_be_joined_is_one_line(tmp_path, address, line):
    process = start(tmp_path, f"--address={address}")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    errors = [text for text in err.splitlines() if text.startswith("distdqn train: ")]
    assert len(errors) == 1
    assert line in errors[0]
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
