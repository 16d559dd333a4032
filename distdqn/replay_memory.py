"""What a replay takes in memory.

Apart from the replay itself, so that a run can be refused before it starts by a
process that does not load the compiled kernels.
"""

from __future__ import annotations

import math

import numpy as np

from distdqn.types import ObservationSpec

FRAMES_PER_ITEM = 1.25

# One transition, kept together so that a draw costs one cache miss, not six. The frames
# of `tm1` and `t` are numbers block_frame + tm1 and block_frame + t of the frame ring.
ITEM = np.dtype(
    [
        ("block_frame", np.int64),  # number of the first frame of the item's block
        ("tm1", np.int32),
        ("t", np.int32),
        ("a_tm1", np.int32),
        ("r_t", np.float32),
        ("discount_t", np.float32),
    ],
    align=True,
)

MAX_VISITS = 2**20  # counts of (observation, action) pairs: 8 MiB

BUCKET = 8  # values of the sum tree, float64, under one leaf: one cache line


def replay_bytes(
    capacity: int,
    observation: ObservationSpec,
    num_actions: int,
    prioritized: bool,
    frames_per_item: float = FRAMES_PER_ITEM,
    action_masks: bool = False,
) -> int:
    """Bytes that a full replay of `capacity` items takes if its frame ring does not grow."""
    num_frames = math.ceil(capacity * frames_per_item)
    per_frame = frame_bytes(observation) + (num_actions if action_masks else 0)
    tree = tree_bytes(capacity) if prioritized else 0
    visits = 8 * math.prod(visits_shape(observation, num_actions) or (0,))
    return capacity * ITEM.itemsize + num_frames * per_frame + tree + visits


def frame_bytes(observation: ObservationSpec) -> int:
    """Bytes of one frame."""
    return np.dtype(observation.dtype).itemsize * math.prod(observation.shape)


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
