"""What is guarded of sampling and remembering.

Each item's limit is memory alone: the same bytes copied, or the same nodes of a tree read or
written at places that are known beforehand.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from distdqn.replay.replay import Replay
from distdqn.replay.sampling import PlainSampler, PrioritizedSampler
from distdqn.types import (
    BEFORE_ANY,
    ObservationSpec,
    PriorityUpdate,
    ReplayBatch,
    TransitionBlock,
)
from guard.reference_replay import ReferenceReplay, ReferenceSampler, stacked_pictures
from guard.turns import Item, Work

NUMBERS = ObservationSpec((4,), "float32")
PICTURES = ObservationSpec((84, 84), "uint8", scale=1 / 255, stack=4)
NUM_ACTIONS = 4

_EXPONENT, _EPSILON = 0.6, 1e-6
_BATCH = 512
_SLOTS, ITEMS = 100_000, 1_000_000
_BLOCK = 1_000
_DRAWS = 64  # slots drawn beforehand, used in turn


def replay_items() -> list[Item]:
    """Draws and priorities of the sampler alone; the replay's draws, its adding."""
    rng = np.random.default_rng(0)
    return [
        *_sampler_items(rng),
        _prioritized_item(rng),
        _uniform_item(rng),
        _pictures_item(rng),
        _add_item(rng),
    ]


def make_block(observation: ObservationSpec, num: int, rng: np.random.Generator) -> TransitionBlock:
    """`num` steps of one env within an episode, with priorities."""
    depth = observation.stack - 1
    shape = (depth + num + 1, *observation.shape)
    tm1 = depth + np.arange(num, dtype=np.int32)
    depths = np.full(num, depth, np.uint8)
    return TransitionBlock(
        worker=0,
        incarnation=0,
        sequence=0,
        collected=0,
        refused=0,
        weights_version=BEFORE_ANY,
        frames=rng.integers(0, 200, shape).astype(observation.dtype),
        tm1=tm1,
        t=tm1 + 1,
        tm1_depth=depths,
        t_depth=depths,
        a_tm1=rng.integers(0, NUM_ACTIONS, num).astype(np.int32),
        r_t=rng.standard_normal(num, np.float32),
        discount_t=np.full(num, 0.99, np.float32),
        priorities=rng.random(num, np.float32),
    )


def copies(num_bytes: int) -> Work:
    """Copies so many bytes from one place to another, always the same ones.

    Not zeros: memory that was never written is one page for the kernel, which is always in
    the cache.
    """
    source, target = np.ones(num_bytes, np.uint8), np.ones(num_bytes, np.uint8)
    return lambda: np.copyto(target, source)


def batch_bytes(batch: ReplayBatch) -> int:
    """Of all its arrays."""
    arrays = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    return sum(array.nbytes for array in arrays if array is not None)


def _sampler_items(rng: np.random.Generator) -> list[Item]:
    slots, priorities = np.arange(_SLOTS), rng.random(_SLOTS)
    ours = PrioritizedSampler(_SLOTS, _EXPONENT, _EPSILON)
    ours.insert(slots, priorities)
    reference = ReferenceSampler(_SLOTS, _EXPONENT, _EPSILON)
    reference.update(slots, priorities)
    draws = itertools.cycle([ours.sample(_BATCH, rng)[0] for _ in range(_DRAWS)])
    new = rng.random(_BATCH)
    read, write = _paths(rng)
    return [
        Item(
            name=f"draw {_BATCH} of {_SLOTS:,} slots by priority",
            part="sampler",
            ours=lambda: ours.sample(_BATCH, rng),
            limit=read,
            limit_name="the nodes on the way read, known beforehand",
            reference=lambda: reference.sample(_BATCH, rng),
        ),
        Item(
            name=f"{_BATCH} new priorities of {_SLOTS:,} slots",
            part="sampler",
            ours=lambda: ours.update(next(draws), new),
            limit=write,
            limit_name="the nodes on the way written, known beforehand",
            reference=lambda: reference.update(next(draws), new),
        ),
    ]


def _paths(rng: np.random.Generator) -> tuple[Work, Work]:
    """Reads and writes all nodes from `_BATCH` leaves to the root of a binary tree."""
    num_leaves = 1 << (_SLOTS - 1).bit_length()
    levels = np.arange(num_leaves.bit_length())[:, None]
    draws = [
        ((num_leaves + np.sort(rng.integers(_SLOTS, size=_BATCH))) >> levels).ravel()
        for _ in range(_DRAWS)
    ]
    places, nodes = itertools.cycle(draws), np.ones(2 * num_leaves)
    values = np.zeros(len(draws[0]))

    def write() -> None:
        nodes[next(places)] = values

    return lambda: nodes.take(next(places)), write


def _prioritized_item(rng: np.random.Generator) -> Item:
    sampler = PrioritizedSampler(ITEMS, _EXPONENT, _EPSILON)
    ours = Replay(ITEMS, NUMBERS, NUM_ACTIONS, sampler, seed=0)
    reference_sampler = ReferenceSampler(ITEMS, _EXPONENT, _EPSILON)
    reference = ReferenceReplay(ITEMS, NUMBERS.shape, reference_sampler)
    for _ in range(ITEMS // _BLOCK):
        block = make_block(NUMBERS, _BLOCK, rng)
        ours.add(block)
        reference.add(*rows_of(block))
    new = rng.random(_BATCH, np.float32)

    def draw() -> None:
        batch = ours.sample(1, _BATCH)
        ours.update_priorities(PriorityUpdate(batch.item_ids[0], new))

    def draw_reference() -> None:
        ((*_, slots, _),) = reference.sample(1, _BATCH, rng)
        reference_sampler.update(slots, new)

    return Item(
        name=f"sample and update {_BATCH} of {ITEMS:,} items",
        part="replay",
        ours=draw,
        limit=_gathers(rng),
        limit_name="rows of the same size gathered, drawn beforehand",
        reference=draw_reference,
    )


def _gathers(rng: np.random.Generator) -> Work:
    """`_BATCH` rows of 64 bytes, an item with its observations, from places all over."""
    rows = np.ones((ITEMS, 8))
    places = itertools.cycle([rng.integers(ITEMS, size=_BATCH) for _ in range(_DRAWS)])
    return lambda: rows.take(next(places), axis=0)


def _uniform_item(rng: np.random.Generator) -> Item:
    capacity, num_batches, batch_size = 10_000, 32, 128
    ours = Replay(capacity, NUMBERS, NUM_ACTIONS, PlainSampler(capacity), seed=0)
    reference = ReferenceReplay(capacity, NUMBERS.shape)
    for _ in range(capacity // _BLOCK):
        block = make_block(NUMBERS, _BLOCK, rng)
        ours.add(block)
        reference.add(*rows_of(block))
    return Item(
        name=f"sample {num_batches} x {batch_size} of {capacity:,} items",
        part="replay",
        ours=lambda: ours.sample(num_batches, batch_size),
        limit=copies(batch_bytes(ours.sample(num_batches, batch_size))),
        limit_name="the same bytes copied",
        reference=lambda: reference.sample(num_batches, batch_size, rng),
    )


def _pictures_item(rng: np.random.Generator) -> Item:
    capacity, batch_size = 16_000, 256
    ours = Replay(capacity, PICTURES, NUM_ACTIONS, PlainSampler(capacity), seed=0)
    blocks = [make_block(PICTURES, _BLOCK, rng) for _ in range(capacity // _BLOCK)]
    for block in blocks:
        ours.add(block)
    num_bytes = 2 * batch_size * math.prod(PICTURES.obs_shape)
    frames = np.concatenate([block.frames for block in blocks])
    depths = np.full(batch_size, PICTURES.stack - 1)

    def stack() -> None:
        newest = rng.integers(PICTURES.stack - 1, len(frames) - 1, batch_size)
        for positions in (newest, newest + 1):
            stacked_pictures(frames, positions, depths)

    return Item(
        name=f"sample {batch_size} pairs of stacked pictures",
        part="replay",
        ours=lambda: ours.sample(1, batch_size),
        limit=copies(num_bytes),
        limit_name="the same bytes copied",
        reference=stack,
    )


def _add_item(rng: np.random.Generator) -> Item:
    capacity = 50_000
    sampler = PrioritizedSampler(capacity, _EXPONENT, _EPSILON)
    ours = Replay(capacity, NUMBERS, NUM_ACTIONS, sampler, seed=0)
    reference = ReferenceReplay(
        capacity, NUMBERS.shape, ReferenceSampler(capacity, _EXPONENT, _EPSILON)
    )
    block = make_block(NUMBERS, _BLOCK, rng)
    rows = rows_of(block)
    for _ in range(capacity // _BLOCK):
        ours.add(block)
        reference.add(*rows)
    return Item(
        name=f"add {_BLOCK:,} items with priorities",
        part="replay",
        ours=lambda: ours.add(block),
        limit=copies(sum(column.nbytes for column in rows)),
        limit_name="the transitions' bytes copied",
        reference=lambda: reference.add(*rows),
    )


def rows_of(block: TransitionBlock) -> tuple[np.ndarray, ...]:
    """The transitions as `ReferenceReplay.add` takes them."""
    observations = (block.frames[block.tm1], block.frames[block.t])
    columns = (observations[0], block.a_tm1, block.r_t, block.discount_t, observations[1])
    return columns if block.priorities is None else (*columns, block.priorities)
