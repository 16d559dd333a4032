"""A run's folder: where a run writes and another shell looks.

One process owns it. `run.json` says which, so that a name in use is refused and a
finished run is not mistaken for a live one.

    run.json  config.yaml  summary.json  metrics.jsonl  events.*  learning_curve.png
    checkpoints/  best/  videos/  visits.safetensors  ray_token  errors.log  internal_error.log
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import errno
import fcntl
import functools
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from distdqn.config.sections import is_function, short_name
from distdqn.errors import RunError
from distdqn.files.durable import write_file
from distdqn.files.folders import cannot_make, make_folder
from distdqn.files.metrics_log import MetricsLog, is_up_to
from distdqn.plain_json import to_json

_LIVE_STATES = ("starting", "running", "stopping")
_RUNS_NAMED = 5
_MAX_ERRORS_BYTES = 1_000_000


class RunFolder:
    """One run's files.

    path: of the folder.  name: its last part, also the run's name.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = self.path.name

    @classmethod
    def create(
        cls, runs_dir: str | Path, run_name: str | None, env_id: str, config_yaml: str
    ) -> RunFolder:
        """Makes the folder of a new run, owned by this process.

        run_name: None for `<env>-<YYYYmmdd-HHMMSS>`, with `-2` and so on where that is taken;
          of an env made by a function `<env>` is the function's name.
        Raises RunError: the name is taken, or the disk refuses.
        """
        try:
            if run_name is None:
                stem = re.sub(r"[^\w.-]+", "-", short_name(env_id)).strip("-.")
                path = make_folder(runs_dir, stem)
            else:
                path = _take_name(Path(runs_dir) / run_name)
            (path / "config.yaml").write_text(config_yaml)
            folder = cls(path)
            folder.tell(**_this_process(), state="starting", env_id=env_id, trained=False)
        except OSError as error:
            raise cannot_make(runs_dir, error) from error
        folder._remove_left_tokens()
        return folder

    @classmethod
    def find(cls, run: str | Path, runs_dir: str | Path = "runs") -> RunFolder:
        """The folder of an earlier or a live run, by its name or its path.

        Raises RunError, which names the newest runs, or says that it failed as it started.
        """
        for path in (Path(runs_dir) / run, Path(run)):
            if (path / "run.json").is_file():
                folder = cls(path)
                folder._require_begun()
                return folder
        raise RunError(_no_run(Path(run), runs_dir))

    def _require_begun(self) -> None:
        if self.failed_to_start:
            logs = " and ".join(map(str, self._logs()))
            raise RunError(
                f"run {self.name!r} ended before it had trained: there is nothing to load"
                + (f"; {logs} says why" if logs else "")
            )

    def _logs(self) -> list[Path]:
        """Files that tell of errors."""
        return sorted(self.path.glob("*.log"))

    def take_over(self) -> None:
        """Makes this process the owner of a run that was broken off.

        Raises RunError: it is live, or has finished. Of two processes one succeeds.
        """
        with open(self.path / "run.json") as lock:  # read and written by one at a time
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.require_resumable()
            self.tell(**_this_process(), state="starting")

    def require_resumable(self) -> None:
        """Raises RunError where the run is live, or has finished."""
        run = self.read_run_json()
        if self.is_live:
            raise RunError(
                f"run {self.name!r} is in use by process {run.get('pid')} on {run.get('host')}; "
                "stop it before it is resumed"
            )
        if run.get("state") == "finished":
            raise RunError(
                f"run {self.name!r} has finished: there is nothing to resume; "
                f"--init-from {self.name} starts a new run from its weights"
            )

    def require_make_env(self, env_id: str, make_env: object, call: str) -> None:
        """Raises RunError where a function made the run's envs and the caller passes none.

        env_id: as the run records it.  call: what takes the function, `distdqn.evaluate`.
        """
        require_function(env_id, make_env, f"{call}({self.argument!r}, make_env=...)")

    @property
    def argument(self) -> str:
        """What names the run to `find` where the user stands: its name alone within `runs/`."""
        return self.name if self.path == Path("runs") / self.name else str(self.path)

    @property
    def token_path(self) -> Path:
        """Where the token of an embedded Ray is kept, for other shells of this user."""
        return self.path / "ray_token"

    @functools.cached_property
    def metrics(self) -> MetricsLog:
        """Opened when something is written."""
        return MetricsLog(self.path)

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    def read_run_json(self) -> dict[str, Any]:
        """`address, namespace, token_file, pid, state` and more; {} where there is none."""
        try:
            return json.loads((self.path / "run.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}

    @property
    def is_live(self) -> bool:
        """Whether the process that owns the run is still there.

        Of a process on another host only what it last wrote is known.
        """
        run = self.read_run_json()
        if run.get("state") not in _LIVE_STATES:
            return False
        if run.get("host") != socket.gethostname():
            return True
        try:  # a number may have gone to another process since
            return psutil.Process(run["pid"]).create_time() == run["pid_created"]
        except (psutil.Error, KeyError):
            return False

    @property
    def failed_to_start(self) -> bool:
        """Whether the run has ended before it trained."""
        return self._has_nothing and not self.is_live

    @property
    def _has_nothing(self) -> bool:
        is_trained = self.read_run_json().get("trained", True)
        return not is_trained and not (self.path / "checkpoints").exists()

    def drop_failed_start(self) -> None:
        """Removes the folder of a run that has ended before it trained, if no log is in it.

        For the process that created it, which then need not be found dead.
        """
        self.close()
        self.remove_token()
        with contextlib.suppress(FileNotFoundError), _one_at_a_time(self.path.parent):
            run = self.read_run_json()
            is_ours = run.get("pid") == os.getpid()  # else another has taken the name since
            if is_ours and self._has_nothing and not self._logs():
                shutil.rmtree(self.path, ignore_errors=True)

    def remove_token(self) -> None:
        """Once Ray has ended, or is about to."""
        self.token_path.unlink(missing_ok=True)

    def _remove_left_tokens(self) -> None:
        """Those beside this run whose process was killed and could not remove them."""
        for token in self.path.parent.glob(f"*/{self.token_path.name}"):
            run = RunFolder(token.parent)
            with contextlib.suppress(OSError):  # of another user
                if run.read_run_json() and not run.is_live:
                    run.remove_token()

    def tell(self, **fields: Any) -> None:
        """Tells other shells in `run.json`, above all how to reach the run's actors.

        state: "starting", "running", "stopping", "stopped", "finished" or "failed".
        trained: whether any env step has been taken.
        """
        self._replace("run.json", to_json(self.read_run_json() | fields, indent=1) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """`summary.json`; numbers that are not finite become null."""
        self._replace("summary.json", to_json(summary, indent=1) + "\n")

    def log_error(self, part: str, details: str) -> Path | None:
        """Adds a traceback to `errors.log`, under the time and the part; its path if it is new.

        Once the file has reached 1 MB it says so, and takes no more.
        """
        path = self.path / "errors.log"
        size = path.stat().st_size if path.exists() else 0
        if size < _MAX_ERRORS_BYTES:
            now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            entry = f"{now} {part}\n{details.rstrip()}\n\n"
            if size + len(entry) >= _MAX_ERRORS_BYTES:
                entry += "This file is full: what fails from now on is not written down.\n"
                entry = entry[-_MAX_ERRORS_BYTES:]
            with path.open("a") as log:
                log.write(entry)
        return None if size else path

    def log_internal_error(self, details: str) -> Path:
        """`internal_error.log`: the traceback of a bug of ours; its path."""
        path = self.path / "internal_error.log"
        path.write_text(details)
        return path

    def write_video(self, name: str, data: bytes) -> Path:
        """`videos/<name>` from a file's bytes."""
        path = self.path / "videos" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def rewind(self, env_steps: int) -> None:
        """Takes back what was written after `env_steps`: a resumed run writes it again.

        Lines of `metrics.jsonl` go; TensorBoard is told to drop its events.
        """
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if is_up_to(line, env_steps)]
            self._replace("metrics.jsonl", "".join(kept))
        self.metrics.rewind(env_steps)

    def write_visits(self, visits: np.ndarray) -> None:
        """`visits.safetensors`: `[S, A]` int64, how often each state and action was added."""
        import safetensors.numpy

        data = safetensors.numpy.save({"visits": np.ascontiguousarray(visits)})
        (self.path / "visits.safetensors").write_bytes(data)

    def close(self) -> None:
        """Puts what is buffered on the disk; may be called twice."""
        if metrics := self.__dict__.pop("metrics", None):
            metrics.close()

    def leave(self, state: str = "failed") -> None:
        """Where the process that owns a run has done with it, or ends: it is not left live."""
        run = self.read_run_json()
        if run.get("pid") == os.getpid() and run.get("state") in _LIVE_STATES:
            self.tell(state=state)

    def _replace(self, name: str, text: str) -> None:
        """Another shell reads the old text or the new one, never half of it."""
        write_file(self.path / name, text.encode())


def require_function(env_id: str, make_env: object, call: str) -> None:
    """Raises RunError where a function made a run's envs and `make_env` is None.

    call: what does without the run's files, `distdqn.evaluate('run', make_env=...)`.
    """
    if is_function(env_id) and make_env is None:
        raise RunError(
            f"the run was made with the {env_id}, and its files hold no environment: from Python, "
            f"call {call}"
        )


def check_free(runs_dir: str | Path, run_name: str | None) -> None:
    """Raises RunError where `RunFolder.create` would; makes nothing."""
    path = Path(runs_dir).absolute()
    named = None if run_name is None else path / run_name
    if named and named.exists() and not RunFolder(named).failed_to_start:
        raise _name_taken(named)
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise cannot_make(runs_dir, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise cannot_make(runs_dir, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def list_runs(runs_dir: str | Path) -> list[Path]:
    """Folders of runs, the newest first, without those that failed to start."""
    found = [(path.stat().st_mtime, path.parent) for path in Path(runs_dir).glob("*/run.json")]
    newest_first = [path for _, path in sorted(found, reverse=True)]
    return [path for path in newest_first if not RunFolder(path).failed_to_start]


def _no_run(run: Path, runs_dir: str | Path) -> str:
    """What to say where there is no such run: the one that is meant, or the newest."""
    if (run / "manifest.json").is_file():
        owner = next((path for path in run.parents if (path / "run.json").is_file()), None)
        if owner is not None:
            return f"{run} is a checkpoint: name its run, {owner}, and --checkpoint {run}"
    names = [path.name for path in list_runs(run if run.is_dir() else runs_dir)]
    newest = ", ".join(names[:_RUNS_NAMED])
    there = f"the newest are {newest}" if newest else "there is none yet; see `distdqn train`"
    if run.is_dir() and newest:
        return f"{run} holds runs and is none: name one of them; {there}"
    by_lower = {name.lower(): name for name in names}
    for close in difflib.get_close_matches(run.name.lower(), by_lower, 1, cutoff=0.8):
        there = f"did you mean {by_lower[close]}?"
    return f"no run {str(run)!r} in {runs_dir}: {there}"


def _take_name(path: Path) -> Path:
    """Creating the folder is what takes the name: of two processes one succeeds.

    What a start that failed has left under the name goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if RunFolder(path).failed_to_start:
        with _one_at_a_time(path.parent):
            if RunFolder(path).failed_to_start:  # still: no other process has taken the name
                _remove_failed_start(path)
    try:
        path.mkdir()
    except FileExistsError as error:
        raise _name_taken(path) from error
    return path


@contextlib.contextmanager
def _one_at_a_time(runs_dir: Path) -> Iterator[None]:
    """Of the processes that remove a failed start one goes ahead; where locks are, the others wait.

    A file system without locks leaves it to the second look of `_remove_failed_start`.
    """
    lock = os.open(runs_dir, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_failed_start(path: Path) -> None:
    """Out of the way first: a folder that has become another's meanwhile is put back."""
    gone = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):  # its owner was faster
        path.rename(gone)
        if not RunFolder(gone).failed_to_start:
            gone.rename(path)
    shutil.rmtree(gone, ignore_errors=True)


def _name_taken(path: Path) -> RunError:
    folder = RunFolder(path)
    run = folder.read_run_json()
    who = f"process {run.get('pid')} on {run.get('host')}"
    return RunError(
        f"run name {path.name!r} is in use by {who}; stop that run or choose another --run-name"
        if folder.is_live
        else f"run name {path.name!r} is taken: {path} is there; "
        "choose another --run-name, or move the folder away"
    )


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "pid": process.pid,
        "pid_created": process.create_time(),
        "host": socket.gethostname(),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
