"""Lockstep's parts as Ray actors, asked one thing at a time.

An actor here is the plain part itself; only the asking differs. Nothing that dies is
replaced: a replacement would change the schedule, and the newest checkpoint has it all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from distdqn.errors import DistDQNError, RunError
from distdqn.run.ray_errors import cause_line


class Reference:
    """An answer under way."""

    def __init__(self, ref: ray.ObjectRef, name: str, timeout_s: float):
        self.ref, self._name, self._timeout_s = ref, name, timeout_s

    def get(self) -> Any:
        """Waits for it.

        Raises the part's own DistDQNError, or RunError where it died, failed or is late.
        """
        try:
            return ray.get(self.ref, timeout=self._timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, DistDQNError):
                raise error.cause from error
            raise RunError(f"the {self._name} failed: {cause_line(error)}") from error
        except RayActorError as error:
            raise RunError(
                f"the {self._name} died ({cause_line(error)}): lockstep replaces nothing; "
                "`distdqn resume` goes on from the newest checkpoint"
            ) from error
        except GetTimeoutError as error:
            raise RunError(
                f"the {self._name} did not answer within {self._timeout_s:g} s"
            ) from error


class RemotePart:
    """Asks one actor; an `Ask` of the lockstep schedule.

    name: of the part, for errors.  timeout_s: for one answer.
    """

    def __init__(self, actor: Any, name: str, timeout_s: float):
        self.actor, self.name, self._timeout_s = actor, name, timeout_s

    def __call__(self, method: str, *arguments: Any) -> Reference:
        plain = [x.ref if isinstance(x, Reference) else x for x in arguments]
        ref = getattr(self.actor, method).remote(*plain)
        return Reference(ref, self.name, self._timeout_s)


def make_actor(part: type, options: Mapping[str, Any], **arguments: Any) -> Any:
    """A part as an actor that is never restarted."""
    return (
        ray.remote(part)
        .options(max_restarts=0, enable_task_events=False, **options)
        .remote(**arguments)
    )


def without_gpu(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls `function` in an actor that is not the learner: torch must see no GPU there."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return function(*arguments)


def end(parts: list[RemotePart]) -> None:
    """Kills the actors, so that a cluster is left as it was found."""
    for part in parts:
        ray.kill(part.actor)
