"""Vector environments from an id or a factory.

An id with a vector entry point becomes that native vector env where it does what
`gymnasium.make` would do, and an Atari game what `env.atari.*` says; everything else
becomes a `SerialVectorEnv`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from distdqn import errors
from distdqn.config.sections import EnvConfig
from distdqn.envs import atari, minatar
from distdqn.envs.actions import discrete_actions
from distdqn.envs.failures import env_error, one_line
from distdqn.envs.serial import SerialVectorEnv

# pygame, which envs import when they render, prints a banner to stdout; that belongs
# to `--json`.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

MAX_SUGGESTIONS = 3

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]
"""Builds one new environment at each call; distdqn vectorises, seeds and closes it."""

# Namespaces in lower case, and what registers their envs.
_REGISTER = {"ale": lambda: importlib.import_module("ale_py"), "minatar": minatar.register}

# What vector envs call the number of steps after which they truncate.
_TIME_LIMIT_NAMES = ("max_episode_steps", "time_limit")


def env_label(settings: EnvConfig, make_env: MakeEnv | None) -> str:
    """How messages name the environment."""
    return settings.id if make_env is None else "make_env()"


def make_vector_env(
    settings: EnvConfig,
    num_envs: int,
    make_env: MakeEnv | None = None,
    render_mode: str | None = None,
) -> Any:
    """A vector env of `num_envs`, not yet reset.

    Args:
      make_env: builds one env; replaces `settings.id` and `settings.kwargs`.
      render_mode: as for `gymnasium.make`; rendering is left to single envs, whose
        renderers need no display.

    Returns:
      A `gymnasium.vector.VectorEnv`, an `AleVectorEnv` or a `SerialVectorEnv`.

    Raises:
      UnknownEnvError, MissingExtraError, UnsupportedSpaceError, EnvFailure, EnvError:
        one line each; the last where the env cannot be rendered as asked.
      ConfigError: `settings.kwargs` of an Atari game that `settings.atari` replaces, or
        `settings.atari` changed for anything else.
    """
    if make_env is not None:
        atari.check_unused(settings, "make_env()")
        return _make_serial([_call(make_env) for _ in range(num_envs)], "make_env()", render_mode)
    spec = find_spec(settings.id)
    if settings.is_atari:
        return _make_atari(spec, settings, num_envs, render_mode)
    atari.check_unused(settings, f"env.id {settings.id!r}")
    if render_mode is None and _fits_native(spec, settings.kwargs):
        native = _make_native(spec, settings.kwargs, num_envs)
        if native is not None:
            return native
    envs = [_make_single(spec, settings, render_mode) for _ in range(num_envs)]
    return _make_serial(envs, settings.id, render_mode)


def find_spec(env_id: str) -> EnvSpec:
    """What Gymnasium has registered under `Id-v0`, `namespace/Id-v0` or `module:Id-v0`.

    Raises:
      UnknownEnvError: nothing is registered under the id, there is no such module, or the
        id is an old one of an Atari game.
      MissingExtraError: the package that registers the id's namespace is not installed.
      EnvFailure: the module raised when it was imported.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        # Before old ids are refused: the module's own games may be named like them.
        _import_module(module, env_id)
    atari.refuse_old_id(name)
    namespace = name.rpartition("/")[0].lower()
    if namespace in _REGISTER and not (module and name in gymnasium.registry):
        try:
            _REGISTER[namespace]()
        except Exception as error:
            raise env_error(env_id, "import", error) from error
    spec = gymnasium.registry.get(name)
    if spec is None:
        raise errors.UnknownEnvError(f"no environment {env_id!r} is registered{_closest(name)}")
    return spec


def time_limit(spec: EnvSpec | None, kwargs: Mapping[str, Any]) -> int | None:
    """Steps after which `gymnasium.make` truncates an episode, None for never."""
    limit = kwargs.get("max_episode_steps")
    if limit is None and spec is not None:
        limit = spec.max_episode_steps
    return None if limit == -1 else limit  # -1: Gymnasium's word for "no limit"


def autoreset_mode(vector_env: Any, label: str) -> AutoresetMode:
    """The mode that a vector env declares.

    Raises:
      EnvError: it declares none, or one that is not known here.
    """
    declared = vector_env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(declared)
    except ValueError as error:
        known = ", ".join(mode.value for mode in AutoresetMode)
        raise errors.EnvError(
            f"environment {label!r} declares the autoreset mode {declared!r} in "
            f"metadata['autoreset_mode'] of its vector env; distdqn knows {known}"
        ) from error


def _import_module(module: str, env_id: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module + ".").startswith(error.name + "."):
            raise errors.UnknownEnvError(
                f"there is no module {module!r} to import for environment {env_id!r}: install it, "
                "or correct the part of env.id before the colon"
            ) from error
        raise env_error(env_id, "import", error) from error
    except Exception as error:
        raise env_error(env_id, "import", error) from error


def _closest(name: str) -> str:
    """The registered ids nearest to a name, as the end of a message.

    Those in its namespace, if it has one; none that would be refused in turn.
    """
    prefix = "".join(name.lower().rpartition("/")[:2])
    by_lower = {
        registered.lower(): registered
        for registered in gymnasium.registry
        if registered.lower().startswith(prefix) and atari.old_id(registered) is None
    }
    close = difflib.get_close_matches(name.lower(), by_lower, n=MAX_SUGGESTIONS, cutoff=0.5)
    if not close:
        return "; an id from another package is written module:Id-v0"
    return "; closest: " + ", ".join(by_lower[match] for match in close)


def _make_atari(spec: EnvSpec, settings: EnvConfig, num_envs: int, render_mode: str | None) -> Any:
    atari.check_kwargs(settings)
    if render_mode is None and settings.atari.backend == "ale":
        return atari.make_native(spec, settings, num_envs)
    games = [atari.make_single(spec, settings, render_mode) for _ in range(num_envs)]
    return _make_serial(games, settings.id, render_mode)


def _fits_native(spec: EnvSpec, kwargs: Mapping[str, Any]) -> bool:
    """Whether the vector entry point can stand for `gymnasium.make` at all."""
    if spec.vector_entry_point is None or spec.additional_wrappers:
        return False
    # Gymnasium's None and -1 mean something to `make` only.
    return "max_episode_steps" not in kwargs or (kwargs["max_episode_steps"] or 0) > 0


def _make_native(spec: EnvSpec, kwargs: Mapping[str, Any], num_envs: int) -> Any | None:
    """The env's own vector env; None where it refuses the arguments or the time limit.

    `make_vec` hands over the registered `max_episode_steps`, but an entry point may
    swallow it: only one that shows the same limit as its attribute is trusted.
    """
    try:
        native = gymnasium.make_vec(
            spec, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs
        )
    except TypeError:
        return None
    except Exception as error:
        raise env_error(spec.id, "make", error) from error
    limits = [getattr(native.unwrapped, name, None) for name in _TIME_LIMIT_NAMES]
    wanted = time_limit(spec, kwargs)
    if all(limit in (None, wanted) for limit in limits) and (wanted is None or wanted in limits):
        return native
    native.close()
    return None


def _make_single(spec: EnvSpec, settings: EnvConfig, render_mode: str | None) -> Any:
    """One env; without Gymnasium's checker, which would only repeat our own checks."""
    kwargs: dict[str, Any] = {"disable_env_checker": True, **settings.kwargs}
    try:
        if render_mode is None:
            return gymnasium.make(spec, **kwargs)
        # Drawing to arrays needs no screen; SDL would look for one, and complain to stderr.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        with warnings.catch_warnings():  # that the mode is not offered becomes an error below
            warnings.simplefilter("ignore")
            return gymnasium.make(spec, **{**kwargs, "render_mode": render_mode})
    except TypeError as error:
        if render_mode is not None and "render_mode" in str(error):
            raise _not_rendered(settings.id, one_line(error)) from error
        raise env_error(settings.id, "make", error) from error
    except Exception as error:
        raise env_error(settings.id, "make", error) from error


def _call(make_env: MakeEnv) -> gymnasium.Env[Any, Any]:
    try:
        env = make_env()
    except Exception as error:
        raise env_error("make_env()", "make", error) from error
    if not isinstance(env, gymnasium.Env):
        raise errors.EnvError(
            f"make_env() must return a gymnasium.Env, returned a {type(env).__name__}"
        )
    return env


def _make_serial(envs: list[Any], label: str, render_mode: str | None) -> SerialVectorEnv:
    if len({id(env) for env in envs}) < len(envs):
        raise errors.EnvError(
            "make_env() returned the same environment twice; it must build a new one at each call"
        )
    # Before a vector env is made of spaces that it might not take.
    discrete_actions(envs[0].action_space, label)
    if render_mode is not None:
        _require_rendered(envs[0], label, render_mode)
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
