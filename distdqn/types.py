"""What travels between the parts: steps, blocks, batches, priorities, weights.

Every array is numpy and every type is frozen: a received array is a read-only
view that pins the message it came in, so whoever keeps it copies it.

Symbols: `F` frames in a block, `B` transitions or batch size, `K` minibatches in a
superbatch, `A` actions, `P` parameters.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class ObservationSpec:
    """How one observation is stored and what the network makes of it.

    What is stored is a frame; an observation is the newest `stack` frames of its episode,
    oldest first, put together only where a network is to see it.

    shape: of one stored frame; `()` for an index.
    dtype: numpy name of the stored dtype ("float32", "uint8", "int32").
    num_categories: above 0 the observation is an index in `[0, num_categories)`
      that the network turns into a one-hot vector.
    scale: the network multiplies by it after the cast to float (1/255 for images).
    stack: frames in an observation; with 1 the frame is the observation.
    padding: what stands for frames before an episode's first: "zero", or "repeat" for
      that first frame.
    """

    shape: tuple[int, ...]
    dtype: str
    num_categories: int = 0
    scale: float = 1.0
    stack: int = 1
    padding: Literal["zero", "repeat"] = "zero"

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Of one observation: `[stack, *shape]`, or `shape` where nothing is stacked."""
        return (self.stack, *self.shape) if self.stack > 1 else self.shape

    @property
    def frame_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    def stacked(
        self, frames_at: Callable[[np.ndarray], np.ndarray], newest: np.ndarray, depths: np.ndarray
    ) -> np.ndarray:
        """The observations whose newest frames are at the positions `newest [...]`.

        The one at position p whose depth is d (how many of the frames right before it belong
        to the same observation) is seen as

            [padding, ..., padding, frame p - d, ..., frame p]      `stack` places

        with zeros for padding, or with frame p - d again.

        frames_at: positions `[...]` -> frames `[..., *shape]`, new memory.
        depths: integers like `newest`.

        Returns `[..., *obs_shape]`.
        """
        if self.stack == 1:
            return frames_at(newest)
        age, depths = np.arange(self.stack)[::-1], depths[..., None]  # of each place, 0 the newest
        obs = frames_at(newest[..., None] - np.minimum(age, depths))
        if self.padding == "zero":
            obs[age > depths] = 0
        return obs


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One vector step of `N` envs: as many transitions, or fewer where some were only reset.

    Observations are single frames, whatever is stacked of them later. Arrays may be
    shared between fields and steps: read them, do not write to them.

    obs_t: `[N, *shape]` the observation that the action led to; at the end of an episode its final
      one.
    r_t: `[N]` float32 reward, scaled and then clipped.
    raw_reward: `[N]` float64 reward as the env gave it.
    terminated, truncated: `[N]` bool ends of what the learner takes for an episode; a lost life may
      be terminated.
    ended: `[N]` bool; the env's own episode, a whole game, ended in this step. May be set where
      `valid` is not.
    valid: `[N]` bool; False where the action was not used: the env only reset itself, or the step
      pressed FIRE, whose `raw_reward` still counts for the game.
    next_obs: `[N, *shape]` what the next action is chosen from: `obs_t`, but the first observation
      of the next episode where the env was reset within this step.
    restarted: `[N]` bool; the env was reset within this step.
    starts: `[N]` bool; `next_obs` is the first frame of an episode and is stacked with none before
      it: where the env was restarted, and where it goes on from `obs_t` alone (a lost life, or a
      step that only reset the env).
    bad: `[N]` bool; a NaN or infinity in the reward, in `obs_t` or in `next_obs`. No transition may
      touch it, and the env is to be reset (`reset_envs`). May be set where `valid` is not.
    bad_what: "reward" or "observation" where any is bad (the reward where both are), else "".
    action_mask_t, next_action_mask: `[N, A]` bool of the actions allowed in `obs_t` and `next_obs`,
      all True where the env did not say; None if it never does.
    """

    obs_t: np.ndarray
    r_t: np.ndarray
    raw_reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    ended: np.ndarray
    valid: np.ndarray
    next_obs: np.ndarray
    restarted: np.ndarray
    starts: np.ndarray
    bad: np.ndarray
    bad_what: str
    action_mask_t: np.ndarray | None
    next_action_mask: np.ndarray | None


class WeightsVersion(NamedTuple):
    """Which published weights; ordered, so a revived learner's are newer.

    incarnation: of the learner, from 1; (0, 0) stands for "before any".
    counter: publications of that incarnation.
    """

    incarnation: int
    counter: int


BEFORE_ANY = WeightsVersion(0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class TransitionBlock:
    """A contiguous piece of one or more env streams, observations stored once.

    worker, incarnation, sequence: who sealed it and as which of its blocks (from 0);
      a shard drops a sequence it has seen.
    collected, refused: the worker incarnation's running totals of transitions when
      this block was sealed, this block included; refused are those that the worker
      itself threw away (a NaN in their window) and that are in no block.
    weights_version: of the weights that chose the first action.
    frames: `[F, *shape]`, those of each env together and in the order of arrival.
    tm1, t: `[B]` int32 positions in `frames` of the newest frames of `obs_tm1` and `obs_t`.
    tm1_depth, t_depth: `[B]` uint8, how many of the frames right before that one belong to
      the observation too, at most `stack - 1`; all 0 where nothing is stacked.
    a_tm1: `[B]` int32 actions, from 0.
    r_t: `[B]` float32 discounted sum of up to n rewards.
    discount_t: `[B]` float32 multiplier of the bootstrap value, 0 on termination.
    priorities: `[B]` float32 unexponentiated |TD error|, or None with uniform replay.
    action_mask: `[F, A]` bool, True where allowed, or None where the env gives none.
    """

    worker: int
    incarnation: int
    sequence: int
    collected: int
    refused: int
    weights_version: WeightsVersion
    frames: np.ndarray
    tm1: np.ndarray
    t: np.ndarray
    tm1_depth: np.ndarray
    t_depth: np.ndarray
    a_tm1: np.ndarray
    r_t: np.ndarray
    discount_t: np.ndarray
    priorities: np.ndarray | None = None
    action_mask: np.ndarray | None = None

    @property
    def num_transitions(self) -> int:
        return len(self.a_tm1)


@dataclasses.dataclass(frozen=True, slots=True)
class ReplayBatch:
    """A superbatch: K minibatches of B, each by itself a sample of one shard.

    obs_tm1, obs_t: `[K, B, *obs_shape]` in the stored dtype.
    a_tm1: `[K, B]` int64.  r_t, discount_t: `[K, B]` float32.
    item_ids: `[K, B]` int64.
    probabilities: `[K, B]` float64, P(item | shard) as sampled.
    action_mask_t: `[K, B, A]` bool of the actions allowed in `obs_t`, or None.
    """

    obs_tm1: np.ndarray
    a_tm1: np.ndarray
    r_t: np.ndarray
    discount_t: np.ndarray
    obs_t: np.ndarray
    item_ids: np.ndarray
    probabilities: np.ndarray
    action_mask_t: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PriorityUpdate:
    """New priorities for sampled items; those evicted meanwhile are dropped.

    item_ids: `[B]` int64.  priorities: `[B]` float32 unexponentiated |TD error|.
    """

    item_ids: np.ndarray
    priorities: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class WeightSnapshot:
    """Published parameters, each set one flat vector.

    online: `[P]` online parameters.
    target: `[P]` target parameters, or None when the receiver has `target_version`.
    env_steps: the global env-step clock at publication, for epsilon schedules.
    """

    version: WeightsVersion
    target_version: WeightsVersion
    env_steps: int
    online: np.ndarray
    target: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ShardMap:
    """The shards, by index; a newer generation replaces an older.

    handles: actor handles.
    epochs: of the shards, so that a revived one is not taken for its predecessor.
    """

    generation: int = -1
    handles: tuple[Any, ...] = ()
    epochs: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ShardCounters:
    """What the learner must know of a shard; comes with every answer.

    inserts: transitions accepted by this epoch of the shard, ever.
    size: items held.  mass: items if uniform, sum of p^alpha if prioritized.
    """

    shard: int
    epoch: int
    inserts: int
    size: int
    mass: float


@dataclasses.dataclass(frozen=True, slots=True)
class SampleReply:
    """Answer to a sample request; no batch where the shard is empty."""

    counters: ShardCounters
    batch: ReplayBatch | None


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerDirective:
    """What a worker is to do next.

    allowance: env steps that this incarnation may take in all.
    env_steps: the global clock.
    finish: no more will be allowed; use up the allowance, flush and return.
    stop: flush and return now.
    """

    allowance: int
    env_steps: int
    finish: bool
    stop: bool
    shards: ShardMap | None


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerDirective:
    """collection_finished: make the updates still owed, then return; stop: return now."""

    collection_finished: bool
    stop: bool
    shards: ShardMap | None
