"""The files of a shard's replay, shared between checkpoints.

    checkpoints/replay/shard_<i>/  <first item>-<digest>.msgpack   a segment: items, frames
                                   state-<digest>.msgpack          sampler, counters, rng

What a replay has added never changes, so a checkpoint writes one segment of what came
since the one before and lists it beside the earlier ones that still hold something live.
Names carry the content's digest: nothing is ever overwritten by other content. A file
counts only once a manifest lists it, and that is written last.

    first_item, first_frame = saved_up_to(previous)       previous: the entry before, or None
    state = replay.get_state(first_item, first_frame)
    entry = save_replay(run, shard, state, previous)      into the manifest, as plain JSON
    prune_segments(run, entries of all manifests kept)    when the manifest is written
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.errors import CheckpointError, CodecError
from distdqn.files.codec import decode, encode
from distdqn.files.durable import left_over, listing, read_file, sync_folder, write_file
from distdqn.replay.saved_state import FRAME_COLUMNS, cut, frame_columns, num_frames

MAX_SMALL_SEGMENTS = 64
SEGMENT_BYTES = 2**28  # at most, about: what is encoded at once

_FOLDER = Path("checkpoints") / "replay"


def saving_bytes(replay_bytes: int) -> int:
    """Memory that saving takes at most, beside a replay of `replay_bytes`.

    When everything is written anew all of it is gathered, and encoded piece by piece.
    """
    return replay_bytes + 3 * min(replay_bytes, SEGMENT_BYTES)


def saved_up_to(previous: Mapping[str, Any] | None) -> tuple[int, int]:
    """The `first_item` and `first_frame` from which `Replay.get_state` is to give more.

    previous: the shard's entry of the checkpoint before, or None. (0, 0), everything,
      where there is none or where it lists so many small segments that all that is live
      is written anew: segments stay few.
    """
    if previous is None:
        return 0, 0
    segments = previous["segments"]
    small = [segment for segment in segments if segment["bytes"] < SEGMENT_BYTES // 2]
    if len(small) >= MAX_SMALL_SEGMENTS:
        return 0, 0
    return segments[-1]["end_item"], segments[-1]["end_frame"]


def save_replay(
    run_folder: str | Path,
    shard: int,
    state: Mapping[str, Any],
    previous: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes what is new in a shard's `state`; returns the entry for the manifest.

    state: of `Replay.get_state` from `saved_up_to(previous)` on.
    previous: the shard's entry of the checkpoint before, if `state` does not hold everything.

    The entry is plain JSON: "shard", "state" and "segments", oldest first, each file with
    "file" (relative to the run's folder), "bytes" and "sha256", each segment with its
    numbers of items and frames. All is on the disk when this returns. Raises CheckpointError
    (the disk is full), or ValueError where `previous` is not of the same replay.
    """
    run_folder = Path(run_folder)
    folder = run_folder / _FOLDER / f"shard_{shard}"
    light = {name: value for name, value in state.items() if name != "segments"}
    (new,) = state["segments"]
    segments = _kept(state, previous)
    _check_complete([*segments, _numbers(new)], state)
    has_new = len(new["block_frame"]) > 0 or not segments  # one at least, for the columns
    try:
        _make_folder(folder)
        for piece in _split(new) if has_new else ():
            name = f"{piece['first_item']:012d}"
            segments.append(_write(run_folder, folder, name, piece) | _numbers(piece))
        written = _write(run_folder, folder, "state", light)
        sync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"cannot save replay {folder}: {error.strerror or error}") from error
    return {"shard": shard, "state": written, "segments": segments}


def _make_folder(folder: Path) -> None:
    """With its name on the disk, and that of the folder around it."""
    if not folder.exists():
        folder.mkdir(parents=True)
        for parent in folder.parents[:2]:
            sync_folder(parent)


def load_replay(run_folder: str | Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The state that `entry` lists, for `Replay.set_state`; its arrays are read-only.

    Raises CheckpointError, which names the file, where one is missing or not as it was written.
    """
    return {
        **_read(run_folder, entry["state"]),
        "segments": [_read(run_folder, listed) for listed in entry["segments"]],
    }


def check_replay(run_folder: str | Path, entry: Mapping[str, Any]) -> None:
    """Raises what `load_replay` would, one file in memory at a time."""
    for listed in _files(entry):
        read_file(Path(run_folder) / listed["file"], listed)


def prune_segments(
    run_folder: str | Path, entries_in_use: Iterable[Mapping[str, Any]]
) -> list[Path]:
    """Removes the replay files that no entry lists, and what broken-off writers left.

    entries_in_use: of all shards in all manifests kept. For the one process that writes
      to the run, once the manifests without use are gone. Returns what it removed.
    """
    run_folder = Path(run_folder)
    in_use = {run_folder / listed["file"] for entry in entries_in_use for listed in _files(entry)}
    folders = list((run_folder / _FOLDER).glob("shard_*"))
    written = {path for folder in folders for path in folder.glob("*.msgpack")}
    left = [path for folder in folders for path in left_over(folder)]
    gone = sorted(written - in_use) + left
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def _kept(state: Mapping[str, Any], previous: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The segments of `previous` that hold what is live in `state` and not in its segment."""
    first_item, first_frame = state["inserts"] - state["size"], state["oldest_frame"]
    (new,) = state["segments"]
    is_whole = new["first_item"] <= first_item and new["first_frame"] <= first_frame
    if is_whole or previous is None:
        return []
    return [
        dict(listed)
        for listed in previous["segments"]
        if listed["end_item"] > first_item or listed["end_frame"] > first_frame
    ]


def _check_complete(segments: Iterable[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
    """Raises ValueError where segments with these numbers lack something live."""
    live = {
        "item": (state["inserts"] - state["size"], state["inserts"]),
        "frame": (state["oldest_frame"], state["next_frame"]),
    }
    for what, (first, end) in live.items():
        pieces = [(s[f"first_{what}"], s[f"end_{what}"] - s[f"first_{what}"]) for s in segments]
        cut(pieces, first, end, what)


def _split(segment: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Cuts a segment into pieces of about `SEGMENT_BYTES`; items and frames apart, as
    each is looked for by its own number."""
    columns = {name: x for name, x in segment.items() if isinstance(x, np.ndarray)}
    count = math.ceil(sum(column.nbytes for column in columns.values()) / SEGMENT_BYTES) or 1
    numbers = _numbers(segment)
    for k in range(count):
        rows, firsts = {}, {}
        for what in ("item", "frame"):
            first, end = numbers[f"first_{what}"], numbers[f"end_{what}"]
            rows[what] = slice(*((end - first) * i // count for i in (k, k + 1)))
            firsts[f"first_{what}"] = first + rows[what].start
        items = {name: x[rows["item"]] for name, x in columns.items() if name not in FRAME_COLUMNS}
        yield {**firsts, **items, **frame_columns(segment, rows["frame"])}


def _numbers(segment: Mapping[str, Any]) -> dict[str, int]:
    return {
        "first_item": segment["first_item"],
        "end_item": segment["first_item"] + len(segment["block_frame"]),
        "first_frame": segment["first_frame"],
        "end_frame": segment["first_frame"] + num_frames(segment),
    }


def _write(run_folder: Path, folder: Path, name: str, value: Any) -> dict[str, Any]:
    data = encode(value)
    listed = listing(data)
    path = folder / f"{name}-{listed['sha256'][:16]}.msgpack"
    write_file(path, data)
    return {"file": path.relative_to(run_folder).as_posix(), **listed}


def _read(run_folder: str | Path, listed: Mapping[str, Any]) -> Any:
    path = Path(run_folder) / listed["file"]
    try:
        return decode(read_file(path, listed))
    except CodecError as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read: {error}") from error


def _files(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry["state"], *entry["segments"]]
