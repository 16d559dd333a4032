"""Greedy episodes, the same number for every env, and whoever plays them.

A vector env finishes short episodes first: taking the first E to end would report
the short ones. Each env therefore plays a number of episodes that is fixed before.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from distdqn.acting.acting_network import ActingNetwork
from distdqn.acting.exploration import epsilon_greedy
from distdqn.acting.frames import FrameStack
from distdqn.errors import EnvFailure
from distdqn.evaluation.video import record_video
from distdqn.telemetry.reports import EvaluationReport
from distdqn.types import BEFORE_ANY, Step, WeightSnapshot
from distdqn.weights.flat_parameters import FlatParameters

MAX_ENVS = 100

QValues = Callable[[np.ndarray], np.ndarray]
"""Observations `[N, *obs_shape]` in the stored dtype to action values `[N, A]`."""


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """E episodes; the k-th of env i is at position `k N + i`.

    An episode is a whole one of the env, an Atari game with all its lives.

    returns: `[E]` float64 undiscounted sums of raw rewards, those of steps that were no choice of
      the policy's (a FIRE at the start) included.
    lengths: `[E]` int64 steps, without such ones.
    discounted_returns: `[E]` float64 discounted sums of `r_t` (scaled and clipped) from the first
      step to the first termination: what the action values of the first observation estimate. Where
      a lost life terminates, that is where this sum ends. An episode that was cut, here or by the
      env's own time limit, lacks what the values promise for the steps after it.
    start_values: `[E]` float64 largest value of an allowed action there.
    num_cut: episodes that reached `max_episode_steps`; they count as far as they got.
    """

    returns: np.ndarray
    lengths: np.ndarray
    discounted_returns: np.ndarray
    start_values: np.ndarray
    num_cut: int


def _zeros(number: int) -> dict[str, Any]:
    """The figures of so many episodes."""
    floats = ("returns", "discounted_returns", "start_values")
    return {"lengths": np.zeros(number, int)} | {name: np.zeros(number) for name in floats}


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

    stepper: a `VectorStepper` of N envs; env i plays `episodes // N` episodes, the first
      `episodes % N` envs one more. It may be used again afterwards.
    q_values: of the policy; the first of equal values is taken.
    max_episode_steps: steps after which an episode is cut.
    discount: of `discounted_returns` alone.
    epsilon: probability of a random action, as the protocols of Atari have it.
    Raises ValueError where `episodes` or `max_episode_steps` is below 1, EnvFailure where the
    env raised, or gave a NaN or infinite reward or observation.
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

    def __init__(self, stepper: Any, episodes: int, max_episode_steps: int, discount: float):
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
        self._terminated = np.zeros(num_envs, bool)  # for the learner: perhaps a lost life
        # The figures of the running episodes, [N] each, and of the finished ones, [E] each.
        self._running, self._finished = _zeros(num_envs), _zeros(episodes)
        self._num_cut = 0

    @property
    def finished(self) -> bool:
        return bool((self._played >= self._quota).all())

    def begin(self, values: np.ndarray, action_mask: np.ndarray | None) -> None:
        """Notes the value of the first observation of episodes that begin with it."""
        fresh = self._running["lengths"] == 0
        if fresh.any():
            allowed = values if action_mask is None else np.where(action_mask, values, -np.inf)
            self._running["start_values"][fresh] = allowed.max(axis=1)[fresh]

    def add(self, step: Step) -> None:
        """Adds one vector step, and closes the episodes that end with it."""
        plays = ~self._waiting & (self._played < self._quota)
        if (step.bad & plays).any():
            env = np.flatnonzero(step.bad & plays)[0]
            raise EnvFailure(f"evaluation met a NaN or infinite {step.bad_what} in env {env}")
        chose, running, lengths = plays & step.valid, self._running, self._running["lengths"]
        promised = np.where(chose & ~self._terminated, self._discount**lengths * step.r_t, 0.0)
        running["discounted_returns"] += promised
        running["returns"] += np.where(plays, step.raw_reward, 0.0)
        self._terminated |= chose & step.terminated
        lengths += chose
        ended = plays & step.ended
        cut = plays & ~ended & (lengths >= self._max_episode_steps)
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
        return EvaluationResult(**self._finished, num_cut=self._num_cut)

    def _close(self, env: int) -> None:
        position = self._played[env] * len(self._quota) + env
        for name, figures in self._running.items():
            self._finished[name][position] = figures[env]
            figures[env] = 0
        self._played[env] += 1
        self._terminated[env] = False


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Plays without exploration, or nearly so.

    network: `[B, *obs_shape]` to `[B, A]`.
    make_stepper: (number of envs, render mode or None) to a vector stepper.
    max_episode_steps: agent steps after which an episode is cut.
    discount: of the discounted returns.
    epsilon: probability of a random action.
    """

    network: nn.Module
    make_stepper: Callable[[int, str | None], Any]
    max_episode_steps: int
    discount: float = 1.0
    epsilon: float = 0.0
    _steppers: dict[int, Any] = dataclasses.field(default_factory=dict, init=False)

    def q_function(self, online: np.ndarray, num_envs: int) -> Callable[[np.ndarray], np.ndarray]:
        """`[N, *obs_shape]` to `[N, A]` with the parameters `online [P]`, for N = `num_envs`."""
        acting = ActingNetwork(copy.deepcopy(self.network), num_envs, double=False)
        acting.set(WeightSnapshot(BEFORE_ANY, BEFORE_ANY, 0, online))
        return acting.q_values

    def evaluate(
        self, online: np.ndarray, episodes: int, seed: int, env_steps: int = 0
    ) -> EvaluationReport:
        """`episodes` greedy episodes; at most 100 envs at once, kept for the next time.

        online, env_steps: of the snapshot, `[P]` and its clock.
        """
        num_envs = min(episodes, MAX_ENVS)
        if num_envs not in self._steppers:
            self._steppers[num_envs] = self.make_stepper(num_envs, None)
        stepper, q_values = self._steppers[num_envs], self.q_function(online, num_envs)
        result = play_episodes(
            stepper, q_values, episodes, seed, self.max_episode_steps, self.discount, self.epsilon
        )
        layout = FlatParameters(self.network).layout
        return EvaluationReport(env_steps, online=online, layout=layout, **vars(result))

    def record(self, online: np.ndarray, seed: int) -> bytes:
        """One episode as the bytes of an mp4 file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "episode.mp4"
            make, q_values = partial(self.make_stepper, 1, "rgb_array"), self.q_function(online, 1)
            record_video(make, q_values, path, seed, self.max_episode_steps, self.epsilon)
            return path.read_bytes()
