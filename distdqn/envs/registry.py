"""What Gymnasium has registered under an id.

An id `ALE/<Game>-v5` names the game alone: frame skip, sticky actions and the like, which
older ids fix in many variants, come from one place, `env.atari.*`.
"""

import contextlib
import difflib
import importlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from distdqn import errors
from distdqn.config.sections import is_function
from distdqn.envs import minatar
from distdqn.envs.failures import explained

MAX_SUGGESTIONS = 3

# Namespaces in lower case, and what registers their envs.
_REGISTER = {"ale": lambda: importlib.import_module("ale_py"), "minatar": minatar.register}

# BreakoutNoFrameskip-v4, Breakout-ramDeterministic-v0, ALE/Breakout-ram-v5, ALE/Breakout-v4
_OLD_ID = re.compile(r"(ALE/)?(\w+?)((?:-ram)?(?:NoFrameskip|Deterministic)?)-v(\d+)")


def find_spec(env_id: str) -> EnvSpec:
    """What Gymnasium has registered under `Id-v0`, `namespace/Id-v0` or `module:Id-v0`.

    Raises UnknownEnvError: nothing is registered under the id, there is no such module, the id is
    an old one of an Atari game or stands for a function; MissingExtraError: the package
    that registers the id's namespace is not installed; EnvFailure: the module
    raised when it was imported.
    """
    if is_function(env_id):
        raise errors.UnknownEnvError(
            f"env.id is {env_id!r}, which stands for a function: pass it from Python, "
            "distdqn.train(config, make_env=...) or distdqn.evaluate(run, make_env=...)"
        )
    module, _, name = env_id.rpartition(":")
    if module:
        # Before old ids are refused: the module's own games may be named like them.
        _import_module(module, env_id)
    _refuse_old_id(name)
    namespace = name.rpartition("/")[0].lower()
    if namespace in _REGISTER and not (module and name in gymnasium.registry):
        with explained(env_id, "import"):
            _REGISTER[namespace]()
    spec = gymnasium.registry.get(name)
    if spec is None:
        hint = _unregistered(module, name) or _closest(name, env_id.removesuffix(name))
        raise errors.UnknownEnvError(f"no environment {env_id!r} is registered{hint}")
    return spec


def time_limit(spec: EnvSpec | None, kwargs: Mapping[str, Any]) -> int | None:
    """Steps after which `gymnasium.make` truncates an episode, None for never."""
    limit = kwargs.get("max_episode_steps")
    if limit is None and spec is not None:
        limit = spec.max_episode_steps
    return None if limit == -1 else limit  # -1: Gymnasium's word for "no limit"


def _import_module(module: str, env_id: str) -> None:
    with explained(env_id, "import"):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not error.name or not (module + ".").startswith(error.name + "."):
                raise
            raise errors.UnknownEnvError(
                f"there is no module {module!r} to import for environment {env_id!r}: install it, "
                "name its folder in PYTHONPATH, or correct the part of env.id before the colon"
            ) from error


def _unregistered(module: str, name: str) -> str:
    """What to do with a function or class of a module that was named as an id; "" for others."""
    if not callable(getattr(sys.modules.get(module), name, None)):
        return ""
    return (
        f"; {module} has {name}: pass it from Python, distdqn.train(config, make_env={name}), or "
        f"register it there, gymnasium.register('MyEnv-v0', {name}), and name {module}:MyEnv-v0"
    )


def _closest(name: str, module: str) -> str:
    """The registered ids nearest to a name, as the end of a message.

    Those in its namespace, if it has one; none that would be refused in turn.

    module: what stood before the name, colon included, and must stand there again.
    """
    prefix = "".join(name.lower().rpartition("/")[:2])
    by_lower = {
        registered.lower(): registered
        for registered in gymnasium.registry
        if registered.lower().startswith(prefix) and _old_id(registered) is None
    }
    close = difflib.get_close_matches(name.lower(), by_lower, n=MAX_SUGGESTIONS, cutoff=0.5)
    if not close:
        return "; an id from another package is written module:Id-v0"
    return "; closest: " + ", ".join(module + by_lower[match] for match in close)


def _old_id(name: str) -> re.Match[str] | None:
    """An id of an earlier generation in its parts; None for others, and for ids like those
    that somebody other than ale-py has registered.
    """
    match = _OLD_ID.fullmatch(name)
    if match is None or (match[1] and not match[3] and match[4] == "5"):
        return None
    registered = gymnasium.registry.get(name)
    is_theirs = registered is None or str(registered.entry_point).startswith("ale_py.")
    return match if is_theirs else None


def _refuse_old_id(name: str) -> None:
    """Refuses ids of earlier generations, which fix what `env.atari.*` decides.
    Raises UnknownEnvError: with the right id, or those of the games closest to it."""
    match = _old_id(name)
    if match is None:
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("ale_py")
    games = [name for name in gymnasium.registry if re.fullmatch(r"ALE/\w+-v5", name)]
    by_lower = {spec_id[4:-3].lower(): spec_id for spec_id in games}
    found = by_lower.get(match[2].lower())
    if found is None and not match[1] and not match[3]:
        return  # nothing says that this is an Atari game
    if found is None:
        close = difflib.get_close_matches(match[2].lower(), by_lower, MAX_SUGGESTIONS, 0.5)
        hint = "closest: " + ", ".join(by_lower[game] for game in close)
        hint = hint if close else f"the right form is ALE/{match[2]}-v5"
    else:
        hint = f"use {found}, with frame skip, sticky actions and the rest in env.atari.*"
    raise errors.UnknownEnvError(f"environment {name!r} is an Atari id of the old style; {hint}")
