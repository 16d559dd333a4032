"""The members of a lockstep run, in this process or as actors.

The same classes either way; `config.mode` alone decides who is asked. What they tell goes
through the same account as in an asynchronous run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distdqn.config import Config
from distdqn.control.control import Control
from distdqn.lockstep.members import LocalMember
from distdqn.lockstep.schedule import Lockstep, vector_steps
from distdqn.rate_limiter import RateLimiter
from distdqn.telemetry.reports import (
    EVALUATION_TIMEOUT_S,
    EvaluationReport,
    LearnerReport,
    Poll,
)
from distdqn.telemetry.usage import Spent, Usage

_LEARNER_TIMEOUT_S = 600.0

Builders = Mapping[str, Sequence[Callable[[], Any]]]
"""What makes the members, by kind: "worker", "shard", "learner" and "evaluator"."""


class LockstepSystem:
    """Workers, shards, learner and evaluator of one run, and their schedule.

    lockstep: the schedule.  learner, shards: asked for their states by who saves them.
    """

    def __init__(
        self,
        config: Config,
        builders: Builders,
        limiter: RateLimiter,
        control: Control,
        look: Callable[[], None] = lambda: None,
    ):
        """Makes the members.

        limiter: the account of samples and inserts.  control: that of the run.
        look: called while actors start; raises to give up.
        """
        self._config, self._limiter, self._control = config, limiter, control
        make = _make_actors if config.mode == "lockstep_ray" else _make_objects
        self._made: dict[str, list[Any]] = make(config, builders, look)
        self.learner, self.shards = self._made["learner"][0], self._made["shard"]
        self._evaluator = self._made["evaluator"][0]
        self.lockstep: Lockstep

    def start(
        self, initial: Mapping[str, np.ndarray] | None, state: Mapping[str, Any] | None = None
    ) -> None:
        """Ready for the first round.

        initial: parameters by name to begin with, or None.
        state: of `get_state`, with "learner" and "shards" beside, to go on from.
        """
        if initial is not None:
            self.learner("set_parameters", dict(initial)).get()
        if state is not None:
            self.learner("set_state", state["learner"], state["learner_busy_s"]).get()
            for shard, shard_state in zip(self.shards, state["shards"], strict=True):
                shard("set_state", shard_state).get()
        self.lockstep = Lockstep(
            self._made["worker"], self.shards, self.learner, self._limiter, self._config
        )
        if state is not None:
            self.lockstep.set_state(state["lockstep"])
            self._control.set_state(state["control"])
            self.note_round()  # or the next episodes would be spread over all steps so far
        self._control.set_running()

    def note_round(self) -> None:
        """Takes the workers' totals and episodes into the account, after each round."""
        for worker, total in enumerate(self.lockstep.totals):
            self._control.report_worker(total, 0)
            self.lockstep.totals[worker] = dataclasses.replace(total, episodes=())

    def poll(self, is_last: bool = False) -> Poll:
        """Everybody's reports, as the driver of an asynchronous run hears them.

        is_last: of the training; figures that are else a second old are computed anew.
        """
        lockstep, control = self.lockstep, self._control
        for shard in self.shards:
            control.report_shard(shard("report", lockstep.version, is_last).get())
        report = self.learner(
            "report",
            lockstep.version,
            lockstep.samples_per_insert,
            lockstep.totals[0].elapsed_s,
            is_last,
        )
        learner_report = report.get()
        control.report_learner(learner_report, 0)
        poll = control.poll()
        return dataclasses.replace(poll, usage=self._usage(poll.usage, learner_report))

    def _usage(self, told: Usage, learner: LearnerReport) -> Usage:
        """By the time of the rounds; workers over actors act at once, else in turn."""
        at_once = len(self.lockstep.totals) if self._config.mode == "lockstep_ray" else 1
        return dataclasses.replace(
            told,
            at_s=learner.elapsed_s,
            workers=Spent(at_once, told.env_s + told.inference_s),
            shards=Spent(1, told.replay_s),
            learner=Spent(1, learner.elapsed_s - learner.wait_s),
            rest_cpu_s=0.0,
        )

    def evaluate_now(self, episodes: int, seed: int) -> None:
        """Greedy episodes with the weights as they are; heard with the next poll."""
        lockstep, online = self.lockstep, self.learner("online")
        report = self._evaluator(
            "evaluate", online, episodes, seed, lockstep.version, lockstep.env_steps
        )
        self._control.report_evaluation(report.get())

    def evaluate(self, online: np.ndarray, episodes: int, seed: int) -> EvaluationReport:
        """Greedy episodes with `online [P]`."""
        return self._evaluator("evaluate", online, episodes, seed).get()

    def record(self, online: np.ndarray, seed: int) -> bytes:
        """One greedy episode with `online [P]` as an mp4 file's bytes."""
        return self._evaluator("record", online, seed).get()

    def visits(self) -> np.ndarray | None:
        """`[S, A]` how often each state and action was added; None without indices."""
        counts = [shard("visits").get() for shard in self.shards]
        return None if any(count is None for count in counts) else np.sum(counts, axis=0)

    def get_state(self) -> dict[str, Any]:
        """The schedule's and the account's state at a border; learner and shards apart."""
        return {
            "lockstep": self.lockstep.get_state(),
            "control": self._control.get_state(),
        }

    def close(self) -> None:
        """Ends the actors, where there are any."""
        if self._config.mode == "lockstep_ray":
            from distdqn.lockstep.remote import end

            end([member for kind in self._made.values() for member in kind])


def _make_objects(
    config: Config, builders: Builders, look: Callable[[], None]
) -> dict[str, list[Any]]:
    del config
    look()
    return {kind: [LocalMember(build()) for build in those] for kind, those in builders.items()}


def _make_actors(
    config: Config, builders: Builders, look: Callable[[], None]
) -> dict[str, list[Any]]:
    """Actors, up and answering; ResourceError where some did not start in time."""
    from distdqn.lockstep.remote import RemoteMember, end
    from distdqn.run.start_up import actor_name, wait_until_ready

    timeouts = {
        "worker": config.workers.env_timeout_s * (vector_steps(config) + 1),  # and the resets
        "evaluator": EVALUATION_TIMEOUT_S,
    }
    options = lockstep_options(config)
    made: dict[str, list[Any]] = {
        kind: [
            RemoteMember(
                build,
                actor_name(kind, index),
                options[kind],
                timeouts.get(kind, _LEARNER_TIMEOUT_S),
                sees_gpu=kind == "learner",
            )
            for index, build in enumerate(those)
        ]
        for kind, those in builders.items()
    }
    everyone = [member for kind in made.values() for member in kind]
    names = {member.actor.__ray_ready__.remote(): member.name for member in everyone}
    try:
        wait_until_ready(names, config, look)
    except BaseException:
        end(everyone)
        raise
    return made


def lockstep_options(config: Config) -> dict[str, dict[str, Any]]:
    """How Ray is to place each kind of a lockstep run's actors."""
    workers, learner = config.workers, config.learner
    return {
        "worker": {
            "num_cpus": workers.num_cpus,
            "resources": dict(workers.resources),
            "scheduling_strategy": "SPREAD",
        },
        "shard": {"num_cpus": 0},
        "learner": {
            "num_cpus": 1,
            "num_gpus": learner.num_gpus,
            "resources": dict(learner.resources),
        },
        "evaluator": {"num_cpus": 0},
    }
