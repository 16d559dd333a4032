"""The deterministic schedule: one round after another.

    each worker   a fixed number of vector steps with one weights version   -> a block
    the shards    insert the blocks in the order of the workers
    the learner   makes all updates now owed, one superbatch after another
    everybody     goes on with the next weights version

The schedule is written over callables: an `Ask` is a member in this process or an actor, and
since it never asks for the next thing before the last answer counts, both give the same
weights, bit for bit. It is the oracle of the asynchronous mode and the mode for debugging.

A round whose number is a multiple of `checkpoint.period_rounds` is a border: windows are flushed in
it, and before the next round every worker begins anew, its envs and its exploration seeded
by (seed, worker, round). A checkpoint taken there needs no state of any worker.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from distdqn.config import Config
from distdqn.learning.shard_draw import draw_shard
from distdqn.rate_limiter import RateLimiter
from distdqn.telemetry.reports import WorkerReport
from distdqn.types import ShardCounters, WeightsVersion


class Answer(Protocol):
    """Of a member, perhaps still under way; may be handed to another member as it is."""

    def get(self) -> Any: ...


Ask = Callable[..., Answer]
"""`ask(method, *arguments) -> Answer` of one member; answers are welcome as arguments."""


def vector_steps(config: Config) -> int:
    """Of each worker in a round."""
    return config.workers.block_transitions // config.workers.envs_per_worker


class Lockstep:
    """The rounds of one run.

    workers, shards, learner: see `members` for the methods they are asked for.
    limiter: the account of samples and inserts; its band does not matter.
    number: rounds done.  totals: of each worker over the whole run.
    episodes: that ended since the last border.
    snapshot: the newest weights, as an answer.
    """

    def __init__(
        self,
        workers: Sequence[Ask],
        shards: Sequence[Ask],
        learner: Ask,
        limiter: RateLimiter,
        config: Config,
    ):
        self._workers, self._shards, self._learner = workers, shards, learner
        self._limiter, self._config = limiter, config
        self._counters = [ShardCounters(i, 0, 0, 0, 0.0) for i in range(len(shards))]
        self.number = self.episodes = 0
        self.version = WeightsVersion(1, 0)
        self.totals = [WorkerReport(worker=i, incarnation=0) for i in range(len(workers))]
        self._begun_with = list(self.totals)  # at the last border, where workers began anew
        self.snapshot = self._learner("snapshot", self.version, 0)

    @property
    def at_border(self) -> bool:
        """Whether a checkpoint here is complete."""
        return self.rounds_to_border == 0

    @property
    def rounds_to_border(self) -> int:
        return -self.number % self._config.checkpoint.period_rounds

    @property
    def env_steps(self) -> int:
        """Env steps taken that yield a transition."""
        return sum(total.stepped for total in self.totals)

    @property
    def finished(self) -> bool:
        """All env steps are taken; the updates they owe were made in the same round."""
        return self.steps_left <= 0

    @property
    def steps_left(self) -> int:
        return self._config.total_env_steps - self.env_steps

    def advance(self) -> None:
        """Makes the next round."""
        started = time.perf_counter()
        if self.at_border:
            self._begun_with, self.episodes = list(self.totals), 0
            _gather([ask("begin", self.number) for ask in self._workers])
        self.number += 1
        self._collect(vector_steps(self._config), flush=self.at_border)
        if self.finished and not self.at_border:
            self._collect(0, flush=True)
        self._learn()
        self._publish()
        self._note_time(time.perf_counter() - started)

    def break_off(self) -> None:
        """Ends the collection here: closes every window and makes the updates owed."""
        if not self.at_border and not self.finished:
            self._collect(0, flush=True)
            self._learn()
            self._publish()

    def get_state(self) -> dict[str, Any]:
        """The schedule's own state at a border, as plain values."""
        return {
            "round": self.number,
            "version": list(self.version),
            "totals": [dataclasses.asdict(total) for total in self.totals],
            "counters": [dataclasses.asdict(counters) for counters in self._counters],
            **self._limiter.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `get_state()`; the members must have been given theirs before."""
        self.number = state["round"]
        self.version = WeightsVersion(*state["version"])
        self.totals = [
            WorkerReport(**total | {"episodes": tuple(map(tuple, total["episodes"])), "note": ""})
            for total in state["totals"]
        ]
        self._counters = [ShardCounters(**counters) for counters in state["counters"]]
        self._limiter.set_state(state)
        self.snapshot = self._learner("snapshot", self.version, self._limiter.inserts)

    def _collect(self, num_vector_steps: int, flush: bool) -> None:
        allowances = self._allowances(num_vector_steps)
        answers = [
            ask("collect", self.snapshot, num_vector_steps, allowance, flush)
            for ask, allowance in zip(self._workers, allowances, strict=True)
        ]
        inserted = []
        for worker, answer in enumerate(answers):
            block, report = answer.get()
            self._note(worker, report)
            if block is not None:
                shard = self._shards[(worker + self.number) % len(self._shards)]
                inserted.append(shard("add", block, self.version))
        for counters in _gather(inserted):
            self._counters[counters.shard] = counters
        self._limiter.observe_inserts(sum(counters.inserts for counters in self._counters))

    def _allowances(self, num_vector_steps: int) -> list[int]:
        """Env steps that each worker may take; the last ones go to the first workers."""
        most, left = num_vector_steps * self._config.workers.envs_per_worker, self.steps_left
        return [min(max(left - i * most, 0), most) for i in range(len(self._workers))]

    def _note(self, worker: int, report: WorkerReport) -> None:
        """report: of what the worker has done since the last border."""
        before, known = self._begun_with[worker], self.totals[worker]
        self.episodes += len(report.episodes)
        self.totals[worker] = dataclasses.replace(
            known,
            stepped=before.stepped + report.stepped,
            collected=before.collected + report.collected,
            accepted=before.accepted + report.collected - report.refused,
            refused=before.refused + report.refused,
            refused_by=_sum(before.refused_by, report.refused_by),
            note=known.note or report.note,
            episodes=known.episodes + report.episodes,
            env_s=before.env_s + report.env_s,
            inference_s=before.inference_s + report.inference_s,
            epsilon=report.epsilon,
            reward_abs_max=max(before.reward_abs_max, report.reward_abs_max),
            pid=report.pid,
        )

    def _note_time(self, seconds: float) -> None:
        """Of a round; a worker waits while it does not act."""
        for worker, total in enumerate(self.totals):
            elapsed_s = total.elapsed_s + seconds
            wait_s = max(elapsed_s - total.env_s - total.inference_s, 0.0)
            self.totals[worker] = dataclasses.replace(total, elapsed_s=elapsed_s, wait_s=wait_s)

    def _learn(self) -> None:
        limiter, size = self._limiter, self._config.learner.batch_size
        owed = limiter.samples_owed(limiter.inserts) if limiter.latched else 0
        while limiter.samples < owed:
            num_batches = min(self._config.learner.superbatch, (owed - limiter.samples) // size)
            # Each draw has a generator of its own, so that there is no state to save.
            rng = np.random.Generator(np.random.PCG64([self._config.seed, 1, limiter.samples]))
            drawn = draw_shard(self._counters, rng)
            assert drawn is not None, "samples are owed, but every shard is empty"
            shard, probability, num_items = drawn
            ask = self._shards[shard]
            batch = ask("sample", num_batches, size)
            update = self._learner("update", batch, probability, num_items, limiter.inserts)
            priorities = update.get()  # nothing piles up, and a dead learner is named
            if self._config.replay.kind == "prioritized":
                self._counters[shard] = ask("update_priorities", priorities).get()
            else:
                self._counters[shard] = ask("counters").get()
            limiter.commit_samples(num_batches * size)

    def _publish(self) -> None:
        self.version = WeightsVersion(self.version.incarnation, self.version.counter + 1)
        self.snapshot = self._learner("snapshot", self.version, self._limiter.inserts)


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """Of the counts by cause."""
    return dict(collections.Counter(first) + collections.Counter(second))


def _gather(answers: Sequence[Answer]) -> list[Any]:
    return [answer.get() for answer in answers]
