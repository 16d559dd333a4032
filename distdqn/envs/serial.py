"""Single environments, one after another, as one vector env.

Made for stepping many cheap envs within one process: no fork, no copy of `info`.

Gymnasium's `SyncVectorEnv` gathers every entry of every `info` into arrays, which
costs more than some envs do and fails where an entry changes its length. Here only
`action_mask` and `lives` are looked at, and a failure names the env that it came from.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import create_empty_array

from distdqn import errors
from distdqn.envs.actions import action_names
from distdqn.envs.failures import env_error
from distdqn.envs.observations import ObservationEncoder


class SerialVectorEnv:
    """N single envs behind the part of Gymnasium's vector API that distdqn uses.

    The autoreset mode is DISABLED: no step is spent on a reset as in NEXT_STEP, and
    the final observation is copied out before a reset can overwrite the env's own
    buffer, as it can in SAME_STEP. Observations returned are one reused buffer.

    envs: the single envs, in order.

    Life: `reset()` once, then `step` and, for rows that ended, `reset` with
    `options={"reset_mask": mask}`.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}
    seeds_singly = True

    def __init__(self, envs: Sequence[gymnasium.Env[Any, Any]], label: str) -> None:
        """Takes over the envs, which must be alike.
        Raises EnvError: their spaces differ; UnsupportedSpaceError: see `ObservationEncoder`."""
        self.num_envs = len(envs)
        self.envs, self._label, self.spec = list(envs), label, envs[0].spec
        self.single_observation_space = envs[0].observation_space
        self.single_action_space = envs[0].action_space
        self.metadata = {**envs[0].metadata, **self.metadata}
        self._encoder = ObservationEncoder(self.single_observation_space, label)
        self._require_alike()
        self._observations: list[Any] = [None] * self.num_envs
        self._batch: Any = create_empty_array(self.single_observation_space, self.num_envs)

    def reset(
        self, *, seed: Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets all envs, or those in `options["reset_mask"]` `[N]` bool.

        seed: one for each env; None goes on with the envs' own generators.

        Returns observations of all envs, and `action_mask` and `lives` of those that were reset.
        Raises EnvError: an env raised, or broke its observation space.
        """
        mask = None if options is None else options.get("reset_mask")
        infos: dict[int, dict[str, Any]] = {}
        for i in range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist():
            try:
                env_seed = None if seed is None else seed[i]
                self._observations[i], infos[i] = self.envs[i].reset(seed=env_seed)
            except Exception as error:
                raise env_error(self._label, "reset", error, i) from error
        return self._joined("reset"), self._batched(infos)

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps every env; the arguments and results of `gymnasium.vector.VectorEnv.step`.
        Raises EnvError: an env raised, or broke its observation space."""
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        infos: dict[int, dict[str, Any]] = {}
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            try:
                result = env.step(action)
                self._observations[i], rewards[i], terminated[i], truncated[i], infos[i] = result
            except Exception as error:
                raise env_error(self._label, "step", error, i) from error
        return self._joined("step"), rewards, terminated, truncated, self._batched(infos)

    def get_action_meanings(self) -> list[str]:
        """Names of the actions by their numbers, of envs that have them."""
        return list(action_names(self.envs[0]))

    def render(self) -> list[Any]:
        """One frame of each env."""
        return [env.render() for env in self.envs]

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _joined(self, where: str) -> Any:
        return self._encoder.joined(self._observations, where, range(self.num_envs), self._batch)

    def _batched(self, infos: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """`action_mask` (a list), `lives` `[N]`, and which envs gave them, where one did."""
        batched: dict[str, Any] = {}
        if not any(infos.values()):  # the usual case with cheap envs
            return batched
        for name in ("action_mask", "lives"):
            if any(name in info for info in infos.values()):
                values = [infos.get(i, {}).get(name) for i in range(self.num_envs)]
                batched[name] = values
                batched["_" + name] = np.array([value is not None for value in values])
        if "lives" in batched:
            batched["lives"] = np.array([lives or 0 for lives in batched["lives"]])
        return batched

    def _require_alike(self) -> None:
        for i, env in enumerate(self.envs):
            for name in ("observation", "action"):
                space, first = (getattr(e, f"{name}_space") for e in (env, self.envs[0]))
                if space != first:
                    raise errors.EnvError(
                        f"environment {self._label!r} has different {name} spaces: {first} in "
                        f"env 0, {space} in env {i}"
                    )
