"""Greedy episodes beside the training.

Pulls weights as a worker does and evaluates whenever its period of env steps has
passed; the clock in the snapshot decides, so a slow evaluator skips, never queues.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from distdqn.machine.cpu import give_most_way
from distdqn.telemetry.reports import EvaluationReport
from distdqn.types import WeightSnapshot
from distdqn.weights.server import WeightClient

_PAUSE_S = 0.1


class Evaluator:
    """Evaluates snapshots.

    build: makes, inside this process, the `Greedy` episodes.
    period_env_steps: between evaluations.  episodes: in each.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        control: Any,
        weight_server: Any,
        period_env_steps: int,
        episodes: int,
        seed: int,
    ):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        give_most_way()
        self._greedy = build()
        self._control = control
        self._weights = WeightClient(weight_server)
        self._period_env_steps, self._episodes = period_env_steps, episodes
        self._rng = np.random.default_rng(seed)
        self._best = -np.inf

    def run(self) -> None:
        """Evaluates until the run stops or its collection is over."""
        due = self._period_env_steps
        while ray.get(self._control.evaluator_may_go_on.remote(), timeout=60):
            snapshot = self._weights.poll(timeout_s=_PAUSE_S)
            if snapshot is None or snapshot.env_steps < due:
                time.sleep(_PAUSE_S)  # or every publication would be fetched, mostly in vain
                continue
            due = snapshot.env_steps + self._period_env_steps
            ray.get(self._control.report_evaluation.remote(self._report(snapshot)), timeout=60)

    def evaluate(self, online: np.ndarray, episodes: int, seed: int) -> EvaluationReport:
        """Fresh greedy episodes with given weights."""
        return self._greedy.evaluate(online, episodes, seed)

    def record(self, online: np.ndarray, seed: int) -> bytes:
        """One greedy episode as the bytes of an mp4 file."""
        return self._greedy.record(online, seed)

    def _report(self, snapshot: WeightSnapshot) -> EvaluationReport:
        seed = int(self._rng.integers(2**31))
        report = self._greedy.evaluate(snapshot.online, self._episodes, seed, snapshot.env_steps)
        mean = float(np.mean(report.returns))
        is_best, self._best = mean > self._best, max(self._best, mean)
        kept = np.array(snapshot.online) if is_best else np.zeros(0, np.float32)
        return dataclasses.replace(report, online=kept)
