"""Counters, rates and quantiles, one name each.

`RunStatus` is the one picture of a run that the display, TensorBoard,
`metrics.jsonl`, `status` and the summary all draw from; `SCALARS` maps it to the
names under which TensorBoard users look for them.
"""

from __future__ import annotations

import dataclasses
import math

from distdqn.telemetry.ledger import Ledger


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """A run at one moment. Rates are per second over the last seconds; nan before any.

    env_steps counts agent steps that yield a transition, gradient_steps updates.
    staleness: weight versions between the newest and the one that acted.
    q_start_mean, return_start_mean: of the newest evaluation, largest value of its first
      observations and discounted return then realised.
    q_abs_max, q_bound, soft_divergence: see `value_diagnostics`; the last is 0.0 or 1.0.
    td_error_abs_*: of the newest minibatches.  priority_*: of the items held.
    stale_fraction_*: share of the items held that are older than so many weight versions.
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
    transitions: Ledger = dataclasses.field(default_factory=Ledger)
    train_return_mean: float = math.nan
    eval_return_mean: float = math.nan
    best_eval_return_mean: float = math.nan
    td_loss: float = math.nan
    q_values: float = math.nan
    grad_norm: float = math.nan
    td_error_abs_p50: float = math.nan
    td_error_abs_p95: float = math.nan
    td_error_abs_max: float = math.nan
    priority_p50: float = math.nan
    priority_p95: float = math.nan
    stale_fraction_10: float = math.nan
    stale_fraction_100: float = math.nan
    q_start_mean: float = math.nan
    return_start_mean: float = math.nan
    q_abs_max: float = math.nan
    q_bound: float = math.nan
    soft_divergence: float = math.nan
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
    "losses/td_error_abs_p50": "td_error_abs_p50",
    "losses/td_error_abs_p95": "td_error_abs_p95",
    "losses/td_error_abs_max": "td_error_abs_max",
    "values/q_start": "q_start_mean",
    "values/return_start": "return_start_mean",
    "values/q_abs_max": "q_abs_max",
    "values/q_bound": "q_bound",
    "values/soft_divergence": "soft_divergence",
    "replay/size": "replay_size",
    "replay/priority_max": "priority_max",
    "replay/priority_p50": "priority_p50",
    "replay/priority_p95": "priority_p95",
    "replay/stale_fraction_10": "stale_fraction_10",
    "replay/stale_fraction_100": "stale_fraction_100",
    "workers/count": "workers_alive",
}
"""TensorBoard tag to `RunStatus` field. The two return charts are written per episode."""


def scalars(status: RunStatus) -> dict[str, float]:
    """The finite scalars of `status` by TensorBoard tag."""
    values = {tag: float(getattr(status, field)) for tag, field in SCALARS.items()}
    return {tag: value for tag, value in values.items() if math.isfinite(value)}
