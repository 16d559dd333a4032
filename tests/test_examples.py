"""Every script in `examples/` runs as a user would run it, only shorter."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from distdqn.config import load_config

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = ["--total-env-steps", "1300"]


@pytest.fixture
def in_examples(monkeypatch, tmp_path):
    """Runs a script in this process, in lockstep; returns what `main` printed, and its run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    before = set(gymnasium.registry)

    def run(name, *words):
        script = str(EXAMPLES / name)
        monkeypatch.setattr(sys, "argv", [script, *SHORT, "--mode", "lockstep", *words])
        runpy.run_path(script, run_name="__main__")
        (folder,) = (tmp_path / "runs").iterdir()
        return folder

    yield run
    for env_id in set(gymnasium.registry) - before:
        del gymnasium.registry[env_id]


def test_every_example_has_a_test():
    text = Path(__file__).read_text()
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))


def test_an_environment_from_a_function(in_examples, capsys):
    folder = in_examples("own_environment.py")
    assert capsys.readouterr().out.startswith("mean return ")
    assert list((folder / "videos").iterdir()), "the example renders"


def test_an_environment_by_its_id(in_examples, capsys, recwarn):
    folder = in_examples("own_environment.py", "--registered")
    assert load_config(folder / "config.yaml").env.id == "own_environment:Lift-v0"
    assert not [warning for warning in recwarn if "Overriding" in str(warning.message)]
    assert capsys.readouterr().out.startswith("mean return ")


def test_the_lift_does_as_gymnasium_asks(in_examples):
    lift = runpy.run_path(str(EXAMPLES / "own_environment.py"))["Lift"]
    check_env(lift(), skip_render_check=True)


def test_action_masks(in_examples, capsys):
    in_examples("action_masks.py")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[3 4 5]: take ")
    assert lines[-1].split(";")[0] in ("won", "lost")


def test_the_mask_of_nim_allows_what_the_heaps_hold():
    env = runpy.run_path(str(EXAMPLES / "action_masks.py"))["Nim"]()
    _, info = env.reset(seed=0)
    mask = info["action_mask"].reshape(3, 5)
    np.testing.assert_array_equal(mask.sum(axis=1), [3, 4, 5])


def test_the_python_api(in_examples, capsys):
    folder = in_examples("python_api.py")
    out = capsys.readouterr().out
    assert out.startswith("1,300 env steps, ") and "greedy episode 2: return " in out
    assert load_config(folder / "config.yaml").env.wrappers == ("TimeLimit(max_episode_steps=200)",)


def test_a_torso_of_ones_own_reaches_the_processes_of_ray(tmp_path):
    """Workers import its module by name."""
    script = [sys.executable, str(EXAMPLES / "own_torso.py"), *SHORT]
    package = str(EXAMPLES.parent)
    ended = subprocess.run(
        script,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": package, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("with own_torso:residual\n")
