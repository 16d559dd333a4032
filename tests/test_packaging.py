"""The sdist, the wheel made from it, and both kinds of install; nothing is downloaded."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

import distdqn
from distdqn import errors

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "distdqn")
LOCKSTEP = [
    "--preset=cartpole",
    "--mode=lockstep",
    "--total-env-steps=256",
    "--replay.min-size-to-sample=128",
    "--learner.compile=false",
    "--eval.final-episodes=1",
    "--eval.video-episodes=0",
    "--eval.stop-at-return=none",
    "--run-name=run",
]


def call(*words: str | Path, folder: Path) -> str:
    """What a program says that knows nothing of this checkout."""
    clean = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env=clean, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, dist: Path) -> Path:
    """What `make dist` calls: the build backend itself."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(dist)!r})"
    call(sys.executable, "-c", code, folder=source)
    (found,) = dist.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return found


def environment(folder: Path) -> Path:
    """A new environment over the packages of this one, without this one's editable installs."""
    venv.create(folder, with_pip=False)
    paths = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", "venv", paths))
    (own / "beneath.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def install(into: Path, *words: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", into / "bin" / "python", "install")
    call(*pip, "--no-index", "--no-deps", "--no-build-isolation", *words, folder=into)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The sources in a folder named distdqn, as git names a clone."""
    clone = tmp_path_factory.mktemp("parent") / "distdqn"
    clone.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, clone / name)
    return clone


@pytest.fixture(scope="module")
def sdist(clone, tmp_path_factory):
    return build("sdist", clone, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(sdist, tmp_path_factory):
    """The environment into which the wheel is installed that the sdist gives."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.unpack_archive(sdist, folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    wheel = build("wheel", source, folder / "dist")
    own = environment(folder / "venv")
    install(own, wheel)
    return own


def test_the_sdist_holds_the_licence_the_presets_and_the_mark_of_typing(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    presets = {f"distdqn/presets/{path.name}" for path in ROOT.glob("distdqn/presets/*.yaml")}
    assert {"LICENSE", "README.md", "distdqn/py.typed"} | presets <= names
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_installed_wheel_is_complete(installed, tmp_path):
    distdqn_ = installed / "bin" / "distdqn"
    assert distdqn.__version__ in call(distdqn_, "--version", folder=tmp_path)
    call(distdqn_, "train", *LOCKSTEP, folder=tmp_path)
    assert (tmp_path / "runs" / "run" / "summary.json").exists()
    where = call(
        installed / "bin" / "python", "-c", "import distdqn; print(distdqn.__file__)",
        folder=tmp_path,
    )  # fmt: skip
    assert Path(where.strip()).is_relative_to(installed)
    (metadata,) = installed.rglob("distdqn-*.dist-info/METADATA")
    assert "License-Expression: Apache-2.0" in metadata.read_text()
    assert list(metadata.parent.rglob("LICENSE"))


def test_an_editable_install_is_found_from_beside_a_clone_of_its_name(clone, tmp_path):
    """A folder on the path comes before the namespace that Python sees in the clone."""
    own = environment(tmp_path / "venv")
    install(own, "--editable", clone)
    code = "import distdqn; distdqn.train; from distdqn import Config"
    call(own / "bin" / "python", "-c", code, folder=clone.parent)


def test_every_exception_can_be_caught_by_its_name_in_the_package():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.DistDQNError):
            assert name in distdqn.__all__
            assert getattr(distdqn, name) is kind
