"""Worker, shard and learner as the lockstep schedule asks for them.

Each does what it is told and returns; none waits and none knows where it runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.lockstep.schedule import Collected
from distdqn.replay.shard_account import diagnose
from distdqn.telemetry.histograms import CountHistogram, LogHistogram
from distdqn.telemetry.rates import Sparingly
from distdqn.telemetry.reports import (
    EvaluationReport,
    LearnerReport,
    ShardReport,
)
from distdqn.types import (
    PriorityUpdate,
    ReplayBatch,
    ShardCounters,
    TransitionBlock,
    WeightSnapshot,
    WeightsVersion,
)

if TYPE_CHECKING:  # a shard needs no torch, a worker no numba
    from distdqn.acting.rollout import Rollout
    from distdqn.evaluation.greedy import Greedy
    from distdqn.learning.learner import Learner
    from distdqn.replay.replay import Replay
    from distdqn.weights.flat_parameters import Layout


class LockstepWorker:
    """A `Rollout` that begins anew at every border.

    make_stepper: makes the envs, once.
    build: (round, stepper) -> a rollout whose incarnation is that round.
    first_env: number of its first env over all workers.
    """

    def __init__(
        self,
        make_stepper: Callable[[], Any],
        build: Callable[[int, Any], Rollout],
        first_env: int,
    ):
        self._build, self._first_env = build, first_env
        self._stepper = make_stepper()
        self._rollout: Rollout | None = None

    def begin(self, number: int) -> None:
        """Resets envs and exploration with a seed from (seed, worker, `number`).

        That a NaN came shortly before is forgotten: the next one is refused, too, and is
        no failure yet.
        """
        self._rollout = self._build(number, self._stepper)

    def collect(
        self, snapshot: WeightSnapshot, vector_steps: int, allowance: int, flush: bool
    ) -> Collected:
        """Acts with `snapshot`; see `Rollout.collect_round`."""
        rollout = self._rollout
        assert rollout is not None, "collect needs a begin before it"
        before = rollout.stepped, rollout.collected, rollout.refused
        seconds = rollout.env_s, rollout.inference_s
        rollout.set_weights(snapshot)
        block = rollout.collect_round(vector_steps, allowance, flush)
        return Collected(
            block=block,
            stepped=rollout.stepped - before[0],
            collected=rollout.collected - before[1],
            refused=rollout.refused - before[2],
            episodes=tuple(
                (self._first_env + e.env, e.episode_return, e.length)
                for e in rollout.drain_episodes()
            ),
            env_s=rollout.env_s - seconds[0],
            inference_s=rollout.inference_s - seconds[1],
            epsilon=rollout.epsilon_mean,
            reward_abs_max=rollout.reward_abs_max,
            pid=os.getpid(),
        )


class LockstepShard:
    """A `Replay` that answers with its counters."""

    def __init__(self, build: Callable[[], Replay], shard: int):
        self._replay, self._shard = build(), shard
        self._staleness = CountHistogram()
        self._diagnose = Sparingly(diagnose)
        self._busy_s = 0.0

    def add(self, block: TransitionBlock, newest: WeightsVersion) -> ShardCounters:
        """Stores a block; newest: of the weights when it comes."""
        started = time.perf_counter()
        self._replay.add(block)
        self._busy_s += time.perf_counter() - started
        self._staleness.observe(newest.counter - block.weights_version.counter, len(block.a_tm1))
        return self.counters()

    def sample(self, num_batches: int, batch_size: int) -> ReplayBatch:
        started = time.perf_counter()
        batch = self._replay.sample(num_batches, batch_size)
        self._busy_s += time.perf_counter() - started
        return batch

    def update_priorities(self, update: PriorityUpdate) -> ShardCounters:
        started = time.perf_counter()
        self._replay.update_priorities(update)
        self._busy_s += time.perf_counter() - started
        return self.counters()

    def counters(self) -> ShardCounters:
        replay = self._replay
        return ShardCounters(self._shard, replay.epoch, replay.inserts, replay.size, replay.mass)

    def report(self, newest: WeightsVersion, is_last: bool) -> ShardReport:
        """newest: weights.  is_last: nothing may be older than this call."""
        replay = self._replay
        if is_last:
            self._diagnose.expire()
        return ShardReport(
            counters=self.counters(),
            priority_max=replay.priority_max,
            dropped_updates=replay.dropped_updates,
            refused_priorities=replay.refused_priorities,
            streams={},
            staleness_counts=self._staleness.counts.copy(),
            busy_s=self._busy_s,
            pid=os.getpid(),
            diagnostics=self._diagnose(replay, newest),
        )

    def visits(self) -> np.ndarray | None:
        """See `Replay.visits`."""
        return self._replay.visits

    def get_state(self, first_item: int, first_frame: int) -> dict[str, Any]:
        """Of the replay, see `Replay.get_state`, with this shard's own counts."""
        own = {"staleness": self._staleness.counts, "busy_s": self._busy_s}
        return {**self._replay.get_state(first_item, first_frame), **own}

    def set_state(self, state: dict[str, Any]) -> None:
        self._replay.set_state(state)
        self._staleness = CountHistogram(counts=np.array(state["staleness"]))
        self._busy_s = state["busy_s"]


class LockstepLearner:
    """A `Learner` with its schedules.

    learning_rate, importance_sampling_exponent: by env steps.
    with_target: whether snapshots carry the target parameters.
    """

    def __init__(
        self,
        build: Callable[[], Learner],
        learning_rate: Callable[[int], float],
        importance_sampling_exponent: Callable[[int], float],
        with_target: bool,
    ):
        self._learner = build()
        self._learning_rate = learning_rate
        self._exponent = importance_sampling_exponent
        self._with_target = with_target
        self._busy_s = 0.0
        self._rate = float("nan")
        self._td_errors = Sparingly(lambda: LogHistogram(self._learner.recent_abs_td_errors()))

    def update(
        self, batch: ReplayBatch, shard_probability: float, num_items: int, env_steps: int
    ) -> PriorityUpdate:
        """All updates of a superbatch; see `Learner.learn`."""
        started = time.perf_counter()
        self._rate = self._learning_rate(env_steps)
        update = self._learner.learn(
            batch, shard_probability, num_items, self._exponent(env_steps), self._rate
        )
        self._busy_s += time.perf_counter() - started
        return update

    def snapshot(self, version: WeightsVersion, env_steps: int) -> WeightSnapshot:
        """The weights as they are, copied, under a version."""
        learner = self._learner
        return WeightSnapshot(
            version=version,
            target_version=WeightsVersion(version.incarnation, learner.target_copies),
            env_steps=env_steps,
            online=learner.online_vector(),
            target=learner.target_vector() if self._with_target else None,
        )

    def report(
        self, version: WeightsVersion, samples_per_insert: float, elapsed_s: float, is_last: bool
    ) -> LearnerReport:
        """elapsed_s: of all rounds; what of it was no update counts as waiting.

        is_last: nothing may be older than this call.
        """
        from distdqn.learning.training import learner_report

        if is_last:
            self._td_errors.expire()
        return learner_report(
            self._learner,
            version=version,
            samples_per_insert=samples_per_insert,
            td_errors=self._td_errors(),
            learning_rate=self._rate,
            note=self._learner.take_warning(),
            wait_s=max(elapsed_s - self._busy_s, 0.0),
            elapsed_s=elapsed_s,
        )

    def online(self) -> np.ndarray:
        """A copy of the online parameters `[P]`."""
        return self._learner.online_vector()

    def layout(self) -> Layout:
        return self._learner.layout

    def set_parameters(self, arrays: dict[str, np.ndarray]) -> None:
        self._learner.set_parameters(arrays)

    def get_state(self) -> dict[str, Any]:
        """See `Learner.get_state`."""
        return self._learner.get_state()

    def busy_s(self) -> float:
        """Seconds spent in updates."""
        return self._busy_s

    def set_state(self, state: dict[str, Any], busy_s: float) -> None:
        self._learner.set_state(state)
        self._busy_s = busy_s


class LockstepEvaluator:
    """Greedy episodes with given weights."""

    def __init__(self, build: Callable[[], Greedy]):
        self._greedy = build()

    def evaluate(self, online: np.ndarray, episodes: int, seed: int) -> EvaluationReport:
        return self._greedy.report(online, episodes, seed)

    def record(self, online: np.ndarray, seed: int) -> bytes:
        """One greedy episode as the bytes of an mp4 file."""
        return self._greedy.record(online, seed)
