"""Observations in a ring, each stored once.

Frames have absolute numbers that never repeat; a frame is overwritten only when no
live item needs it any more: the ring grows before it would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np

from distdqn.types import ObservationSpec

GROWTH = 1.25  # factor: the price is a copy of all live frames, so not at every block


class FrameRing:
    """The last `capacity` frames of a shard, with the actions allowed in them.

    Frame number n (int64, from 0, in order of arrival) lies in slot n % capacity.
    `next_number` is the number of the next frame. The caller says with each `append`
    which frames are still needed; where the new ones would overwrite them, the ring
    grows to what is needed and by a factor of at least 1.25, and the needed frames
    move (old and new ring exist together while it does).

    Frames are kept as rows of bytes, which numba copies as the widest words that
    divide a row: one kernel serves every dtype and shape.

    Action masks get their own ring `[capacity, A]` when the first ones arrive. True
    stands for "allowed or unknown", so frames that came without a mask allow all.
    """

    def __init__(self, capacity: int, observation: ObservationSpec, num_actions: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}: no frame fits")
        if 0 in observation.shape:
            raise ValueError(
                f"an observation must hold something, got shape {observation.shape}: there is "
                "nothing to store"
            )
        self.capacity = int(capacity)
        self.next_number = 0
        self._num_actions = int(num_actions)
        self._frames = _Rows(self.capacity, observation.dtype, observation.shape)
        self._masks: _Rows | None = None

    @property
    def nbytes(self) -> int:
        """Of the storage, masks included."""
        return self._frames.nbytes + (self._masks.nbytes if self._masks else 0)

    def append(self, frames: np.ndarray, action_mask: np.ndarray | None, oldest: int) -> int:
        """Copies `frames [F, *obs]` in; returns the number of the first.

        action_mask: `[F, A]` bool, or None when unknown.
        oldest: number of the oldest frame that must stay; `next_number` if none must.
        """
        assert 0 <= oldest <= self.next_number, "frames that never were cannot stay"
        needed = self.next_number - oldest + len(frames)
        if needed > self.capacity:
            self._grow(max(needed, math.ceil(self.capacity * GROWTH)), oldest)
        first = self.next_number
        self._frames.write(first, frames)
        if action_mask is not None and self._masks is None:
            self._masks = self._open_masks()
        if self._masks is not None:
            if action_mask is None:
                action_mask = np.ones((len(frames), self._num_actions), bool)
            self._masks.write(first, action_mask)
        self.next_number += len(frames)
        return first

    def gather(self, numbers: np.ndarray) -> np.ndarray:
        """The frames `[B, *obs]` with `numbers [B]`, which the ring must hold."""
        return self._frames.gather(numbers, self.next_number)

    def gather_masks(self, numbers: np.ndarray) -> np.ndarray | None:
        """The masks `[B, A]` bool of the frames with `numbers [B]`; None before any came."""
        return self._masks.gather(numbers, self.next_number) if self._masks else None

    def check_valid(self, oldest: int) -> tuple[bool, str]:
        """(True, "") if all frames from number `oldest` on are held, else (False, why)."""
        if not self.next_number - self.capacity <= oldest <= self.next_number:
            return False, f"frame {oldest} is not among the last {self.capacity} frames"
        if self._masks and len(self._masks.array) != self.capacity:
            return False, f"{len(self._masks.array)} masks for {self.capacity} frames"
        return True, ""

    def get_state(self, first: int) -> dict[str, Any]:
        """The frames from number `first` on, and their masks where there are any."""
        numbers = np.arange(first, self.next_number)
        state = {"first_frame": first, "frames": self.gather(numbers)}
        if self._masks:
            state["action_mask"] = self.gather_masks(numbers)
        return state

    def set_state(self, first: int, pieces: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> None:
        """Holds what `pieces` hold and nothing else, whatever the capacity was.

        first: number of the first frame.
        pieces: (`[F, *obs]` frames, `[F, A]` masks or None), which follow on each other.
        """
        self._masks = None
        self.next_number = first
        num_frames = sum(len(frames) for frames, _ in pieces)
        if num_frames > self.capacity:  # once, not piece by piece
            self._grow(num_frames, first)
        for frames, action_mask in pieces:
            self.append(frames, action_mask, oldest=first)

    def _open_masks(self) -> _Rows:
        masks = _Rows(self.capacity, "bool", (self._num_actions,))
        masks.array[:] = True
        return masks

    def _grow(self, capacity: int, oldest: int) -> None:
        """Moves the frames from number `oldest` on into rings of `capacity`."""
        kept = range(oldest, self.next_number)
        self._frames = self._frames.moved(capacity, kept)
        if self._masks is not None:
            self._masks = self._masks.moved(capacity, kept)
        self.capacity = capacity


class _Rows:
    """A ring of equally shaped rows, `[capacity, *shape]`; row n lies at n % capacity.

    array: the rows in their own dtype.  words: the same memory, `[capacity, W]`.
    """

    def __init__(self, capacity: int, dtype: str, shape: tuple[int, ...]) -> None:
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self.array, self.words = self._allocate(capacity)
        self.nbytes = self.array.nbytes

    def write(self, number: int, rows: np.ndarray) -> None:
        """Puts `rows [B, *shape]` at `number` and after."""
        for start, slot, length in _runs(number, len(rows), len(self.array)):
            self.array[slot : slot + length] = rows[start : start + length]

    def gather(self, numbers: np.ndarray, next_number: int) -> np.ndarray:
        """The rows `[B, *shape]` with `numbers [B]`, among the last before `next_number`."""
        rows, words = self._allocate(len(numbers))
        capacity = len(self.array)
        lap = (next_number - 1) // capacity * capacity  # number of the row in slot 0
        _gather(self.words, numbers, lap, words)
        return rows

    def moved(self, capacity: int, kept: range) -> _Rows:
        """A ring of `capacity` with the rows whose numbers are `kept`."""
        rows = _Rows(capacity, self._dtype.str, self._shape)
        for start, slot, length in _runs(kept.start, len(kept), len(self.array)):
            rows.write(kept.start + start, self.array[slot : slot + length])
        return rows

    def _allocate(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` uninitialised rows, and the same memory as words."""
        row_bytes = self._dtype.itemsize * math.prod(self._shape)
        memory = np.empty((count, row_bytes), np.uint8)
        word = np.uint64 if row_bytes % 8 == 0 else np.uint32 if row_bytes % 4 == 0 else np.uint8
        return memory.view(self._dtype).reshape(count, *self._shape), memory.view(word)


def _runs(number: int, count: int, capacity: int) -> Iterator[tuple[int, int, int]]:
    """Cuts rows `number` to `number + count` where the ring wraps.

    Yields (position among the rows, slot, length). Rows that the same call would
    overwrite again never occur: `count` is at most `capacity`.
    """
    assert count <= capacity, "more rows than the ring has"
    slot = number % capacity
    before_wrap = min(count, capacity - slot)
    yield 0, slot, before_wrap
    if before_wrap < count:
        yield before_wrap, 0, count - before_wrap


@numba.njit(cache=True)
def _gather(words: np.ndarray, numbers: np.ndarray, lap: int, out: np.ndarray) -> np.int64:
    """out[i] = the row with numbers[i]; `lap` is the number of the row in slot 0."""
    capacity, width = words.shape
    # A first pass reads one word a row and nothing else: so short a loop has many more
    # cache misses under way at once than the copy, and halves the time of a large ring.
    touched = np.int64(0)
    for i in range(numbers.shape[0]):
        slot = numbers[i] - lap
        slot += capacity * (slot < 0)  # of the lap before; a remainder would cost more
        touched ^= np.int64(words[slot, 0])
    for i in range(numbers.shape[0]):
        slot = numbers[i] - lap
        slot += capacity * (slot < 0)
        for j in range(width):
            out[i, j] = words[slot, j]
    return touched  # or the compiler would drop the first pass
