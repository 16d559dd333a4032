"""One lockstep run: round after round, from start or checkpoint to summary.

The schedule decides everything; this writes down what it hears, evaluates between
rounds, and saves at the borders. Evaluation has seeds of its own and changes no weights
(unless the network draws random numbers of torch's as it acts: its runs are not
reproducible). The first failure of an environment ends the run.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.config import from_yaml, to_values, to_yaml
from distdqn.errors import DistDQNError, RunError, begun
from distdqn.files.checkpoint import has_resumable
from distdqn.files.run_folder import RunFolder
from distdqn.lockstep.schedule import Lockstep, vector_steps
from distdqn.lockstep.system import LockstepSystem
from distdqn.machine.joined import which_ray
from distdqn.reporting.progress import Progress
from distdqn.reporting.summary import Summary
from distdqn.run.factory import Factory
from distdqn.run.interruption import BOUNDS_S, SIGNALS, Interruption
from distdqn.run.record import RunRecord

# Ctrl-C waits for the next checkpoint, and who pressed it is told how long and can press again;
# behind SIGTERM there is a scheduler that waits for so long and then kills.
_BOUNDS_S = {**BOUNDS_S, "SIGINT": math.inf}
_BORDER, _SAVED = 0.5, 0.7  # of SIGTERM's time: by when the next checkpoint, the weights at least
_LOOK_PERIOD_S = 0.2
_STARTING = "starting the workers, the shards and the learner"
_EVALUATION_SEEDS = 2  # keeps them apart from those of envs, draws and exploration


class LockstepRun:
    """A run of mode lockstep or lockstep_ray in progress."""

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
        interruption.bounds_s = _BOUNDS_S
        self._said_interrupted = self._said_cut = False
        self._next_look = 0.0
        self._num_evaluations = 0
        self._due = factory.config.eval.period_env_steps

    def execute(self, initial: Mapping[str, np.ndarray] | None) -> Summary:
        """From the first round to the end; initial: parameters by name, or None."""
        with self._system() as system:
            with self.interruption.until(0):
                system.start(initial)
            return self._train(system)

    def resume(self) -> Summary:
        """From the newest valid checkpoint to the end.

        Raises CheckpointError where there is none, RunError where the run is live, has
        finished or was made with other functions; all before anything is changed.
        """
        self._folder.require_resumable()
        with self.interruption.until(0), self._progress.stage("reading the checkpoint"):
            restored = [self._load()]  # handed over: the replay is not to be held twice
        self._folder.take_over()
        with self._system() as system:
            with self.interruption.until(0):
                self._go_on(system, restored.pop())
            return self._train(system)

    def _load(self) -> dict[str, Any]:
        state, warnings = self._record.checkpointer.load_lockstep()
        self._require_own(state["makers"], to_values(from_yaml(state["config"])))
        for line in warnings:
            self._progress.say(line)
        return state

    def _go_on(self, system: LockstepSystem, state: Mapping[str, Any]) -> None:
        self._folder.rewind(state["env_steps"])
        system.start(None, state)
        self._num_evaluations, self._due = state["evaluations"], state["due"]
        self._record.set_state(state["record"], state["layout"])
        self._progress.say(
            f"going on after round {system.lockstep.number}, {state['env_steps']:,} env steps"
        )

    @contextlib.contextmanager
    def _system(self) -> Iterator[LockstepSystem]:
        with contextlib.ExitStack() as stack:
            try:
                with self.interruption.until(0):
                    at_once = self._open(stack)
                    with begun(), self._progress.stage(_STARTING):
                        look = self.interruption.give_up
                        system = LockstepSystem(self._factory, look, at_once)
                    stack.callback(system.close)
                with begun():
                    yield system
            except BaseException:
                self._folder.tell(state="stopped" if self.interruption.name else "failed")
                raise

    def _open(self, stack: contextlib.ExitStack) -> int | None:
        """Ray, where the members are actors; how many may start at once, None: all.

        stack: takes what ends it.
        """
        if self._config.mode == "lockstep":
            where = {"address": "", "namespace": self._folder.name, "token_file": ""}
            self._folder.tell(state="running", **where)
            return None
        from distdqn.run.ray_session import children, end_half_started, open_session

        self.interruption.last_acts.append(partial(end_half_started, children()))
        say, give_up = self._progress.say, self.interruption.give_up
        with self._progress.stage(which_ray(self._config.address).doing):
            session = open_session(self._config, self._folder, say, give_up)
        stack.callback(session.close)
        return session.starts_at_once

    def _train(self, system: LockstepSystem) -> Summary:
        self._record.started()
        try:
            return self._finish(system, self._loop(system))
        except DistDQNError:
            self._save_what_is_there(system)
            raise
        finally:
            self._record.plot()

    def _finish(self, system: LockstepSystem, stopped_by: str) -> Summary:
        """The last weights, evaluated; a signal leaves the run to be resumed."""
        with self.interruption.until(_SAVED):
            self._record.hear(system.poll(is_last=True))
            if not self._is_saved(system, stopped_by):
                self._save_weights(system)
            online = system.learner("online").get()
        summary = self._record.finish(stopped_by, online, system, self.interruption)
        if summary.stopped_by not in SIGNALS:
            self._record.checkpointer.prune()
        return summary

    def _is_saved(self, system: LockstepSystem, stopped_by: str) -> bool:
        """Whether a signal's run ends right after the checkpoint of a border."""
        lockstep = system.lockstep
        return stopped_by in SIGNALS and lockstep.at_border and not lockstep.finished

    def _save_weights(self, system: LockstepSystem) -> Path | None:
        """Beside the checkpoint of the last border, from which the run is resumed."""
        state, env_steps = system.learner_state(), system.lockstep.env_steps
        return self._record.checkpointer.save(state, env_steps, prunes=False)

    def _save_what_is_there(self, system: LockstepSystem) -> None:
        """Before an error ends the run: the weights, if they can be had."""
        with contextlib.suppress(DistDQNError):
            if not system.lockstep.at_border:  # else all of it is saved already
                self._progress.say(f"saved {self._save_weights(system)} before the run ends")
                self._record.hear(system.poll())

    def _loop(self, system: LockstepSystem) -> str:
        """Rounds until the run is over; returns what ended it."""
        lockstep, reason = system.lockstep, ""
        while not reason and not lockstep.finished:
            lockstep.advance()
            system.note_round()
            if self._evaluated(system) and self._record.state == "stopping":
                lockstep.break_off()
                system.note_round()
                reason = "stop_at_return"
            elif lockstep.at_border and not lockstep.finished:
                self._record.hear(system.poll())
                self._save(system)
                self._note_cut(lockstep)
                reason = self.interruption.name
            elif self.interruption.passed(_BORDER):
                reason = self.interruption.name
            elif time.monotonic() >= self._next_look:
                self._look(system)
        return reason or self.interruption.name or "total_env_steps"

    def _note_cut(self, lockstep: Lockstep) -> None:
        """Says once, at a border, that most episodes end there and not by themselves."""
        workers, num_rounds = self._config.workers, self._config.checkpoint.period_rounds
        num_envs = workers.count * workers.envs_per_worker
        if lockstep.episodes < num_envs and not self._said_cut:
            self._said_cut = True
            self._progress.say(
                f"{lockstep.episodes} episodes of {num_envs} envs ended between two checkpoints, "
                f"{num_rounds * vector_steps(self._config):,} steps of each env; the others were "
                "cut there, and the training return leaves them out: raise "
                f"--checkpoint.period-rounds ({num_rounds})"
            )

    def _look(self, system: LockstepSystem) -> None:
        """What a person sees, now and then; no round depends on it."""
        self._record.hear(system.poll())
        self._next_look = time.monotonic() + _LOOK_PERIOD_S
        if self.interruption.name and not self._said_interrupted:
            self._said_interrupted = True
            self._progress.say(self._stopping_line(system))

    def _stopping_line(self, system: LockstepSystem) -> str:
        """When a run that got a signal stops, and what it costs not to wait."""
        lockstep = system.lockstep
        seconds = lockstep.totals[0].elapsed_s / max(lockstep.number, 1)  # per round
        done = lockstep.env_steps / self._config.total_env_steps
        rounds_left = lockstep.number / max(done, 1e-9) - lockstep.number
        to_border = lockstep.rounds_to_border
        where, rounds = "at the next checkpoint", float(to_border)
        if rounds_left < to_border:
            where, rounds = "at the end, which comes before the next checkpoint", rounds_left
        is_kept = has_resumable(self._folder.path)
        lost = "the work since the last one" if is_kept else "all the work, there is none yet,"
        if rounds * seconds > (left_s := _BORDER * _BOUNDS_S[self.interruption.name]):
            return (
                f"stopping ({self.interruption.name}) in {left_s:.0f} s, before the next "
                f"checkpoint: the weights are saved, and {lost} is to be done again"
            )
        return (
            f"stopping ({self.interruption.name}) {where}, in about {rounds * seconds:.0f} s; "
            f"a further Ctrl-C ends at once, and {lost} is lost"
        )

    def _evaluated(self, system: LockstepSystem) -> bool:
        """Evaluates when that is due; whether it was."""
        env_steps, evaluation = system.lockstep.env_steps, self._config.eval
        if evaluation.period_env_steps is None or self._due is None:
            return False
        if env_steps < self._due or system.lockstep.finished:
            return False
        self._due = env_steps + evaluation.period_env_steps
        entropy = [self._config.seed, _EVALUATION_SEEDS, self._num_evaluations]
        self._num_evaluations += 1
        seed = np.random.SeedSequence(entropy).generate_state(1)[0] >> 1
        with self.interruption.left_out_after(_BORDER):
            system.evaluate_now(evaluation.episodes, int(seed))
        self._record.hear(system.poll())
        return True

    def _save(self, system: LockstepSystem) -> None:
        self._folder.metrics.flush()  # what comes after the checkpoint is rewound, the rest not
        learner_state = system.learner_state()
        state = system.get_state() | {
            "learner_busy_s": learner_state["busy_s"],
            "record": self._record.get_state(),
            "evaluations": self._num_evaluations,
            "due": self._due,
            "makers": self._factory.made_with,
            "config": to_yaml(self._config),
        }
        self._record.checkpointer.save_lockstep(
            learner_state, state, system.shards, system.lockstep.env_steps
        )

    def _require_own(self, makers: list[str], config: Mapping[str, Any]) -> None:
        if makers != self._factory.made_with:
            raise RunError(
                f"run {self._folder.name!r} was started with "
                f"{' and '.join(makers) or 'neither make_env nor make_network'}, and must be "
                f"resumed so: distdqn.resume(RUN{''.join(f', {name}=...' for name in makers)})"
            )
        new = to_values(self._config)
        if key := next((key for key in config if config[key] != new[key]), ""):
            raise RunError(
                f"{self._folder.config_path} says {key} {new[key]!r}, the run was started with "
                f"{config[key]!r}: a run is resumed as it was; put it back, or start another one "
                f"with --init-from {self._folder.name}"
            )
