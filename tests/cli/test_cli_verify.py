"""`distdqn verify`: what it plans, writes, prints and returns."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tabular_parts import made_up, made_up_result, tiny

import distdqn.tabular.verification
from distdqn.cli import verify as command
from distdqn.cli.main import main
from distdqn.envs.tables import TAXI
from distdqn.tabular.plan import Bound, PlannedRun

ERROR_BOUND = Bound("max_error", 0.03, True)


@pytest.fixture
def verified(monkeypatch):
    """Replaces the runs by a made-up verification; keeps what was asked for."""
    asked: dict = {"found": made_up([made_up_result(bounds=(ERROR_BOUND,))])}

    def verify(folder, runs, seeds, seed, train, say):
        asked.update(folder=folder, runs=runs, seeds=list(seeds), seed=seed)
        say("1/1 done")
        return asked["found"]

    monkeypatch.setattr(distdqn.tabular.verification, "verify", verify)
    monkeypatch.setattr(command, "one_ray", lambda folder, runs: contextlib.nullcontext())
    return asked


def test_all_that_holds_ends_with_0_a_table_and_two_files(verified, tmp_path, capsys):
    assert main(["verify", "--runs-dir", str(tmp_path)]) == 0

    (folder,) = tmp_path.iterdir()
    assert verified["folder"] == folder and folder.name.startswith("verify-")
    assert json.loads((folder / "verify.json").read_text())["holds"] is True
    assert (folder / "verify.html").read_text().startswith("<!doctype html>")
    shown = capsys.readouterr()
    assert shown.out == ""
    for words in ("1/1 done", "lake-table", "0.0100", "holds", "CartPole", "verify.html"):
        assert words in shown.err


def test_a_missed_bound_ends_with_1_and_is_named_with_its_figure(verified, tmp_path, capsys):
    verified["found"] = made_up([made_up_result(error=0.5, bounds=(ERROR_BOUND,))])

    assert main(["verify", "--runs-dir", str(tmp_path)]) == 1

    assert "missed lake-table: max_error is 0.5, must be at most 0.03" in capsys.readouterr().err


def test_json_is_alone_on_stdout(verified, tmp_path, capfd):
    assert main(["verify", "--json", "--runs-dir", str(tmp_path)]) == 0

    shown = capfd.readouterr()
    assert json.loads(shown.out)["runs"][0]["name"] == "lake-table"
    assert "1/1 done" in shown.err


def test_full_adds_slow_runs_and_seeds(verified, tmp_path):
    main(["verify", "--runs-dir", str(tmp_path), "--seed", "6"])
    quick = dict(verified)
    main(["verify", "--runs-dir", str(tmp_path), "--full"])

    assert quick["seed"] == 6 and verified["seed"] == 1
    assert quick["seeds"] == [1, 2, 3] and len(verified["seeds"]) > 3
    added = {run.name for run in verified["runs"]} - {run.name for run in quick["runs"]}
    assert added == {"taxi-mlp", "frozenlake8x8-mlp"}


def test_an_env_of_ones_own_is_verified_alone(verified, tmp_path):
    words = ["--env.id", "FrozenLake-v1", "--env.kwargs", '{"is_slippery": false}']

    assert main(["verify", "--runs-dir", str(tmp_path), *words]) == 0

    assert verified["seeds"] == []
    configs = [run.config("runs", 1) for run in verified["runs"]]
    assert {config.env.id for config in configs} == {"FrozenLake-v1"}
    assert all(config.env.kwargs == {"is_slippery": False} for config in configs)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--env.id", "CartPole-v1"], "has no transition table"),
        (["--env.id", "Taxi-v5"], f"closest: {TAXI}"),
        (["--env.kwargs", "{}"], "--env.id must be too"),
        (["--env.id", TAXI, "--env.kwargs", "{"], "not JSON or YAML"),
        (["--env.id", TAXI, "--env.kwargs", "3"], "must be a mapping"),
        (["--env.idd", TAXI], "did you mean --env.id"),
        (["--seed", "-1"], "at least 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(verified, tmp_path, capsys, words, line):
    assert main(["verify", "--runs-dir", str(tmp_path / "runs"), *words]) == 2

    shown = capsys.readouterr().err
    assert line in shown and shown.count("\n") == 1
    assert not (tmp_path / "runs").exists()  # nothing was begun


def test_an_address_that_cannot_be_joined_is_refused_before_there_is_a_folder(
    tmp_path, capsys, apart, monkeypatch
):
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    assert main(["verify", "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "RAY_ADDRESS=nonsense" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_one_line(verified, tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert main(["verify", "--runs-dir", str(tmp_path / "file")]) == 2

    assert "choose another place with --runs-dir" in capsys.readouterr().err


def test_help_names_every_flag_and_default(capsys):
    with pytest.raises(SystemExit):
        main(["verify", "--help"])

    shown = " ".join(capsys.readouterr().out.split())
    for flag in ("--full", "--env.id", "--env.kwargs", "--seed", "--runs-dir", "--json"):
        assert flag in shown
    assert "default: runs" in shown and "default: 1" in shown


# --- with Ray ------------------------------------------------------------------------


def small_async(name):
    values = {
        **tiny().values,
        "mode": "async",
        "learner.superbatch": 4,
        "learner.snapshot_period_s": 0.5,
        "checkpoint.period_s": 0.5,
    }
    return PlannedRun(name, "FrozenLake 4x4", "table", values)


def main_with_runs(names: list[str], *words: str) -> int:
    """`distdqn verify` with small runs and no ablation, in a process of its own."""
    runs = [small_async(name) for name in names]
    command.plan_of = lambda options: (runs, ())
    return main(["verify", *words])


def start(tmp_path: Path, names: list[str]) -> subprocess.Popen:
    # A shell's background job ignores Ctrl-C, and its children do; this one is to heed it.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"import sys, test_cli_verify as t; sys.exit(t.main_with_runs({names}, *sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "--runs-dir", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))},
    )


def test_one_ray_serves_all_runs(tmp_path):
    process = start(tmp_path, ["first", "second"])
    shown = process.communicate(timeout=300)[1]

    assert process.returncode == 0, shown
    (folder,) = tmp_path.iterdir()
    runs = [json.loads((folder / name / "run.json").read_text()) for name in ("first", "second")]
    assert runs[0]["address"] == runs[1]["address"] and runs[0]["state"] == "finished"
    assert not (folder / "ray_token").exists()
    found = json.loads((folder / "verify.json").read_text())
    assert [run["counts_close"] for run in found["runs"]] == [True, True]
    assert "2/2 FrozenLake 4x4, table" in shown


def test_ctrl_c_ends_with_130(tmp_path):
    process = start(tmp_path, [f"run-{i}" for i in range(50)])
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("*/run-0/config.yaml")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)

    shown = process.communicate(timeout=300)[1]

    assert process.returncode == 130, shown
    assert shown.rstrip().endswith("distdqn verify: interrupted")
    assert not list(tmp_path.glob("*/verify.json"))
