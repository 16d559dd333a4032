"""What `distdqn doctor` looks at about Ray: its files, its ports, whether it starts.

Only `ray_starts` starts something, in a process of its own, and is asked for separately.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from distdqn.cli.checks import Check, check, size_text
from distdqn.machine.shared_memory import shared_memory as free_shared_memory

_MAX_RAY_TEMP_BYTES = 5 * 2**30
_MAX_SOCKET_PATH = 107  # sun_path of Linux, without the final zero
_SESSION = "session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store.0"
_RAY_PROCESSES = ("raylet", "gcs_server", "ray::")


def shared_memory() -> Check:
    return check("/dev/shm", *free_shared_memory())


def ray_temp() -> Check:
    """Ray never cleans up the logs of ended sessions."""
    folder = _ray_temp()
    used = _folder_bytes(folder)
    advice = f"with no Ray running: rm -r {folder}/session_*"
    too_much = used > _MAX_RAY_TEMP_BYTES
    return check("Ray's files", f"{folder}: {size_text(used)}", advice if too_much else "")


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
        try:
            if not (process.info["name"] or "").startswith(_RAY_PROCESSES):
                continue
            open_here = _open_ports(process)
            ports |= open_here
            if open_here:
                unprotected |= process.environ().get("RAY_AUTH_MODE") != "token"
        except psutil.Error:
            continue
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
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
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
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total
