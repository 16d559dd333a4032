"""One-line messages for what environments do wrong.

Code of an environment can raise anything; here it becomes an `EnvFailure` or a
`MissingExtraError` whose text fits on one line.
"""

import contextlib
import re
from collections.abc import Iterator

import gymnasium

from distdqn import errors
from distdqn.errors import one_line, own_frame, traceback_of
from distdqn.machine.installation import install_command, pip_install

# What stands in an id or in the message of a missing package -> extra of distdqn.
_EXTRAS = {"box2d": "box2d", "minatar": "minatar"} | dict.fromkeys(
    ("ale", "ale_py", "cv2"), "atari"
)

# Gymnasium says so behind a TypeError of a constructor, with the id, which we have said.
_REPEATED = " was raised from the environment creator for "


def missing_extra(label: str, package: str) -> errors.MissingExtraError:
    """The error for an env whose `package` is not installed, with the pip line."""
    extra = _EXTRAS.get(package.lower())
    needs, install = f"the package {package}", pip_install(package)
    if extra is not None:
        needs, install = f"{needs} (extra {extra})", install_command(extra)
    return errors.MissingExtraError(
        f"environment {label!r} needs {needs}, which is not installed: {install}"
    )


def env_error(label: str, where: str, error: Exception, env: int | None = None) -> errors.EnvError:
    """What to raise for `error`, which code of the environment raised in `where`.

    A missing package becomes a `MissingExtraError`, everything else an `EnvFailure`.

    label: names the environment.  where: "step", "reset", "make".
    env: which of the envs of a vector env, where that is known.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return missing_extra(label, error.name.partition(".")[0])
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        # Gymnasium's own message names the package first: "Box2D is not installed, ..."
        package = str(error).partition(" ")[0]
        if package.lower() in _EXTRAS:
            return missing_extra(label, package)
        theirs = re.search(r"gymnasium\[[\w,-]+\]", str(error))
        install = pip_install(theirs[0]) if theirs else one_line(error)
        return errors.MissingExtraError(
            f"environment {label!r} needs a package that is not installed: {install}"
        )
    which, details = "" if env is None else f" (env {env})", traceback_of(error)
    what = one_line(error).partition(_REPEATED)[0]
    is_call = where == "make" and isinstance(error, TypeError) and " argument" in str(error)
    hint = "; env.kwargs sets its arguments" if is_call and label != "make_env()" else ""
    if label == "make_env()" and isinstance(error, gymnasium.error.UnregisteredEnv):
        hint = "; import the module that registers it inside the function"
    failure = errors.EnvFailure(
        f"environment {label!r} raised in {where}: {what}{which}{own_frame(details)}{hint}"
    )
    failure.details = details
    return failure


@contextlib.contextmanager
def explained(label: str, where: str) -> Iterator[None]:
    """Whatever code of the environment raises within becomes what `env_error` says."""
    try:
        yield
    except errors.DistDQNError:
        raise
    except Exception as error:
        raise env_error(label, where, error) from error
