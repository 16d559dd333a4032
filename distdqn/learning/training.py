"""A learner with its schedules: the training of both modes."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distdqn.learning.learner import Learner
from distdqn.telemetry.histograms import LogHistogram
from distdqn.telemetry.rates import Sparingly
from distdqn.telemetry.reports import LearnerReport
from distdqn.types import PriorityUpdate, ReplayBatch, WeightSnapshot, WeightsVersion


class Training:
    """A `Learner` that knows what to learn with, and tells of itself.

    A lockstep run asks it as it is; `LearnerActor` puts prefetching and Ray around it.

    learner: what makes the updates.
    learning_rate, importance_sampling_exponent: by env steps.
    with_target: whether snapshots carry the target parameters.
    """

    def __init__(
        self,
        learner: Learner,
        learning_rate: Callable[[int], float],
        importance_sampling_exponent: Callable[[int], float],
        with_target: bool,
    ):
        self.learner = learner
        self._learning_rate = learning_rate
        self._exponent = importance_sampling_exponent
        self._with_target = with_target
        self._rate = float("nan")
        self._busy_s = 0.0
        self._td_errors = Sparingly(
            lambda: LogHistogram(learner.diagnostics.recent_abs_td_errors())
        )

    def update(
        self, batch: ReplayBatch, shard_probability: float, num_items: int, env_steps: int
    ) -> PriorityUpdate:
        """All updates of a superbatch; see `Learner.learn`."""
        started = time.perf_counter()
        self._rate = self._learning_rate(env_steps)
        update = self.learner.learn(
            batch, shard_probability, num_items, self._exponent(env_steps), self._rate
        )
        self._busy_s += time.perf_counter() - started
        return update

    def snapshot(
        self, version: WeightsVersion, env_steps: int, known_target: int = -1
    ) -> WeightSnapshot:
        """The weights as they are, copied, under a version.

        known_target: the `target_copies` whose parameters the receivers have already.
        """
        learner = self.learner
        has_target = self._with_target and learner.target_copies != known_target
        return WeightSnapshot(
            version=version,
            target_version=WeightsVersion(version.incarnation, learner.target_copies),
            env_steps=env_steps,
            online=learner.online_vector(),
            target=learner.target_vector() if has_target else None,
        )

    def report(
        self,
        version: WeightsVersion,
        samples_per_insert: float,
        elapsed_s: float,
        is_last: bool = False,
        **others: Any,
    ) -> LearnerReport:
        """elapsed_s: since sampling began; what of it was no update counts as waiting.

        is_last: nothing may be older than this call.  others: fields that are known better.
        """
        if is_last:
            self._td_errors.expire()
        return learner_report(
            self.learner,
            version=version,
            samples_per_insert=samples_per_insert,
            td_errors=self._td_errors(),
            learning_rate=self._rate,
            note=self.learner.diagnostics.take_warning(),
            elapsed_s=elapsed_s,
            **{"wait_s": max(elapsed_s - self._busy_s, 0.0)} | others,
        )

    def online(self) -> np.ndarray:
        """A copy of the online parameters `[P]`."""
        return self.learner.online_vector()

    def set_parameters(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Starts from parameters by name."""
        self.learner.set_parameters(arrays)

    def get_state(self) -> dict[str, Any]:
        """What a successor or a checkpoint needs, as numpy arrays and numbers.

        "learner", see `Learner.get_state`; "layout" of its vectors; "busy_s" of its updates.
        """
        learner = self.learner
        return {"learner": learner.get_state(), "layout": learner.layout, "busy_s": self._busy_s}

    def set_state(self, learner: Mapping[str, Any], busy_s: float = 0.0) -> None:
        """Goes on from the "learner" and the "busy_s" of a `get_state()`."""
        self.learner.set_state(learner)
        self._busy_s = busy_s


def learner_report(learner: Learner, **others: Any) -> LearnerReport:
    """Of a learner in this process; others: the fields that it does not know."""
    figures: dict[str, Any] = learner.diagnostics.scalars() | others
    return LearnerReport(
        gradient_steps=learner.gradient_steps,
        q_abs_max=learner.diagnostics.q_abs_max,
        compiled=learner.compiled,
        device=learner.device.type,
        pid=os.getpid(),
        **figures,
    )
