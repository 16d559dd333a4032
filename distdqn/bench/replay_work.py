"""What a replay is timed at, and the limit of each.

A work is a function that does one piece and returns how many transitions it was. What it
reads has been drawn before, and is not the same each time.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

import numpy as np

from distdqn.bench.synthetic import NUM_ENVS, TASKS, Task, filled_replay, make_block
from distdqn.replay.layout import (
    BUCKET,
    ITEM,
    num_buckets,
    planned_frames_per_item,
    replay_bytes,
    tree_bytes,
)
from distdqn.types import PriorityUpdate, ReplayBatch, TransitionBlock

Kind = Literal["prioritized", "uniform"]
KINDS: tuple[Kind, ...] = ("prioritized", "uniform")

_DRAWN = 16  # blocks and updates that are made before
_DRAWN_BYTES = 1 << 25  # of such blocks, at most
_AREA_BYTES = 1 << 26  # beyond the caches of most processors


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One choice of what is varied; as in the benchmark's options."""

    observation: str
    kind: Kind
    size: int
    batch_size: int
    superbatch: int
    block: int
    compression: str = "none"
    n_step: int = 1

    @property
    def task(self) -> Task:
        return TASKS["nature" if self.observation == "pictures" else "mlp"]

    @property
    def steps(self) -> int:
        """Of each env in a block."""
        return max(self.block // NUM_ENVS, 1)

    @property
    def text(self) -> str:
        parts = [self.observation, self.kind, f"{self.size:,} transitions"]
        parts += [f"batches of {self.batch_size}", f"blocks of {self.block}"]
        return ", ".join([*parts, *([self.compression] * (self.compression != "none"))])


class ReplayWork:
    """A full replay, and what is done with it.

    Each of `add`, `sample` and `update` has its `<name>_limit`; all give how many transitions
    they did.
    """

    def __init__(self, point: Point) -> None:
        self._point = point
        self._rng = np.random.default_rng(1)
        prioritized = point.kind == "prioritized"
        self.replay = filled_replay(
            point.task, point.size, prioritized, point.n_step, point.steps, point.compression
        )
        first = self._block()
        num_blocks = int(np.clip(_DRAWN_BYTES // first.frames.nbytes, 1, _DRAWN))
        self._blocks = itertools.cycle([first, *(self._block() for _ in range(num_blocks - 1))])
        added = first.frames.nbytes + first.num_transitions * ITEM.itemsize
        self._added = Copying(added, num_blocks * added, self.replay.nbytes)
        self._sampled = Copying(_nbytes(self._draw()), self.replay.nbytes, 0)
        self._updates = itertools.cycle([self._update() for _ in range(_DRAWN)])
        self._nodes = np.ones(tree_bytes(point.size) // 8)

    def add(self) -> int:
        block = next(self._blocks)
        self.replay.add(block)
        return block.num_transitions

    def add_limit(self) -> int:
        self._added()
        return NUM_ENVS * self._point.steps

    def sample(self) -> int:
        return self._draw().item_ids.size

    def sample_limit(self) -> int:
        self._sampled()
        return self._point.superbatch * self._point.batch_size

    def update(self) -> int:
        """New priorities for a superbatch; ids are of live items, whatever was added since."""
        numbers, priorities, _ = next(self._updates)
        ids = self.replay.inserts - 1 - numbers
        self.replay.update_priorities(PriorityUpdate(ids, priorities))
        return numbers.size

    def update_limit(self) -> int:
        numbers, _, places = next(self._updates)
        self._nodes[places] = 1.0
        return numbers.size

    def _draw(self) -> ReplayBatch:
        return self.replay.sample(self._point.superbatch, self._point.batch_size)

    def _block(self) -> TransitionBlock:
        point = self._point
        prioritized = point.kind == "prioritized"
        return make_block(point.task, point.n_step, prioritized, self._rng, point.steps)

    def _update(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ages of items `[K, B]`, their priorities, and the nodes that change with them."""
        shape = (self._point.superbatch, self._point.batch_size)
        ages = np.sort(self._rng.integers(self._point.size, size=shape), axis=1)[:, ::-1]
        places = changed_nodes(ages.ravel(), self._point.size)
        return ages, self._rng.random(shape, np.float32), places


def changed_nodes(slots: np.ndarray, capacity: int) -> np.ndarray:
    """Places of the values of `slots` and of all nodes above them, each once.

    Node k of the tree is place k, slot s is place 2 * num_buckets + s.
    """
    buckets = num_buckets(capacity)
    levels = [2 * buckets + np.unique(slots)]
    nodes = np.unique(buckets + slots // BUCKET)
    while len(nodes) and nodes[0] >= 1:
        levels.append(nodes)
        nodes = np.unique(nodes // 2)
    return np.concatenate(levels)


def needed_bytes(point: Point) -> int:
    """Of the replay at that point (compressed: as if plain), a sample and its limit."""
    observation = point.task.observation
    frames = planned_frames_per_item(
        point.size, observation.stack, point.n_step, NUM_ENVS, NUM_ENVS * point.steps
    )
    held = replay_bytes(
        point.size, observation, point.task.num_actions, point.kind == "prioritized", frames
    )
    of_one = np.dtype(observation.dtype).itemsize * int(np.prod(observation.obs_shape))
    return held + 3 * 2 * point.superbatch * point.batch_size * of_one


class Copying:
    """Copies `num_bytes` from one place to the next, as fast as this machine can.

    Source and target move on through as much memory as the work itself goes through
    (`source_area`, `target_area`, at most 64 MB each), so that both find as much in the
    caches.
    """

    def __init__(self, num_bytes: int, source_area: int, target_area: int) -> None:
        self._num = num_bytes
        # Not zeros: their pages come only when they are first written, in the midst of a timing.
        self._source = np.ones(_area(num_bytes, source_area), np.uint8)
        self._target = np.ones(_area(num_bytes, target_area), np.uint8)
        self._from = self._to = 0

    def __call__(self) -> None:
        source = self._source[self._from : self._from + self._num]
        np.copyto(self._target[self._to : self._to + self._num], source)
        self._from = (self._from + self._num) % len(self._source)
        self._to = (self._to + self._num) % len(self._target)


def _area(of_one: int, area: int) -> int:
    """Whole pieces of `of_one` bytes: at least one."""
    return max(min(area, _AREA_BYTES) // of_one, 1) * of_one


def _nbytes(batch: ReplayBatch) -> int:
    arrays = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return sum(array.nbytes for array in arrays if array is not None)
