"""Made-up experience with the shapes and sizes of the real thing.

Frames are a picture that stays with a few that change, episodes end now and then; no env
is asked, and nothing is learned from them.
"""

import dataclasses
from typing import Literal

import numpy as np

from distdqn.replay.layout import planned_frames_per_item
from distdqn.replay.replay import Replay
from distdqn.replay.sampling import PlainSampler, PrioritizedSampler, Sampler
from distdqn.types import BEFORE_ANY, ObservationSpec, TransitionBlock

Torso = Literal["nature", "minatar", "mlp"]

STEPS = 64  # of each env in a block, as the Atari presets have it
NUM_ENVS = 8
_EPISODE = 200
_TILE = 7  # pixels


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What a network is fed with: observations, and a number of actions."""

    observation: ObservationSpec
    num_actions: int


TASKS: dict[Torso, Task] = {
    "nature": Task(ObservationSpec((84, 84), "uint8", scale=1 / 255, stack=4), 4),
    "minatar": Task(ObservationSpec((10, 10, 4), "uint8"), 6),
    "mlp": Task(ObservationSpec((4,), "float32"), 2),
}


def filled_replay(
    task: Task,
    capacity: int,
    prioritized: bool,
    n_step: int,
    steps: int = STEPS,
    compression: str = "none",
) -> Replay:
    """A replay that is full of made-up transitions, planned as a run's shard is.

    steps: of each env in a block.
    """
    sampler: Sampler = PlainSampler(capacity)
    if prioritized:
        sampler = PrioritizedSampler(capacity, 0.6, 1e-6)
    spec, actions, block = task.observation, task.num_actions, NUM_ENVS * steps
    frames = planned_frames_per_item(capacity, spec.stack, n_step, NUM_ENVS, block)
    replay = Replay(
        capacity, spec, actions, sampler, seed=0, frames_per_item=frames, compression=compression
    )
    rng = np.random.default_rng(0)
    while replay.size < capacity:
        replay.add(make_block(task, n_step, prioritized, rng, steps))
    return replay


def make_block(
    task: Task, n_step: int, with_priorities: bool, rng: np.random.Generator, steps: int = STEPS
) -> TransitionBlock:
    """`steps` of 8 envs, each within an episode; one transition in 200 terminates."""
    observation = task.observation
    depth, num = observation.stack - 1, NUM_ENVS * steps
    length = depth + steps + n_step  # frames of one env
    first = np.arange(NUM_ENVS, dtype=np.int32)[:, None] * length
    tm1 = (first + depth + np.arange(steps, dtype=np.int32)).ravel()
    depths = np.full(num, depth, np.uint8)
    terminated = rng.random(num) < 1 / _EPISODE
    return TransitionBlock(
        worker=0,
        incarnation=0,
        sequence=0,
        collected=0,
        refused=0,
        weights_version=BEFORE_ANY,
        frames=make_frames(observation, NUM_ENVS * length, rng),
        tm1=tm1,
        t=tm1 + np.int32(n_step),
        tm1_depth=depths,
        t_depth=depths,
        a_tm1=rng.integers(task.num_actions, size=num, dtype=np.int32),
        r_t=(rng.random(num) < 0.1).astype(np.float32),
        discount_t=np.where(terminated, 0, 0.99**n_step).astype(np.float32),
        priorities=rng.random(num, np.float32) if with_priorities else None,
    )


def make_frames(observation: ObservationSpec, num: int, rng: np.random.Generator) -> np.ndarray:
    """`[num, *shape]`: bytes that differ from one background in one place of sixteen.

    A picture's background is of tiles, so that it can be compressed as a game's can: to a
    quarter, like the busier ones.
    """
    shape = (num, *observation.shape)
    if observation.dtype != "uint8":
        return rng.standard_normal(shape).astype(observation.dtype)
    high = 256 if observation.scale != 1.0 else 2
    background = rng.integers(high, size=observation.shape, dtype=np.uint8)
    if observation.scale != 1.0:
        tiles = (np.arange(length) // _TILE for length in observation.shape)
        background = background[np.ix_(*tiles)]
    frames = np.broadcast_to(background, shape).copy()
    changed = rng.integers(frames.size, size=frames.size // 16)
    frames.reshape(-1)[changed] = rng.integers(high, size=len(changed), dtype=np.uint8)
    return frames
