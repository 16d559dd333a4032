"""Connects to Ray: embedded, an existing cluster, or the caller's own session.

Ray's ports listen on every interface and whoever reaches them can run code, so an
embedded Ray gets a fresh token, kept in a file that only the user can read.
"""

import contextlib
import dataclasses
import gc
import logging
import math
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import psutil
import ray
from packaging.version import Version
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray._raylet import Config as RayConfig  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError

from distdqn.config import Config
from distdqn.errors import ResourceError, RunError, begun
from distdqn.files.run_folder import RunFolder
from distdqn.machine.joined import RayChoice, which_ray
from distdqn.machine.memory import shared_memory
from distdqn.run.actors import cause_line, embedded_cpus, starts_at_once
from distdqn.run.joining import check_cluster

_AUTH_SETTINGS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_ASKS_FOR_A_TOKEN = Version("2.59")  # the first Ray whose own default it is
_KILL_WAIT_S = 2.0
_START_TRIES = 2
_START_WAIT_S = 90  # for Ray's own processes; Ray's default of 30 is short on a busy machine


@dataclasses.dataclass(frozen=True)
class RaySession:
    """A connection.

    address: of the cluster, for another shell.  namespace: of the run's actors.
    token_file: "" where Ray has its own.  connected: by this run, which then ends it.
    notes: lines for the user.
    older: this process's children before it started an embedded Ray; None on a cluster.
    auth_settings: the caller's, of Ray, which hold again once the session is closed.
    """

    address: str
    namespace: str
    token_file: str
    connected: bool
    notes: tuple[str, ...] = ()
    older: Set[int] | None = None
    auth_settings: Mapping[str, str] | None = None

    @property
    def starts_at_once(self) -> int | None:
        """See `System`; None on a cluster."""
        return None if self.older is None else starts_at_once()

    def close(self) -> None:
        """Ends what this process began; leaves a foreign session as it was."""
        own = [] if self.older is None else _of_ray(self.older)
        if self.connected:
            with _no_collection():
                ray.shutdown()
        _kill(own)
        if self.token_file:
            Path(self.token_file).unlink(missing_ok=True)
        if self.auth_settings is not None:
            _restore_auth(self.auth_settings)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Collects garbage first and none meanwhile.

    Where another thread's collection frees an ObjectRef, of an old exception's frame for one,
    while Ray ends, Ray's core ends the process at once.
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def open_session(
    config: Config,
    folder: RunFolder,
    say: Callable[[str], None],
    look: Callable[[], None] = lambda: None,
) -> RaySession:
    """Joins or starts a Ray that has what the run asks for; the run's folder says where.

    A cluster has passed `check_cluster` already.
    say: takes warnings.  look: called before each try, and after; raises to give up.
    Raises RunError or ResourceError, one line each.
    """
    session = _connect(
        which_ray(config.address),
        folder.name,
        embedded_cpus(config),
        math.ceil(config.learner.num_gpus),  # whole ones, as Ray counts them
        folder.token_path,
        look,
    )
    try:
        look()
        for line in session.notes:
            say(line)
        told = {name: getattr(session, name) for name in ("address", "namespace", "token_file")}
        folder.tell(state="running", **told)
        if config.learner.device == "cuda":
            _check_gpus(config.learner.num_gpus)
    except BaseException:
        session.close()
        raise
    return session


def _check_gpus(wanted: float) -> None:
    """Without a reservation the learner itself looks."""
    if (present := ray.cluster_resources().get("GPU", 0)) < wanted:
        raise ResourceError(
            f"learner.device is cuda but Ray sees {present:g} GPUs and {wanted:g} are asked for; "
            "use --learner.device cpu, or check nvidia-smi and the driver"
        )


def connect(
    address: str | None,
    namespace: str,
    num_cpus: float,
    num_gpus: float,
    token_file: Path,
    look: Callable[[], None] = lambda: None,
) -> RaySession:
    """Connects and returns the session.

    address: see `which_ray`.  A cluster is joined through the Ray node on this host; an
      embedded Ray has exactly `num_cpus` and `num_gpus`.
    look: called before each try; raises to give up.
    Raises RunError or ResourceError, one line each.
    """
    choice = which_ray(address)
    if choice.kind == "cluster":
        check_cluster(choice)
    return _connect(choice, namespace, num_cpus, num_gpus, token_file, look)


def _connect(
    choice: RayChoice,
    namespace: str,
    num_cpus: float,
    num_gpus: float,
    token_file: Path,
    look: Callable[[], None],
) -> RaySession:
    if choice.kind == "caller's":
        context = ray.get_runtime_context()
        return RaySession(context.gcs_address, namespace, "", connected=False)
    if choice.kind == "cluster":
        return _join(choice.address, namespace)
    settings = {name: os.environ[name] for name in _AUTH_SETTINGS if name in os.environ}
    try:
        session = _embedded(namespace, num_cpus, num_gpus, token_file, look)
    except BaseException:
        token_file.unlink(missing_ok=True)
        _restore_auth(settings)
        raise
    return dataclasses.replace(session, auth_settings=settings)


def _restore_auth(settings: Mapping[str, str]) -> None:
    """Gives the process the caller's settings back, so that it may join a cluster."""
    for name in _AUTH_SETTINGS:
        os.environ.pop(name, None)
    os.environ.update(settings)
    AuthenticationTokenLoader.instance().reset_cache()
    RayConfig.initialize("")  # reads the mode again


def _embedded(
    namespace: str, num_cpus: float, num_gpus: float, token_file: Path, look: Callable[[], None]
) -> RaySession:
    used_token = ""
    token_file = token_file.resolve()
    if os.environ.get("RAY_AUTH_MODE") != "disabled":
        # With the mode unset, `_require_token` or ray.init turns token authentication on and
        # refreshes the settings that Ray's core read when it was imported.
        token_file.touch(0o600)
        token_file.write_text(token := secrets.token_hex(32))
        used_token = str(token_file)
        os.environ["RAY_AUTH_TOKEN"] = token
        os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
        AuthenticationTokenLoader.instance().reset_cache()
    # Ray starts actors at nice 15; what gives way to what is said in machine/cpu.py.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray reads this where it turns token authentication on, above, or when it is imported.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(_START_WAIT_S))
    _require_token()
    older = children()
    with begun():
        context, failures = _start(
            look,
            older,
            address="local",
            namespace=namespace,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
    warnings = tuple(f"{line}; the next try worked" for line in failures)
    free, advice = shared_memory()
    if advice:
        warnings += (f"/dev/shm has {free}: {advice}",)
    address = context.address_info["gcs_address"]
    return RaySession(address, namespace, used_token, True, warnings, older)


def _require_token() -> None:
    """Turns token authentication on, unless its mode is set, where Ray would not by itself."""
    if "RAY_AUTH_MODE" not in os.environ and Version(ray.__version__) < _ASKS_FOR_A_TOKEN:
        os.environ["RAY_AUTH_MODE"] = "token"
        RayConfig.initialize("")  # reads again what it read when it was imported


def _start(look: Callable[[], None], older: Set[int], **options: Any) -> tuple[Any, list[str]]:
    """`ray.init`, once more where Ray did not come up; also says what failed before.

    Raises RunError after the last try; what another try cannot mend, as it comes.
    """
    failures: list[str] = []
    for _ in range(_START_TRIES):
        look()
        began = time.monotonic()
        try:
            with _quiet():
                return ray.init(**options), failures
        except BaseException as error:
            ray.shutdown()
            end_half_started(older)
            if not _came_up_too_slowly(error):
                raise
            waited_s, cause = time.monotonic() - began, error
            failures.append(f"Ray did not start within {waited_s:.0f} s ({cause_line(error)})")
    raise RunError(
        f"{failures[-1]}, tried {_START_TRIES} times; the machine may be too busy or short of "
        "memory: try again when it is quieter, or run `ray start --head` and add --address auto"
    ) from cause


def _came_up_too_slowly(error: BaseException) -> bool:
    """Whether another try may help; Ray says so with a bare Exception or RuntimeError."""
    if isinstance(error, RayError):
        return not isinstance(error, AuthenticationError)
    slow = isinstance(error, TimeoutError | ConnectionError)
    return slow or type(error) in (Exception, RuntimeError)


def children() -> Set[int]:
    """This process's children, and theirs."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def end_half_started(older: Set[int]) -> None:
    """Ends Ray's processes below this one that are not in `older`, whatever they are doing.

    `ray.shutdown` knows them only once `ray.init` has returned.
    """
    for process in _of_ray(older):
        with contextlib.suppress(psutil.Error):
            if process.ppid() == os.getpid():
                process.suspend()  # or it would start more meanwhile
    _kill(_of_ray(older))


def _of_ray(older: Set[int]) -> list[psutil.Process]:
    """Ray's processes below this one that are not in `older`, and all below these."""
    folder, own = str(Path(ray.__file__).parent), {}
    for child in psutil.Process().children(recursive=True):  # a parent before its children
        with contextlib.suppress(psutil.Error):
            is_new = child.ppid() == os.getpid() and child.pid not in older
            if child.ppid() in own or (is_new and any(folder in word for word in child.cmdline())):
                own[child.pid] = child
    return list(own.values())


def _kill(processes: list[psutil.Process]) -> None:
    """Ends those that are still there, and waits for it."""
    left = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:  # a container may never bury them
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=_KILL_WAIT_S)


def _join(address: str, namespace: str) -> RaySession:
    try:
        with _quiet():
            context = ray.init(
                address=address, namespace=namespace, log_to_driver=False, configure_logging=False
            )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        line = " ".join(str(error).split())  # other Pythons are named over five lines
        raise RunError(f"cannot join the Ray cluster at {address!r}: {line}") from error
    where = context.address_info["gcs_address"]
    return RaySession(where, namespace, "", True, (f"joined the Ray cluster at {where}",))


@contextlib.contextmanager
def _quiet():
    """Keeps ray.init from logging (what matters comes as an error) and from taking SIGTERM."""
    logger = logging.getLogger("ray")
    level, sigterm = logger.level, signal.getsignal(signal.SIGTERM)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm)
