"""Supervises a run's actors.

The driver owns every actor. Each has one call that ends only with its work or its
process, so one `ray.wait` over these tells of every death. A dead worker, learner or
evaluator is replaced by a new incarnation, a shard by a new epoch; control and weight
server hold what nobody else has, and their death ends the run.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from distdqn.config import Config
from distdqn.errors import EnvFailure, ResourceError, RunError, without_colours
from distdqn.run.actors import actor_name, amounts, answer, cause_line, failed, wait_until_ready
from distdqn.telemetry.reports import EVALUATION_TIMEOUT_S, EvaluationReport, Poll
from distdqn.types import ShardMap

_CALL_TIMEOUT_S = _STOP_TIMEOUT_S = 60.0
_STOP_POLL_S = 0.2
_MAX_BACKOFF_S = 30.0
_MAX_DEATHS_IN_A_ROW = 5
_WHY = "; look for what ends processes: code that leaves Python, or too little memory"
_MAX_FAILED_BEGINNINGS = 3  # of one worker's envs in a row, while none has made a step
_LONG_LIFE_S = 60.0
_IDLE_S = 10.0  # without a worker that comes up


@dataclasses.dataclass
class _Member:
    """One actor, and its replacements after it."""

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

    @property
    def name(self) -> str:
        return actor_name(self.kind, self.index)


class System:
    """All actors of one run.

    place: the run's `Placement`, which creates the actors.
    say: takes one line for the user.
    look: called while waiting; raises to give the start up.
    log: takes a member's name and the traceback of what ended it, where the run goes on.
    at_once: workers that may be coming up at the same time, the others follow as the run is
      polled; None: all of them. A cluster is asked for all, from which its autoscaler learns.
    """

    def __init__(
        self,
        config: Config,
        place: Any,
        say: Callable[[str], None],
        look: Callable[[], None] = lambda: None,
        log: Callable[[str, str], None] = lambda part, details: None,
        at_once: int | None = None,
    ):
        self._look, self._log = look, log
        self._at_once = at_once or config.workers.count
        self._later: list[_Member] = []  # not begun yet
        self._coming_up = 0, 0.0  # workers, and since when so many
        self._config, self._place, self._say = config, place, say
        self._control, self._server = place.control, place.server
        self._env_failures = 0
        self._has_stepped = False
        self._initial: dict[str, np.ndarray] | None = None
        self._stopping = False
        self._generation = 0
        self._by_ref: dict[Any, _Member] = {}
        self._shards = [_Member("shard", i) for i in range(self._config.replay.shards)]
        self._workers = [_Member("worker", i) for i in range(self._config.workers.count)]
        self._learner = _Member("learner", 0, incarnation=1)
        self._evaluator = _Member("evaluator", 0)

    def start(self, initial: dict[str, np.ndarray] | None = None) -> None:
        """Creates every actor and waits until each has answered or time is up.

        initial: parameters by name to begin with, or None for fresh ones.
        """
        self._initial = initial
        self._run(_Member("control", 0, actor=self._control))
        self._run(_Member("weight server", 0, actor=self._server))
        first, self._later = self._workers[: self._at_once], self._workers[self._at_once :]
        members = [self._learner, *self._shards, *first]
        for member in members:
            self._create(member)
        for member in members:
            self._run(member)
        self._announce_shards()
        names = {member.ready: member.name for member in members}
        wait_until_ready(names, self._config, self._look)
        if self._config.eval.period_env_steps:  # not before: its imports would delay the others
            self._create(self._evaluator)
            self._run(self._evaluator)
        self._call(self._control.set_running)

    def poll(self, timeout_s: float) -> Poll:
        """Deals with what ended meanwhile; answers with the run's state.

        Raises RunError where the run cannot go on.
        """
        for ref in ray.wait(list(self._by_ref), num_returns=1, timeout=timeout_s)[0]:
            self._ended(self._by_ref.pop(ref), ref)
        for member in (*self._shards, *self._workers, self._evaluator):
            if member.restart_at is not None and time.monotonic() >= member.restart_at:
                self._recreate(member)
        if not self._stopping:
            self._check_replacements()
        poll = self.last_poll()
        self._has_stepped = poll.status.env_steps > 0
        if self._later and not self._stopping:
            self._begin_more(poll.status.workers_alive)
        return poll

    def last_poll(self) -> Poll:
        """The run's state, whatever has ended meanwhile."""
        poll: Poll = self._call(self._control.poll)
        return poll

    @property
    def finished(self) -> bool:
        """Whether the learner has made its last update."""
        return self._learner.done

    def wind_down(self, hear: Callable[[Poll], Any]) -> None:
        """Has everybody flush and return; blocks that wait for credit are refused.

        From now on nothing that dies is replaced. Raises RunError as before where control or
        weight server dies, or one of the others fails by an error of its own.

        hear: takes each poll until the workers and the learner have returned, or time is up.
        """
        self._stopping = True
        for member in (*self._workers, self._evaluator):
            member.restart_at = None
        self._call(self._control.stop)
        for member in self._shards:
            if member.actor is not None:
                member.actor.close.remote()
        deadline, waited_for = time.monotonic() + _STOP_TIMEOUT_S, {"worker", "learner"}
        while waited_for & {member.kind for member in self._by_ref.values()}:
            if time.monotonic() >= deadline:
                break
            hear(self.poll(_STOP_POLL_S))

    def learner_state(self) -> dict[str, Any] | None:
        """The newest state that the learner left; its last, when it has finished.

        Where the weight server is dead, the state that the learner ends with.
        """
        try:
            return self._kept_state()
        except RunError as error:
            if not isinstance(error.__cause__, RayActorError):
                raise
            self._call(self._control.stop)
            return answer(self._learner.actor.last_state.remote(), "learner", _CALL_TIMEOUT_S)

    def visits(self) -> list[np.ndarray | None]:
        """See `Replay.visits`, of the shards that are alive; none where one does not answer."""
        asked = [
            member.actor.visits.remote() for member in self._shards if member.actor is not None
        ]
        try:
            return ray.get(asked, timeout=_CALL_TIMEOUT_S)
        except (GetTimeoutError, RayActorError):
            return []

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
        way_out = "; lower --eval.final-episodes or --eval.max-episode-steps"
        return answer(ref, "evaluator", EVALUATION_TIMEOUT_S, if_late=way_out)

    def close(self) -> None:
        """Ends every actor, so that a cluster is left as it was found."""
        members = [*self._shards, *self._workers, self._learner, self._evaluator]
        for actor in [*(member.actor for member in members), self._server, self._control]:
            if actor is not None:
                ray.kill(actor)

    # Making actors.

    def _create(self, member: _Member) -> None:
        """A new actor for `member`, and the answer that it gives once it has started."""
        member.actor = self._place.create(member.kind, member.index, member.incarnation)
        member.born, member.said_late = time.monotonic(), False
        member.ready = member.actor.__ray_ready__.remote()

    def _run(self, member: _Member) -> None:
        """Begins the call that ends only with the member's work or its process."""
        arguments: list[Any] = []
        if member.kind in ("worker", "learner"):
            arguments.append(self._shard_map())
        if member.kind == "learner":
            state = self._kept_state() if member.incarnation > 1 else None
            arguments += [state, self._initial if state is None else None]
        self._by_ref[member.actor.run.remote(*arguments)] = member

    def _begin_more(self, num_up: int) -> None:
        """Has the next workers start where few are still coming up.

        Also where none has come up for ten seconds: they wait for something then, which takes
        no core from others.

        num_up: workers that act, as control knows.
        """
        now, begun = time.monotonic(), [w for w in self._workers if w.actor is not None]
        coming_up = sum(not w.done and w.restart_at is None for w in begun) - num_up
        if coming_up != self._coming_up[0]:
            self._coming_up = coming_up, now
        room = self._at_once - coming_up
        if now > self._coming_up[1] + _IDLE_S:
            room, self._coming_up = self._at_once, (coming_up, now)
        members, self._later = self._later[: max(room, 0)], self._later[max(room, 0) :]
        for member in members:
            self._create(member)
            self._run(member)

    def _stop_evaluator_run(self) -> None:
        refs = [ref for ref, member in self._by_ref.items() if member is self._evaluator]
        if refs and not ray.wait(refs, timeout=_CALL_TIMEOUT_S)[0]:
            ray.kill(self._evaluator.actor)
            self._evaluator.actor = None

    def _shard_map(self) -> ShardMap:
        return ShardMap(
            self._generation,
            tuple(member.actor for member in self._shards),
            tuple(member.incarnation for member in self._shards),
        )

    def _announce_shards(self) -> None:
        self._generation += 1
        self._call(self._control.set_shards, self._shard_map())

    # Deaths.

    def _ended(self, member: _Member, ref: Any) -> None:
        """One member's long call is over: done, which it stays, or failed, or dead."""
        self._count_death(member)
        try:
            failure = ray.get(ref)
        except RayActorError as error:
            self._died(member, error)
        except RayTaskError as error:
            if member.kind != "evaluator" or not isinstance(error.cause, EnvFailure):
                raise failed(member.name, "failed: {}", error) from error
            self._count_env_failure(member, error.cause)
            self._restart_later(member)
        else:
            member.done = True
            if failure:  # of a worker's env
                self._bury_worker(member)
                self._count_env_failure(member, failure)

    def _died(self, member: _Member, error: RayActorError) -> None:
        ray.kill(member.actor)  # it may live and only be out of reach
        if member.kind in ("control", "weight server"):
            raise failed(member.name, "died: {}", error) from error
        failure = self._bury_worker(member) if member.kind == "worker" else None
        if failure:
            self._count_env_failure(member, failure)
        elif self._stopping:
            member.done = True
        elif member.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise failed(member.name, f"died {member.deaths_in_a_row} times: {{}}{_WHY}", error)
        else:
            self._say(f"the {member.name} died ({cause_line(error)}); {_replaced(member)}")
            self._log(member.name, without_colours(str(error)))
            if member.kind == "shard":
                self._call(self._control.bury_shard, member.index, member.incarnation)
            if member.kind != "worker":  # which comes back after a pause
                self._recreate(member)

    def _bury_worker(self, member: _Member) -> EnvFailure | None:
        """Closes a worker's account; a successor comes after a pause.

        Returns the failure of its env that it told of, if any.
        """
        failure = self._call(self._control.bury_worker, member.index, member.incarnation)
        self._restart_later(member)
        return failure

    def _restart_later(self, member: _Member) -> None:
        if not self._stopping:
            member.restart_at = time.monotonic() + _pause_s(member)

    def _count_death(self, member: _Member) -> None:
        long_life = time.monotonic() - member.born > _LONG_LIFE_S
        member.deaths_in_a_row = 1 if long_life else member.deaths_in_a_row + 1

    def _count_env_failure(self, member: _Member, failure: EnvFailure) -> None:
        self._env_failures += 1
        failures, limit = self._env_failures, self._config.workers.max_env_failures
        never = not self._has_stepped and member.deaths_in_a_row >= _MAX_FAILED_BEGINNINGS
        is_last = (failures > limit or never) and not self._stopping
        line, times = f"{failure} ({member.name})", "once" if failures == 1 else f"{failures} times"
        if not is_last:
            pause = f", restarted in {_pause_s(member):g} s" if member.restart_at else ""
            allowed, until = limit, ""
            if not self._has_stepped and limit >= _MAX_FAILED_BEGINNINGS:
                allowed, until = _MAX_FAILED_BEGINNINGS - 1, " before the first env step"
            self._say(f"{line}; failure {failures} of {allowed} allowed{until}{pause}")
        self._log(member.name, failure.details or str(failure))
        if is_last:
            limit_text = f"workers.max_env_failures is {limit}"
            why = "and no env step was made" if never else limit_text
            raise EnvFailure(f"{line}; environments failed {times}, {why}")

    def _recreate(self, member: _Member) -> None:
        member.restart_at = None
        member.done = False
        member.incarnation += 1
        self._create(member)
        self._run(member)
        self._call(self._control.count_restart, member.kind)
        if member.kind == "shard":
            self._announce_shards()

    def _check_replacements(self) -> None:
        """Says once which replaced worker finds no place; without any worker the run ends."""
        now, timeout = time.monotonic(), self._config.start_timeout_s
        running = [
            member
            for member in self._workers
            if member.actor is not None and not member.done and member.restart_at is None
        ]
        old = {w.ready: w for w in running if now - w.born > timeout}
        if not old:
            return
        late = [old[ref] for ref in ray.wait(list(old), num_returns=len(old), timeout=0)[1]]
        free = f"free are {amounts(ray.available_resources())}" if late else ""
        for member in late:
            if not member.said_late:
                member.said_late = True
                self._say(f"the {member.name} has not started again for {timeout:g} s; {free}")
        if late and len(late) == len(running):
            raise ResourceError(
                f"no env worker could be started again within {timeout:g} s: {free}, each needs "
                f"{self._config.workers.num_cpus:g} CPUs"
            )

    def _kept_state(self) -> dict[str, Any] | None:
        return answer(self._server.load_state.remote(), "weight server", _CALL_TIMEOUT_S)

    def _call(self, method: Any, *arguments: Any) -> Any:
        """method: of control."""
        return answer(method.remote(*arguments), "control", _CALL_TIMEOUT_S)


def _replaced(member: _Member) -> str:
    """How it goes on after a death."""
    if member.restart_at is not None:
        pause = member.restart_at - time.monotonic()
        return f"replaced in {max(pause, 0):.0f} s, with another seed"
    by = {"shard": " by an empty one", "learner": " from its newest state"}
    return "replaced" + by.get(member.kind, "")


def _pause_s(member: _Member) -> float:
    """Before it comes back; longer with each death in a row."""
    return min(0.5 * 2 ** min(member.deaths_in_a_row, 10), _MAX_BACKOFF_S)
