"""Greedy episodes with given weights.

What the evaluator and its videos share: one network, its parameters as a flat vector,
and envs of the run's kind.
"""

from __future__ import annotations

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
from distdqn.evaluation.play import play_episodes
from distdqn.evaluation.video import record_video
from distdqn.telemetry.reports import EvaluationReport
from distdqn.types import BEFORE_ANY, WeightSnapshot, WeightsVersion
from distdqn.weights.flat_parameters import FlatParameters

_MAX_ENVS = 100


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
        self,
        online: np.ndarray,
        episodes: int,
        seed: int,
        version: WeightsVersion = BEFORE_ANY,
        env_steps: int = 0,
    ) -> EvaluationReport:
        """`episodes` greedy episodes; at most 100 envs at once, kept for the next time.

        online, version, env_steps: of the snapshot, `[P]`, its version and its clock.
        """
        num_envs = min(episodes, _MAX_ENVS)
        if num_envs not in self._steppers:
            self._steppers[num_envs] = self.make_stepper(num_envs, None)
        stepper, q_values = self._steppers[num_envs], self.q_function(online, num_envs)
        result = play_episodes(
            stepper, q_values, episodes, seed, self.max_episode_steps, self.discount, self.epsilon
        )
        layout = FlatParameters(self.network).layout
        return EvaluationReport(env_steps, version, online=online, layout=layout, **vars(result))

    def record(self, online: np.ndarray, seed: int) -> bytes:
        """One episode as the bytes of an mp4 file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "episode.mp4"
            make, q_values = partial(self.make_stepper, 1, "rgb_array"), self.q_function(online, 1)
            record_video(make, q_values, path, seed, self.max_episode_steps, self.epsilon)
            return path.read_bytes()
