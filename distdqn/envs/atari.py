"""Atari games: what `env.atari.*` decides, on ale-py's vector env and Gymnasium's wrapper.

Frames, rewards, lives and ends of both are the same for the same actions, where sticky
actions and no-ops are off: both take the maximum of the last two screens, in grey or RGB,
and shrink it with OpenCV's INTER_AREA; where a game ends within a step both give the frame
of the step before. One seed gives one backend the same games again, but not the other.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import AtariPreprocessing

from distdqn import errors
from distdqn.config.sections import AtariConfig, EnvConfig
from distdqn.envs.failures import explained

SCREENS_PER_S = 60  # of the console (NTSC)

# What constructors call a setting -> the field that decides it.
_REPLACED = {
    **dict.fromkeys(("frameskip", "frame_skip"), "env.atari.frame_skip"),
    "repeat_action_probability": "env.atari.sticky_actions",
    "noop_max": "env.atari.noop_max",
    **dict.fromkeys(("img_height", "img_width", "screen_size"), "env.atari.size"),
    **dict.fromkeys(("obs_type", "grayscale", "grayscale_obs"), "env.atari.grayscale"),
    "maxpool": "env.atari.max_pool",
    **dict.fromkeys(
        ("terminal_on_life_loss", "episodic_life", "life_loss_info"),
        "env.atari.terminal_on_life_loss",
    ),
    "full_action_space": "env.atari.full_action_space",
    "use_fire_reset": "env.atari.fire_on_reset",
    **dict.fromkeys(("max_num_frames_per_episode", "max_episode_steps"), "env.atari.max_frames"),
    "stack_num": "env.frame_stack",
    "reward_clipping": "env.reward_clip",
}


def check_kwargs(settings: EnvConfig) -> None:
    """Refuses constructor arguments that `env.atari.*` replaces, or that nobody would read, and
    wrappers that nothing could apply.  Raises ConfigError: naming the field to use."""
    for name in settings.kwargs:
        if name in _REPLACED:
            raise errors.ConfigError(
                f"env.kwargs has {name} = {settings.kwargs[name]!r} for {settings.id!r}, where "
                f"{_REPLACED[name]} decides it: set that instead"
            )
    if settings.kwargs and settings.atari.backend == "ale":
        raise errors.ConfigError(
            f"env.kwargs has {', '.join(settings.kwargs)} for {settings.id!r}, which ale-py's "
            "vector env does not take: set env.atari.backend gymnasium"
        )
    if settings.wrappers and settings.atari.backend == "ale":
        raise errors.ConfigError(
            f"env.wrappers has {', '.join(settings.wrappers)} for {settings.id!r}, which ale-py's "
            "vector env has no single environments for: set env.atari.backend gymnasium"
        )


def check_unused(settings: EnvConfig, env: str) -> None:
    """Refuses changes of `env.atari.*` for `env`, which is no Atari game of ours.
    Raises ConfigError: naming the first field that was changed."""
    for field in dataclasses.fields(AtariConfig):
        value = getattr(settings.atari, field.name)
        if value != field.default:
            raise errors.ConfigError(
                f"env.atari.{field.name} is {value}, must be left at its default {field.default} "
                f"with {env}: env.atari.* is for ids ALE/<Game>-v5 alone and would be ignored"
            )


def make_single(spec: EnvSpec, settings: EnvConfig, render_mode: str | None) -> AtariFrames:
    """One game behind Gymnasium's wrapper.
    Raises MissingExtraError: OpenCV is not installed; EnvFailure: the game cannot be made."""
    atari = settings.atari
    with explained(settings.id, "make"):
        importlib.import_module("cv2")
        env = gymnasium.make(
            spec,
            **settings.kwargs,
            disable_env_checker=True,
            frameskip=1,
            repeat_action_probability=atari.sticky_actions,
            full_action_space=atari.full_action_space,
            obs_type="grayscale" if atari.grayscale else "rgb",
            max_num_frames_per_episode=0,  # no limit of the emulator's, which counts no-ops
            render_mode=render_mode,
        )
        return AtariFrames(env, atari)


def ale_vector_env(spec: EnvSpec, atari: AtariConfig, num_envs: int, noop_max: int) -> Any:
    """ale-py's vector env of single frames; as ale-py counts `noop_max`."""
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        spec.kwargs["game"],
        num_envs,
        num_threads=1,  # an env worker has one core
        max_num_frames_per_episode=atari.max_frames,
        repeat_action_probability=atari.sticky_actions,
        full_action_space=atari.full_action_space,
        img_height=atari.size,
        img_width=atari.size,
        grayscale=atari.grayscale,
        stack_num=1,
        frameskip=atari.frame_skip,
        maxpool=atari.max_pool,
        noop_max=noop_max,
        episodic_life=False,
        life_loss_info=False,
        reward_clipping=False,
        use_fire_reset=False,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )


class AleVectorEnv:
    """`ale_py.AtariVectorEnv` with single frames, resets from outside and honest no-ops.

    ale-py knows no DISABLED mode. Its NEXT_STEP mode becomes one if each game that ended
    is reset before the next step, which the stepper does.

    No-ops: ale-py draws 0 to `noop_max - 1` of them. Drawn from 0 to `noop_max`, and once
    more where none came, they are uniform from 1 to `noop_max`, as Gymnasium's are.

    Life: `reset()` once, then `step` and, for games that ended, `reset` with
    `options={"reset_mask": mask}`.
    """

    seeds_singly = True

    def __init__(self, spec: EnvSpec, atari: AtariConfig, num_envs: int) -> None:
        self.num_envs, self.spec = num_envs, spec
        self._noops = atari.noop_max > 0
        self._env = ale_vector_env(spec, atari, num_envs, atari.noop_max + 1 if self._noops else 0)
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
        self.single_action_space = self._env.single_action_space
        self._num_actions = len(self.get_action_meanings())
        shape = self._env.single_observation_space.shape
        assert shape is not None
        self.single_observation_space = gymnasium.spaces.Box(0, 255, shape[1:], np.uint8)

    def reset(
        self, *, seed: list[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Resets all games, or those in `options["reset_mask"]` `[N]` bool.

        seed: one for each game; None goes on with the emulators' generators.

        Returns `[N, *shape]` frames and infos of all games.
        """
        mask = np.ones(self.num_envs, bool) if options is None else options["reset_mask"]
        seeds = None if seed is None else np.array(seed, np.int64)
        frames, info = self._env.reset(seed=seeds, options={"reset_mask": mask})
        while self._noops and (again := mask & (info["episode_frame_number"] == 0)).any():
            frames, info = self._env.reset(options={"reset_mask": again})
        return frames[:, 0], info

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As `gymnasium.vector.VectorEnv.step`, with `[N, *shape]` frames."""
        # An action that it does not know kills ale-py's thread, and it waits for ever.
        assert actions.min() >= 0 and actions.max() < self._num_actions, actions
        frames, reward, terminated, truncated, info = self._env.step(actions)
        return frames[:, 0], reward, terminated, truncated, info

    def get_action_meanings(self) -> list[str]:
        """Names of the actions by their numbers."""
        return [action.name for action in self._env.ale.get_action_set()]

    def close(self) -> None:
        self._env.close()


class AtariFrames(AtariPreprocessing):
    """Gymnasium's preprocessing, with a limit on frames and the maximum left out on demand."""

    def __init__(self, env: gymnasium.Env, atari: AtariConfig) -> None:
        """Takes over an `ale_py.AtariEnv` of frame skip 1."""
        self._limit = _FrameLimit(env)
        self._max_frames, self._max_pool = atari.max_frames, atari.max_pool
        super().__init__(
            self._limit,
            noop_max=atari.noop_max,
            frame_skip=atari.frame_skip,
            screen_size=atari.size,
            grayscale_obs=atari.grayscale,
        )
        self.metadata = {**env.metadata, "render_fps": round(SCREENS_PER_S / atari.frame_skip)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed, options=options)
        self._limit.frames_left = self._max_frames
        return result

    def _get_obs(self) -> Any:
        if not self._max_pool:
            self.obs_buffer[1].fill(0)
        return super()._get_obs()


class FireAtStart(gymnasium.Wrapper):
    """Presses FIRE in each reset, and in the step after a lost life where that ends an episode.

    For games that wait for it, stepped outside of a run; there `VectorStepper` presses it.
    """

    def __init__(self, env: gymnasium.Env, fire_action: int, after_lost_lives: bool) -> None:
        super().__init__(env)
        self._fire, self._after_lost_lives = fire_action, after_lost_lives
        self._lives, self._is_due = 0, False

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        obs, _, terminated, truncated, info = super().step(self._fire)
        if terminated or truncated:
            obs, info = super().reset(options=kwargs.get("options"))
        self._lives, self._is_due = info.get("lives", 0), False
        return obs, info

    def step(self, action: Any) -> Any:
        result = super().step(self._fire if self._is_due else action)
        before, self._lives = self._lives, result[4].get("lives", 0)
        self._is_due = self._after_lost_lives and 0 < self._lives < before
        return result


class _FrameLimit(gymnasium.Wrapper):
    """Truncates after so many frames, none of them a no-op of the reset.

    frames_left: infinite until it is set after a reset.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.frames_left = math.inf

    def reset(self, **kwargs: Any) -> Any:
        self.frames_left = math.inf
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        self.frames_left -= 1
        truncated = truncated or (self.frames_left <= 0 and not terminated)
        return obs, reward, terminated, truncated, info
