"""Supervises a run's actors.

The driver owns every actor. Each has one call that ends only with its work or its
process, so one `ray.wait` over these tells of every death; what died is replaced by a
new incarnation (worker, learner, evaluator) or epoch (shard).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from distdqn.errors import EnvFailure, ResourceError, RunError
from distdqn.run.factory import Parts
from distdqn.run.placement import Placement, amounts, wait_until_ready
from distdqn.run.ray_errors import cause_line
from distdqn.telemetry.reports import EVALUATION_TIMEOUT_S, EvaluationReport, Poll
from distdqn.types import ShardMap

_CALL_TIMEOUT_S = 60.0
_MAX_BACKOFF_S = 30.0
_MAX_DEATHS_IN_A_ROW = 5
_LONG_LIFE_S = 60.0


@dataclasses.dataclass
class _Part:
    """One replaceable actor: `ref` ends with its work or its death."""

    kind: str
    index: int
    incarnation: int = 0
    actor: Any = None
    ready: Any = None
    born: float = 0.0
    deaths_in_a_row: int = 0
    restart_at: float | None = None
    done: bool = False
    said_late: bool = False
    up: bool = False

    def is_up(self) -> bool:
        """Whether this incarnation has started."""
        self.up = self.up or bool(ray.wait([self.ready], timeout=0)[0])
        return self.up


class System:
    """All actors of one run.

    parts: makes what runs inside the actors.  run_name: the actors' namespace.
    say: takes one line for the user.
    check_interrupted: called while waiting; raises to give the start up.
    """

    def __init__(
        self,
        parts: Parts,
        run_name: str,
        say: Callable[[str], None],
        check_interrupted: Callable[[], None] = lambda: None,
    ):
        self._check_interrupted = check_interrupted
        self._run_name = run_name
        self._parts, self._config, self._say = parts, parts.config, say
        self._env_failures = 0
        self._initial: dict[str, np.ndarray] | None = None
        self._stopping = False
        self._generation = 0
        self._parts_by_ref: dict[Any, _Part] = {}
        self._shards = [_Part("shard", i) for i in range(self._config.replay.shards)]
        self._workers = [_Part("worker", i) for i in range(self._config.workers.count)]
        self._learner = _Part("learner", 0, incarnation=1)
        self._evaluator = _Part("evaluator", 0)

    def start(self, initial: dict[str, np.ndarray] | None = None) -> None:
        """Creates every actor and waits until each has answered or time is up.

        initial: parameters by name to begin with, or None for fresh ones.
        """
        self._initial = initial
        self._place = Placement(self._parts, self._run_name)
        self._control, self._server = self._place.control, self._place.server
        self._run(_Part("control", 0, actor=self._control))
        self._run(_Part("weight server", 0, actor=self._server))
        for part in (self._learner, *self._shards):
            self._create(part)
        for part in self._workers:
            self._create(part)
            self._run(part, self._shard_map())
        for part in self._shards:
            self._run(part)
        self._run(self._learner, self._shard_map(), None, initial)
        self._announce_shards()
        self._wait_until_ready()
        if self._config.eval.period_env_steps:  # not before: its imports would delay the others
            self._create(self._evaluator)
            self._run(self._evaluator)
        self._call(self._control.set_running)

    def poll(self, timeout_s: float) -> Poll:
        """Deals with what ended meanwhile; answers with the run's state.

        Raises RunError where the run cannot go on.
        """
        refs = list(self._parts_by_ref)
        ready = ray.wait(refs, num_returns=1, timeout=timeout_s)[0]
        for ref in ready:
            self._ended(self._parts_by_ref.pop(ref), ref)
        for part in (*self._shards, *self._workers, self._evaluator):
            if part.restart_at is not None and time.monotonic() >= part.restart_at:
                part.restart_at = None
                self._recreate(part)
        self._check_replacements()
        return self._call(self._control.poll)

    @property
    def finished(self) -> bool:
        """Whether the learner has made its last update."""
        return self._learner.done

    def stop(self) -> None:
        """Tells everybody to flush and return; blocks that wait for credit are refused.

        From now on nothing that ends is replaced, and no failure raises.
        """
        self._stopping = True
        for part in (*self._workers, self._evaluator):
            part.restart_at = None
        self._call(self._control.stop)
        for part in self._shards:
            if part.actor is not None:
                part.actor.close.remote()

    @property
    def idle(self) -> bool:
        """Whether every worker and the learner have returned."""
        kinds = {part.kind for part in self._parts_by_ref.values()}
        return not kinds & {"worker", "learner"}

    def learner_state(self) -> dict[str, Any] | None:
        """The newest state that the learner left; its last, when it has finished."""
        return self._call(self._server.load_state)

    def visits(self) -> np.ndarray | None:
        """`[S, A]` int64, how often the shards that are alive were given each state and action.

        None where observations are no indices, or a shard does not answer.
        """
        asked = [part.actor.visits.remote() for part in self._shards if part.actor is not None]
        try:
            counts = ray.get(asked, timeout=_CALL_TIMEOUT_S)
        except (GetTimeoutError, RayActorError):
            return None
        return None if any(count is None for count in counts) else np.sum(counts, axis=0)

    def evaluate(self, online: np.ndarray, episodes: int, seed: int) -> EvaluationReport:
        """Greedy episodes with `online [P]` in the evaluator's process, after training."""
        return self._ask_evaluator("evaluate", online, episodes, seed)

    def record(self, online: np.ndarray, seed: int) -> bytes:
        """One greedy episode with `online [P]` as an mp4 file's bytes."""
        return self._ask_evaluator("record", online, seed)

    def _ask_evaluator(self, method: str, *arguments: Any) -> Any:
        self._stop_evaluator_run()
        if self._evaluator.actor is None or self._evaluator.restart_at is not None:
            self._evaluator.restart_at = None
            self._create(self._evaluator)
        ref = getattr(self._evaluator.actor, method).remote(*arguments)
        try:
            return ray.get(ref, timeout=EVALUATION_TIMEOUT_S)
        except (RayTaskError, RayActorError) as error:
            raise RunError(f"evaluation failed: {cause_line(error)}") from error
        except GetTimeoutError as error:
            raise RunError(
                f"evaluation did not end within {EVALUATION_TIMEOUT_S:g} s; lower "
                "--eval.final-episodes or --eval.max-episode-steps"
            ) from error

    def close(self) -> None:
        """Ends every actor, so that a cluster is left as it was found."""
        parts = [*self._shards, *self._workers, self._learner, self._evaluator]
        actors = [part.actor for part in parts] + [
            getattr(self, name, None) for name in ("_server", "_control")
        ]
        for actor in actors:
            if actor is not None:
                ray.kill(actor)

    # Making parts.

    def _create(self, part: _Part) -> None:
        """A new actor for `part`; its `ready` is asked before the call that occupies it."""
        make = {
            "learner": lambda: self._place.learner(part.incarnation),
            "evaluator": lambda: self._place.evaluator(part.incarnation),
            "shard": lambda: self._place.shard(part.index, part.incarnation),
            "worker": lambda: self._place.worker(part.index, part.incarnation),
        }
        part.actor = make[part.kind]()
        part.born, part.up, part.said_late = time.monotonic(), False, False
        part.ready = part.actor.__ray_ready__.remote()

    def _run(self, part: _Part, *arguments: Any) -> None:
        self._parts_by_ref[part.actor.run.remote(*arguments)] = part

    def _stop_evaluator_run(self) -> None:
        refs = [ref for ref, part in self._parts_by_ref.items() if part is self._evaluator]
        if refs and not ray.wait(refs, timeout=_CALL_TIMEOUT_S)[0]:
            ray.kill(self._evaluator.actor)
            self._evaluator.actor = None

    def _shard_map(self) -> ShardMap:
        return ShardMap(
            self._generation,
            tuple(part.actor for part in self._shards),
            tuple(part.incarnation for part in self._shards),
        )

    def _announce_shards(self) -> None:
        self._generation += 1
        self._call(self._control.set_shards, self._shard_map())

    def _wait_until_ready(self) -> None:
        """Every actor up, or one line that says what is missing."""
        awaited = (self._learner, *self._shards, *self._workers)
        names = {part.ready: _name(part) for part in awaited}
        wait_until_ready(names, self._parts, self._check_interrupted)

    # Deaths.

    def _ended(self, part: _Part, ref: Any) -> None:
        """One part's long call is over: done, failed, or dead."""
        try:
            failure = ray.get(ref)
        except RayActorError as error:
            self._died(part, error)
        except RayTaskError as error:
            if not (part.kind == "evaluator" and isinstance(error.cause, EnvFailure)):
                raise RunError(f"the {_name(part)} failed: {cause_line(error)}") from error
            self._count_env_failure(part, cause_line(error))
            self._restart_later(part)
        else:
            part.done = True
            if part.kind == "worker" and failure:
                self._bury_worker(part)
                self._count_env_failure(part, failure)

    def _died(self, part: _Part, error: RayActorError) -> None:
        if part.kind in ("control", "weight server"):
            raise RunError(f"the {_name(part)} died: {cause_line(error)}") from error
        if part.kind == "worker" and (line := self._bury_worker(part)):
            return self._count_env_failure(part, line)
        if self._stopping:
            part.done = True
            return None
        if part.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise RunError(
                f"the {_name(part)} died {part.deaths_in_a_row} times: {cause_line(error)}"
            )
        self._say(f"the {_name(part)} died ({cause_line(error)}); it is replaced")
        if part.kind == "worker":
            return None
        self._count_death(part)
        if part.kind == "shard":
            self._call(self._control.bury_shard, part.index, part.incarnation)
        else:
            self._call(self._control.count_restart, part.kind)
        return self._recreate(part)

    def _bury_worker(self, part: _Part) -> str:
        """Closes a worker's account; a successor comes after a pause. Its env's failure."""
        line = self._call(self._control.bury_worker, part.index, part.incarnation)
        self._restart_later(part)
        return line

    def _restart_later(self, part: _Part) -> None:
        self._count_death(part)
        if not self._stopping:
            pause = min(0.5 * 2 ** min(part.deaths_in_a_row, 10), _MAX_BACKOFF_S)
            part.restart_at = time.monotonic() + pause

    def _count_death(self, part: _Part) -> None:
        long_life = time.monotonic() - part.born > _LONG_LIFE_S
        part.deaths_in_a_row = 1 if long_life else part.deaths_in_a_row + 1

    def _count_env_failure(self, part: _Part, line: str) -> None:
        self._env_failures += 1
        limit = self._config.workers.max_env_failures
        if self._env_failures > limit and not self._stopping:
            raise EnvFailure(
                f"{line} ({_name(part)}); environments failed {self._env_failures} times, "
                f"workers.max_env_failures is {limit}"
            )
        self._say(f"{line} ({_name(part)}); failure {self._env_failures} of {limit} allowed")

    def _recreate(self, part: _Part) -> None:
        part.restart_at = None
        part.done = False
        part.incarnation += 1
        self._create(part)
        if part.kind == "worker":
            self._run(part, self._shard_map())
        elif part.kind == "learner":
            state = self._call(self._server.load_state)
            self._run(part, self._shard_map(), state, self._initial if state is None else None)
        else:
            self._run(part)
        if part.kind == "shard":
            self._announce_shards()

    def _check_replacements(self) -> None:
        """Says once which replaced worker finds no place; without any worker the run ends."""
        now, timeout = time.monotonic(), self._config.start_timeout_s
        running = [part for part in self._workers if not part.done and part.restart_at is None]
        late = [part for part in running if now - part.born > timeout and not part.is_up()]
        for part in late:
            if not part.said_late:
                part.said_late = True
                self._say(
                    f"the {_name(part)} has not started again for {timeout:g} s; free are "
                    f"{amounts(ray.available_resources())}"
                )
        if late and len(late) == len(running):
            raise ResourceError(
                f"no env worker could be started again within {timeout:g} s: free are "
                f"{amounts(ray.available_resources())}, each needs "
                f"{self._config.workers.num_cpus:g} CPUs"
            )

    def _call(self, method: Any, *arguments: Any) -> Any:
        try:
            return ray.get(method.remote(*arguments), timeout=_CALL_TIMEOUT_S)
        except GetTimeoutError as error:
            raise RunError(
                f"control or weight server did not answer within {_CALL_TIMEOUT_S:g} s"
            ) from error
        except RayActorError as error:
            raise RunError(f"control or weight server died: {cause_line(error)}") from error


def _name(part: _Part) -> str:
    return f"{part.kind} {part.index}" if part.kind in ("worker", "shard") else part.kind
