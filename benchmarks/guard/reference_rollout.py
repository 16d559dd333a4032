"""Acting in a vector env as one writes it on a page: the fixed reference, never to be optimised.

Faster or slower, it would shift the ratio that distdqn's rollout is held to; change it only
together with the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Row = tuple[np.ndarray, int, float, float, np.ndarray]


class ReferenceRollout:
    """Epsilon-greedy, one window of up to n steps for each env, a list of transitions.

    The envs reset in the step after an episode's end, as Gymnasium's CartPole does; that
    step is no transition.
    """

    def __init__(
        self,
        env: Any,
        network: Callable[[torch.Tensor], torch.Tensor],
        n_step: int,
        discount: float,
        epsilon: float,
        seed: int,
    ) -> None:
        self._env, self._network = env, network
        self._n_step, self._discount, self._epsilon = n_step, discount, epsilon
        self._rng = np.random.default_rng(seed)
        self._windows: list[deque[tuple[np.ndarray, int, float]]] = [
            deque() for _ in range(env.num_envs)
        ]
        self._obs, _ = env.reset(seed=seed)
        self._resetting = np.zeros(env.num_envs, bool)

    def collect(self, num_transitions: int) -> tuple[np.ndarray, ...]:
        """obs_tm1, a_tm1, r_t, discount_t, obs_t: so many at least, as windows close."""
        rows: list[Row] = []
        while len(rows) < num_transitions:
            self._step(rows)
        return tuple(np.array(column) for column in zip(*rows, strict=True))

    def _step(self, rows: list[Row]) -> None:
        with torch.no_grad():
            greedy = self._network(torch.from_numpy(self._obs)).argmax(dim=1).numpy()
        num_envs, num_actions = len(greedy), self._env.single_action_space.n
        explores = self._rng.random(num_envs) < self._epsilon
        actions = np.where(explores, self._rng.integers(num_actions, size=num_envs), greedy)
        obs_t, rewards, terminated, truncated, _ = self._env.step(actions)
        for i, window in enumerate(self._windows):
            if self._resetting[i]:
                continue
            window.append((self._obs[i], int(actions[i]), float(rewards[i])))
            if terminated[i] or truncated[i]:
                while window:
                    rows.append(self._close(window, bool(terminated[i]), obs_t[i]))
            elif len(window) == self._n_step:
                rows.append(self._close(window, False, obs_t[i]))
        self._resetting = terminated | truncated
        self._obs = obs_t

    def _close(
        self, window: deque[tuple[np.ndarray, int, float]], terminated: bool, obs_t: np.ndarray
    ) -> Row:
        """The transition of the window's first step, which leaves the window."""
        r_t = sum(self._discount**k * reward for k, (_, _, reward) in enumerate(window))
        discount_t = 0.0 if terminated else self._discount ** len(window)
        obs_tm1, action, _ = window.popleft()
        return obs_tm1, action, r_t, discount_t, obs_t
