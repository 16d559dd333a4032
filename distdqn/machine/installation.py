"""Where distdqn was installed from, and what installs more into the same environment.

A line to be pasted into any shell, for the interpreter that runs. `pip install
'distdqn[box2d]'` is right for a package from an index alone:

    from a clone    the folder, with the clone's pins where the environment has them
    from a file     what the extra needs, as the installed package lists it
    from an index   the extra by its name
"""

import importlib.metadata
import importlib.util
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
_NAME = "distdqn"


def install_command(extra: str | None = None) -> str:
    """The shell line that installs distdqn anew with one of its extras, or without."""
    wanted = _NAME if extra is None else f"{_NAME}[{extra}]"
    clone = PACKAGE.parent
    if (clone / "pyproject.toml").is_file():
        pins = clone / "constraints.txt"
        constraints = ["-c", str(pins)] if pins.is_file() and _follows(pins) else []
        return pip_install(*constraints, "-e", f"{clone}{wanted.removeprefix(_NAME)}")
    if extra is not None and _came_from_a_file():
        return pip_install(*requirements_of(extra))
    return pip_install(wanted)


def pip_install(*words: str) -> str:
    """`/path/to/python -m pip install ...`, quoted; uv's where the environment has no pip."""
    pip = [sys.executable, "-m", "pip", "install"]
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        pip = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*pip, *words])


def requirements_of(extra: str | None = None) -> list[str]:
    """What distdqn needs, or what the extra adds, as `name>=version`; of what is installed.
    Raises importlib.metadata.PackageNotFoundError: distdqn is not installed."""
    from packaging.requirements import Requirement

    found = []
    for line in importlib.metadata.requires(_NAME) or []:
        needed = Requirement(line)
        marker, needed.marker = needed.marker, None
        always = marker is None or marker.evaluate({"extra": ""})
        if always == (extra is None) and (always or marker.evaluate({"extra": extra})):
            found.append(str(needed))
    return found


def _came_from_a_file() -> bool:
    """Whether from a wheel or a folder rather than an index (PEP 610)."""
    try:
        return importlib.metadata.distribution(_NAME).read_text("direct_url.json") is not None
    except importlib.metadata.PackageNotFoundError:
        return False


def _follows(pins: Path) -> bool:
    """Whether every dependency that is installed has its pinned version.

    Where one has not, the environment is not made of these pins: they would replace a torch
    or a Ray that somebody has chosen.
    """
    from packaging.requirements import Requirement

    names = {Requirement(line).name for line in _dependencies()}
    for line in pins.read_text("utf-8").splitlines():
        if line.partition("==")[0] in names and not _holds(line):
            return False
    return True


def _dependencies() -> Iterator[str]:
    try:
        yield from requirements_of()
    except importlib.metadata.PackageNotFoundError:
        yield from ("torch", "ray", "numpy")


def _holds(pin: str) -> bool:
    from packaging.requirements import Requirement

    wanted = Requirement(pin)
    try:
        installed = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return True
    return wanted.specifier.contains(installed, prereleases=True)
