"""What a user is told when something cannot go on.

    DistDQNError               one line: what was wrong, the value, the way out
    +-- ConfigError            a key or value that is refused
    +-- EnvError             an environment that cannot be trained on
    |   +-- UnknownEnvError    no such id; names the closest ones
    |   +-- MissingExtraError  the package behind the id is not installed
    |   +-- UnsupportedSpaceError  action or observation space out of scope
    |   +-- EnvFailure         step or reset raised, hung, or broke its own space
    +-- CheckpointError        missing, truncated or altered file
    +-- CodecError             data that is not, or cannot become, a message
    +-- ResourceError          memory, GPU or cluster resources that are not there
    +-- RunError               a run that is in use, not found, or failed

Every class is a plain message; the command line prints it without a traceback
unless `--debug` is given. Where other code raised, the last line of the user's own ends the
message, and the traceback goes along as `details`, through Ray too.

Exit status of a command:

    0    done
    1    something failed after the work had begun, or a check did not hold
    2    what was asked cannot be done as it is written: refused before anything began
    130  after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP (a closed terminal)
"""

import contextlib
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

MAX_MESSAGE = 300  # characters of a foreign message that are passed on

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)')
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OURS = str(Path(__file__).parent) + os.sep
_STANDARD = str(Path(os.__file__).parent)
_PACKAGES = re.compile(r"[/\\](site|dist)-packages[/\\]")
_LIBRARIES = re.compile(
    _PACKAGES.pattern + r"(distdqn|gymnasium|ray|torch|numpy|ale_py|minatar|cloudpickle)[/\\.]"
)


class DistDQNError(Exception):
    """Base of everything that distdqn raises on purpose for a user to read."""

    exit_status = 2
    """1 where it came out of `begun`."""
    details = ""
    """The traceback of other code that raised, for `errors.log`."""
    part = ""
    """Of the run, in which it raised; "" where that is not known."""


@contextlib.contextmanager
def begun() -> Iterator[None]:
    """What is raised within is a failure of work that has begun, no refusal."""
    try:
        yield
    except DistDQNError as error:
        error.exit_status = 1
        raise


class ConfigError(DistDQNError, ValueError):
    """A configuration key or value is refused."""


class EnvError(DistDQNError):
    """An environment cannot be trained on."""


class UnknownEnvError(EnvError):
    """No environment is registered under the id."""


class MissingExtraError(EnvError):
    """The environment's own package is not installed."""


class UnsupportedSpaceError(EnvError):
    """The action space is not Discrete or the observation cannot be flattened."""


class EnvFailure(EnvError):
    """An environment raised, hung, or broke the space it declared."""


class CheckpointError(DistDQNError):
    """A checkpoint is missing, truncated or altered."""


class CodecError(DistDQNError):
    """Data is no message of the codec's, or a value has no place in one."""


class ResourceError(DistDQNError):
    """Memory, a GPU or cluster resources are not there."""


class RunError(DistDQNError):
    """A run is in use, cannot be found, or failed."""


def one_line(error: BaseException) -> str:
    """`ValueError: its message`, shortened."""
    name, message = type(error).__name__, shorten(error)
    return f"{name}: {message}" if message else name


def shorten(thing: object) -> str:
    """Its text without line breaks, at most `MAX_MESSAGE` characters."""
    text = " ".join(str(thing).split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def traceback_of(error: BaseException) -> str:
    """What Python prints of an uncaught error."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def without_colours(text: str) -> str:
    """`text` without a terminal's colour codes."""
    return _COLOURS.sub("", text)


def own_frame(text: str) -> str:
    """` at FILE:LINE in FUNCTION` of the last frame in a traceback that is the user's, or "".

    A package's frame, neither Python's, ours nor that of a library we use, counts where none
    stands outside of installed packages.
    """
    frames = [m for m in _FRAME.finditer(text) if _is_foreign(m["file"])]
    outside = [m for m in frames if not _PACKAGES.search(m["file"])]
    for last in (outside or frames)[-1:]:
        path = Path(last["file"])
        with contextlib.suppress(OSError, ValueError):  # not below the current folder, or none
            path = path.relative_to(Path.cwd())
        return f" at {path}:{last['line']} in {last['function']}"
    return ""


def _is_foreign(file: str) -> bool:
    if file.startswith(("<frozen", _OURS)) or _LIBRARIES.search(file):
        return False
    return bool(_PACKAGES.search(file)) or not file.startswith(_STANDARD)
