"""The members of a lockstep run, in this process or as actors.

The same classes either way; `config.mode` alone decides who is asked. What they tell goes
through the same account as in an asynchronous run.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from distdqn.control.control import Control
from distdqn.lockstep.members import LockstepWorker, local_member
from distdqn.lockstep.schedule import Lockstep
from distdqn.run.factory import Factory
from distdqn.telemetry.reports import EvaluationReport, LearnerReport, Poll
from distdqn.telemetry.usage import Spent, Usage


class LockstepSystem:
    """Workers, shards, learner and evaluator of one run, and their schedule.

    lockstep: the schedule.  learner, shards: asked for their states by who saves them.
    """

    def __init__(
        self,
        factory: Factory,
        look: Callable[[], None] = lambda: None,
        at_once: int | None = None,
    ):
        """Makes the members; look, at_once: see `make_actors`."""
        self._config, self._limiter = factory.config, factory.limiter()
        self._control = Control(**factory.control_arguments(min_grant=1, report_period_s=1.0))
        look()
        builders = _builders(factory)
        self._made: dict[str, list[Any]]
        if self._config.mode == "lockstep_ray":
            from distdqn.lockstep.remote import make_actors

            self._made = make_actors(builders, self._config, look, at_once)
        else:
            self._made = {k: [local_member(build()) for build in b] for k, b in builders.items()}
            for worker in self._made["worker"]:
                worker("make_envs")
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

        is_last: of the training; figures that may be a second old are computed anew.
        """
        lockstep, control = self.lockstep, self._control
        for shard in self.shards:
            control.report_shard(shard("report", lockstep.version, is_last).get())
        ratio, elapsed_s = self._limiter.achieved_samples_per_insert, lockstep.totals[0].elapsed_s
        report = self.learner("report", lockstep.version, ratio, elapsed_s, is_last).get()
        control.report_learner(report, 0)
        poll = control.poll()
        return dataclasses.replace(poll, usage=self._usage(poll.usage, report))

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
        online = self.learner("online")
        report = self._evaluator("evaluate", online, episodes, seed, self.lockstep.env_steps)
        self._control.report_evaluation(report.get())

    def evaluate(self, online: np.ndarray, episodes: int, seed: int) -> EvaluationReport:
        """Greedy episodes with `online [P]`."""
        return self._evaluator("evaluate", online, episodes, seed).get()

    def record(self, online: np.ndarray, seed: int) -> bytes:
        """One greedy episode with `online [P]` as an mp4 file's bytes."""
        return self._evaluator("record", online, seed).get()

    def visits(self) -> list[np.ndarray | None]:
        """See `Replay.visits`, of each shard."""
        return [shard("visits").get() for shard in self.shards]

    def learner_state(self) -> dict[str, Any]:
        """What a checkpoint of any mode holds."""
        return self.learner("get_state").get() | self._limiter.get_state()

    def get_state(self) -> dict[str, Any]:
        """The schedule's and the account's state at a border; learner and shards apart."""
        return {"lockstep": self.lockstep.get_state(), "control": self._control.get_state()}

    def close(self) -> None:
        """Ends the actors, where there are any."""
        if self._config.mode == "lockstep_ray":
            from distdqn.lockstep.remote import end

            end([member for kind in self._made.values() for member in kind])


def _builders(factory: Factory) -> dict[str, list[Callable[[], Any]]]:
    """What makes the members, by kind."""
    workers, shards = factory.config.workers, factory.config.replay.shards
    make_stepper = partial(factory.stepper, workers.envs_per_worker)
    return {
        "worker": [
            partial(LockstepWorker, make_stepper, partial(factory.rollout, index))
            for index in range(workers.count)
        ],
        "shard": [partial(factory.shard, index, 0) for index in range(shards)],
        "learner": [factory.training],
        "evaluator": [factory.evaluator],
    }
