"""Lockstep's members as Ray actors, asked one thing at a time.

An actor holds the plain member; only the asking differs. Nothing that dies is replaced: a
replacement would change the schedule, and the newest checkpoint has it all.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from distdqn.config import Config, construct_limit
from distdqn.errors import EnvFailure
from distdqn.lockstep.schedule import vector_steps
from distdqn.run.actors import (
    actor_class,
    actor_name,
    answer,
    asked_for,
    wait_until_ready,
    without_answer,
)
from distdqn.telemetry.reports import EVALUATION_TIMEOUT_S

_WAY_OUT = ": lockstep replaces nothing; `distdqn resume` goes on from the newest checkpoint"
_LEARNER_TIMEOUT_S = 600.0


class Reference:
    """An answer under way."""

    def __init__(self, ref: ray.ObjectRef, name: str, timeout_s: float):
        self.ref, self._name, self._timeout_s = ref, name, timeout_s

    def get(self) -> Any:
        """Waits for it; see `answer` for what it raises."""
        return answer(self.ref, self._name, self._timeout_s, if_dead=_WAY_OUT)


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
    """An actor that is asked; an `Ask` of the lockstep schedule.

    name: of the member, for errors.  timeout_s: for one answer.
    """

    def __init__(self, actor: Any, name: str, timeout_s: float):
        self.actor, self.name, self._timeout_s = actor, name, timeout_s

    def __call__(self, method: str, *arguments: Any) -> Reference:
        plain = [x.ref if isinstance(x, Reference) else x for x in arguments]
        return Reference(self.actor.ask.remote(method, *plain), self.name, self._timeout_s)


def make_actors(
    builders: Mapping[str, Sequence[Callable[[], Any]]],
    config: Config,
    look: Callable[[], None],
    at_once: int | None = None,
) -> dict[str, list[RemoteMember]]:
    """Members by kind, up and answering; ResourceError where some did not start in time.

    builders: what makes them.  look: called while they start; raises to give up.
    at_once: members that may be coming up at the same time; None: all of them.
    """
    made: dict[str, list[RemoteMember]] = {kind: [] for kind in builders}
    planned = [(kind, build) for kind, those in builders.items() for build in those]
    size = at_once or len(planned)
    try:
        for begin in range(0, len(planned), size):
            names, workers_before = {}, len(made["worker"])
            for kind, build in planned[begin : begin + size]:
                member = _make(kind, len(made[kind]), build, config)
                made[kind].append(member)
                names[member.actor.__ray_ready__.remote()] = member.name
            wait_until_ready(names, config, look)
            _make_envs(made["worker"][workers_before:], config, look)
    except BaseException:
        end([member for those in made.values() for member in those])
        raise
    return made


def _make_envs(workers: list[RemoteMember], config: Config, look: Callable[[], None]) -> None:
    """Each worker's; raises EnvFailure where they take too long, and what making them raises."""
    limit_s, missed = construct_limit(config)
    asked = {worker.actor.ask.remote("make_envs"): worker.name for worker in workers}
    missing = without_answer(asked, limit_s, look)
    for ref, name in asked.items():
        if ref not in missing:
            answer(ref, name, limit_s, if_dead=_WAY_OUT)
    if missing:
        failure = EnvFailure(f"environment {config.env.id!r} {missed}")
        failure.part = asked[missing[0]]
        raise failure


def _make(kind: str, index: int, build: Callable[[], Any], config: Config) -> RemoteMember:
    workers = config.workers
    timeouts = {
        "worker": workers.env_timeout_s * (vector_steps(config) + 1),  # and the resets
        "evaluator": EVALUATION_TIMEOUT_S,
    }
    actor = actor_class(MemberActor, **asked_for(config).get(kind, {})).remote(
        build, kind == "learner"
    )
    return RemoteMember(actor, actor_name(kind, index), timeouts.get(kind, _LEARNER_TIMEOUT_S))


def end(members: list[RemoteMember]) -> None:
    """Kills the actors, so that a cluster is left as it was found."""
    for member in members:
        ray.kill(member.actor)
