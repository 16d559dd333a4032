"""What a replay checks and remembers of the blocks that it takes in."""

import collections

import numpy as np

from distdqn.replay.layout import COLUMNS
from distdqn.types import ObservationSpec, TransitionBlock, WeightsVersion


def check_block(block: TransitionBlock, observation: ObservationSpec, num_actions: int) -> None:
    """Raises ValueError if a later sample could be wrong because of the block.

    It comes from another process; whatever would reach beyond its own frames is refused
    here and nowhere later.
    """
    num_frames, num_new = len(block.frames), block.num_transitions
    shapes: dict[str, tuple[int, ...]] = {"frames": (num_frames, *observation.shape)}
    shapes |= dict.fromkeys((*COLUMNS, "priorities"), (num_new,))
    shapes["action_mask"] = (num_frames, num_actions)
    for name, shape in shapes.items():
        array = getattr(block, name)
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{name} of a block must have shape {shape}, got {array.shape}: the block of "
                f"worker {block.worker} is refused"
            )
    if block.frames.dtype != np.dtype(observation.dtype):
        raise ValueError(
            f"frames of a block must be {observation.dtype}, got {block.frames.dtype}: a cast "
            "could change the observations"
        )
    bounds = {"tm1": num_frames, "t": num_frames, "a_tm1": num_actions}
    bounds |= {"tm1_depth": observation.stack, "t_depth": observation.stack}
    if observation.num_categories:
        bounds["frames"] = observation.num_categories
    for name, bound in bounds.items():
        array = getattr(block, name)
        least = 0 if array.dtype.kind == "u" or not num_new else array.min()
        if num_new and not (least >= 0 and array.max() < bound):
            worst = least if least < 0 else array.max()
            raise ValueError(
                f"{name} of a block must be in [0, {bound}), got {worst}: it would point at "
                "another block's frame, or at no action or observation"
            )
    if observation.stack > 1:
        _check_stacks(block)


def _check_stacks(block: TransitionBlock) -> None:
    for name in ("tm1", "t"):
        positions, depths = getattr(block, name), getattr(block, f"{name}_depth")
        if np.any(depths > positions):
            at = int(np.argmax(depths > positions))
            raise ValueError(
                f"{name}_depth of a block must be at most {name}, got {depths[at]} at position "
                f"{positions[at]}: the stack would begin in another block"
            )


class BlockVersions:
    """The weights versions of the live items, oldest first: a row a block at most, none an item.

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
