"""Equally shaped rows in slots, gathered one by one or as stacks.

Rows are kept as bytes, which numba copies as the widest words that divide a row: one
kernel serves every dtype and shape.

Symbols: `B` rows or stacks gathered, `P` parts of a batch, `W` words in a row.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from distdqn.replay.streaming import (
    STREAM_BYTES,
    STREAMED_FROM_BYTES,
    finish_streaming,
    store_streaming,
)


class Rows:
    """`capacity` rows of one shape; who fills a slot decides what it holds.

    Slots are numbered round: row number n lies in slot n - origin, or in that plus
    `capacity` where it is older than the row `origin` in slot 0.

    array: the rows in their own dtype, `[capacity, *shape]`.
    """

    def __init__(self, capacity: int, dtype: str, shape: tuple[int, ...]) -> None:
        self._dtype, self._shape = np.dtype(dtype), shape
        self._row_bytes = self._dtype.itemsize * math.prod(shape)
        self._memory = np.empty((capacity, self._row_bytes), np.uint8)
        self._look()

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    def write(self, slot: int, rows: np.ndarray) -> None:
        """Copies `rows [B, *shape]` into the slots from `slot` on."""
        self.array[slot : slot + len(rows)] = rows

    def gather(
        self,
        numbers: np.ndarray,
        origin: int,
        depths: np.ndarray | None = None,
        stack: int = 1,
        repeats: bool = False,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The rows with `numbers [B]` or `[P, B]`, or the stacks of which they are the newest.

        depths: like `numbers`, uint8 below `stack`, how many rows before each are in its stack;
          None where there are no stacks.
        repeats: whether the oldest row of a stack fills the places before it, or zeros.
        out: to write to, `[P, B, *shape]`, or `[P, B, stack, *shape]` if `stack` is above 1;
          C-contiguous. A new array where None.

        Stacks of one column of `numbers` are gathered one after the other: those of a
        transition share rows.
        """
        shape = (*numbers.shape, *((stack,) if stack > 1 else ()), *self._shape)
        if out is None:
            out = np.empty(shape, self._dtype)
        assert out.shape == shape and out.dtype == self._dtype, (out.shape, shape)
        assert out.flags.c_contiguous, "memory with gaps cannot be written as words"
        if depths is None:
            rows = out.reshape(-1).view(self._word).reshape(numbers.size, self._words.shape[1])
            _gather(self._words, numbers.reshape(-1), origin, rows)
            return out
        assert int(depths.max(initial=0)) < stack, "a stack would begin before its memory"
        streams = (
            out.nbytes >= STREAMED_FROM_BYTES
            and self._row_bytes % STREAM_BYTES == 0
            and out.ctypes.data % STREAM_BYTES == 0
        )
        words = out.reshape(-1).view(self._word)
        parts = (-1, numbers.shape[-1])
        numbers, depths = numbers.reshape(parts), depths.reshape(parts)
        _gather_stacks(self._words, numbers, depths, origin, stack, repeats, streams, words)
        return out

    def resize(self, capacity: int, num_tail: int) -> None:
        """Grows in place, so that old and new rows never exist together.

        num_tail: so many of the last rows become the last of the new capacity.
        """
        before, added = len(self._memory), capacity - len(self._memory)
        del self.array, self._words  # they would point at memory that is gone
        self._memory.resize((capacity, self._row_bytes), refcheck=False)
        for end in range(before, before - num_tail, -added):  # never onto what is still to move
            start = max(end - added, before - num_tail)
            self._memory[start + added : end + added] = self._memory[start:end]
        self._look()

    def _look(self) -> None:
        size = self._row_bytes
        self._word = np.uint64 if size % 8 == 0 else np.uint32 if size % 4 == 0 else np.uint8
        self._words = self._memory.view(self._word)
        self.array = self._memory.view(self._dtype).reshape(len(self._memory), *self._shape)


@numba.njit(cache=True)
def _gather(words: np.ndarray, numbers: np.ndarray, origin: int, out: np.ndarray) -> np.int64:
    """out[i] = the row with numbers[i]; `origin` is the number of the row in slot 0."""
    capacity, width = words.shape
    # A first pass reads one word a row and nothing else: so short a loop has many more
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
    words: np.ndarray,
    numbers: np.ndarray,
    depths: np.ndarray,
    origin: int,
    stack: int,
    repeats: bool,
    streams: bool,
    out: np.ndarray,
) -> None:
    """out[p, i] = the stack of numbers[p, i], each one or two runs of slots; `out` is flat."""
    capacity, width = words.shape
    num_parts, count = numbers.shape
    source = words.reshape(-1)
    for i in range(count):
        for part in range(num_parts):
            length = np.int64(depths[part, i]) + 1
            slot = numbers[part, i] + 1 - length - origin
            slot += capacity * (slot < 0)
            begin = (part * count + i) * stack * width
            to = begin + (stack - length) * width
            before_wrap = min(length, capacity - slot)
            _copy(source, slot * width, out, to, before_wrap * width, streams)
            if before_wrap < length:
                behind = to + before_wrap * width
                _copy(source, 0, out, behind, (length - before_wrap) * width, streams)
            if not repeats:
                out[begin:to] = 0
                continue
            for place in range(begin, to, width):
                _copy(source, slot * width, out, place, width, streams)
    finish_streaming()  # type: ignore[call-arg]


@numba.njit(cache=True)
def _copy(
    source: np.ndarray, start: int, target: np.ndarray, to: int, count: int, streams: bool
) -> None:
    """target[to : to + count] = source[start : start + count]"""
    if streams:
        for j in range(0, count, STREAM_BYTES // source.itemsize):
            store_streaming(target, to + j, source, start + j)  # type: ignore[call-arg]
    else:
        for j in range(count):
            target[to + j] = source[start + j]
