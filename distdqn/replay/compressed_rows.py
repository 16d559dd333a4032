"""Rows in slots, each kept compressed and without loss.

Takes the place of `Rows` where memory is dearer than time: a batch's rows are
decompressed one by one, each once.

Symbols: `B` rows gathered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import lz4.block
import numpy as np

_ALLOCATION_BYTES = 16  # what the C library rounds up to, beside 8 bytes of its own


class CompressedRows:
    """`capacity` rows of one shape, each an object of its own; see `Rows`.

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
    row_bytes = np.dtype(dtype).itemsize * math.prod(shape)
    plain = b"".join(_decompressed(data, row_bytes) for data in rows)
    return np.frombuffer(plain, dtype).reshape(-1, *shape)


def _decompressed(data: bytes, row_bytes: int) -> bytes:
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
