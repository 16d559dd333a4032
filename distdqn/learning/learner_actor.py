"""The learner behind Ray: one training thread, two helpers.

The training thread takes superbatches from the prefetcher, makes the updates and
leaves priorities, weights and snapshots with the helpers; it waits only for data,
and that time is counted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from distdqn.learning.learner import Learner
from distdqn.learning.prefetch import Prefetcher, Superbatch
from distdqn.learning.publish import Publisher
from distdqn.learning.training import learner_report
from distdqn.rate_limiter import RateLimiter
from distdqn.telemetry.histograms import LogHistogram
from distdqn.telemetry.meter import Meter
from distdqn.telemetry.rates import Sparingly
from distdqn.telemetry.reports import LearnerReport
from distdqn.types import LearnerDirective, ShardMap, WeightSnapshot, WeightsVersion

_WAIT_S = 0.05


@dataclasses.dataclass(frozen=True)
class LearnerParts:
    """What `build` makes inside the learner's process.

    compile: starts compiling the update for batches with or without action masks; polled
      for the result (None: stay eager).
    learning_rate, importance_sampling_exponent: by env steps.
    """

    learner: Learner
    limiter: RateLimiter
    prefetcher: Prefetcher
    compile: Callable[[Learner, bool], Any] | None
    learning_rate: Callable[[int], float]
    importance_sampling_exponent: Callable[[int], float]


class LearnerActor:
    """Trains until the owed updates are made.

    incarnation: 1 plus the learners that died before; orders weights versions.
    publish_period: gradient steps between publications (at superbatch borders).
    prioritized: whether priorities go back, and target copies go to the workers.
    snapshot_period_s: how often the whole state is kept for a successor.
    """

    def __init__(
        self,
        build: Callable[[], LearnerParts],
        incarnation: int,
        control: Any,
        weight_server: Any,
        publish_period: int,
        prioritized: bool,
        snapshot_period_s: float,
        report_period_s: float,
    ):
        self._parts = build()
        self._learner = self._parts.learner
        self._prefetcher = self._parts.prefetcher
        self._td_errors = Sparingly(lambda: LogHistogram(self._learner.recent_abs_td_errors()))
        self._compiling: Any = None
        self._note = ""
        self._publisher = Publisher(
            weight_server,
            control,
            self._report,
            lambda: self._shards.generation,
            report_period_s,
        )
        self._shards = ShardMap()
        self._version = WeightsVersion(incarnation, 0)
        self._publish_period, self._prioritized = publish_period, prioritized
        self._snapshot_period_s = snapshot_period_s
        self._published_target = -1
        self._next_publish = self._next_snapshot = 0.0
        self._learning_rate = 0.0
        self._first_batch: tuple[float, float] | None = None  # when, after how long a wait
        self._stopping = self._expects_mask = False

    def run(
        self,
        shards: ShardMap,
        state: dict[str, Any] | None,
        initial: dict[str, np.ndarray] | None,
    ) -> None:
        """Trains until done or told to stop.

        state: of a predecessor, to go on from.  initial: parameters by name.
        """
        self._meter = Meter()
        if initial is not None:
            self._learner.set_parameters(initial)
        if state is not None:
            self._restore(state)
        self._shards = shards
        self._prefetcher.set_shards(shards)
        self._publish()
        self._publisher.start()
        self._prefetcher.start()
        self._compile(with_action_mask=False)
        try:
            while not self._stopping and not self._prefetcher.exhausted:
                self._obey(self._publisher.take_directive())
                self._train(self._next())
        finally:
            self._prefetcher.stop()
            self._stop_compiling()
        self._publish()
        self._publisher.keep(self._state())
        self._td_errors.expire()
        self._publisher.stop()

    def _next(self) -> Superbatch | None:
        superbatch = self._prefetcher.get(timeout_s=0)
        if superbatch is None:
            with self._meter.waiting():
                superbatch = self._prefetcher.get(_WAIT_S)
        if self._first_batch is None and superbatch is not None:
            self._first_batch = (time.monotonic(), self._meter.wait_s)
        return superbatch

    def _train(self, superbatch: Superbatch | None) -> None:
        self._swap_when_compiled()
        if superbatch is None:
            return
        has_mask = superbatch.batch.action_mask_t is not None
        if has_mask and not self._expects_mask:  # only the first batch tells
            self._compile(with_action_mask=True)
        env_steps = self._prefetcher.env_steps
        self._learning_rate = self._parts.learning_rate(env_steps)
        first = not self._learner.gradient_steps
        update = self._learner.learn(
            superbatch.batch,
            superbatch.shard_probability,
            superbatch.num_items,
            self._parts.importance_sampling_exponent(env_steps),
            self._learning_rate,
        )
        if first:  # on a GPU: why there is no CUDA graph, if so
            self._note = self._learner.swap_refused
        self._note = self._learner.take_warning() or self._note
        if self._prioritized:
            self._prefetcher.send_priorities(superbatch.shard, update)
        if self._learner.gradient_steps >= self._next_publish:
            self._publish()
        if time.monotonic() >= self._next_snapshot:
            self._next_snapshot = time.monotonic() + self._snapshot_period_s
            self._publisher.keep(self._state())

    def _publish(self) -> None:
        learner = self._learner
        self._version = WeightsVersion(self._version.incarnation, self._version.counter + 1)
        self._next_publish = learner.gradient_steps + self._publish_period
        target = None  # without one, workers bootstrap from the online network
        uses_target = self._prioritized and learner.settings.gradient == "semi"
        if uses_target and learner.target_copies != self._published_target:
            self._published_target = learner.target_copies
            target = learner.target_vector()
        self._publisher.publish(
            WeightSnapshot(
                version=self._version,
                target_version=WeightsVersion(self._version.incarnation, learner.target_copies),
                env_steps=self._prefetcher.env_steps,
                online=learner.online_vector(),
                target=target,
            )
        )
        self._prefetcher.set_newest(self._version)

    def _compile(self, with_action_mask: bool) -> None:
        self._stop_compiling()
        self._expects_mask = with_action_mask
        if self._parts.compile is not None:
            self._compiling = self._parts.compile(self._learner, with_action_mask)

    def _stop_compiling(self) -> None:
        if self._compiling is not None:
            self._compiling.cancel()
            self._compiling = None

    def _swap_when_compiled(self) -> None:
        if self._compiling is None or self._compiling.state == "compiling":
            return
        compiled, self._note = self._compiling.poll(), self._compiling.reason
        self._compiling = None
        if compiled is not None and not self._learner.swap(compiled):
            self._note = self._learner.swap_refused

    def _obey(self, directive: LearnerDirective | None) -> None:
        if directive is None:
            return
        if directive.shards is not None:
            self._shards = directive.shards
            self._prefetcher.set_shards(directive.shards)
        if directive.collection_finished:
            self._prefetcher.finish_collection()
        self._stopping = directive.stop

    def _state(self) -> dict[str, Any]:
        """Everything a successor or a checkpoint needs, as numpy arrays and numbers."""
        learner = self._learner
        return {
            "learner": learner.get_state(),
            "layout": learner.layout,
            # Those of the updates made: batches still queued here die with this process.
            "samples": learner.gradient_steps * learner.settings.batch_size,
            "inserts": self._parts.limiter.inserts,
            "gone_inserts": self._prefetcher.gone_inserts,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._learner.set_state(state["learner"])
        self._parts.limiter.set_state({key: state[key] for key in ("samples", "inserts")})
        self._prefetcher.gone_inserts = state["gone_inserts"]

    def _report(self) -> LearnerReport:
        now = time.monotonic()
        since, waited_s = self._first_batch or (now, self._meter.wait_s)
        note, self._note = self._note, ""
        return learner_report(
            self._learner,
            samples_per_insert=self._prefetcher.samples_per_insert,
            version=self._version,
            td_errors=self._td_errors(),
            learning_rate=self._learning_rate,
            wait_s=self._meter.wait_s - waited_s,
            elapsed_s=now - since,
            spent=self._meter.spent(),
            compiling=self._compiling is not None,
            note=note,
        )
