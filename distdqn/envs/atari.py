"""Atari games: their ids, and what `env.atari.*` decides.

An id `ALE/<Game>-v5` names the game alone: frame skip, sticky actions and the like, which
older ids fix in many variants, come from one place.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import re
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from distdqn import errors
from distdqn.config.sections import AtariConfig, EnvConfig
from distdqn.envs.atari_backends import AleVectorEnv, AtariFrames
from distdqn.envs.failures import env_error

MAX_SUGGESTIONS = 3

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

# BreakoutNoFrameskip-v4, Breakout-ramDeterministic-v0, ALE/Breakout-ram-v5, ALE/Breakout-v4
_OLD_ID = re.compile(r"(ALE/)?(\w+?)((?:-ram)?(?:NoFrameskip|Deterministic)?)-v(\d+)")


def old_id(name: str) -> re.Match[str] | None:
    """An id of an earlier generation in its parts; None for others, and for ids like those
    that somebody other than ale-py has registered.
    """
    match = _OLD_ID.fullmatch(name)
    if match is None or (match[1] and not match[3] and match[4] == "5"):
        return None
    registered = gymnasium.registry.get(name)
    is_theirs = registered is None or str(registered.entry_point).startswith("ale_py.")
    return match if is_theirs else None


def refuse_old_id(name: str) -> None:
    """Refuses ids of earlier generations, which fix what `env.atari.*` decides.

    Raises:
      UnknownEnvError: with the right id, or those of the games closest to it.
    """
    match = old_id(name)
    if match is None:
        return
    games = {spec_id: spec_id[4:-3] for spec_id in _game_ids()}
    by_lower = {game.lower(): spec_id for spec_id, game in games.items()}
    found = by_lower.get(match[2].lower())
    if found is None and not match[1] and not match[3]:
        return  # nothing says that this is an Atari game
    if found is None:
        close = difflib.get_close_matches(match[2].lower(), by_lower, MAX_SUGGESTIONS, 0.5)
        hint = (
            "closest: " + ", ".join(by_lower[game] for game in close)
            if close
            else (f"the right form is ALE/{match[2]}-v5")
        )
    else:
        hint = f"use {found}, with frame skip, sticky actions and the rest in env.atari.*"
    raise errors.UnknownEnvError(f"environment {name!r} is an Atari id of the old style; {hint}")


def _game_ids() -> list[str]:
    """`ALE/<Game>-v5` of every game, none without ale-py."""
    try:
        importlib.import_module("ale_py")
    except ImportError:
        return []
    return [name for name in gymnasium.registry if re.fullmatch(r"ALE/\w+-v5", name)]


def check_kwargs(settings: EnvConfig) -> None:
    """Refuses constructor arguments that `env.atari.*` replaces, or that nobody would read.

    Raises:
      ConfigError: naming the field to use.
    """
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


def check_unused(settings: EnvConfig, env: str) -> None:
    """Refuses changes of `env.atari.*` for `env`, which is no Atari game of ours.

    Raises:
      ConfigError: naming the first field that was changed.
    """
    for field in dataclasses.fields(AtariConfig):
        value = getattr(settings.atari, field.name)
        if value != field.default:
            raise errors.ConfigError(
                f"env.atari.{field.name} is {value}, must be left at its default {field.default} "
                f"with {env}: env.atari.* is for ids ALE/<Game>-v5 alone and would be ignored"
            )


def max_steps(atari: AtariConfig) -> int:
    """Agent steps after which a game is truncated."""
    return math.ceil(atari.max_frames / atari.frame_skip)


def make_native(spec: EnvSpec, settings: EnvConfig, num_envs: int) -> AleVectorEnv:
    """The games on ale-py's own vector env.

    Raises:
      EnvFailure: it cannot be made.
    """
    try:
        return AleVectorEnv(spec, settings.atari, num_envs)
    except Exception as error:
        raise env_error(settings.id, "make", error) from error


def make_single(spec: EnvSpec, settings: EnvConfig, render_mode: str | None) -> AtariFrames:
    """One game behind Gymnasium's wrapper.

    Raises:
      MissingExtraError: OpenCV is not installed.
      EnvFailure: the game cannot be made.
    """
    atari = settings.atari
    try:
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
    except Exception as error:
        raise env_error(settings.id, "make", error) from error


def fire_action(vector_env: Any) -> int | None:
    """The number of FIRE, None in games without it."""
    names = vector_env.get_action_meanings()
    return names.index("FIRE") if "FIRE" in names else None
