"""Which weights acted in the blocks that a replay still holds.

Kept per run of blocks of one version, not per item: a few bytes a block.
"""

from __future__ import annotations

import numpy as np

from distdqn.types import WeightsVersion

_FIRST_ROOM = 64


class BlockVersions:
    """The weights versions of the live items, oldest first.

    Items are counted from 0 in order of arrival, as in `Replay`. Row k says that the
    items before number `end` and from the end of row k - 1 on were acted with version
    (incarnation, counter). Neighbours of one version share a row; rows of evicted items
    are dropped, so there are never more than live blocks.
    """

    def __init__(self) -> None:
        self._first_item = 0
        self._start = self._stop = 0  # of the rows in use
        self._rows = np.empty((_FIRST_ROOM, 3), np.int64)  # end, incarnation, counter

    def __len__(self) -> int:
        """Rows in use."""
        return self._stop - self._start

    def append(self, end: int, version: WeightsVersion) -> None:
        """Notes that the newest items, those before number `end`, have `version`."""
        if len(self) and tuple(self._rows[self._stop - 1, 1:].tolist()) == version:
            self._rows[self._stop - 1, 0] = end
            return
        if self._stop == len(self._rows):
            self._make_room()
        self._rows[self._stop] = (end, *version)
        self._stop += 1

    def evict(self, first_item: int) -> None:
        """Forgets the items before number `first_item`."""
        self._first_item = first_item
        while len(self) and self._rows[self._start, 0] <= first_item:
            self._start += 1

    def stale_fraction(self, newest: WeightsVersion, behind: int) -> float:
        """Share of the items acted with weights more than `behind` versions before `newest`.

        An earlier incarnation of the learner published an unknown number of versions
        that the newest one replaced: its weights, and those before any, count as
        `newest.counter` behind, which is the least that they can be. NaN with no item.
        """
        if not len(self):
            return float("nan")
        ends, incarnations, counters = self._rows[self._start : self._stop].T
        num_items = np.diff(ends, prepend=self._first_item)
        since = np.where(incarnations < newest.incarnation, 0, counters)
        later = incarnations > newest.incarnation
        stale = (newest.counter - since > behind) & ~later
        return float(num_items[stale].sum() / num_items.sum())

    def get_state(self) -> np.ndarray:
        """The rows `[N, 3]` int64."""
        return self._rows[self._start : self._stop].copy()

    def set_state(self, rows: np.ndarray, first_item: int) -> None:
        """Takes over what `get_state` gave when item `first_item` was the oldest."""
        self._first_item = first_item
        self._start, self._stop = 0, len(rows)
        self._rows = np.concatenate([rows, np.empty((_FIRST_ROOM, 3), np.int64)])

    def _make_room(self) -> None:
        """Moves the rows to the front, of an array twice their number at least."""
        rows = self.get_state()
        self._rows = np.empty((max(_FIRST_ROOM, 2 * len(rows)), 3), np.int64)
        self._rows[: len(rows)] = rows
        self._start, self._stop = 0, len(rows)
