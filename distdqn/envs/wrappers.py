"""What `env.wrappers` puts around each environment.

A wrapper is named as in `gymnasium.wrappers`, or `module:function`, and is called with the
environment first; the first in the list is the innermost. Every process that makes the
run's environments wraps them alike, so a wrapper must not learn: what it gathered in one
process none of the others would know.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium

from distdqn import errors
from distdqn.config.sections import EnvConfig
from distdqn.envs.actions import discrete_actions
from distdqn.envs.failures import explained
from distdqn.errors import shorten

_Make = Callable[..., Any]

# Wrappers that learn -> what to use in their place.
_LEARNING = {
    "NormalizeObservation": "RescaleObservation, with fixed bounds",
    "NormalizeReward": "env.reward_scale",
}


def wrapped(env: Any, settings: EnvConfig, label: str) -> Any:
    """`env` within the wrappers of `settings`.

    label: names the environment in messages.

    Raises ConfigError: there is no such wrapper, it is none for single environments, it learns, or
    it takes other arguments; EnvFailure, MissingExtraError: it raised; EnvError: what it gave is no
    environment; UnsupportedSpaceError: its action space is not Discrete and that of `env` was.
    """
    for name, arguments in settings.wrapper_calls:
        make = _find(name, label)
        _check_arguments(name, make, arguments)
        before = env
        with explained(label, f"wrapper {name}"):
            env = make(env, **arguments)
        if not isinstance(env, gymnasium.Env):
            raise errors.EnvError(
                f"env.wrappers {name} must give a gymnasium.Env, gave {shorten(repr(env))}"
            )
        if isinstance(before.action_space, gymnasium.spaces.Discrete):
            discrete_actions(env.action_space, f"{label} in wrapper {name}")
    return env


def _find(name: str, label: str) -> _Make:
    module, _, path = name.rpartition(":")
    with explained(label, f"the import of wrapper {name}"):
        make = _of_their_own(module, path, name) if module else _of_gymnasium(name)
    if inspect.isclass(make) and issubclass(make, gymnasium.vector.VectorWrapper):
        raise errors.ConfigError(
            f"env.wrappers has {name}, which wraps vector environments: take one for a single "
            "environment, as those of gymnasium.wrappers are"
        )
    if not callable(make):
        raise errors.ConfigError(
            f"env.wrappers has {name}, a {type(make).__name__}: required is a class or function "
            "that takes an environment"
        )
    own_name = getattr(make, "__name__", "")
    if own_name in _LEARNING and make.__module__.startswith("gymnasium."):
        raise errors.ConfigError(
            f"env.wrappers has {name}, which gathers statistics in each environment by itself: "
            "workers, evaluation and the loaded policy would see different ones; use "
            f"{_LEARNING[own_name]}"
        )
    return make


def _of_gymnasium(name: str) -> _Make:
    known = [entry for entry in gymnasium.wrappers.__all__ if entry[0].isupper()]
    if name in known:
        return getattr(gymnasium.wrappers, name)
    by_lower = {entry.lower(): entry for entry in known}
    plain = name.rpartition(".")[2].lower()
    close = difflib.get_close_matches(plain, by_lower, n=1, cutoff=0.5)
    one = f"did you mean {by_lower[close[0]]}? One" if close else "one"
    raise errors.ConfigError(
        f"env.wrappers has {name}, no wrapper of Gymnasium {gymnasium.__version__}; {one} of your "
        "own is written module:function"
    )


def _of_their_own(module: str, path: str, name: str) -> _Make:
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not error.name or not (module + ".").startswith(error.name + "."):
            raise
        raise errors.ConfigError(
            f"env.wrappers has {name}, but there is no module {module!r} to import"
        ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise errors.ConfigError(f"env.wrappers has {name}, but {module!r} has no {path!r}")
        found = getattr(found, part)
    return found


def _check_arguments(name: str, make: _Make, arguments: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(make)
    except ValueError:  # of something written in C
        return
    try:
        signature.bind(None, **arguments)
    except TypeError as error:
        takes = ", ".join(list(signature.parameters)[1:]) or "none"
        raise errors.ConfigError(
            f"env.wrappers {name}: {shorten(error)}; its arguments: {takes}"
        ) from None
