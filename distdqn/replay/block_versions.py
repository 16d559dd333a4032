"""Which weights acted in the blocks that a replay still holds.

Kept per run of blocks of one version, not per item: a few bytes a block.
"""

from __future__ import annotations

import collections

import numpy as np

from distdqn.types import WeightsVersion


class BlockVersions:
    """The weights versions of the live items, oldest first.

    Items are counted from 0 in order of arrival, as in `Replay`. A row (end, incarnation,
    counter) says that the items before number `end` and from the end of the row before on
    were acted with that version. Neighbours of one version share a row; rows of evicted
    items are dropped, so there are never more than live blocks.
    """

    def __init__(self) -> None:
        self._first_item = 0
        self._rows: collections.deque[tuple[int, int, int]] = collections.deque()

    def __len__(self) -> int:
        """Rows held."""
        return len(self._rows)

    def append(self, end: int, version: WeightsVersion) -> None:
        """Notes that the newest items, those before number `end`, have `version`."""
        if self._rows and self._rows[-1][1:] == version:
            self._rows.pop()
        self._rows.append((end, *version))

    def evict(self, first_item: int) -> None:
        """Forgets the items before number `first_item`."""
        self._first_item = first_item
        while self._rows and self._rows[0][0] <= first_item:
            self._rows.popleft()

    def stale_fraction(self, newest: WeightsVersion, behind: int) -> float:
        """Share of the items acted with weights more than `behind` versions before `newest`.

        An earlier incarnation of the learner published an unknown number of versions
        that the newest one replaced: its weights, and those before any, count as
        `newest.counter` behind, which is the least that they can be. NaN with no item.
        """
        if not self._rows:
            return float("nan")
        ends, incarnations, counters = self.get_state().T
        num_items = np.diff(ends, prepend=self._first_item)
        since = np.where(incarnations < newest.incarnation, 0, counters)
        later = incarnations > newest.incarnation
        stale = (newest.counter - since > behind) & ~later
        return float(num_items[stale].sum() / num_items.sum())

    def get_state(self) -> np.ndarray:
        """The rows `[N, 3]` int64."""
        return np.array(self._rows, np.int64).reshape(-1, 3)

    def set_state(self, rows: np.ndarray, first_item: int) -> None:
        """Takes over what `get_state` gave when item `first_item` was the oldest."""
        self._first_item = first_item
        self._rows = collections.deque(map(tuple, rows.tolist()))
