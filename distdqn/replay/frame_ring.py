"""Frames in a ring, each stored once; stacks are put together when gathered.

Frames have absolute numbers that never repeat; a frame is overwritten only when no
live item needs it any more: the ring grows before it would.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numba
import numpy as np

from distdqn.replay.saved_state import FramePiece
from distdqn.replay.streaming import (
    STREAM_BYTES,
    STREAMED_FROM_BYTES,
    finish_streaming,
    store_streaming,
)
from distdqn.types import ObservationSpec

GROWTH = 1.05  # factor: the price is to move frames, so not at every block

_ALLOCATION_BYTES = 16  # what the C library rounds up to, beside 8 bytes of its own

_CHUNK = 1024  # frames decompressed at once when a plain ring takes over compressed ones


class Rows:
    """`capacity` rows of one shape in slots, each filled by `write`.

    They are copied as the widest words that divide a row: one kernel serves every dtype and shape.

    Slots are numbered round: row number n lies in slot n - origin, or in that plus
    `capacity` where it is older than the row `origin` in slot 0.

    array: `[capacity, *shape]`.
    """

    def __init__(self, capacity: int, dtype: str, shape: tuple[int, ...]) -> None:
        self.array = np.empty((capacity, *shape), dtype)
        self._shape, self._width = shape, math.prod(shape)
        row_bytes = self.array.itemsize * self._width
        self._word = np.uint64 if row_bytes % 8 == 0 else np.uint32 if row_bytes % 4 == 0 else "u1"

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def write(self, slot: int, rows: np.ndarray) -> None:
        """Copies `rows [B, *shape]` into the slots from `slot` on."""
        self.array[slot : slot + len(rows)] = rows

    def gather(self, numbers: np.ndarray, origin: int) -> np.ndarray:
        """The rows with `numbers [...]`, as `[..., *shape]`.

        Of `numbers [P, B, stack]` those of one column are gathered one after the other: the
        stacks of a transition share rows.
        """
        out = np.empty((*numbers.shape, *self._shape), self.array.dtype)
        streams = (
            out.nbytes >= STREAMED_FROM_BYTES
            and self.array.itemsize * self._width % STREAM_BYTES == 0
            and out.ctypes.data % STREAM_BYTES == 0
        )
        words, rows = self._words(self.array), self._words(out)
        if numbers.ndim == 3:
            _gather_stacks(words, numbers, origin, rows.reshape(-1), streams)
        else:
            _gather(words, numbers.reshape(-1), origin, rows)
        return out

    def resize(self, capacity: int, num_tail: int) -> None:
        """Grows in place, so that old and new rows never exist together.

        num_tail: so many of the last rows become the last of the new capacity.
        """
        before, added = len(self.array), capacity - len(self.array)
        self.array.resize((capacity, *self._shape), refcheck=False)
        for end in range(before, before - num_tail, -added):  # never onto what is still to move
            start = max(end - added, before - num_tail)
            self.array[start + added : end + added] = self.array[start:end]

    def _words(self, rows: np.ndarray) -> np.ndarray:
        """`[..., *shape]` as `[B, words of a row]`."""
        return rows.reshape(rows.size // self._width, self._width).view(self._word)


class CompressedRows:
    """`capacity` rows of one shape, each compressed without loss; see `Rows`.

    For where memory is dearer than time: each row is an object of its own, and a batch's
    rows are decompressed one by one, each once.

    nbytes: what is held now, with what Python and the C library take per object.
    """

    def __init__(self, capacity: int, dtype: str, shape: tuple[int, ...]) -> None:
        self._dtype, self._shape = dtype, shape
        self._slots: list[bytes] = [b""] * capacity
        self._held_bytes = 0

    @property
    def nbytes(self) -> int:
        return self._held_bytes + 8 * len(self._slots)

    def write(self, slot: int, rows: np.ndarray | Sequence[bytes]) -> None:
        """Puts `rows [B, *shape]`, or rows compressed already, into the slots from `slot` on."""
        import lz4.block

        for place, row in enumerate(rows, slot):
            data = row if isinstance(row, bytes) else lz4.block.compress(row, store_size=False)
            self._held_bytes += _object_bytes(data) - _object_bytes(self._slots[place])
            self._slots[place] = data

    def gather(self, numbers: np.ndarray, origin: int) -> np.ndarray:
        """The rows with `numbers [...]`, as `[..., *shape]`."""
        distinct, places = np.unique(numbers, return_inverse=True)
        rows = decompressed(self.compressed(distinct, origin), self._dtype, self._shape)
        return rows.take(places.reshape(numbers.shape), axis=0)

    def compressed(self, numbers: np.ndarray, origin: int) -> Iterable[bytes]:
        """The rows with `numbers [B]` as they are kept."""
        slots = numbers - origin
        return map(self._slots.__getitem__, np.where(slots < 0, slots + len(self._slots), slots))

    def resize(self, capacity: int, num_tail: int) -> None:
        """See `Rows.resize`."""
        cut = len(self._slots) - num_tail
        self._slots[cut:cut] = [b""] * (capacity - len(self._slots))


def decompressed(rows: Iterable[bytes], dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """`[B, *shape]`. Raises ValueError where one of `rows` is no such row."""
    import lz4.block  # only where frames are compressed

    row_bytes = np.dtype(dtype).itemsize * math.prod(shape)
    plain: list[bytes] = []
    for data in rows:
        try:
            plain.append(lz4.block.decompress(data, uncompressed_size=row_bytes))
        except lz4.block.LZ4BlockError:  # a larger one too
            plain.append(b"")
        if len(plain[-1]) != row_bytes:
            raise ValueError(
                f"a compressed frame must hold {row_bytes} bytes, got "
                f"{len(plain[-1]) or 'others'}: it is of another environment or preprocessing"
            )
    return np.frombuffer(b"".join(plain), dtype).reshape(-1, *shape)


def _object_bytes(data: bytes) -> int:
    """Of memory that an object of this content takes; empty ones are one and the same."""
    if not data:
        return 0
    size = data.__sizeof__() + 8
    return -(-size // _ALLOCATION_BYTES) * _ALLOCATION_BYTES


class FrameRing:
    """The last `capacity` frames of a shard, with the actions allowed in them.

    Frame number n (int64, from 0, in order of arrival) lies in slot n - origin, or, if
    that is negative, `capacity` after it; `origin`, the number of the frame in slot 0,
    moves on with each lap. `next_number` is the number of the next frame. The caller says
    with each `append` which frames are still needed; where the new ones would overwrite
    them, the ring grows in place to what is needed and by a factor of at least 1.05, and
    those of the lap before move to its new end.

    Memory is allocated, not touched: what was never written takes none.

    With `compression` "lz4" each frame is kept compressed.

    Action masks get their own ring `[capacity, A]` when the first ones arrive. True
    stands for "allowed or unknown", so frames that came without a mask allow all.
    """

    def __init__(
        self,
        capacity: int,
        observation: ObservationSpec,
        num_actions: int,
        compression: str = "none",
    ) -> None:
        assert capacity >= 1, f"no frame fits into a capacity of {capacity}"
        assert 0 not in observation.shape, f"nothing to store of shape {observation.shape}"
        self.capacity = int(capacity)
        self.next_number = 0
        self._origin = 0
        self._observation = observation
        self._num_actions = int(num_actions)
        kinds: dict[str, type[Rows] | type[CompressedRows]] = {"none": Rows, "lz4": CompressedRows}
        self._frames = kinds[compression](self.capacity, observation.dtype, observation.shape)
        self._masks: Rows | None = None

    @property
    def nbytes(self) -> int:
        """Of the storage, masks included; compressed frames count as what they take now."""
        return self._frames.nbytes + (self._masks.nbytes if self._masks else 0)

    def append(
        self, frames: np.ndarray | Sequence[bytes], action_mask: np.ndarray | None, oldest: int
    ) -> int:
        """Copies `frames [F, *shape]` in; returns the number of the first.

        frames: a ring with compression takes compressed ones too.
        action_mask: `[F, A]` bool, or None when unknown.
        oldest: number of the oldest frame that must stay; `next_number` if none must.
        """
        assert 0 <= oldest <= self.next_number, "frames that never were cannot stay"
        needed = self.next_number - oldest + len(frames)
        if needed > self.capacity:
            self._grow(max(needed, math.ceil(self.capacity * GROWTH)), oldest)
        if action_mask is not None and self._masks is None:
            self._masks = Rows(self.capacity, "bool", (self._num_actions,))
            self._masks.array[:] = True
        if action_mask is None and self._masks is not None:
            action_mask = np.ones((len(frames), self._num_actions), bool)
        first = self.next_number
        for start, slot, length in self._runs(len(frames)):
            self._frames.write(slot, frames[start : start + length])  # type: ignore[arg-type]
            if self._masks is not None and action_mask is not None:
                self._masks.write(slot, action_mask[start : start + length])
        return first

    def gather(self, numbers: np.ndarray, depths: np.ndarray | None = None) -> np.ndarray:
        """The observations with the newest frames `numbers`, all of which the ring must hold.

        numbers: `[...]`.
        depths: like `numbers`, uint8: how many of the frames before belong to each.
          Required where frames are stacked; without, the frames themselves are given.

        Returns `[..., *obs_shape]`; frames `[..., *shape]` without depths.
        """
        if depths is None:
            return self._frames_at(numbers)
        return self._observation.stacked(self._frames_at, numbers, depths)

    def gather_masks(self, numbers: np.ndarray) -> np.ndarray | None:
        """The masks `[B, A]` bool of the frames with `numbers [B]`; None before any came."""
        return self._masks.gather(numbers, self._origin) if self._masks else None

    def check_valid(self, oldest: int) -> tuple[bool, str]:
        """(True, "") if all frames from number `oldest` on are held, else (False, why)."""
        if not self.next_number - self.capacity <= oldest <= self.next_number:
            return False, f"frame {oldest} is not among the last {self.capacity} frames"
        if not 0 <= self.next_number - self._origin <= self.capacity:
            return False, f"frame {self.next_number} follows on a lap from {self._origin} on"
        if self._masks and len(self._masks.array) != self.capacity:
            return False, f"{len(self._masks.array)} masks for {self.capacity} frames"
        return True, ""

    def get_state(self, first: int) -> dict[str, Any]:
        """The frames from number `first` on, and their masks where there are any.

        Compressed frames are given as they are: "frames" `[bytes]` uint8, one after the
        other, and "frame_sizes" `[F]` int64.
        """
        numbers = np.arange(first, self.next_number)
        state: dict[str, Any] = {"first_frame": first}
        if isinstance(self._frames, Rows):
            state["frames"] = self.gather(numbers)
        else:
            pieces = list(self._frames.compressed(numbers, self._origin))
            state["frames"] = np.frombuffer(b"".join(pieces), np.uint8)
            state["frame_sizes"] = np.array([len(piece) for piece in pieces], np.int64)
        if self._masks:
            state["action_mask"] = self.gather_masks(numbers)
        return state

    def check_state(self, pieces: Sequence[FramePiece]) -> None:
        """Raises ValueError if saved frames are of other observations.

        Of compressed pieces the first frame is looked into.
        """
        spec = self._observation
        for frames, _ in pieces:
            if not isinstance(frames, np.ndarray):
                decompressed(frames[:1], spec.dtype, spec.shape)
            elif frames.shape[1:] != spec.shape:
                raise ValueError(
                    f"frames of the state must have shape {spec.shape}, got {frames.shape[1:]}: "
                    "they are of another environment or preprocessing"
                )

    def set_state(self, first: int, pieces: Sequence[FramePiece]) -> None:
        """Holds what `pieces` hold and nothing else, whatever the capacity was.

        first: number of the first frame.  pieces: follow on each other.
        """
        self._masks = None
        self.next_number = self._origin = first
        num_frames = sum(len(frames) for frames, _ in pieces)
        if num_frames > self.capacity:  # once, not piece by piece
            self._grow(num_frames, first)
        for frames, action_mask in pieces:
            for start in range(0, len(frames), _CHUNK):
                rows = slice(start, start + _CHUNK)
                masks = None if action_mask is None else action_mask[rows]
                self.append(self._as_kept(frames[rows]), masks, oldest=first)

    def _frames_at(self, numbers: np.ndarray) -> np.ndarray:
        return self._frames.gather(numbers, self._origin)

    def _as_kept(self, frames: np.ndarray | Sequence[bytes]) -> np.ndarray | Sequence[bytes]:
        """Frames from a state; decompressed where this ring keeps them plain."""
        if isinstance(frames, np.ndarray) or not isinstance(self._frames, Rows):
            return frames
        return decompressed(frames, self._observation.dtype, self._observation.shape)

    def _runs(self, count: int) -> Iterator[tuple[int, int, int]]:
        """Makes room for `count` frames; yields (position among them, slot, length) per run."""
        start = 0
        while start < count:
            if self.next_number - self._origin == self.capacity:
                self._origin = self.next_number  # a lap is full
            slot = self.next_number - self._origin
            length = min(count - start, self.capacity - slot)
            yield start, slot, length
            self.next_number += length
            start += length

    def _grow(self, capacity: int, oldest: int) -> None:
        """Makes the rings larger; the frames from number `oldest` on stay."""
        num_tail = max(self._origin - oldest, 0)  # of the lap before, at the end
        self._frames.resize(capacity, num_tail)
        if self._masks is not None:
            self._masks.resize(capacity, num_tail)
        self.capacity = capacity


@numba.njit(cache=True)
def _gather(words: np.ndarray, numbers: np.ndarray, origin: int, out: np.ndarray) -> np.int64:
    """out[i] = the row with numbers[i]; `origin` is the number of the row in slot 0."""
    capacity, width = words.shape
    # A first pass reads one word a row and nothing else: a loop this short has many more
    # cache misses under way at once than the copy, and halves the time of a large ring.
    touched = np.int64(0)
    for i in range(numbers.shape[0]):
        slot = numbers[i] - origin
        slot += capacity * (slot < 0)  # of the lap before; a remainder would cost more
        touched ^= np.int64(words[slot, 0])
    for i in range(numbers.shape[0]):
        slot = numbers[i] - origin
        slot += capacity * (slot < 0)
        for j in range(width):
            out[i, j] = words[slot, j]
    return touched  # or the compiler would drop the first pass


@numba.njit(cache=True)
def _gather_stacks(
    words: np.ndarray, numbers: np.ndarray, origin: int, out: np.ndarray, streams: bool
) -> np.int64:
    """As `_gather`, of `numbers [P, B, stack]`; `out` is flat."""
    capacity, width = words.shape
    num_ends, count, stack = numbers.shape
    source = words.reshape(-1)
    touched = np.int64(0)
    for number in numbers.flat:
        slot = number - origin
        touched ^= np.int64(words[slot + capacity * (slot < 0), 0])
    for i in range(count):
        for end in range(num_ends):
            for place in range(stack):
                slot = numbers[end, i, place] - origin
                slot += capacity * (slot < 0)
                to = ((end * count + i) * stack + place) * width
                if streams:
                    for j in range(0, width, STREAM_BYTES // words.itemsize):
                        store_streaming(out, to + j, source, slot * width + j)  # type: ignore[call-arg]
                else:
                    for j in range(width):
                        out[to + j] = source[slot * width + j]
    finish_streaming()  # type: ignore[call-arg]
    return touched
