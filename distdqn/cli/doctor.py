"""`distdqn doctor`: is this machine fit to train, and if not, what to do.

One function, one check. Nothing is changed, and a check that cannot look says so instead of
raising. Only `ray_starts` starts something, in a process of its own, and is asked for apart.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil

from distdqn.cli.flags import read_options
from distdqn.cli.output import json_only
from distdqn.machine import memory as machine_memory
from distdqn.machine.installation import install_command, pip_install, requirements_of

_GIB = 2**30
_MIN_MEMORY_BYTES = 2 * _GIB  # Ray takes 0.45 GB, each process with torch about 0.2
MAX_RAY_TEMP_BYTES = 5 * _GIB
_MAX_SOCKET_PATH = 107  # sun_path of Linux, without the final zero
_SESSION = "session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store.0"
_RAY_PROCESSES = ("raylet", "gcs_server", "ray::")
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}  # the worst last


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


@dataclasses.dataclass(frozen=True)
class Options:
    """Checks this machine and says what to do."""

    start_ray: bool = False
    """Also start an embedded Ray and end it (10 s)."""


def run(arguments: Sequence[str]) -> int:
    """Runs every check; the worst status is that of all, and the exit status 1 if one fails."""
    options, wants_json = read_options("distdqn doctor", Options, arguments)
    with json_only(wants_json) as print_json:
        results = _look(options.start_ray)
        status = max((result.status for result in results), key=list(_COLOURS).index)
        if not wants_json:
            _show(results)
        print_json({"status": status, "checks": [vars(result) for result in results]})
    return int(status == "fail")


def _look(start_ray: bool) -> list[Check]:
    return [
        python_version(),
        packages(),
        shared_memory(),
        memory(),
        gpu(),
        compiler(),
        compile_cache(),
        ray_temp(),
        socket_path(),
        ray_environment(),
        ray_ports(),
        *([ray_starts()] if start_ray else []),
    ]


def _show(results: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    texts = [Column(title, overflow="fold") for title in ("found", "what to do")]
    table = Table("check", "", *texts)
    for result in results:
        colour = _COLOURS[result.status]
        status = f"[{colour}]{result.status}[/{colour}]"
        table.add_row(result.name, status, escape(result.found), escape(result.advice))
    Console(stderr=True).print(table)


def python_version() -> Check:
    recent = sys.version_info >= (3, 11)
    advice = "" if recent else "install Python 3.11 or later"
    return check("Python", platform.python_version(), advice, "fail")


def packages() -> Check:
    """Every requirement of distdqn against what is installed."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(line) for line in requirements_of()]
    except importlib.metadata.PackageNotFoundError:
        return check("packages", "distdqn is not installed", install_command())
    if wrong := [str(r) for r in needed if not _satisfied(r.name, r.specifier)]:
        found = "missing or too old: " + ", ".join(wrong)
        return check("packages", found, pip_install(*wrong), "fail")
    shown = ("ray", "torch", "numpy", "numba", "gymnasium")
    return check("packages", ", ".join(f"{n} {importlib.metadata.version(n)}" for n in shown))


def _satisfied(name: str, specifier: object) -> bool:
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return specifier.contains(installed, prereleases=True)  # type: ignore[attr-defined]


def memory() -> Check:
    free = machine_memory.free_memory()
    advice = "a small run takes about 2 GiB; end other programs"
    return check("memory", f"{_size_text(free)} free", "" if free >= _MIN_MEMORY_BYTES else advice)


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


def shared_memory() -> Check:
    return check("/dev/shm", *machine_memory.shared_memory())


def ray_temp() -> Check:
    """Ray never cleans up the logs of ended sessions."""
    folder = _ray_temp()
    used = _folder_bytes(folder)
    advice = f"with no Ray running: rm -r {folder}/session_*"
    too_much = used > MAX_RAY_TEMP_BYTES
    return check("Ray's files", f"{folder}: {_size_text(used)}", advice if too_much else "")


def socket_path() -> Check:
    length = len(os.fsencode(_ray_temp() / _SESSION))
    found = f"{length} of {_MAX_SOCKET_PATH} bytes"
    advice = "set RAY_TMPDIR to a shorter folder" if length > _MAX_SOCKET_PATH else ""
    return check("socket paths", found, advice, "fail")


def ray_environment() -> Check:
    """Variables that decide which Ray a run joins, and who may join it."""
    address, mode = os.environ.get("RAY_ADDRESS"), os.environ.get("RAY_AUTH_MODE")
    found = f"RAY_ADDRESS {address or 'not set'}, RAY_AUTH_MODE {mode or 'not set'}"
    if mode == "disabled":
        advice = "whoever reaches Ray's ports can run code; unset RAY_AUTH_MODE"
        return check("Ray's settings", found, advice)
    advice = f"runs join the cluster at {address}; unset RAY_ADDRESS for an embedded Ray"
    return check("Ray's settings", found, advice if address else "", "ok")


def ray_ports() -> Check:
    """A running Ray listens on every interface; only its token keeps others out."""
    ports: set[int] = set()
    unprotected = False
    for process in psutil.process_iter(["name"]):
        is_ray = (process.info["name"] or "").startswith(_RAY_PROCESSES)
        with contextlib.suppress(psutil.Error):
            if is_ray and (open_here := _open_ports(process)):
                ports |= open_here
                unprotected |= process.environ().get("RAY_AUTH_MODE") != "token"
    if not ports:
        return check("Ray's ports", "none open")
    shown = ", ".join(map(str, sorted(ports)[:4])) + (", ..." if len(ports) > 4 else "")
    found = f"{len(ports)} open to the network ({shown})"
    if unprotected:
        advice = "start Ray with RAY_AUTH_MODE=token, or close the ports"
        return check("Ray's ports", found + ", not all behind a token", advice)
    return check("Ray's ports", found + ", behind a token")


def ray_starts() -> Check:
    """An embedded Ray in a process of its own, with a token of its own."""
    script = "import ray; ray.init('local', include_dashboard=False, num_cpus=1); ray.shutdown()"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {name: x for name, x in os.environ.items() if name != "RAY_ADDRESS"} | token
    see = f"see the logs in {_ray_temp()}"
    try:
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True,
                       text=True, timeout=60, check=True)  # fmt: skip
    except subprocess.TimeoutExpired:
        return check("Ray starts", "not within 60 s", see, "fail")
    except subprocess.CalledProcessError as error:
        line = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        return check("Ray starts", line, see, "fail")
    return check("Ray starts", "started and ended")


def _open_ports(process: psutil.Process) -> set[int]:
    """Ports on which a process listens for other machines too."""
    return {
        connection.laddr.port
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip not in ("127.0.0.1", "::1")
    }


def _ray_temp() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder; links are not followed."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def _size_text(num_bytes: float) -> str:
    if num_bytes >= _GIB:
        return f"{num_bytes / _GIB:.1f} GiB"
    return f"{num_bytes / 2**20:.0f} MiB"
