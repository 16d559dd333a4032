"""Equally shaped rows in slots.

Rows are copied as the widest words that divide a row: one kernel serves every dtype and
shape.

Symbols: `B` rows gathered.
"""

from __future__ import annotations

import math

import numba
import numpy as np


class Rows:
    """`capacity` rows of one shape; who fills a slot decides what it holds.

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
        """The rows with `numbers [...]`, as `[..., *shape]`."""
        out = np.empty((*numbers.shape, *self._shape), self.array.dtype)
        _gather(self._words(self.array), numbers.reshape(-1), origin, self._words(out))
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
