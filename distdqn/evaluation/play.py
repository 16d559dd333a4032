"""Greedy episodes, the same number for every env.

A vector env finishes short episodes first: taking the first E to end would report
the short ones. Each env therefore plays a number of episodes that is fixed before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from distdqn import errors
from distdqn.acting.exploration import epsilon_greedy
from distdqn.acting.frames import FrameStack
from distdqn.types import Step

QValues = Callable[[np.ndarray], np.ndarray]
"""Observations `[N, *obs_shape]` in the stored dtype to action values `[N, A]`."""


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """E episodes; the k-th of env i is at position `k N + i`.

    An episode is a whole one of the env, an Atari game with all its lives.

    returns: `[E]` float64 undiscounted sums of raw rewards, those of steps that were no
      choice of the policy's (a FIRE at the start) included.
    lengths: `[E]` int64 steps, without such ones.
    discounted_returns: `[E]` float64 discounted sums of `r_t` (scaled and clipped) from
      the first step to the first termination: what the action values of the first
      observation estimate. Where a lost life terminates, that is where this sum ends. An
      episode that was cut, here or by the env's own time limit, lacks what the values
      promise for the steps after it.
    start_values: `[E]` float64 largest value of an allowed action there.
    num_cut: episodes that reached `max_episode_steps`; they count as far as they got.
    """

    returns: np.ndarray
    lengths: np.ndarray
    discounted_returns: np.ndarray
    start_values: np.ndarray
    num_cut: int


def play_episodes(
    stepper: Any,
    q_values: QValues,
    episodes: int,
    seed: int,
    max_episode_steps: int,
    discount: float = 1.0,
    epsilon: float = 0.0,
) -> EvaluationResult:
    """Plays `episodes` greedy episodes, masks respected, from freshly seeded envs.

    Args:
      stepper: a `VectorStepper` of N envs; env i plays `episodes // N` episodes, the first
        `episodes % N` envs one more. It may be used again afterwards.
      q_values: of the policy; the first of equal values is taken.
      max_episode_steps: steps after which an episode is cut.
      discount: of `discounted_returns` alone.
      epsilon: probability of a random action, as the protocols of Atari have it.

    Raises:
      ValueError: `episodes` or `max_episode_steps` is below 1.
      EnvFailure: the env raised, or gave a NaN or infinite reward or observation.
    """
    rng, epsilons = np.random.default_rng(seed), np.full(stepper.num_envs, epsilon)
    play = _Play(stepper, episodes, max_episode_steps, discount)
    stack = FrameStack(stepper.num_envs, stepper.observation)
    obs = stack.begin(stepper.reset(seed=seed))
    while not play.finished:
        values, mask = q_values(obs), stepper.action_mask
        play.begin(values, mask)
        step = stepper.step(epsilon_greedy(values, epsilons, rng, mask))
        play.add(step)
        frames, starts, restart = step.next_obs, step.starts, play.restart()
        if restart.any():
            frames, was_reset = stepper.reset_envs(restart)
            starts = starts | was_reset
        obs = stack.push(frames, starts)
    return play.result()


class _Play:
    """The account of one evaluation over N envs.

    An env whose episode was cut must be reset before it plays on. Where the vector env
    resets only as a whole, it waits (its steps do not count) until every other env has
    come to an end too, each of them waiting in turn: to abandon running episodes would
    drop long ones more often than short ones.

    finished: every env has played its episodes.
    """

    def __init__(
        self, stepper: Any, episodes: int, max_episode_steps: int, discount: float
    ) -> None:
        if episodes < 1 or max_episode_steps < 1:
            raise ValueError(
                "an evaluation needs at least one episode of one step, got "
                f"episodes={episodes}, max_episode_steps={max_episode_steps}"
            )
        num_envs = stepper.num_envs
        self._resets_singly = stepper.resets_singly
        self._max_episode_steps, self._discount = max_episode_steps, discount
        self._quota = episodes // num_envs + (np.arange(num_envs) < episodes % num_envs)  # [N]
        self._played = np.zeros(num_envs, np.int64)
        self._waiting = np.zeros(num_envs, bool)
        # Of the running episodes, [N] each:
        self._return = np.zeros(num_envs)
        self._discounted_return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self._start_value = np.zeros(num_envs)
        self._terminated = np.zeros(num_envs, bool)  # for the learner: perhaps a lost life
        # Of the finished ones, [E] each:
        self._returns, self._discounted_returns = np.zeros(episodes), np.zeros(episodes)
        self._lengths, self._start_values = np.zeros(episodes, np.int64), np.zeros(episodes)
        self._num_cut = 0

    @property
    def finished(self) -> bool:
        return bool((self._played >= self._quota).all())

    def begin(self, values: np.ndarray, action_mask: np.ndarray | None) -> None:
        """Notes the value of the first observation of episodes that begin with it."""
        fresh = self._length == 0
        if fresh.any():
            allowed = values if action_mask is None else np.where(action_mask, values, -np.inf)
            self._start_value[fresh] = allowed.max(axis=1)[fresh]

    def add(self, step: Step) -> None:
        """Adds one vector step, and closes the episodes that end with it."""
        plays = ~self._waiting & (self._played < self._quota)
        if (step.bad & plays).any():
            raise errors.EnvFailure(
                f"evaluation met a NaN or infinite {step.bad_what} in env "
                f"{np.flatnonzero(step.bad & plays)[0]}"
            )
        chose = plays & step.valid
        discounts = self._discount**self._length  # [N]
        self._return += np.where(plays, step.raw_reward, 0.0)
        promised = chose & ~self._terminated
        self._discounted_return += np.where(promised, discounts * step.r_t, 0.0)
        self._terminated |= chose & step.terminated
        self._length += chose
        ended = plays & step.ended
        cut = plays & ~ended & (self._length >= self._max_episode_steps)
        for env in np.flatnonzero(ended | cut).tolist():
            self._close(env)
        self._num_cut += int(cut.sum())
        self._waiting |= cut
        if self._waiting.any() and not self._resets_singly:
            self._waiting |= ended

    def restart(self) -> np.ndarray:
        """`[N]` bool envs to be reset now; they play on."""
        mask = self._waiting.copy()
        if mask.any() and not self._resets_singly:
            mask[:] = (mask | (self._played >= self._quota)).all()
        self._waiting &= ~mask
        return mask

    def result(self) -> EvaluationResult:
        return EvaluationResult(
            returns=self._returns,
            lengths=self._lengths,
            discounted_returns=self._discounted_returns,
            start_values=self._start_values,
            num_cut=self._num_cut,
        )

    def _close(self, env: int) -> None:
        position = self._played[env] * len(self._quota) + env
        self._returns[position] = self._return[env]
        self._discounted_returns[position] = self._discounted_return[env]
        self._lengths[position] = self._length[env]
        self._start_values[position] = self._start_value[env]
        self._played[env] += 1
        self._return[env] = self._discounted_return[env] = self._length[env] = 0
        self._terminated[env] = False
