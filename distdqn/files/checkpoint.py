"""Checkpoints: parameters, optimizer and counters as files that can be trusted.

A checkpoint is a folder; its manifest holds the digest of every other file and is
written last, and the folder gets its name when it is complete. Nothing is unpickled.

    checkpoints/step_<env_steps>/  manifest.json
                                   online.safetensors, target.safetensors   by parameter name
                                   optimizer.safetensors                    by slot
                                   run_state.msgpack                        where it can be resumed
    best/                          the same

The replay's files lie beside, shared between checkpoints (`replay_files`); a manifest
lists those that its checkpoint needs.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from distdqn.errors import CheckpointError, CodecError
from distdqn.files.codec import decode, encode
from distdqn.files.durable import left_over, listing, read_file, sync_folder, write_file
from distdqn.files.replay_files import check_replay, prune_segments
from distdqn.version import __version__

FORMAT = 1
MANIFEST = "manifest.json"
RUN_STATE = "run_state.msgpack"

_ARRAYS = ("online", "target", "optimizer")
_STEP_FOLDER = re.compile(r"step_(\d+)")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from, and what a policy is rebuilt from.

    online, target: parameters by their names in the network.
    optimizer: the optimizer's slots by name.
    counters: clocks and accounts by name, ints and floats; at least `env_steps`.
    network: what rebuilds the network, plain values: `observation` (the fields of
      `ObservationSpec`), `observation_space` (as `envs/spaces` writes it; older checkpoints
      have none), `num_actions`, `action_start`, `torso`, `hidden`, `dueling`, and `custom`
      where the user's own `make_network` built it.
    env_id: of the environment, for people.
    replay: an entry of `replay_files.save_replay` for each shard; empty without replay.
    run_state: what else a run needs to go on, plain values and arrays; None where the
      checkpoint has weights alone.
    """

    online: Mapping[str, np.ndarray]
    target: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    counters: Mapping[str, int | float]
    network: Mapping[str, Any]
    env_id: str = ""
    replay: Sequence[Mapping[str, Any]] = ()
    run_state: Mapping[str, Any] | None = None

    @property
    def env_steps(self) -> int:
        return int(self.counters["env_steps"])


def save_checkpoint(directory: str | Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint as the folder `directory`, in place of one that is there.

    Whoever looks finds the old one or the new one, complete; all is on the disk when
    this returns. Raises CheckpointError where it cannot be written (the disk is full).
    """
    directory = Path(directory)
    partial = directory.with_name(f".{directory.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        _write_files(partial, checkpoint)
        _put_in_place(partial, directory)
    except OSError as error:
        raise CheckpointError(
            f"cannot save checkpoint {directory}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return directory


def load_checkpoint(directory: str | Path) -> Checkpoint:
    """Reads a checkpoint whose every file is as it was written.

    Raises CheckpointError for another format, or a file, which it names, that is not.
    """
    directory = _complete(Path(directory))
    manifest = _read_manifest(directory)
    read = functools.partial(_read, directory, manifest)
    return Checkpoint(
        **{name: read(f"{name}.safetensors", safetensors.numpy.load) for name in _ARRAYS},
        counters=manifest["counters"],
        network=manifest["network"],
        env_id=manifest["env_id"],
        replay=manifest.get("replay", ()),
        run_state=read(RUN_STATE, decode) if RUN_STATE in manifest["files"] else None,
    )


def checkpoints(run_folder: str | Path) -> list[Path]:
    """The run's `checkpoints/step_*`, oldest first; whether they are valid is not asked."""
    folder = Path(run_folder) / "checkpoints"
    found = [path for path in folder.glob("step_*") if _STEP_FOLDER.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def step_folder(run_folder: str | Path, env_steps: int) -> Path:
    """Where a run's checkpoint at `env_steps` lies."""
    return Path(run_folder) / "checkpoints" / f"step_{env_steps}"


def newest(run_folder: str | Path, resumable: bool = False) -> tuple[Path, Checkpoint, list[str]]:
    """The newest intact checkpoint, where it lies, and a line for each newer one that is harmed.

    resumable: only one from which the run can go on, replay and all.
    Raises CheckpointError where there is none; says of each what is wrong with it.
    """
    harmed: list[str] = []
    alone: list[str] = []
    for path in reversed(checkpoints(run_folder)):
        try:
            checkpoint = load_checkpoint(path)
            for entry in checkpoint.replay if resumable else ():
                check_replay(run_folder, entry)
        except CheckpointError as error:
            harmed.append(str(error))
            continue
        if checkpoint.run_state is not None or not resumable:
            return path, checkpoint, [f"{line}; using {path.name}" for line in harmed]
        alone.append(f"{path.name} has weights alone")
    purpose, what = "resume from" if resumable else "read", "; ".join(harmed + alone)
    raise CheckpointError(
        f"no checkpoint to {purpose} in {run_folder}: {what or 'it has none yet'}"
    )


def has_resumable(run_folder: str | Path) -> bool:
    """Whether the run may be gone on with; weights alone are no state to go on from."""
    return any((path / RUN_STATE).exists() for path in checkpoints(run_folder))


def has_any(run_folder: str | Path) -> bool:
    """Whether the run has weights, the best or others."""
    return any(Path(run_folder).glob("best/manifest.json")) or bool(checkpoints(run_folder))


def find_checkpoint(
    run_folder: str | Path, which: str | Path = "best"
) -> tuple[Path, Checkpoint, list[str]]:
    """The checkpoint that a user names, where it lies, and lines to tell about it.

    which: "best" (the newest, where no best one has been kept), "newest", or a path.
    Raises CheckpointError where there is none, or it is harmed.
    """
    best = Path(run_folder) / "best"
    if which == "best" and _complete(best).exists():
        return best, load_checkpoint(best), []
    if which in ("best", "newest"):
        return newest(run_folder)
    for path in (Path(which), Path(run_folder) / which, Path(run_folder) / "checkpoints" / which):
        if (path / MANIFEST).exists():
            return path, load_checkpoint(path), []
    raise CheckpointError(f"no checkpoint at {which}: required best, newest, or a path to one")


def prune(run_folder: str | Path, keep: int) -> list[Path]:
    """Removes all but the `keep` newest checkpoints, and what broken-off writers left.

    For the one process that writes to the run. Returns what it removed.
    """
    if keep < 1:
        raise ValueError(f"keep must be >= 1, got {keep}: a run would lose its last checkpoint")
    places = (Path(run_folder), Path(run_folder) / "checkpoints")
    unfinished = [path for place in places for path in left_over(place) if path.is_dir()]
    whole = [
        path for path in (Path(run_folder) / "best", *checkpoints(run_folder)) if path.exists()
    ]
    replaced = [_old(path) for path in whole if _old(path).exists()]
    gone = [*checkpoints(run_folder)[:-keep], *unfinished, *replaced]
    for path in gone:
        # Without its manifest it is no checkpoint, should the removal be broken off.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    return gone + prune_segments(run_folder, _replay_entries(run_folder))


def _replay_entries(run_folder: str | Path) -> list[Mapping[str, Any]]:
    """Of all checkpoints that can be read; the others could not be resumed from anyway."""
    entries: list[Mapping[str, Any]] = []
    for path in checkpoints(run_folder):
        with contextlib.suppress(CheckpointError):
            entries += _read_manifest(path).get("replay", ())
    return entries


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    contents = {}
    for name in _ARRAYS:
        # Not ascontiguousarray, which gives a 0-dim array an axis.
        arrays = {key: np.asarray(x, order="C") for key, x in getattr(checkpoint, name).items()}
        contents[f"{name}.safetensors"] = safetensors.numpy.save(arrays)
    if checkpoint.run_state is not None:
        contents[RUN_STATE] = encode(checkpoint.run_state)
    for name, data in contents.items():
        write_file(folder / name, data)
    manifest = {
        "format": FORMAT,
        "distdqn": __version__,
        "env_id": checkpoint.env_id,
        "counters": dict(checkpoint.counters),
        "network": dict(checkpoint.network),
        "replay": list(checkpoint.replay),
        "files": {name: listing(data) for name, data in contents.items()},
    }
    text = _to_json(manifest)
    signed = json.loads(text) | {"sha256": listing(text.encode())["sha256"]}
    write_file(folder / MANIFEST, _to_json(signed).encode())
    sync_folder(folder)


def _put_in_place(partial: Path, directory: Path) -> None:
    """A folder cannot be renamed onto another: the old one steps aside first."""
    old = _old(directory)
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(directory, old)
    os.rename(partial, directory)
    sync_folder(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def _complete(directory: Path) -> Path:
    """`directory`, or the one that it was about to replace when its writer was killed."""
    return directory if directory.exists() or not _old(directory).exists() else _old(directory)


def _old(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        digest, written = manifest.pop("sha256"), manifest["format"]
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {directory}: {MANIFEST} is missing") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"checkpoint file {path} is truncated or altered") from error
    if written != FORMAT:
        raise CheckpointError(
            f"checkpoint {directory} has format {written} (distdqn {manifest.get('distdqn')}), "
            f"this distdqn {__version__} reads format {FORMAT}: install the other version"
        )
    if digest != listing(_to_json(manifest).encode())["sha256"]:
        raise CheckpointError(f"checkpoint file {path} is altered: its SHA-256 differs")
    return manifest


def _read(
    directory: Path, manifest: Mapping[str, Any], name: str, unpack: Callable[[bytes], Any]
) -> Any:
    """What a listed file holds; unpack: makes it of the file's bytes."""
    try:
        return unpack(read_file(directory / name, manifest["files"][name]))
    except (KeyError, TypeError, CodecError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint file {directory / name} does not fit its manifest"
        ) from error


def _to_json(value: Any) -> str:
    """The same text for the same value, numpy numbers as plain ones."""
    return json.dumps(value, indent=1, sort_keys=True, default=lambda number: number.item())
