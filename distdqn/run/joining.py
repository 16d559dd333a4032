"""Finds a Ray cluster, or says within seconds why it cannot be joined.

`ray.init` asks for up to a minute, prints what its core logs, and then knows no cause. One
call to the cluster's head (its GCS) tells at once whether it is there, takes the token,
and runs the same Ray.
"""

import contextlib
import dataclasses
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil
import ray
from packaging.version import Version
from ray._private import services

from distdqn.errors import RunError
from distdqn.machine.joined import RayChoice

_TIMEOUT_S = 4.0  # for all that is asked of an address
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/@]+):(\d{1,5})")
# A Ray that finds its node among the processes fails too, much later, where it sees none.
_LOOKS_AT_PROCESSES = hasattr(services, "find_node_ids")
_LAST_STARTED = "ray/ray_current_cluster"  # in the folder for temporary files
_RAY_HAS_THE_KEYS = ("RAY_USE_TLS", "RAY_ENABLE_K8S_TOKEN_AUTH")
_TOKEN_PLACES = "RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"


@dataclasses.dataclass(frozen=True)
class _Asked:
    """Where a cluster is looked for: "auto" or HOST:PORT.

    named: what the user wrote.  undo: how to do without.  deadline: of `time.monotonic`.
    """

    address: str
    named: str
    undo: str
    deadline: float

    @property
    def left_s(self) -> float:
        return max(self.deadline - time.monotonic(), 0.1)

    def at(self, found: str) -> str:
        """HOST:PORT as a message tells it, with where it is from if that is not plain."""
        return found if self.named == f"--address {found}" else f"{found} ({self.named})"


def check_cluster(choice: RayChoice) -> None:
    """Raises RunError, one line, where the cluster that is named cannot be joined."""
    named, undo = f"--address {choice.address}", "leave --address out"
    if choice.from_shell:
        named, undo = f"RAY_ADDRESS={choice.address}", "unset RAY_ADDRESS"
    asked = _Asked(choice.address, named, undo, time.monotonic() + _TIMEOUT_S)
    _require_form(asked)
    found = _on_this_host(asked) if asked.address == "auto" else asked.address
    _require_listener(asked, found)
    _require_same_ray(asked, found)
    _require_node_here(asked, found)


def _require_form(asked: _Asked) -> None:
    if asked.address.startswith(("http://", "https://")):
        raise RunError(
            f"{asked.named} is a jobs address; on this host use auto or HOST:PORT, or send the "
            f"run yourself: ray job submit --address {asked.address} -- distdqn train ..."
        )
    if asked.address.startswith("ray://"):
        raise RunError(
            f"{asked.named} is an address of Ray Client, which distdqn does not use; take auto or "
            "HOST:PORT on a node of the cluster, or send the run with `ray job submit`"
        )
    match = _HOST_PORT.fullmatch(asked.address)
    if asked.address != "auto" and not (match and 0 < int(match[2]) < 65536):
        raise RunError(
            f"{asked.named} is no address: give auto, or HOST:PORT as `ray start --head` printed "
            f"it, or {asked.undo} for an embedded Ray"
        )


def _on_this_host(asked: _Asked) -> str:
    """The cluster of this host's Ray node, chosen as Ray does: HOST:PORT."""
    running, last = _clusters_here(), _last_started()
    if len(running) == 1:
        return running.pop()
    if last in running or (last and not running):
        return last
    if running:
        raise RunError(
            f"{asked.named}: nodes of several Ray clusters run on this host, name one of them: "
            + ", ".join(sorted(running))
        )
    raise RunError(
        f"{asked.named}: no Ray cluster runs on this host; start one with `ray start --head`, "
        f"join one with `ray start --address=HOST:PORT`, or {asked.undo} for an embedded Ray"
    )


def _clusters_here() -> set[str]:
    """HOST:PORT of the head of each Ray node that runs on this host."""
    found: set[str] = set()
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ()).split()
        if words and Path(words[0]).name == "raylet":
            found.update(word.partition("=")[2] for word in words if "--gcs-address=" in word)
    return found - {""}


def _last_started() -> str:
    """What the last `ray start` on this host noted; "" where none did."""
    with contextlib.suppress(OSError):
        return (Path(os.environ.get("RAY_TMPDIR") or "/tmp") / _LAST_STARTED).read_text().strip()
    return ""


def _require_listener(asked: _Asked, found: str) -> None:
    host, _, port = found.rpartition(":")
    outcome: list[OSError | None] = []

    def knock() -> None:
        try:
            to = (host.strip("[]"), int(port))
            socket.create_connection(to, timeout=asked.left_s).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=knock, daemon=True)  # a name server may take a minute
    thread.start()
    thread.join(asked.left_s)
    error = outcome[0] if outcome else TimeoutError()
    if isinstance(error, socket.gaierror):
        raise RunError(f"the host {host!r} of {asked.named} is not known: check the name")
    if isinstance(error, TimeoutError):
        raise RunError(
            f"no answer from {asked.at(found)} within {_TIMEOUT_S:g} s: "
            "check the address, and the network and its firewalls"
        )
    if error is not None:
        raise RunError(
            f"no Ray cluster at {asked.at(found)}: {error.strerror}; start one there with "
            f"`ray start --head`, or {asked.undo} for an embedded Ray"
        )


def _require_same_ray(asked: _Asked, found: str) -> None:
    if any(os.environ.get(name, "").lower() in ("1", "true") for name in _RAY_HAS_THE_KEYS):
        return
    token, source = _token(asked.address == "auto")
    try:
        import grpc
        from ray.core.generated import gcs_service_pb2  # noqa: F401
    except ImportError:  # Ray does without gRPC's Python package
        return
    codes = grpc.StatusCode
    try:
        version = _ray_version(found, token, asked.left_s)
    except grpc.RpcError as error:
        if error.code() == codes.UNAUTHENTICATED:
            _refuse_token(f"the Ray cluster at {asked.at(found)}", source)
        if error.code() in (codes.UNIMPLEMENTED, codes.PERMISSION_DENIED):
            return  # another Ray's head, or something before it: Ray itself will say
        raise RunError(
            f"what listens at {asked.at(found)} does not answer as the head of a Ray cluster "
            f"({error.code().name}); its port is 6379 unless `ray start` was told otherwise"
        ) from error
    if version and version != ray.__version__:
        raise RunError(
            f"the Ray cluster at {asked.at(found)} runs Ray {version}, this Python has "
            f"{ray.__version__}: install ray=={version} here, or run in the cluster's environment"
        )


def _ray_version(address: str, token: str, timeout_s: float) -> str:
    """Of the head at HOST:PORT; raises grpc.RpcError."""
    import grpc
    from ray.core.generated import gcs_service_pb2 as gcs

    metadata = [("authorization", f"Bearer {token}")] if token else None
    # Ray goes past proxies too.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check_alive: Any = channel.unary_unary(
            "/ray.rpc.NodeInfoGcsService/CheckAlive",
            request_serializer=gcs.CheckAliveRequest.SerializeToString,
            response_deserializer=gcs.CheckAliveReply.FromString,
        )
        request = gcs.CheckAliveRequest()
        return check_alive(request, timeout=timeout_s, metadata=metadata).ray_version


def _require_node_here(asked: _Asked, found: str) -> None:
    ports = {address.rpartition(":")[2] for address in _clusters_here()}  # a host has many names
    is_hidden = not ports and not _LOOKS_AT_PROCESSES
    if found.rpartition(":")[2] not in ports and not is_hidden:
        raise RunError(
            f"no node of the Ray cluster at {asked.at(found)} runs on this host; start one with "
            f"`ray start --address={found}`, or send the run with `ray job submit`"
        )


def _refuse_token(cluster: str, source: str) -> NoReturn:
    if source:
        raise RunError(
            f"{cluster} refuses the token from {source}; use the one it was started with "
            f"({_TOKEN_PLACES}, the first of these that is there)"
        )
    mode = os.environ.get("RAY_AUTH_MODE") or "not set"
    raise RunError(
        f"{cluster} asks for a token and gets none (RAY_AUTH_MODE is {mode}): set "
        f"RAY_AUTH_MODE=token, and have the token in {_TOKEN_PLACES}"
    )


def _token(is_auto: bool) -> tuple[str, str]:
    """The token that Ray will send, and where it is from; "" and "" where it sends none.

    is_auto: Ray sends one more readily to a cluster that it finds itself.
    Raises RunError where it has to send one and finds none.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if not mode and not is_auto and Version(ray.__version__) < Version("2.61"):
        return "", ""
    if mode not in ("", "token"):
        return "", ""
    token, source = _find_token()
    if mode and not token:
        raise RunError(f"RAY_AUTH_MODE is token, and there is none in {_TOKEN_PLACES}")
    return (token, source) if token else ("", "")


def _find_token() -> tuple[str, str]:
    """The first token there is, in Ray's order, and where it is from."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip(), f"RAY_AUTH_TOKEN_PATH={named}" if named else str(path)
    except OSError as error:
        if named:
            raise RunError(f"RAY_AUTH_TOKEN_PATH={named}: {error.strerror}") from error
        return "", ""
