"""Rows in slots, each kept compressed and without loss.

Takes the place of `Rows` where memory is dearer than time: a batch's rows are
decompressed one by one, each once.

Symbols: `B` rows or stacks gathered, `P` parts of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import lz4.block
import numpy as np

from distdqn.replay.frame_rows import Rows

_ALLOCATION_BYTES = 16  # what the C library rounds up to, beside 8 bytes of its own


class CompressedRows:
    """`capacity` rows of one shape, each an object of its own; see `Rows`.

    nbytes: what is held now, with what Python and the C library take per object.
    """

    def __init__(self, capacity: int, dtype: str, shape: tuple[int, ...]) -> None:
        self._dtype, self._shape = np.dtype(dtype), shape
        self._row_bytes = self._dtype.itemsize * math.prod(shape)
        self._slots: list[bytes] = [b""] * capacity
        self._held_bytes = 0

    @property
    def nbytes(self) -> int:
        return self._held_bytes + 8 * len(self._slots)

    def write(self, slot: int, rows: np.ndarray | Sequence[bytes]) -> None:
        """Puts `rows [B, *shape]`, or rows compressed already, into the slots from `slot` on."""
        for place, row in enumerate(rows, slot):
            data = row if isinstance(row, bytes) else lz4.block.compress(row, store_size=False)
            self._held_bytes += _object_bytes(data) - _object_bytes(self._slots[place])
            self._slots[place] = data

    def gather(
        self,
        numbers: np.ndarray,
        origin: int,
        depths: np.ndarray | None = None,
        stack: int = 1,
        repeats: bool = False,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """As `Rows.gather`, from the distinct rows that are referred to."""
        wanted = [numbers.reshape(-1)]
        if depths is not None:
            wanted += [(numbers - np.minimum(depths, k)).reshape(-1) for k in range(1, stack)]
        distinct = np.unique(np.concatenate(wanted))
        rows = Rows(max(len(distinct), 1), self._dtype.str, self._shape)
        memory = rows.array.reshape(-1).view(np.uint8).data
        for i, data in enumerate(self.compressed(distinct, origin)):
            at = i * self._row_bytes
            memory[at : at + self._row_bytes] = decompress(data, self._row_bytes)
        positions = np.searchsorted(distinct, numbers)  # a stack's rows stay side by side
        return rows.gather(positions, 0, depths, stack, repeats, out)

    def compressed(self, numbers: np.ndarray, origin: int) -> Iterable[bytes]:
        """The rows with `numbers [B]` as they are kept."""
        slots = numbers - origin
        return map(self._slots.__getitem__, np.where(slots < 0, slots + len(self._slots), slots))

    def resize(self, capacity: int, num_tail: int) -> None:
        """See `Rows.resize`."""
        cut = len(self._slots) - num_tail
        self._slots[cut:cut] = [b""] * (capacity - len(self._slots))


def decompress(data: bytes, row_bytes: int) -> bytes:
    """A row of `row_bytes`. Raises ValueError where `data` is no such row."""
    try:
        row: bytes = lz4.block.decompress(data, uncompressed_size=row_bytes)
    except lz4.block.LZ4BlockError as error:  # a larger one too
        raise ValueError(_not_of_size(row_bytes, "others")) from error
    if len(row) != row_bytes:
        raise ValueError(_not_of_size(row_bytes, str(len(row))))
    return row


def _not_of_size(row_bytes: int, got: str) -> str:
    return (
        f"a compressed frame must hold {row_bytes} bytes, got {got}: it is of another "
        "environment or preprocessing"
    )


def _object_bytes(data: bytes) -> int:
    """Of memory that an object of this content takes; empty ones are one and the same."""
    if not data:
        return 0
    size = data.__sizeof__() + 8
    return -(-size // _ALLOCATION_BYTES) * _ALLOCATION_BYTES
