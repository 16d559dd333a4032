"""Counters, rates and quantiles, one name each.

`RunStatus` is the one picture of a run that the display, TensorBoard,
`metrics.jsonl`, `status` and the summary all draw from; `SCALARS` maps it to the
names under which TensorBoard users look for them.
"""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Where every transition went; `collected` is the sum of the other four."""

    collected: int = 0
    accepted: int = 0
    refused: int = 0
    in_flight: int = 0
    lost: int = 0

    def check_valid(self) -> tuple[bool, str]:
        parts = self.accepted + self.refused + self.in_flight + self.lost
        return parts == self.collected, f"collected {self.collected}, parts sum to {parts}"


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """A run at one moment. Rates are per second over the last seconds; nan before any.

    env_steps counts agent steps that yield a transition, gradient_steps updates.
    staleness: weight versions between the newest and the one that acted.
    """

    state: str = "starting"
    elapsed_s: float = 0.0
    env_steps: int = 0
    total_env_steps: int = 0
    gradient_steps: int = 0
    samples_per_insert: float = math.nan
    env_steps_per_s: float = math.nan
    gradient_steps_per_s: float = math.nan
    workers_target: int = 0
    workers_alive: int = 0
    worker_restarts: int = 0
    shards_target: int = 0
    shards_alive: int = 0
    shard_restarts: int = 0
    learner_restarts: int = 0
    shard_items: tuple[int, ...] = ()
    items_lost: int = 0
    replay_size: int = 0
    priority_max: float = math.nan
    learner_version: tuple[int, ...] = (0, 0)
    learner_wait_fraction: float = math.nan
    worker_wait_fraction: float = math.nan
    staleness_p50: float = math.nan
    staleness_p95: float = math.nan
    transitions: Ledger = Ledger()
    train_return_mean: float = math.nan
    eval_return_mean: float = math.nan
    best_eval_return_mean: float = math.nan
    td_loss: float = math.nan
    q_values: float = math.nan
    grad_norm: float = math.nan
    epsilon: float = math.nan
    learning_rate: float = math.nan
    compiled: bool = False

    @property
    def eta_s(self) -> float:
        """Seconds until `total_env_steps` at the present rate; nan where unknown."""
        if not self.env_steps_per_s > 0:
            return math.nan
        return (self.total_env_steps - self.env_steps) / self.env_steps_per_s


SCALARS = {
    "charts/env_steps_per_s": "env_steps_per_s",
    "charts/gradient_steps_per_s": "gradient_steps_per_s",
    "charts/samples_per_insert": "samples_per_insert",
    "charts/staleness": "staleness_p50",
    "charts/epsilon": "epsilon",
    "charts/learning_rate": "learning_rate",
    "charts/learner_wait_fraction": "learner_wait_fraction",
    "charts/worker_wait_fraction": "worker_wait_fraction",
    "losses/td_loss": "td_loss",
    "losses/q_values": "q_values",
    "losses/grad_norm": "grad_norm",
    "replay/size": "replay_size",
    "replay/priority_max": "priority_max",
    "workers/count": "workers_alive",
}
"""TensorBoard tag to `RunStatus` field. The two return charts are written per episode."""


def scalars(status: RunStatus) -> dict[str, float]:
    """The finite scalars of `status` by TensorBoard tag."""
    values = {tag: float(getattr(status, field)) for tag, field in SCALARS.items()}
    return {tag: value for tag, value in values.items() if math.isfinite(value)}


class RateMeter:
    """Events per second over a sliding window of observations `(time, total)`."""

    def __init__(self, window_s: float = 5.0):
        self._window_s = window_s
        self._seen: collections.deque[tuple[float, float]] = collections.deque()

    def observe(self, now: float, total: float) -> None:
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[1][0] >= self._window_s:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        if len(self._seen) < 2:
            return math.nan
        (t0, first), (t1, last) = self._seen[0], self._seen[-1]
        return (last - first) / (t1 - t0) if t1 > t0 else math.nan


class CountHistogram:
    """Counts of small non-negative integers, the last bin open.

    Bounded whatever is observed; `quantile` is exact below `num_bins - 1`.
    """

    def __init__(self, num_bins: int = 1024, counts: np.ndarray | None = None):
        self.counts = np.zeros(num_bins, np.int64) if counts is None else counts

    def observe(self, value: int, weight: int = 1) -> None:
        self.counts[min(max(value, 0), len(self.counts) - 1)] += weight

    def merged(self, other: np.ndarray) -> CountHistogram:
        return CountHistogram(counts=self.counts + other)

    def quantile(self, q: float) -> float:
        """Smallest value with at least the share `q` of the counts at or below it."""
        total = self.counts.sum()
        if not total:
            return math.nan
        return float(np.searchsorted(np.cumsum(self.counts), q * total))
