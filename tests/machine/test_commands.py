"""The command that works where the user stands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distdqn.machine import commands
from distdqn.machine.commands import typed


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """The folder of this installation's commands, below the working directory, with one."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    put(folder)
    monkeypatch.setattr(commands.sysconfig, "get_path", lambda _: str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return folder


def put(folder: Path) -> None:
    (folder / "distdqn").touch()
    (folder / "distdqn").chmod(0o755)


def test_on_the_path_it_is_the_name(scripts, monkeypatch):
    monkeypatch.setenv("PATH", str(scripts))
    assert typed("distdqn", "distdqn") == "distdqn"


def test_elsewhere_it_is_the_path(scripts, tmp_path, monkeypatch):
    assert typed("distdqn", "distdqn") == ".venv/bin/distdqn"
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir(tmp_path / "beside")
    assert typed("distdqn", "distdqn") == str(scripts / "distdqn")
    monkeypatch.chdir(scripts)
    assert typed("distdqn", "distdqn") == str(scripts / "distdqn")


def test_the_command_of_another_installation_is_not_taken_for_ours(scripts, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    put(tmp_path / "other")
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    assert typed("distdqn", "distdqn") == ".venv/bin/distdqn"


def test_without_a_script_it_is_the_interpreter_with_the_module(scripts, tmp_path):
    assert typed("tensorboard", "tensorboard.main") == ".venv/bin/python -m tensorboard.main"
