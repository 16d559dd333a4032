"""An env as its makers give it, for benchmarks: what stepping costs without distdqn.

Gymnasium's native vector env where there is one, else its `SyncVectorEnv`; for Atari games
ale-py's. Actions are random and episodes begin anew by the env's own means.
"""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from distdqn.config.sections import EnvConfig
from distdqn.envs.actions import discrete_actions
from distdqn.envs.atari import ale_vector_env
from distdqn.envs.registry import find_spec


class BareEnv:
    """`num_envs` envs in one vector env, reset.

    Rewards, observations and lost lives stay as they come: nothing looks at them.
    """

    def __init__(self, settings: EnvConfig, num_envs: int) -> None:
        """Raises EnvError: see `find_spec`, or an action space that is not Discrete."""
        spec = find_spec(settings.id)
        if settings.is_atari:
            self._env = ale_vector_env(spec, settings.atari, num_envs, settings.atari.noop_max)
        else:
            mode = "sync" if spec.vector_entry_point is None else "vector_entry_point"
            self._env = gymnasium.make_vec(spec, num_envs=num_envs, vectorization_mode=mode)
        self._num_envs = num_envs
        space = self._env.single_action_space
        self._num_actions, self._start = discrete_actions(space, settings.id)
        self._dtype = space.dtype
        self._resets_later = self._env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        self._rng, self._num_resetting = np.random.default_rng(0), 0
        self._env.reset(seed=0)

    def step(self) -> int:
        """One vector step; the env steps in it, without those that only reset an env."""
        actions = self._rng.integers(self._num_actions, size=self._num_envs, dtype=self._dtype)
        _, _, terminated, truncated, _ = self._env.step(actions + self._start)
        taken = self._num_envs - self._num_resetting
        if self._resets_later:
            self._num_resetting = int(np.count_nonzero(terminated | truncated))
        return taken

    def close(self) -> None:
        self._env.close()
