"""How the pieces of a saved replay fit together.

What a replay adds never changes, so a checkpoint saves only what came since the one
before; a replay is restored from all the pieces that still hold something live.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

FRAME_COLUMNS = ("frames", "action_mask", "frame_sizes")

FramePiece = tuple[np.ndarray | list[bytes], np.ndarray | None]
"""`[F, *shape]` frames or F compressed ones, and their masks `[F, A]` where there are any."""


def live_items(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The live items' columns `[size]` by `names`, joined from the segments of a state.

    Raises ValueError where a segment, or a column of one, is missing.
    """
    segments, end = state["segments"], state["inserts"]
    for missing in (set(names).difference(segment) for segment in segments):
        if missing:
            raise ValueError(f"a segment lacks {sorted(missing)}: another version has written it")
    pieces = [(segment["first_item"], len(segment[names[0]])) for segment in segments]
    rows = cut(pieces, end - state["size"], end, "item")
    return {
        name: np.concatenate([s[name][r] for s, r in zip(segments, rows, strict=True)])
        for name in names
    }


def live_frames(state: Mapping[str, Any]) -> list[FramePiece]:
    """The frames from "oldest_frame" on and their masks, in pieces: they are too many to join.

    Compressed ones come as a list. Raises ValueError where a segment is missing.
    """
    segments = state["segments"]
    pieces = [(segment["first_frame"], num_frames(segment)) for segment in segments]
    rows = cut(pieces, state["oldest_frame"], state["next_frame"], "frame")
    live: list[FramePiece] = []
    for columns in map(frame_columns, segments, rows):
        frames: Any = columns["frames"]
        if "frame_sizes" in columns:
            data, ends = frames.tobytes(), np.cumsum(columns["frame_sizes"]).tolist()
            frames = [data[start:end] for start, end in itertools.pairwise([0, *ends])]
        live.append((frames, columns.get("action_mask")))
    return live


def num_frames(segment: Mapping[str, Any]) -> int:
    """Frames in a segment, compressed or not."""
    return len(segment["frame_sizes" if "frame_sizes" in segment else "frames"])


def frame_columns(segment: Mapping[str, Any], rows: slice) -> dict[str, np.ndarray]:
    """What a segment holds of some of its frames: "frames", and masks and sizes if it has any.

    Compressed frames lie one after the other; "frame_sizes" `[F]` tells their borders.
    """
    names = [name for name in FRAME_COLUMNS if name in segment]
    columns = {name: segment[name][rows] for name in names}
    if "frame_sizes" in segment:
        ends = np.concatenate([[0], np.cumsum(segment["frame_sizes"])])
        columns["frames"] = segment["frames"][ends[rows.start] : ends[rows.stop]]
    return columns


def cut(pieces: Iterable[tuple[int, int]], first: int, end: int, what: str) -> list[slice]:
    """Which rows of each piece to take so that `first` to `end` come once each, in order.

    pieces: (number of the first row, number of rows), oldest first; they may overlap and
      reach beyond either side.
    what: name of the rows, for the error.

    Returns one slice within each piece, empty perhaps. Raises ValueError where rows are missing.
    """
    slices, reached = [], first
    for start, length in pieces:
        if start > reached and reached < end:
            raise ValueError(
                f"a piece of the state with {what} {reached} is required, got one from {start} "
                "on: a piece is missing"
            )
        begin = min(max(start, reached), start + length)  # all of it may be evicted
        stop = min(start + length, end)
        slices.append(slice(begin - start, max(begin, stop) - start))
        reached = max(reached, stop)
    if reached < end:
        raise ValueError(
            f"pieces of the state up to {what} {end} are required, got them up to {reached}: a "
            "piece is missing"
        )
    return slices


def rng_words(rng: np.random.Generator) -> np.ndarray:
    """The state of a PCG64 generator as `[6]` uint64: its integers are of 128 bits."""
    state = rng.bit_generator.state
    integers = (state["state"]["state"], state["state"]["inc"])
    words = [word for value in integers for word in (value & (2**64 - 1), value >> 64)]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def set_rng_words(rng: np.random.Generator, words: np.ndarray) -> None:
    """The inverse of `rng_words`."""
    low, high, inc_low, inc_high, has_uint32, uinteger = (int(word) for word in words)
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": low | high << 64, "inc": inc_low | inc_high << 64},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
