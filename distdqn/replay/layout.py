"""How a replay lies in memory, and how much of it a full one takes.

Loads no compiled kernel, so that a run can be refused before it starts by a process that has none.
"""

import dataclasses
import importlib.util
import math
from collections.abc import Sequence

import numpy as np

from distdqn.errors import ConfigError, ResourceError
from distdqn.machine.installation import install_command
from distdqn.machine.memory import free_memory
from distdqn.types import ObservationSpec

# One transition, kept together so that a draw costs one cache miss, not six. The frames
# of `tm1` and `t` are numbers block_frame + tm1 and block_frame + t of the frame ring.
ITEM = np.dtype(
    [
        ("block_frame", np.int64),  # number of the first frame of the item's block
        ("tm1", np.int32),
        ("t", np.int32),
        ("tm1_depth", np.uint8),  # frames before that belong to the observation
        ("t_depth", np.uint8),
        ("a_tm1", np.int32),
        ("r_t", np.float32),
        ("discount_t", np.float32),
    ],
    align=True,
)
COLUMNS = ("tm1", "t", "tm1_depth", "t_depth", "a_tm1", "r_t", "discount_t")  # one per transition

MAX_VISITS = 2**20  # counts of (observation, action) pairs: 8 MiB

FRAMES_PER_ITEM = 1.25

# Of its plain size, the least that a compressed frame is taken to need. Over 300 random
# steps of ten Atari games the mean was 0.04 (Pong), 0.06 (Breakout), 0.11 to 0.29 (others).
COMPRESSED_SHARE = 0.04

# Besides, for its Python object and the place in a list: what one of 16 bytes takes whole.
COMPRESSED_OBJECT_BYTES = 72

LEAST_COMPRESSED_FRAME = 1_024  # bytes; of smaller ones the objects would take much of the gain

BUCKET = 8  # values of the sum tree, float64, under one leaf: one cache line


def visits_shape(observation: ObservationSpec, num_actions: int) -> tuple[int, int] | None:
    """(S, A) where visits of observations and actions are counted, else None."""
    num_categories = observation.num_categories
    if observation.shape or not 0 < num_categories * num_actions <= MAX_VISITS:
        return None
    return num_categories, num_actions


def tree_bytes(capacity: int) -> int:
    """Bytes of a sum tree over `capacity` slots."""
    return 8 * (-(-capacity // BUCKET) * BUCKET + 2 * num_buckets(capacity))


def num_buckets(capacity: int) -> int:
    """Buckets that hold `capacity` slots, rounded up to a power of two."""
    return 1 << (-(-capacity // BUCKET) - 1).bit_length()


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What a full replay takes, all in bytes, if its frame rings do not grow.

    They grow where blocks are smaller or episodes shorter than planned. Action masks, a
    byte per frame and action where an env gives them, are not counted. With compression
    all are upper bounds: how far frames shrink is not known before.
    """

    per_transition: int
    per_transition_copied: int
    per_shard: int
    in_all: int
    compression: str = "none"

    def line(self) -> str:
        """One line for a person, who compares it with the machine's memory."""
        bound = "" if self.compression == "none" else f", at most: {self.compression} needs less"
        is_less = self.per_transition < self.per_transition_copied
        copied = f" ({self.per_transition_copied:,} as plain copies)" if is_less else ""
        return (
            f"replay: {self.per_transition:,} bytes per transition{copied}, "
            f"{_in_units(self.per_shard)} per shard, {_in_units(self.in_all)} in all{bound}"
        )


def memory_budget(
    capacities: Sequence[int],
    observation: ObservationSpec,
    num_actions: int,
    prioritized: bool,
    frames_per_item: float = FRAMES_PER_ITEM,
    compression: str = "none",
) -> MemoryBudget:
    """capacities: of the shards; the largest one counts as "per shard"."""
    of_each = (observation, num_actions, prioritized, frames_per_item)
    of_shards = [replay_bytes(capacity, *of_each) for capacity in capacities]
    return MemoryBudget(
        per_transition=math.ceil(sum(of_shards) / sum(capacities)),
        per_transition_copied=2 * observation.stack * observation.frame_bytes,
        per_shard=max(of_shards),
        in_all=sum(of_shards),
        compression=compression,
    )


def planned_frames_per_item(
    capacity: int, stack: int, n_step: int, num_envs: int, block_transitions: int
) -> float:
    """Frames stored per transition: one, those repeated at block borders, episodes' ends.

    capacity: of the shard.  num_envs: in a block of `block_transitions`.

    An episode has one frame more than transitions. Where frames are stacked, hence
    pictures, episodes of 100 steps and more are planned for (a game of Atari has more),
    since a frame too many in each transition is dear; elsewhere five. Shorter ones, and
    blocks sent before they are full, make the frame ring grow. A block's frames stay
    until its last transition is evicted: one block more than there are transitions.
    """
    repeated = stack - 1 + n_step  # for each env of a block
    ends = 0.2 if stack == 1 else 0.01
    per_item = 1 + ends + repeated * num_envs / block_transitions
    return per_item * (1 + block_transitions / capacity)


def check_compression(compression: str, observation: ObservationSpec) -> None:
    """Raises ConfigError where `replay.compression` cannot help or its package is missing."""
    if compression == "none":
        return
    if observation.frame_bytes < LEAST_COMPRESSED_FRAME:
        raise ConfigError(
            f"replay.compression {compression} needs frames of at least "
            f"{LEAST_COMPRESSED_FRAME:,} bytes, got {observation.frame_bytes:,}: smaller ones "
            "would gain too little; set replay.compression none"
        )
    if importlib.util.find_spec("lz4") is None:
        raise ConfigError(
            "replay.compression lz4 needs the package lz4 (extra compression), which is not "
            f"installed: {install_command('compression')}"
        )


def replay_bytes(
    capacity: int,
    observation: ObservationSpec,
    num_actions: int,
    prioritized: bool,
    frames_per_item: float = FRAMES_PER_ITEM,
    compression: str = "none",
) -> int:
    """Bytes that a full replay of `capacity` items takes if its frame ring does not grow.

    compression: compressed frames count with the least that they may take.
    """
    num_frames = math.ceil(capacity * frames_per_item)
    per_frame: float = observation.frame_bytes
    if compression != "none":
        per_frame = COMPRESSED_SHARE * per_frame + COMPRESSED_OBJECT_BYTES
    tree = tree_bytes(capacity) if prioritized else 0
    visits = 8 * math.prod(visits_shape(observation, num_actions) or (0,))
    return capacity * ITEM.itemsize + math.ceil(num_frames * per_frame) + tree + visits


def _in_units(size: int) -> str:
    """7.72 GiB; below one 772 MiB or KiB."""
    power, name = (30, "GiB") if size >= 2**30 else (20, "MiB") if size >= 2**20 else (10, "KiB")
    value = size / 2**power
    return f"{value:.3g} {name}" if value < 100 else f"{value:.0f} {name}"


def check_replay_fits(needed_bytes: int, capacity: int) -> None:
    """Refuses, before the start, a replay that this machine's memory cannot hold."""
    available = free_memory()
    if needed_bytes > available:
        raise ResourceError(
            f"replay.capacity {capacity:,} needs {needed_bytes / 2**30:.1f} GiB and "
            f"{available / 2**30:.1f} GiB are free; lower --replay.capacity to about "
            f"{int(capacity * 0.8 * available / needed_bytes):,}"
        )
