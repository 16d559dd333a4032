"""How a replay lies in memory: one record per item, and the sizes that follow.

Loads no compiled kernel, so that the driver can budget memory before the start.
"""

from __future__ import annotations

import math

import numpy as np

from distdqn.types import ObservationSpec

COLUMNS = ("tm1", "t", "tm1_depth", "t_depth", "a_tm1", "r_t", "discount_t")  # one per transition


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


MAX_VISITS = 2**20  # counts of (observation, action) pairs: 8 MiB


BUCKET = 8  # values of the sum tree, float64, under one leaf: one cache line


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
