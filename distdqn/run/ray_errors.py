"""Ray's errors in one line."""

from __future__ import annotations

from ray.exceptions import RayTaskError

from distdqn.errors import DistDQNError


def cause_line(error: BaseException) -> str:
    """The cause of a Ray error in one line, without Ray's traceback."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, DistDQNError):
        return str(error.cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    in_own_code = isinstance(error, RayTaskError) or "creation task" in str(error)
    return lines[-1 if in_own_code else 0] if lines else type(error).__name__
