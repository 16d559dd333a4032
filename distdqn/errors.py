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
unless `--debug` is given.

Exit status of a command:

    0    done
    1    something failed after the work had begun, or a check did not hold
    2    what was asked cannot be done as it is written: refused before anything began
    130  after Ctrl-C, 143 after SIGTERM
"""

import contextlib
from collections.abc import Iterator


class DistDQNError(Exception):
    """Base of everything that distdqn raises on purpose for a user to read."""

    exit_status = 2
    """1 where it came out of `begun`."""


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
