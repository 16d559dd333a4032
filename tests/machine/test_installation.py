"""What a printed remedy says depends on where distdqn came from."""

import importlib.metadata
import importlib.util
import json
import shlex
import shutil
import sys

import pytest

from distdqn.machine import installation

REQUIRES = [
    "torch>=2",
    "colorama; sys_platform == 'never'",
    "lz4>=4.4; extra == 'compression'",
    "ale-py>=0.12; extra == 'atari'",
    "opencv-python-headless>=5; extra == 'atari'",
]


class Installed:
    """A distribution as `importlib.metadata` gives it."""

    def __init__(self, direct_url):
        self._direct_url = direct_url

    def read_text(self, name):
        assert name == "direct_url.json"
        return None if self._direct_url is None else json.dumps(self._direct_url)


@pytest.fixture(autouse=True)
def _requirements(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.5+cpu")
    monkeypatch.setattr(sys, "executable", "/my env/bin/python")


def package_in(monkeypatch, folder, direct_url=None):
    monkeypatch.setattr(installation, "PACKAGE", folder / "distdqn")
    found = Installed(direct_url)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)


def pip(*words):
    return ["/my env/bin/python", "-m", "pip", "install", *words]


def test_from_a_clone_the_folder_is_installed_anew(monkeypatch, tmp_path):
    clone = tmp_path / "a clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    package_in(monkeypatch, clone)
    command = installation.install_command("box2d")
    assert shlex.split(command) == pip("-e", f"{clone}[box2d]")
    assert "'/my env/bin/python'" in command and f"'{clone}[box2d]'" in command
    assert shlex.split(installation.install_command()) == pip("-e", str(clone))


@pytest.mark.parametrize(
    ("pin", "used"), [("torch==2.5", True), ("torch==2.6", False), ("other==9", True)]
)
def test_the_pins_of_a_clone_are_used_where_the_environment_has_them(
    monkeypatch, tmp_path, pin, used
):
    (tmp_path / "pyproject.toml").touch()
    pins = tmp_path / "constraints.txt"
    pins.write_text(f"# all of them\n{pin}\n")
    package_in(monkeypatch, tmp_path)
    words = ("-c", str(pins)) if used else ()
    assert shlex.split(installation.install_command("atari")) == pip(
        *words, "-e", f"{tmp_path}[atari]"
    )


def test_from_a_wheel_the_extras_own_requirements_are_installed(monkeypatch, tmp_path):
    package_in(monkeypatch, tmp_path, {"url": "file:///tmp/distdqn.whl", "archive_info": {}})
    command = installation.install_command("atari")
    assert shlex.split(command) == pip("ale-py>=0.12", "opencv-python-headless>=5")
    assert "'ale-py>=0.12'" in command, "a shell would redirect into a file"


def test_from_an_index_the_extra_is_named(monkeypatch, tmp_path):
    package_in(monkeypatch, tmp_path)
    assert shlex.split(installation.install_command("atari")) == pip("distdqn[atari]")


def test_without_pip_uv_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert installation.pip_install("lz4") == ("uv pip install --python '/my env/bin/python' lz4")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert shlex.split(installation.pip_install("lz4")) == pip("lz4")


def test_markers_decide_what_is_needed():
    assert installation.requirements_of() == ["torch>=2"]
    assert installation.requirements_of("compression") == ["lz4>=4.4"]
    assert installation.requirements_of("none such") == []
