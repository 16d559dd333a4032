"""One asynchronous run: Ray's actors, from start to summary.

The driver steps no environment and updates nothing: it starts the system, polls it,
writes down what it hears, keeps the newest checkpoints, and ends it.
"""

import contextlib
import threading
import time

import numpy as np

from distdqn.errors import DistDQNError, EnvFailure, begun
from distdqn.files.run_folder import RunFolder
from distdqn.reporting.progress import Progress
from distdqn.reporting.summary import Summary
from distdqn.run.factory import Factory
from distdqn.run.interruption import Interruption
from distdqn.run.placement import Placement
from distdqn.run.ray_session import connecting, open_session
from distdqn.run.record import RunRecord
from distdqn.run.supervisor import System

_POLL_S = 0.2


class AsyncRun:
    """A run of mode async in progress."""

    def __init__(self, factory: Factory, folder: RunFolder, progress: Progress):
        self._config, self._factory = factory.config, factory
        self._folder, self._progress = folder, progress
        self._record = RunRecord(factory, folder, progress)
        self.interruption = Interruption()

    def execute(self, initial: dict[str, np.ndarray] | None) -> Summary:
        """Runs to the end; initial: parameters by name to begin with, or None."""
        say = self._progress.say
        plotting = threading.Thread(target=self._record.plot)
        with contextlib.ExitStack() as stack:
            stack.callback(plotting.join)
            try:
                with self._progress.stage(connecting(self._config.address)):
                    session = open_session(
                        self._config, self._folder, say, self.interruption.give_up
                    )
                stack.callback(session.close)
                stack.enter_context(begun())
                place = Placement(self._factory, self._folder.name)
                look, log = self.interruption.give_up, self._record.log_error
                system = System(self._config, place, say, look, log)
                stack.callback(system.close)
                return self._train(system, initial)
            except BaseException:
                self._folder.tell(state="failed")
                raise
            finally:
                plotting.start()  # while Ray's processes end
                with self._progress.stage("ending Ray"):
                    stack.close()

    def _train(self, system: System, initial: dict[str, np.ndarray] | None) -> Summary:
        with self._progress.stage(self._starting_line()):
            system.start(initial)
        self._record.started()
        try:
            stopped_by = self._loop(system)
        except DistDQNError as error:
            self._save_what_is_there(system, error)
            raise
        return self._finish(system, stopped_by)

    def _starting_line(self) -> str:
        workers, shards = self._config.workers.count, self._config.replay.shards
        return (
            f"starting {workers} worker{'s' * (workers > 1)}, {shards} shard{'s' * (shards > 1)} "
            "and the learner"
        )

    def _loop(self, system: System) -> str:
        """Polls until the run is over; returns what ended it."""
        next_save = time.monotonic() + self._config.checkpoint.period_s
        while not system.finished:
            self._record.hear(system.poll(_POLL_S))
            if time.monotonic() >= next_save:
                next_save = time.monotonic() + self._config.checkpoint.period_s
                state = system.learner_state()  # some seconds old, so is its clock
                self._record.checkpointer.save(state, 0 if state is None else state["inserts"])
            if self.interruption.name or self._record.state == "stopping":
                reason = self.interruption.name or "stop_at_return"
                self._progress.say(f"stopping ({reason}); saving the weights")
                system.wind_down(self._record.hear)
                return reason
        return "total_env_steps"

    def _finish(self, system: System, stopped_by: str) -> Summary:
        with self._progress.stage("saving the weights"):
            state = system.learner_state()
            self._record.hear(system.poll(0))
            self._record.checkpointer.save(state, self._record.env_steps)
        online = None if state is None else state["learner"]["online"]
        return self._record.finish(stopped_by, online, system, bool(self.interruption.name))

    def _save_what_is_there(self, system: System, error: DistDQNError) -> None:
        """Before an error ends the run: the learner's newest state, if it can be had."""
        if isinstance(error, EnvFailure):
            with contextlib.suppress(DistDQNError):
                system.wind_down(self._record.hear)
        with contextlib.suppress(DistDQNError):
            path = self._record.checkpointer.save(system.learner_state(), self._record.env_steps)
            if path is not None:
                self._progress.say(f"saved {path} before the run ends")
