"""`distdqn train --dry-run`: every check, no start."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from command_parts import run

from distdqn.cli.main import main


@pytest.fixture
def dry(tmp_path, apart, capfd):
    """Calls the command; its exit status, and the two streams. Nothing may be written."""

    def call(*words):
        runs = f"--runs-dir={tmp_path / 'runs'}"
        status = main(["train", "--dry-run", runs, *words])
        assert not (tmp_path / "runs").exists()
        output = capfd.readouterr()
        return status, output.out, output.err

    return call


def test_it_says_what_would_start_and_where(dry):
    status, out, err = dry("--workers.count=2", "--replay.shards=2")

    assert (status, err) == (0, "")
    for words in (
        "CartPole-v1: 4 float32 observations, 2 actions",
        "torso auto, 10,934 parameters",
        "100,000 env steps, epsilon from 1 to 0.05 in 50,000 env steps; 9,900 updates of 128 "
        "transitions, 12.8 samples per insert, within ",
        " samples; an evaluation every 10,000 env steps\n",
        "bytes per transition",
        "processes with about ",
        "embedded on this machine, with 8 CPUs and 0 GPUs declared",
        "2 of 16 envs, 1 CPU each\n",
        "nothing was started (--dry-run)\n",
    ):
        assert words in out


def test_a_ladder_is_said_by_its_ends(dry):
    out = dry("--preset=apex", "--eval.period-env-steps=none")[1]

    assert "epsilon 0.4 in the first env to 0.00066 in the last; " in out
    assert "no evaluation before the end" in out


def test_beside_the_configuration_it_goes_to_stderr(dry):
    status, out, err = dry("--print-config")

    assert status == 0 and out.startswith("total_env_steps: ") and "env workers" not in out
    assert "env workers" in err


def test_a_cluster_is_named_and_not_joined(dry, monkeypatch):
    monkeypatch.setattr("distdqn.run.joining.check_cluster", lambda choice: None)
    status, out, _ = dry("--address=10.9.8.7:6379", "--learner.num-gpus=1")

    assert status == 0
    assert "the cluster at 10.9.8.7:6379, which must have 2 CPUs and 1 GPUs free" in out
    assert "1, 1 CPU, 1 GPU, on any node" in out and "spread over the nodes" in out
    assert "processes with" not in out
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert "the cluster at auto (RAY_ADDRESS), which must have" in dry()[1]
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert "embedded on this machine" in dry()[1]


def test_lockstep_has_no_ray(dry):
    out = dry("--mode=lockstep")[1]

    assert "none; mode lockstep is one process" in out and "samples per insert; an" in out
    assert "env workers" not in out


def test_a_schedule_that_outlasts_the_run_is_said(dry):
    status, _, err = dry("--preset=cartpole", "--total-env-steps=4000")

    assert status == 0
    assert "workers.epsilon.value reaches 0.05 after 10,000 env steps, the run ends at 4,000" in err


def test_json_has_the_same_parts(dry):
    status, out, _ = dry("--json")

    assert status == 0
    assert json.loads(out)["plan"]["env workers"] == "1 of 16 envs, 1 CPU each"


def test_it_starts_no_ray():
    code = (
        "from distdqn.cli.main import main; status = main(['train', '--dry-run']); import ray; "
        "sys.exit(status or ray.is_initialized())"
    )

    assert run(code=code).returncode == 0


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--env.id=CartPol-v1"], "no environment 'CartPol-v1' is registered"),
        (["--env.id=Pendulum-v1"], "Pendulum-v1"),
        (["--replay.capacity=900000000000"], "GiB are free; lower --replay.capacity"),
        (["--network.torso=nature"], "are no pictures"),
        (["--address=127.0.0.1:1"], "127.0.0.1:1"),
        (["--network.torso=nomod:x"], "torso 'nomod:x'"),
        (["--init-from=nowhere"], "no run 'nowhere' in"),
        (["--seed=-1"], "seed is -1, must be at least 0"),
    ],
)
def test_what_the_run_would_refuse_is_refused(dry, words, refusal):
    status, out, err = dry(*words)

    assert (status, out) == (2, "")
    assert err.startswith("distdqn train: ") and refusal in err and err.count("\n") == 1


def test_a_gpu_that_is_not_there_is_refused(dry, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    status, _, err = dry("--learner.num-gpus=2")

    assert status == 2 and "learner.num_gpus is 2 but PyTorch sees 1 GPUs here" in err


@pytest.mark.parametrize("word", ["--run-name=taken", "--runs-dir=file/runs"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch, capsys, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "file").touch()

    assert main(["train", "--dry-run", word]) == 2
    shown = capsys.readouterr().err
    assert "is taken" in shown or "cannot make a folder in file/runs: Not a directory" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]


def test_a_custom_torso_is_made(dry, tmp_path, monkeypatch):
    (tmp_path / "own_torso.py").write_text(
        "import torch\ndef make(space): return torch.nn.Linear(space.shape[0], 7), 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_torso", raising=False)

    assert "torso own_torso:make, 51 parameters" in dry("--network.torso=own_torso:make")[1]
