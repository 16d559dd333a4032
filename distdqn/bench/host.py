"""The machine that a figure was measured on.

Versions are read from what is installed, without importing it, so that a benchmark loads
no more than it measures.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from distdqn.bench.result import Case, Result
from distdqn.machine.cpu import cpu_model, usable_cores
from distdqn.version import __version__

_PACKAGES = ("torch", "ray", "gymnasium", "numpy", "numba")
_LOAD = tuple(round(load, 2) for load in os.getloadavg())  # before the benchmark adds its own


def new_result(
    benchmark: str,
    options: Any,
    cases: Sequence[Case],
    notes: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> Result:
    """A result of now and here.

    options: the benchmark's dataclass.
    more: options that are not among these, as a run's configuration.
    """
    return Result(
        benchmark=benchmark,
        version=__version__,
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        machine=describe_machine(),
        options=dataclasses.asdict(options) | dict(more or {}),
        cases=tuple(cases),
        notes=tuple(notes),
    )


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory in bytes, GPU, system, load at the start, and versions.

    A GPU is described where torch is loaded and sees one.
    """
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        **_gpu(),
        "system": _system(),
        "load_average": list(_LOAD),
        "python": platform.python_version(),
        "distdqn": __version__,
        **{name: _version(name) for name in _PACKAGES},
    }


def _gpu() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"gpu": None, "cuda": None}
    return {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


def _system() -> str:
    """As "Linux 6.1": what comes after says more about a place than about speed."""
    return f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
