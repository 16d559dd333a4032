"""A run's folder: where a run writes and another shell looks.

One process owns it. `run.json` says which, so that a name in use is refused and a
finished run is not mistaken for a live one.

    run.json  config.yaml  summary.json  metrics.jsonl  events.*  learning_curve.png
    checkpoints/  best/  videos/  visits.safetensors  ray_token
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import functools
import itertools
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from distdqn.errors import RunError
from distdqn.files.durable import write_file
from distdqn.files.metrics_log import MetricsLog, is_up_to
from distdqn.plain_json import to_json

_LIVE_STATES = ("starting", "running", "stopping")
_RUNS_NAMED = 5


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

        run_name: None for `<env>-<YYYYmmdd-HHMMSS>`, with `-2` and so on where that is taken.
        Raises RunError: the name is taken, or the disk refuses.
        """
        try:
            if run_name is None:
                path = make_folder(runs_dir, re.sub(r"[^\w.-]+", "-", env_id).strip("-."))
            else:
                path = _take_name(Path(runs_dir) / run_name)
            (path / "config.yaml").write_text(config_yaml)
            folder = cls(path)
            folder.tell(**_this_process(), state="starting")
        except OSError as error:
            raise _cannot_make(runs_dir, error) from error
        return folder

    @classmethod
    def find(cls, run: str | Path, runs_dir: str | Path = "runs") -> RunFolder:
        """The folder of an earlier or a live run, by its name or its path.

        Raises RunError, which names the newest runs.
        """
        for path in (Path(runs_dir) / run, Path(run)):
            if (path / "run.json").is_file():
                return cls(path)
        newest = ", ".join(path.name for path in list_runs(runs_dir)[:_RUNS_NAMED])
        there = f"the newest are {newest}" if newest else "there is none yet; see `distdqn train`"
        raise RunError(f"no run {str(run)!r} in {runs_dir}: {there}")

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

    def tell(self, **fields: Any) -> None:
        """Tells other shells in `run.json`, above all how to reach the run's actors.

        state: "starting", "running", "stopping", "stopped", "finished" or "failed".
        """
        self._replace("run.json", to_json(self.read_run_json() | fields, indent=1) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """`summary.json`; numbers that are not finite become null."""
        self._replace("summary.json", to_json(summary, indent=1) + "\n")

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
        self.leave()
        if metrics := self.__dict__.pop("metrics", None):
            metrics.close()

    def leave(self) -> None:
        """Before the process ends that owns the run: it is not left live."""
        run = self.read_run_json()
        if run.get("pid") == os.getpid() and run.get("state") in _LIVE_STATES:
            self.tell(state="failed")

    def _replace(self, name: str, text: str) -> None:
        """Another shell reads the old text or the new one, never half of it."""
        write_file(self.path / name, text.encode())


def list_runs(runs_dir: str | Path) -> list[Path]:
    """Folders of runs, the newest first."""
    found = [(path.stat().st_mtime, path.parent) for path in Path(runs_dir).glob("*/run.json")]
    return [path for _, path in sorted(found, reverse=True)]


def make_folder(runs_dir: str | Path, kind: str) -> Path:
    """`<kind>-<YYYYmmdd-HHMMSS>`, with `-2` and so on where that is taken.

    Creating it is what takes the name: of two commands at once each has its own. Raises
    RunError where `runs_dir` cannot be written.
    """
    stem = f"{kind}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    try:
        Path(runs_dir).mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = Path(runs_dir) / (stem if number == 1 else f"{stem}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
        return folder
    except OSError as error:
        raise _cannot_make(runs_dir, error) from error


def _cannot_make(runs_dir: str | Path, error: OSError) -> RunError:
    return RunError(
        f"cannot make a folder in {runs_dir}: {error.strerror}; "
        "choose another place with --runs-dir"
    )


def _take_name(path: Path) -> Path:
    """Creating the folder is what takes the name: of two processes one succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError as error:
        folder = RunFolder(path)
        run = folder.read_run_json()
        who = f"process {run.get('pid')} on {run.get('host')}"
        raise RunError(
            f"run name {path.name!r} is in use by {who}; stop that run or choose another --run-name"
            if folder.is_live
            else f"run name {path.name!r} is taken: {path} is there; "
            "choose another --run-name, or move the folder away"
        ) from error
    return path


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "pid": process.pid,
        "pid_created": process.create_time(),
        "host": socket.gethostname(),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
