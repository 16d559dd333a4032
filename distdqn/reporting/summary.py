"""What a run comes to: the fields of `summary.json`.

Every figure is taken from the run itself; one that was not measured is null in the
file and nan here.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from distdqn.plain_json import plain
from distdqn.telemetry.ledger import Ledger
from distdqn.telemetry.reports import EvaluationReport
from distdqn.telemetry.status import AT_END, Figures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary(Figures):
    """A finished run. Steps are agent steps, times seconds, sizes bytes.

    made_with: of "make_env" and "make_network" those that `evaluate` and `resume` must be given.
    transitions_refused_by: their number by cause, `{}` where none was refused.
    wall_s: of the whole run: `startup_s`, then `train_s`, then the evaluation at its end.
    stopped_by: "total_env_steps", "stop_at_return", "SIGINT", "SIGTERM" or "SIGHUP".
    transitions_lost: those in flight when a run was broken off among them.
    samples_per_insert_set, error_band: what `samples_per_insert` is held at, and within how many
      samples of it; the band is nan in lockstep, which has none.
    best_eval_env_steps: when the best weights were found.
    chosen_eval_return_mean: of the evaluation for which they were kept as the best.
    bottleneck: "env", "inference", "replay", "transfer" or "learner".
    verdict, verdict_detail: what limits the run and what would help, for a person and for
      a program (`Verdict.to_json`).
    weights_sha256: of the last online parameters as float32 bytes.
    """

    run_name: str
    run_folder: str
    env_id: str
    made_with: list[str]
    seed: int
    stopped_by: str
    wall_s: float
    startup_s: float
    train_s: float
    transitions_collected: int
    transitions_accepted: int
    transitions_refused: int
    transitions_lost: int
    eval_return_std: float
    eval_episodes: int
    samples_per_insert_set: float
    error_band: float
    best_eval_env_steps: int
    chosen_eval_return_mean: float
    peak_pss_bytes: int
    bottleneck: str
    verdict: str
    verdict_detail: dict[str, Any]
    weights_sha256: str

    @property
    def exit_status(self) -> int:
        return {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}.get(self.stopped_by, 0)

    def to_json(self) -> dict[str, Any]:
        """As plain values, nan as None."""
        return plain(dataclasses.asdict(self))


def refused_line(summary: Mapping[str, Any]) -> str:
    """What was refused of a finished run and why, most first; "" for nothing.

    Not told is what its end alone refused.

    summary: the fields of `summary.json`.
    """
    told = summary.get("transitions_refused_by") or {}
    by_cause = {cause: number for cause, number in told.items() if cause != AT_END}
    most_first = sorted(by_cause.items(), key=lambda item: -item[1])
    causes = ", ".join(f"{number:,} ({cause})" for cause, number in most_first)
    return causes and f"{causes} of {summary['transitions_collected']:,} transitions"


_OUTCOMES = (
    *("best_eval_return_mean", "eval_return_mean", "train_return_mean", "env_steps"),
    *("gradient_steps", "wall_s", "env_steps_per_s", "samples_per_insert"),
)
OUTCOMES = tuple(f"final/{name}" for name in _OUTCOMES)
"""TensorBoard tags of what runs are compared by."""


def outcomes(summary: Summary) -> dict[str, float]:
    """The finite ones of `OUTCOMES`."""
    told = {tag: float(getattr(summary, tag.removeprefix("final/"))) for tag in OUTCOMES}
    return {tag: value for tag, value in told.items() if math.isfinite(value)}


def transition_fields(ledger: Ledger) -> dict[str, int]:
    names = ("collected", "accepted", "refused")
    fields = {f"transitions_{name}": getattr(ledger, name) for name in names}
    return fields | {"transitions_lost": ledger.lost + ledger.in_flight}


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


def weights_sha256(online: np.ndarray) -> str:
    """Digest of `online [P]` as float32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(online, np.float32).tobytes()).hexdigest()
