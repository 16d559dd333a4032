"""What the tests of the replay share: made-up blocks and small replays."""

from __future__ import annotations

from typing import Any

import numpy as np

from distdqn.replay.replay import Replay
from distdqn.replay.sampling import PlainSampler, PrioritizedSampler, Sampler
from distdqn.types import BEFORE_ANY, ObservationSpec, TransitionBlock, WeightsVersion

NUM_ACTIONS = 3
CARTPOLE = ObservationSpec((4,), "float32")
INDEX = ObservationSpec((), "int32", num_categories=500)


class Worker:
    """Seals blocks of made-up transitions; every frame is random, hence its own."""

    def __init__(self, observation: ObservationSpec, seed: int = 0) -> None:
        self.observation = observation
        self.rng = np.random.default_rng(seed)

    def block(
        self,
        num: int,
        num_frames: int = 0,
        masked: bool = False,
        priorities: Any = None,
        version: WeightsVersion = BEFORE_ANY,
    ) -> TransitionBlock:
        num_frames = max(num_frames, num + 1)
        shape = (num_frames, *self.observation.shape)
        high = self.observation.num_categories or 200
        frames = self.rng.integers(0, high, shape).astype(self.observation.dtype)
        tm1 = self.rng.integers(0, num_frames, num).astype(np.int32)
        t = self.rng.integers(tm1, num_frames).astype(np.int32)
        depths = [
            self.rng.integers(0, np.minimum(newest, self.observation.stack - 1) + 1)
            for newest in (tm1, t)
        ]
        return TransitionBlock(
            *(0, 0, 0, 0, 0, version),
            frames=frames,
            tm1=tm1,
            t=t,
            tm1_depth=depths[0].astype(np.uint8),
            t_depth=depths[1].astype(np.uint8),
            a_tm1=self.rng.integers(0, NUM_ACTIONS, num).astype(np.int32),
            r_t=self.rng.normal(size=num).astype(np.float32),
            discount_t=self.rng.random(num).astype(np.float32),
            priorities=None if priorities is None else np.asarray(priorities, np.float32),
            action_mask=self.rng.random((num_frames, NUM_ACTIONS)) < 0.5 if masked else None,
        )


def make_sampler(kind: str, capacity: int) -> Sampler:
    if kind == "prioritized":
        return PrioritizedSampler(capacity, 0.6, 0.01)
    return PlainSampler(capacity, in_order=kind == "fifo")


def make_replay(
    capacity: int,
    observation: ObservationSpec = CARTPOLE,
    kind: str = "prioritized",
    **kwargs: Any,
) -> Replay:
    sampler = make_sampler(kind, capacity)
    return Replay(capacity, observation, NUM_ACTIONS, sampler, **({"seed": 0} | kwargs))
