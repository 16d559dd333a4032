"""What a run comes to: the fields of `summary.json`.

Every figure is taken from the run itself; one that was not measured is null in the
file and nan here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np

from distdqn.reporting.verdict import Verdict
from distdqn.telemetry.reports import EvaluationReport, Poll
from distdqn.telemetry.status import RunStatus

_BUSY_LEARNER = 0.9
_BUSY_REPLAY = 0.7


@dataclasses.dataclass(frozen=True)
class Summary:
    """A finished run. Steps are agent steps, times seconds, sizes bytes.

    stopped_by: "total_env_steps", "stop_at_return", "SIGINT" or "SIGTERM".
    eval_return_mean, eval_return_std: last weights over fresh greedy episodes.
    best_eval_return_mean: best checkpoint over fresh greedy episodes, none of them used
      to choose it.
    samples_per_insert: samples / (inserts - min_size_to_sample).
    q_start_mean, return_start_mean: of the last weights' evaluation, means over its
      episodes of the largest value at the start and of the discounted return realised.
    q_abs_max: largest absolute value of the actions learned from.
    q_bound: r_max / (1 - discount), the largest value that a policy can have.
    soft_divergence: whether q_abs_max exceeds it by more than 1 percent; None without one.
    td_error_abs_*: at the end of training.  priority_*, stale_fraction_*: of the items held.
    bottleneck: "env", "inference", "replay", "transfer" or "learner".
    verdict, verdict_detail: what limits the run and what would help, for a person and for
      a program (`Verdict.to_json`).
    weights_sha256: of the last online parameters as float32 bytes.
    """

    run_name: str
    run_folder: str
    env_id: str
    seed: int
    stopped_by: str
    env_steps: int
    gradient_steps: int
    wall_s: float
    startup_s: float
    env_steps_per_s: float
    gradient_steps_per_s: float
    samples_per_insert: float
    learner_wait_fraction: float
    worker_wait_fraction: float
    staleness_p50: float
    staleness_p95: float
    transitions_collected: int
    transitions_accepted: int
    transitions_refused: int
    transitions_lost: int
    items_lost: int
    worker_restarts: int
    shard_restarts: int
    learner_restarts: int
    shard_items: tuple[int, ...]
    train_return_mean: float
    eval_return_mean: float
    eval_return_std: float
    eval_episodes: int
    best_eval_return_mean: float
    best_eval_env_steps: int
    q_start_mean: float
    return_start_mean: float
    q_abs_max: float
    q_bound: float
    soft_divergence: bool | None
    td_error_abs_p50: float
    td_error_abs_p95: float
    td_error_abs_max: float
    priority_p50: float
    priority_p95: float
    stale_fraction_10: float
    stale_fraction_100: float
    compiled: bool
    peak_pss_bytes: int
    bottleneck: str
    verdict: str
    verdict_detail: dict[str, Any]
    weights_sha256: str

    @property
    def exit_status(self) -> int:
        return {"SIGINT": 130, "SIGTERM": 143}.get(self.stopped_by, 0)

    def to_json(self) -> dict[str, Any]:
        """As plain values, nan as None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in dataclasses.asdict(self).items()
        }


def from_status(status: RunStatus) -> dict[str, Any]:
    """The fields that the last status already holds."""
    ledger, is_known = status.transitions, not math.isnan(status.soft_divergence)
    return {
        "env_steps": status.env_steps,
        "gradient_steps": status.gradient_steps,
        "samples_per_insert": status.samples_per_insert,
        "learner_wait_fraction": status.learner_wait_fraction,
        "worker_wait_fraction": status.worker_wait_fraction,
        "staleness_p50": status.staleness_p50,
        "staleness_p95": status.staleness_p95,
        "transitions_collected": ledger.collected,
        "transitions_accepted": ledger.accepted,
        "transitions_refused": ledger.refused,
        "transitions_lost": ledger.lost + ledger.in_flight,  # what a broken-off run leaves behind
        "items_lost": status.items_lost,
        "worker_restarts": status.worker_restarts,
        "shard_restarts": status.shard_restarts,
        "learner_restarts": status.learner_restarts,
        "shard_items": status.shard_items,
        "train_return_mean": status.train_return_mean,
        "compiled": status.compiled,
        "q_abs_max": status.q_abs_max,
        "q_bound": status.q_bound,
        "soft_divergence": bool(status.soft_divergence) if is_known else None,
        "td_error_abs_p50": status.td_error_abs_p50,
        "td_error_abs_p95": status.td_error_abs_p95,
        "td_error_abs_max": status.td_error_abs_max,
        "priority_p50": status.priority_p50,
        "priority_p95": status.priority_p95,
        "stale_fraction_10": status.stale_fraction_10,
        "stale_fraction_100": status.stale_fraction_100,
    }


def evaluation_fields(last: EvaluationReport | None, best: EvaluationReport | None) -> dict:
    """What the fresh episodes gave; nan where a run was broken off before them."""
    none = np.array([math.nan])
    returns = none if last is None else last.returns
    return {
        "eval_return_mean": float(np.mean(returns)),
        "eval_return_std": float(np.std(returns)),
        "eval_episodes": 0 if last is None else len(returns),
        "best_eval_return_mean": float(np.mean(none if best is None else best.returns)),
        "q_start_mean": math.nan if last is None else last.q_start_mean,
        "return_start_mean": math.nan if last is None else last.return_start_mean,
    }


def verdict_fields(verdict: Verdict, poll: Poll) -> dict[str, Any]:
    """What limits the run; a run too short for a verdict still names a stage."""
    return {
        "bottleneck": verdict.bottleneck or bottleneck(poll),
        "verdict": verdict.line(),
        "verdict_detail": verdict.to_json(),
    }


def bottleneck(poll: Poll) -> str:
    """The stage that limits the run, from the shares of time the parts were busy alone.

    A learner that rarely waits is the limit; otherwise, with workers that rarely wait,
    the larger of their two costs; otherwise what lies between the two.
    """
    busy, waits = poll.busy, poll.status.worker_wait_fraction
    if busy["learner"] >= _BUSY_LEARNER or math.isnan(busy["learner"]):
        return "learner"
    if not waits > 0.5:
        return "env" if busy["env"] >= busy["inference"] else "inference"
    return "replay" if busy["replay"] >= _BUSY_REPLAY else "transfer"


def weights_sha256(online: np.ndarray) -> str:
    """Digest of `online [P]` as float32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(online, np.float32).tobytes()).hexdigest()
