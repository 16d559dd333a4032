"""Lockstep's members as Ray actors, asked one thing at a time.

An actor holds the plain member; only the asking differs. Nothing that dies is replaced: a
replacement would change the schedule, and the newest checkpoint has it all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import ray

from distdqn.run.ray_errors import answer

_WAY_OUT = ": lockstep replaces nothing; `distdqn resume` goes on from the newest checkpoint"


class Reference:
    """An answer under way."""

    def __init__(self, ref: ray.ObjectRef, name: str, timeout_s: float):
        self.ref, self._name, self._timeout_s = ref, name, timeout_s

    def get(self) -> Any:
        """Waits for it; see `answer` for what it raises."""
        return answer(self.ref, self._name, self._timeout_s, _WAY_OUT)


class MemberActor:
    """A member in a process of its own.

    build: makes it there.  sees_gpu: whether torch may find a GPU there.
    """

    def __init__(self, build: Callable[[], Any], sees_gpu: bool):
        if not sees_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._member = build()

    def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self._member, method)(*arguments)


class RemoteMember:
    """Makes an actor, never restarted, and asks it; an `Ask` of the lockstep schedule.

    name: of the member, for errors.  options: of the actor.  timeout_s: for one answer.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        name: str,
        options: Mapping[str, Any],
        timeout_s: float,
        sees_gpu: bool,
    ):
        self.name, self._timeout_s = name, timeout_s
        actor_class = ray.remote(MemberActor).options(
            max_restarts=0, enable_task_events=False, **options
        )
        self.actor = actor_class.remote(build, sees_gpu)

    def __call__(self, method: str, *arguments: Any) -> Reference:
        plain = [x.ref if isinstance(x, Reference) else x for x in arguments]
        return Reference(self.actor.ask.remote(method, *plain), self.name, self._timeout_s)


def end(members: list[RemoteMember]) -> None:
    """Kills the actors, so that a cluster is left as it was found."""
    for member in members:
        ray.kill(member.actor)
