"""What `distdqn doctor` looks at on the machine: one function, one check.

Nothing is started or changed, and a check that cannot look says so instead of raising.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

import psutil

_GIB = 2**30
_MIN_MEMORY_BYTES = 2 * _GIB  # Ray takes 0.45 GB, each process with torch about 0.2


@dataclasses.dataclass(frozen=True)
class Check:
    """A finding: status `ok`, `warn` (slower or riskier) or `fail` (training cannot work)."""

    name: str
    status: str
    found: str
    advice: str = ""


def check(name: str, found: str, advice: str = "", otherwise: str = "warn") -> Check:
    """A finding that is `ok` where there is nothing to advise."""
    return Check(name, otherwise if advice else "ok", found, advice)


def python_version() -> Check:
    recent = sys.version_info >= (3, 11)
    advice = "" if recent else "install Python 3.11 or later"
    return check("Python", platform.python_version(), advice, "fail")


def packages() -> Check:
    """Every requirement of distdqn against what is installed."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("distdqn") or []
    except importlib.metadata.PackageNotFoundError:
        return check("packages", "distdqn is not installed", "pip install .")
    needed = [Requirement(line) for line in lines]
    needed = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    if wrong := [str(r) for r in needed if not _satisfied(r.name, r.specifier)]:
        advice = "pip install " + " ".join(f"'{line}'" for line in wrong)
        return check("packages", "missing or too old: " + ", ".join(wrong), advice, "fail")
    shown = ("ray", "torch", "numpy", "numba", "gymnasium")
    return check("packages", ", ".join(f"{n} {importlib.metadata.version(n)}" for n in shown))


def _satisfied(name: str, specifier: object) -> bool:
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return specifier.contains(installed, prereleases=True)  # type: ignore[attr-defined]


def memory() -> Check:
    free = _free_memory()
    advice = "a small run takes about 2 GiB; end other programs"
    return check("memory", f"{size_text(free)} free", "" if free >= _MIN_MEMORY_BYTES else advice)


def _free_memory() -> int:
    """Of the machine, or of this process's control group where that is less."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def gpu() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return check("GPU", f"torch does not load: {error}", "reinstall torch", "fail")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return check("GPU", ", ".join(names))
    if shutil.which("nvidia-smi") is None:
        return check("GPU", "none; the learner runs on the CPU")
    if torch.version.cuda is None:
        found = "there is one, and torch is built without CUDA"
        return check("GPU", found, "install a CUDA build of torch")
    found = "nvidia-smi is there, and torch sees no GPU"
    return check("GPU", found, "check nvidia-smi, the driver and CUDA_VISIBLE_DEVICES")


def compiler() -> Check:
    """The compiled update needs a C++ compiler and Python's headers."""
    found = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    missing = [] if found and shutil.which(found) else ["no C++ compiler"]
    missing += [] if headers.is_file() else [f"no {headers}"]
    if not missing:
        return check("compiler", f"{shutil.which(str(found))}, Python.h")
    advice = "updates run eagerly, about three times slower; apt-get install g++ python3-dev"
    return check("compiler", "; ".join(missing), advice)


def compile_cache() -> Check:
    """Where compiled updates are kept from one run to the next."""
    try:
        from distdqn.learning.compiled_cache import CompiledCache
    except (ImportError, OSError) as error:
        return check("compile cache", f"torch does not load: {error}", "reinstall torch", "fail")
    folder = CompiledCache().directory
    if _writable(folder):
        return check("compile cache", str(folder))
    advice = "every run compiles anew; set DISTDQN_CACHE_DIR to a folder of yours"
    return check("compile cache", f"cannot write to {folder}", advice)


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself."""
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def size_text(num_bytes: float) -> str:
    if num_bytes >= _GIB:
        return f"{num_bytes / _GIB:.1f} GiB"
    return f"{num_bytes / 2**20:.0f} MiB"
