"""Environments whose every step is known beforehand, and ones that misbehave.

All are plain module-level classes and functions, so that cloudpickle takes them (and
`functools.partial` of them, the usual `make_env`) to other processes.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from distdqn.envs.serial import SerialVectorEnv
from distdqn.envs.stepper import VectorStepper

OBS_SIZE = 3
NUM_ACTIONS = 3


class ScriptedEnv(gymnasium.Env):
    """Episodes of given lengths and ends; an observation tells where it belongs.

    Observation: [episode, step within it, last action + 1] (0 after a reset).
    Reward: 100 episode + 10 step + action, of the step just made.
    Episode e has `lengths[e % len]` steps and ends "terminated" or "truncated" by
    `ends[e % len]`. `masks`: at (episode + step) even, action 0 is not allowed; "reset"
    or "step" gives the mask only there. `awkward`: observations are one buffer that a
    reset overwrites, and an info entry changes its length. No seed changes anything.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}
    action_space = spaces.Discrete(NUM_ACTIONS)
    observation_space = spaces.Box(-np.inf, np.inf, (OBS_SIZE,), np.float32)

    def __init__(
        self,
        lengths: tuple[int, ...] = (3, 5, 1, 2),
        ends: tuple[str, ...] = ("terminated", "truncated", "truncated"),
        masks: bool | str = False,
        awkward: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self.lengths, self.ends, self.masks = lengths, ends, masks
        self.awkward, self.render_mode = awkward, render_mode
        self.episode, self.time = -1, 0
        self.seeds: list[int | None] = []
        self.closed = False
        self._buffer = np.zeros(OBS_SIZE, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.episode, self.time = self.episode + 1, 0
        return self._observe(-1), self._info("reset")

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.time += 1
        reward = 100.0 * self.episode + 10.0 * self.time + float(action)
        ended = self.time >= self.lengths[self.episode % len(self.lengths)]
        end = self.ends[self.episode % len(self.ends)] if ended else ""
        observation = self._observe(int(action))
        return observation, reward, end == "terminated", end == "truncated", self._info("step")

    def render(self) -> Any:
        return np.full((32, 48, 3), 40 * (self.time % 6), np.uint8)

    def close(self) -> None:
        self.closed = True

    def mask(self) -> np.ndarray:
        return np.array([(self.episode + self.time) % 2, 1, 1], np.int8)

    def _observe(self, action: int) -> np.ndarray:
        self._buffer[:] = self.episode, self.time, action + 1
        return self._buffer if self.awkward else self._buffer.copy()

    def _info(self, where: str) -> dict[str, Any]:
        info: dict[str, Any] = {"path": np.zeros(self.time + 1)} if self.awkward else {}
        if self.masks is True or self.masks == where:
            info["action_mask"] = self.mask()
        return info


class ScriptedVectorEnv(gymnasium.vector.VectorEnv):
    """N `ScriptedEnv`s behind a native vector env, in any autoreset mode.

    Written without Gymnasium's vector code. Each env has lengths of its own:
    `lengths` rotated by its number. final: how SAME_STEP gives final observations,
    "objects", "batched" or "missing". The observation array is reused by every step.
    """

    def __init__(
        self,
        num_envs: int,
        mode: Any = AutoresetMode.NEXT_STEP,
        lengths: tuple[int, ...] = (3, 5, 1, 2),
        ends: tuple[str, ...] = ("terminated", "truncated", "truncated"),
        masks: bool = False,
        final: str = "objects",
        max_episode_steps: int | None = None,
    ) -> None:
        self.num_envs, self.mode, self.final = num_envs, mode, final
        self.max_episode_steps = max_episode_steps
        self.metadata = {"autoreset_mode": mode}
        self.envs = [ScriptedEnv(rotated(lengths, i), ends, masks) for i in range(num_envs)]
        self.single_action_space = ScriptedEnv.action_space
        self.single_observation_space = ScriptedEnv.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.seeds: list[Any] = []
        self._obs = np.zeros((num_envs, OBS_SIZE), np.float32)
        self._ended = np.zeros(num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        self.seeds.append(seed)
        mask = np.ones(self.num_envs, bool)
        if options is not None and self.mode == AutoresetMode.DISABLED:
            mask = options.pop("reset_mask")
        infos = [self._reset(i) if mask[i] else {} for i in range(self.num_envs)]
        self._ended &= ~mask
        return self._obs, self._masks(infos)

    def step(self, actions: Any) -> Any:
        rewards = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        finals: list[tuple[int, np.ndarray, dict[str, Any]]] = []
        for i, env in enumerate(self.envs):
            if self._ended[i]:
                assert self.mode == AutoresetMode.NEXT_STEP, "stepped after its end"
                infos[i] = self._reset(i)
                continue
            obs, rewards[i], terminated[i], truncated[i], infos[i] = env.step(actions[i])
            self._obs[i] = obs
            if self.mode == AutoresetMode.SAME_STEP and (terminated[i] or truncated[i]):
                finals.append((i, self._obs[i].copy(), infos[i]))
                infos[i] = self._reset(i)
        ended = terminated | truncated
        self._ended = ended & (self.mode != AutoresetMode.SAME_STEP)
        return self._obs, rewards, terminated, truncated, self._info(infos, finals)

    def _reset(self, i: int) -> dict[str, Any]:
        self._obs[i], info = self.envs[i].reset()
        return info

    def _info(self, infos: list[dict[str, Any]], finals: list[Any]) -> dict[str, Any]:
        info = self._masks(infos)
        if not finals or self.final == "missing":
            return info
        objects = np.full(self.num_envs, None, object)
        batched = np.zeros((self.num_envs, OBS_SIZE), np.float32)
        final_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i, obs, final_info in finals:
            objects[i], batched[i], final_infos[i] = obs, obs, final_info
        info["final_obs"] = batched if self.final == "batched" else objects
        info["final_info"] = self._masks(final_infos)
        return info

    def _masks(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        """As Gymnasium's vector envs: one array, and which envs gave a row."""
        present = np.array(["action_mask" in info for info in infos])
        if not present.any():
            return {}
        masks = np.zeros((self.num_envs, NUM_ACTIONS), np.int8)
        for i in np.flatnonzero(present):
            masks[i] = infos[i]["action_mask"]
        return {"action_mask": masks, "_action_mask": present}


class FaultyEnv(ScriptedEnv):
    """A `ScriptedEnv` that goes wrong once, in the `at`-th step (from 1) of its life.

    fault: "raise", "exit" (its process ends), "nan_reward", "inf_reward", "nan_obs",
      "shape", "dtype", "hang" (for `hang_s`), "empty_mask", "tuple" (the old API), or in
      reset number `at` "raise_reset", "nan_reset".  again: also in every later step.
    """

    def __init__(
        self,
        fault: str,
        at: int = 2,
        again: bool = False,
        hang_s: float = 3600.0,
        lengths: tuple[int, ...] = (5,),
        ends: tuple[str, ...] = ("terminated",),
    ) -> None:
        super().__init__(lengths, ends, masks=fault == "empty_mask")
        self.fault, self.at, self.again, self.hang_s = fault, at, again, hang_s
        self.steps = self.resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.resets += 1
        obs, info = super().reset(seed=seed, options=options)
        if self._is_due(self.resets) and self.fault == "raise_reset":
            raise ValueError("no reset today")
        if self._is_due(self.resets) and self.fault == "nan_reset":
            obs = obs + np.float32(np.nan)
        return obs, info

    def step(self, action: Any) -> Any:
        self.steps += 1
        obs, reward, terminated, truncated, info = super().step(action)
        if not self._is_due(self.steps):
            return obs, reward, terminated, truncated, info
        if self.fault == "raise":
            raise ValueError("the wheel\nfell off")
        if self.fault == "exit":
            os._exit(1)
        if self.fault == "hang":
            time.sleep(self.hang_s)
        if self.fault == "tuple":
            return obs, reward, terminated, info
        if self.fault == "empty_mask":
            info["action_mask"] = np.zeros(NUM_ACTIONS, np.int8)
        reward = {"nan_reward": np.nan, "inf_reward": np.inf}.get(self.fault, reward)
        changed = {
            "nan_obs": obs + np.float32(np.nan),
            "shape": np.zeros(OBS_SIZE + 1, np.float32),
            "dtype": obs.astype(np.complex64),
        }
        return changed.get(self.fault, obs), reward, terminated, truncated, info

    def _is_due(self, count: int) -> bool:
        return count == self.at or (self.again and count > self.at)


class SpaceEnv(gymnasium.Env):
    """Observations drawn from a space; episodes of five steps, reward 1.

    action_start: the first action of `Discrete(3)`; `actions` keeps those received.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any] | None = None,
        action_start: int = 0,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Discrete(NUM_ACTIONS, start=action_start)
        self.actions: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.actions.append(int(action))
        self.time += 1
        return self.observation_space.sample(), 1.0, self.time == 5, False, {}


NESTED_SPACE = spaces.Dict(
    {
        "speed": spaces.Box(-1, 1, (2, 2), np.float64),
        "gear": spaces.Discrete(4, start=-1),
        "lights": spaces.MultiBinary((2, 3)),
        "parts": spaces.Tuple(
            (spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])), spaces.Box(0, 9, (), np.int16))
        ),
    }
)


def rotated(lengths: tuple[int, ...], by: int) -> tuple[int, ...]:
    by %= len(lengths)
    return lengths[by:] + lengths[:by]


def stepper_of(envs: list[Any], **kwargs: Any) -> Any:
    """A stepper over single envs that messages call 'S'."""
    return VectorStepper(SerialVectorEnv(envs, "S"), "S", **kwargs)


def make_scripted(**kwargs: Any) -> ScriptedEnv:
    return ScriptedEnv(**kwargs)


def make_faulty(fault: str, **kwargs: Any) -> FaultyEnv:
    return FaultyEnv(fault, **kwargs)


def make_space_env(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any] | None = None
) -> SpaceEnv:
    return SpaceEnv(observation_space, action_space)


def faulty_maker(fault: str, **kwargs: Any) -> Any:
    """A `make_env` for `distdqn.api`."""
    return functools.partial(make_faulty, fault, **kwargs)


def slow_maker(seconds: float) -> Any:
    """A `make_env` that takes its time in any process but this one."""
    return functools.partial(_make_slow, seconds, os.getpid())


def _make_slow(seconds: float, here: int) -> gymnasium.Env:
    time.sleep(0.0 if os.getpid() == here else seconds)
    return gymnasium.make("CartPole-v1")


def register_scripted(env_id: str, **kwargs: Any) -> None:
    """Registers a `ScriptedEnv`; `kwargs` as for `gymnasium.register`."""
    gymnasium.registry.pop(env_id, None)
    gymnasium.register(env_id, **{"entry_point": ScriptedEnv, **kwargs})


class NotingActions(gymnasium.Wrapper):
    """CartPole that notes each action in a list of the caller's."""

    def __init__(self, actions: list[int]):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.noted = actions

    def step(self, action: Any) -> Any:
        self.noted.append(int(action))
        return super().step(action)
