"""The learner behind Ray: one training thread, two helpers.

The training thread takes superbatches from the prefetcher, makes the updates and leaves priorities,
weights and snapshots with the helpers; it waits only for data, and that time is counted.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from distdqn.learning.prefetch import Prefetcher, Superbatch
from distdqn.learning.publish import Publisher
from distdqn.telemetry.reports import LearnerReport
from distdqn.telemetry.usage import Meter
from distdqn.types import LearnerDirective, ShardMap, WeightsVersion

_WAIT_S = 0.05


class LearnerActor:
    """Trains until the owed updates are made.

    It publishes after every `publish_period` gradient steps, at the next superbatch border, and
    keeps its whole state for a successor every `snapshot_period_s`.

    build: makes, inside this process, the `Training` (the driver, which places the learner, loads
      no torch), where its batches come from, and what starts compiling the update: (learner,
      whether batches have action masks) -> polled for the result, or None to stay eager.
    incarnation: 1 plus the learners that died before; orders weights versions.
    prioritized: whether priorities go back.
    """

    def __init__(
        self,
        build: Callable[[], tuple[Any, Prefetcher, Callable[[Any, bool], Any]]],
        incarnation: int,
        control: Any,
        weight_server: Any,
        prioritized: bool,
        report_period_s: float,
    ):
        self._training, self._prefetcher, self._start_compiling = build()
        self._learner, self._settings = self._training.learner, self._training.learner.settings
        self._compiling: Any = None
        self._publisher = Publisher(weight_server, control, self._report, report_period_s)
        self._version = WeightsVersion(incarnation, 0)
        self._prioritized = prioritized
        self._published_target = -1
        self._next_publish = self._next_snapshot = 0.0
        self._first_batch: tuple[float, float] | None = None  # when, after how long a wait
        self._stopping = self._expects_mask = self._ended = False

    def run(
        self, shards: ShardMap, state: dict[str, Any] | None, initial: dict[str, np.ndarray] | None
    ) -> None:
        """Trains until done or told to stop.

        state: of a predecessor, to go on from.  initial: parameters by name.
        """
        self._meter = Meter()
        if initial is not None:
            self._training.set_parameters(initial)
        if state is not None:
            self._training.set_state(state["learner"])
            self._prefetcher.set_state(state)
        self._prefetcher.shards = shards
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
        self._ended = True
        self._publisher.stop()

    def last_state(self) -> dict[str, Any] | None:
        """After `run` has ended in whatever way, what it ended with; None where it never began."""
        return self._state() if self._version.counter else None

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
        first = not self._learner.gradient_steps
        update = self._training.update(
            superbatch.batch,
            superbatch.shard_probability,
            superbatch.num_items,
            self._prefetcher.limiter.inserts,
        )
        if first:  # on a GPU: why there is no CUDA graph, if so
            self._warn(self._learner.swap_refused)
        if self._prioritized:
            self._prefetcher.send_priorities(superbatch.shard, update)
        if self._learner.gradient_steps >= self._next_publish:
            self._publish()
        if time.monotonic() >= self._next_snapshot:
            self._next_snapshot = time.monotonic() + self._settings.snapshot_period_s
            self._publisher.keep(self._state())

    def _publish(self) -> None:
        self._version = WeightsVersion(self._version.incarnation, self._version.counter + 1)
        self._next_publish = self._learner.gradient_steps + self._settings.publish_period
        snapshot = self._training.snapshot(
            self._version, self._prefetcher.limiter.inserts, self._published_target
        )
        self._published_target = snapshot.target_version.counter
        self._publisher.publish(snapshot)
        self._prefetcher.newest = self._version

    def _compile(self, with_action_mask: bool) -> None:
        self._stop_compiling()
        self._expects_mask = with_action_mask
        self._compiling = self._start_compiling(self._learner, with_action_mask)

    def _stop_compiling(self) -> None:
        if self._compiling is not None:
            self._compiling.cancel()
            self._compiling = None

    def _swap_when_compiled(self) -> None:
        if self._compiling is None or self._compiling.state == "compiling":
            return
        compiled, reason = self._compiling.poll(), self._compiling.reason
        self._compiling = None
        if compiled is not None and not self._learner.swap(compiled):
            reason = self._learner.swap_refused
        self._warn(reason)

    def _warn(self, line: str) -> None:
        if line:
            self._learner.diagnostics.warn(line)

    def _obey(self, directive: LearnerDirective | None) -> None:
        if directive is None:
            return
        if directive.shards is not None:
            self._prefetcher.shards = directive.shards
        if directive.collection_finished:
            self._prefetcher.collection_finished = True
        self._stopping = directive.stop

    def _state(self) -> dict[str, Any]:
        """Everything a successor or a checkpoint needs, as numpy arrays and numbers."""
        # Samples of the updates made: batches still queued here die with this process.
        samples = self._learner.gradient_steps * self._settings.batch_size
        account = self._prefetcher.get_state()
        return {**self._training.get_state(), **account, "samples": samples}

    def _report(self) -> tuple[LearnerReport, int]:
        now = time.monotonic()
        since, waited_s = self._first_batch or (now, self._meter.wait_s)
        report = self._training.report(
            self._version,
            self._prefetcher.limiter.achieved_samples_per_insert,
            now - since,
            is_last=self._ended,
            wait_s=self._meter.wait_s - waited_s,
            spent=self._meter.spent(),
            compiling=self._compiling is not None,
        )
        return report, self._prefetcher.shards.generation
