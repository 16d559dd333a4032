"""An env as its makers give it, for benchmarks: what stepping costs without distdqn.

Gymnasium's native vector env where there is one, else its `SyncVectorEnv`; for Atari games
ale-py's. Actions are random and episodes begin anew by the env's own means.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from distdqn.config.sections import EnvConfig
from distdqn.envs.actions import discrete_actions
from distdqn.envs.make import find_spec


class BareEnv:
    """`num_envs` envs in one vector env, reset.

    Rewards, observations and lost lives stay as they come: nothing looks at them.
    """

    def __init__(self, settings: EnvConfig, num_envs: int) -> None:
        """Raises EnvError: see `find_spec`, or an action space that is not Discrete."""
        spec = find_spec(settings.id)
        self._env = _ale(spec, settings, num_envs) if settings.is_atari else _gym(spec, num_envs)
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


def _gym(spec: gymnasium.envs.registration.EnvSpec, num_envs: int) -> Any:
    mode = "sync" if spec.vector_entry_point is None else "vector_entry_point"
    return gymnasium.make_vec(spec, num_envs=num_envs, vectorization_mode=mode)


def _ale(spec: gymnasium.envs.registration.EnvSpec, settings: EnvConfig, num_envs: int) -> Any:
    from ale_py.vector_env import AtariVectorEnv

    atari = settings.atari
    return AtariVectorEnv(
        spec.kwargs["game"],
        num_envs,
        num_threads=1,  # an env worker has one core
        stack_num=1,
        frameskip=atari.frame_skip,
        repeat_action_probability=atari.sticky_actions,
        noop_max=atari.noop_max,
        reward_clipping=False,
        use_fire_reset=False,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
