"""One asynchronous run: Ray's actors, from start to summary.

The driver steps no environment and updates nothing: it starts the system, polls it,
writes down what it hears, keeps the newest checkpoints, and ends it.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.errors import DistDQNError, EnvFailure, begun
from distdqn.files.run_folder import RunFolder
from distdqn.machine.joined import which_ray
from distdqn.reporting.progress import Progress
from distdqn.reporting.summary import Summary
from distdqn.run.factory import Factory
from distdqn.run.interruption import Interruption
from distdqn.run.placement import Placement
from distdqn.run.ray_session import children, end_half_started, open_session
from distdqn.run.record import RunRecord
from distdqn.run.supervisor import System

_POLL_S = 0.2

# By when, as shares of the time that a signal leaves, each of these must be over.
_TURN, _SAVED, _WOUND_DOWN, _FINISHED = 0.15, 0.4, 0.5, 0.55


class AsyncRun:
    """A run of mode async in progress."""

    def __init__(
        self,
        factory: Factory,
        folder: RunFolder,
        progress: Progress,
        interruption: Interruption,
    ):
        self._config, self._factory = factory.config, factory
        self._folder, self._progress = folder, progress
        self._record = RunRecord(factory, folder, progress)
        self.interruption = interruption

    def execute(self, initial: dict[str, np.ndarray] | None) -> Summary:
        """Runs to the end; initial: parameters by name to begin with, or None."""
        plotting = threading.Thread(target=self._record.plot)
        with contextlib.ExitStack() as stack:
            stack.callback(plotting.join)
            try:
                system = self._open(stack)
                with begun():
                    return self._train(system, initial)
            except BaseException:
                self._folder.tell(state="stopped" if self.interruption.name else "failed")
                raise
            finally:
                plotting.start()  # while Ray's processes end
                with self._progress.stage("ending Ray"):
                    stack.close()

    def _open(self, stack: contextlib.ExitStack) -> System:
        """Ray and a system on it; stack: takes what ends them."""
        say, give_up = self._progress.say, self.interruption.give_up
        self.interruption.last_acts.append(partial(end_half_started, children()))
        with self.interruption.until(0):
            with self._progress.stage(which_ray(self._config.address).doing):
                session = open_session(self._config, self._folder, say, give_up)
            stack.callback(session.close)
            place = Placement(self._factory, self._folder.name)
            log, at_once = self._record.log_error, session.starts_at_once
            system = System(self._config, place, say, give_up, log, at_once)
            stack.callback(system.close)
        return system

    def _train(self, system: System, initial: dict[str, np.ndarray] | None) -> Summary:
        has_started = False
        try:
            with self.interruption.until(0), self._progress.stage(self._starting_line()):
                system.start(initial)
            has_started = True
            self._record.started()
            return self._finish(system, self._loop(system))
        except (DistDQNError, KeyboardInterrupt) as error:
            if has_started or self.interruption.name:  # a start that fails leaves nothing
                self._save_what_is_there(system, error)
            raise

    def _starting_line(self) -> str:
        workers, shards = self._config.workers.count, self._config.replay.shards
        return (
            f"starting {workers} worker{'s' * (workers > 1)}, {shards} shard{'s' * (shards > 1)} "
            "and the learner"
        )

    def _loop(self, system: System) -> str:
        """Polls until the run is over; returns what ended it."""
        self._next_save = time.monotonic() + self._config.checkpoint.period_s
        with self._in_time(_TURN):
            while not (system.finished or self._is_stopping):
                self._turn(system)
        if system.finished:
            return "total_env_steps"
        reason = self.interruption.name or "stop_at_return"
        self._progress.say(f"stopping ({reason}); saving the weights")
        if self.interruption.name:  # at once: what follows may fail
            with self._in_time(_SAVED):
                self._save(system)
        with self._in_time(_WOUND_DOWN):
            system.wind_down(self._record.hear)
        return reason

    @property
    def _is_stopping(self) -> bool:
        return bool(self.interruption.name) or self._record.state == "stopping"

    def _turn(self, system: System) -> None:
        self._record.hear(system.poll(_POLL_S))
        if time.monotonic() >= self._next_save:
            self._next_save = time.monotonic() + self._config.checkpoint.period_s
            state = system.learner_state()  # some seconds old, so is its clock
            self._record.checkpointer.save(state, 0 if state is None else state["inserts"])

    def _finish(self, system: System, stopped_by: str) -> Summary:
        state = None
        with self._progress.stage("saving the weights"):
            with self._in_time(_FINISHED):
                self._record.hear(system.poll(0))
            with self._in_time(_FINISHED):
                state, _ = self._save(system)
        online = None if state is None else state["learner"]["online"]
        return self._record.finish(stopped_by, online, system, self.interruption)

    def _save(self, system: System) -> tuple[dict[str, Any] | None, Path | None]:
        """Saves the learner's newest state, if there is any; it, and where."""
        state = system.learner_state()
        env_steps = max(self._record.env_steps, 0 if state is None else state["inserts"])
        return state, self._record.checkpointer.save(state, env_steps)

    def _save_what_is_there(self, system: System, error: BaseException) -> None:
        """Before an error or a signal ends the run: the learner's newest state."""
        if isinstance(error, EnvFailure):
            with contextlib.suppress(DistDQNError), self._in_time(_TURN):
                system.wind_down(self._record.hear)
        share = _SAVED if isinstance(error, DistDQNError) else _TURN
        with contextlib.suppress(DistDQNError), self._in_time(share):
            _, path = self._save(system)
            if path is not None:
                go_on = f"--init-from {self._folder.argument} --init-checkpoint newest"
                self._progress.say(f"saved {path} before the run ends; {go_on} starts from it")
        with contextlib.suppress(DistDQNError), self._in_time(share):
            self._record.hear(system.last_poll())

    @contextlib.contextmanager
    def _in_time(self, share: float) -> Iterator[None]:
        """After a signal, what has not ended by a share of its bound, or fails, is left out."""
        try:
            with self.interruption.left_out_after(share):
                yield
        except DistDQNError as error:
            if not self.interruption.name:
                raise
            self._progress.say(str(error))
