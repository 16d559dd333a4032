"""Ray's errors in one line."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from distdqn.errors import DistDQNError, RunError


def answer(ref: ray.ObjectRef, name: str, timeout_s: float, way_out: str = "") -> Any:
    """Waits for what an actor answers.

    name: of the actor.  way_out: for one that died.
    Raises the actor's own DistDQNError, or RunError where it died, failed or is late.
    """
    try:
        return ray.get(ref, timeout=timeout_s)
    except RayTaskError as error:
        if isinstance(error.cause, DistDQNError):
            raise error.cause from error
        raise RunError(f"the {name} failed: {cause_line(error)}") from error
    except RayActorError as error:
        raise RunError(f"the {name} died ({cause_line(error)}){way_out}") from error
    except GetTimeoutError as error:
        raise RunError(f"the {name} did not answer within {timeout_s:g} s") from error


def cause_line(error: BaseException) -> str:
    """The cause of a Ray error in one line, without Ray's traceback."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, DistDQNError):
        return str(error.cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    in_own_code = isinstance(error, RayTaskError) or "creation task" in str(error)
    return lines[-1 if in_own_code else 0] if lines else type(error).__name__
