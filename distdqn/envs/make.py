"""Vector environments from an id or a factory, what steps them, and what a run must know.

An id with a vector entry point becomes that native vector env where it does what `gymnasium.make`
would do, and an Atari game what `env.atari.*` says; everything else becomes a `SerialVectorEnv`.
"""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FrameStackObservation

from distdqn import errors
from distdqn.config.sections import EnvConfig
from distdqn.envs.actions import action_names, discrete_actions
from distdqn.envs.atari import (
    AleVectorEnv,
    FireAtStart,
    ale_vector_env,
    check_kwargs,
    check_unused,
    make_single,
)
from distdqn.envs.failures import explained
from distdqn.envs.learner_view import Lives
from distdqn.envs.registry import find_spec, time_limit
from distdqn.envs.serial import SerialVectorEnv
from distdqn.envs.stepper import VectorStepper
from distdqn.envs.wrappers import wrapped
from distdqn.types import ObservationSpec

# pygame, which envs import when they render, prints a banner to stdout; that belongs
# to `--json`.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

ATARI_STACK = 4  # frames; "agent history length" of Mnih et al. 2015, extended data table 1

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]
"""Builds one new environment at each call; distdqn vectorises, seeds and closes it."""

# What vector envs call the number of steps after which they truncate.
_TIME_LIMIT_NAMES = ("max_episode_steps", "time_limit")


@dataclasses.dataclass(frozen=True)
class EnvDescription:
    """The shape of the problem.

    observation: how one frame of an observation is stored, and how many are stacked.
    num_actions: actions are `0 .. num_actions - 1` everywhere in distdqn.
    action_start: the env's own number for action 0.
    observation_space: of one observation as a network sees it; the env's own where
      nothing is stacked.
    """

    observation: ObservationSpec
    num_actions: int
    action_start: int
    observation_space: gymnasium.Space[Any]


def describe(settings: EnvConfig, make_env: MakeEnv | None = None) -> EnvDescription:
    """Describes the environment, or says in one line why distdqn cannot train on it.

    Makes the env once and closes it: no reset, no step. Raises as `make_stepper`.
    """
    with contextlib.closing(make_stepper(settings, 1, make_env)) as stepper:
        return EnvDescription(
            observation=stepper.observation,
            num_actions=stepper.num_actions,
            action_start=stepper.action_start,
            observation_space=stepper.observation_space,
        )


def make_stepper(
    settings: EnvConfig,
    num_envs: int,
    make_env: MakeEnv | None = None,
    render_mode: str | None = None,
) -> VectorStepper:
    """A stepper over `num_envs` new environments.
    Raises EnvError, ConfigError: see `make_vector_env` and `VectorStepper`."""
    vector_env = make_vector_env(settings, num_envs, make_env, render_mode)
    atari = settings.atari if settings.is_atari and make_env is None else None
    try:
        names = vector_env.get_action_meanings() if atari and atari.fire_on_reset else ()
        fire = names.index("FIRE") if "FIRE" in names else None
        return VectorStepper(
            vector_env,
            _label(settings, make_env),
            reward_scale=settings.reward_scale,
            reward_clip=settings.reward_clip,
            frame_stack=_stack(settings, make_env),
            stack_padding=settings.stack_padding,
            lives=Lives(num_envs, atari is not None and atari.terminal_on_life_loss, fire),
        )
    except Exception:
        vector_env.close()
        raise


def make_vector_env(
    settings: EnvConfig,
    num_envs: int,
    make_env: MakeEnv | None = None,
    render_mode: str | None = None,
) -> Any:
    """A vector env of `num_envs`, not yet reset.

    make_env: builds one env; replaces `settings.id` and `settings.kwargs`.
    render_mode: as for `gymnasium.make`; rendering is left to single envs, whose
      renderers need no display.

    Returns a `gymnasium.vector.VectorEnv`, an `AleVectorEnv` or a `SerialVectorEnv`. Raises
    UnknownEnvError, MissingExtraError, UnsupportedSpaceError, EnvFailure, EnvError: one line each;
    the last where the env cannot be rendered as asked; ConfigError: `settings.kwargs` of an Atari
    game that `settings.atari` replaces, `settings.atari` changed for anything else, or
    `settings.wrappers` that cannot be applied.
    """
    native = _make_native(settings, num_envs) if make_env is None and render_mode is None else None
    if native is not None:
        return native
    envs = [make_single_env(settings, make_env, render_mode) for _ in range(num_envs)]
    return _make_serial(envs, _label(settings, make_env))


def make_single_env(
    settings: EnvConfig, make_env: MakeEnv | None = None, render_mode: str | None = None
) -> Any:
    """One env within `settings.wrappers`; frames are not stacked.  Raises as `make_vector_env`."""
    label = _label(settings, make_env)
    is_atari = settings.is_atari and make_env is None
    if is_atari:
        check_kwargs(settings)
    else:
        check_unused(settings, label if make_env else f"env.id {label!r}")
    if make_env is not None:
        env = _call(make_env)
    else:
        make = make_single if is_atari else _make_registered
        env = make(find_spec(settings.id), settings, render_mode)
    env = wrapped(env, settings, label)
    _require_spaces(env, label)
    if render_mode is not None:
        _require_rendered(env, label, render_mode)
    return env


def make_playing_env(
    settings: EnvConfig, make_env: MakeEnv | None = None, render_mode: str | None = None
) -> Any:
    """One env whose observations a policy takes as they are: wrapped, and stacked.

    render_mode: as for `gymnasium.make`; a `make_env` has its own.  Raises as `make_vector_env`.
    """
    env = make_single_env(settings, make_env, render_mode)
    atari = settings.atari if settings.is_atari and make_env is None else None
    if atari and atari.fire_on_reset and "FIRE" in (names := action_names(env)):
        env = FireAtStart(env, names.index("FIRE"), atari.terminal_on_life_loss)
    stack = _stack(settings, make_env)
    if stack == 1:
        return env
    padding = {"zero": "zero", "repeat": "reset"}[settings.stack_padding]
    return FrameStackObservation(env, stack, padding_type=padding)


def _label(settings: EnvConfig, make_env: MakeEnv | None) -> str:
    return settings.id if make_env is None else "make_env()"


def _stack(settings: EnvConfig, make_env: MakeEnv | None) -> int:
    is_atari = settings.is_atari and make_env is None
    return settings.frame_stack or (ATARI_STACK if is_atari else 1)


def _make_native(settings: EnvConfig, num_envs: int) -> Any | None:
    """The env's own vector env; None without one that does what single envs would do.

    `make_vec` hands over the registered `max_episode_steps`, but an entry point may
    swallow it: only one that shows the same limit as its attribute is trusted.
    """
    spec, kwargs = find_spec(settings.id), settings.kwargs
    if settings.is_atari:
        check_kwargs(settings)
        with explained(settings.id, "make"):
            ale = settings.atari.backend == "ale"
            return AleVectorEnv(spec, settings.atari, num_envs) if ale else None
    if spec.vector_entry_point is None or spec.additional_wrappers or settings.wrappers:
        return None
    check_unused(settings, f"env.id {settings.id!r}")
    # Gymnasium's None and -1 mean something to `make` only.
    if "max_episode_steps" in kwargs and (kwargs["max_episode_steps"] or 0) <= 0:
        return None
    with explained(spec.id, "make"):
        try:
            native = gymnasium.make_vec(
                spec, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
            )
        except TypeError:
            return None
    limits = [getattr(native.unwrapped, name, None) for name in _TIME_LIMIT_NAMES]
    wanted = time_limit(spec, kwargs)
    if all(limit in (None, wanted) for limit in limits) and (wanted is None or wanted in limits):
        return native
    native.close()
    return None


def _make_registered(spec: EnvSpec, settings: EnvConfig, render_mode: str | None) -> Any:
    """One env; without Gymnasium's checker, which would only repeat our own checks."""
    kwargs: dict[str, Any] = {"disable_env_checker": True, **settings.kwargs}
    with explained(settings.id, "make"), warnings.catch_warnings():
        if render_mode is None:
            return gymnasium.make(spec, **kwargs)
        if render_mode == "rgb_array":
            # Drawing needs no screen then; SDL would look for one, and complain to stderr.
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        warnings.simplefilter("ignore")  # that the mode is not offered becomes an error below
        try:
            return gymnasium.make(spec, **{**kwargs, "render_mode": render_mode})
        except TypeError as error:
            if "render_mode" not in str(error):
                raise
            reason = "its constructor takes no render_mode"
            raise _not_rendered(settings.id, reason) from error


def _call(make_env: MakeEnv) -> gymnasium.Env[Any, Any]:
    with explained("make_env()", "make"):
        env = make_env()
    if not isinstance(env, gymnasium.Env):
        raise errors.EnvError(
            f"make_env() must return a gymnasium.Env, returned {errors.shorten(repr(env))}"
        )
    return env


def _require_spaces(env: Any, label: str) -> None:
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gymnasium.Space):
            raise errors.UnsupportedSpaceError(
                f"environment {label!r} has no {name}: its class must set one, a gymnasium.Space"
            )


def _make_serial(envs: list[Any], label: str) -> SerialVectorEnv:
    if len({id(env.unwrapped) for env in envs}) < len(envs):
        raise errors.EnvError(
            "make_env() returned the same environment twice; it must build a new one at each call"
        )
    # Before a vector env is made of spaces that it might not take.
    discrete_actions(envs[0].action_space, label)
    return SerialVectorEnv(envs, label)


def _require_rendered(env: Any, label: str, render_mode: str) -> None:
    offered = list(env.metadata.get("render_modes") or [])
    if render_mode not in offered:
        raise _not_rendered(label, f"its render modes are {offered}, {render_mode!r} is needed")
    if env.render_mode != render_mode:
        made = f"it was made with render_mode={env.render_mode!r}, {render_mode!r} is needed"
        raise _not_rendered(label, made)


def _not_rendered(label: str, reason: str) -> errors.EnvError:
    return errors.EnvError(f"environment {label!r} cannot be rendered: {reason}")


class BareEnv:
    """`num_envs` envs as their makers give them, reset: what stepping costs without distdqn.

    For benchmarks. Gymnasium's native vector env where there is one, else its
    `SyncVectorEnv`; for Atari games ale-py's. Actions are random, and episodes begin anew by
    the env's own means. Nothing looks at rewards, observations and lost lives.
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
