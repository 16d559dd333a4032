"""What the actors tell each other besides blocks and batches.

Everybody reports to control and is answered with a directive; nobody is called
while it works, so a busy or dead part never blocks another.
"""

import dataclasses
import math

import numpy as np

from distdqn.telemetry.histograms import LogHistogram
from distdqn.telemetry.ledger import StreamAccount
from distdqn.telemetry.status import EvaluationFigures, RunStatus
from distdqn.telemetry.usage import Spent, Usage
from distdqn.types import BEFORE_ANY, ShardCounters, WeightsVersion

EVALUATION_TIMEOUT_S = 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class ReplayDiagnostics:
    """What a shard's items look like.

    priorities: of the items held, empty where there are none.
    stale_fraction_10, stale_fraction_100: share of the items held that were acted with
      weights more than so many versions older than the newest; NaN without an item.
    """

    priorities: LogHistogram = dataclasses.field(default_factory=LogHistogram)
    stale_fraction_10: float = math.nan
    stale_fraction_100: float = math.nan


@dataclasses.dataclass(frozen=True, slots=True)
class ShardReport:
    """A shard's state, pushed to control a few times a second.

    streams: per (worker, incarnation).
    staleness_counts: `[bins]` accepted transitions by weight versions behind.
    busy_s: time spent inside the replay since the start of this epoch.
    adding_s: of that, storing blocks.
    """

    counters: ShardCounters
    priority_max: float
    refused_priorities: int
    streams: dict[tuple[int, int], StreamAccount]
    staleness_counts: np.ndarray
    busy_s: float
    pid: int
    diagnostics: ReplayDiagnostics = dataclasses.field(default_factory=ReplayDiagnostics)
    adding_s: float = 0.0
    spent: Spent | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker incarnation's running totals; its acknowledgements are its ledger.

    stepped: env steps that yield a transition.  collected: transitions sealed.
    refused: transitions; refused_by: by cause, but those that a shard refused at the end of a
      run, which are `refused_at_end`.
    note: a line for the user on the first that was refused by a cause.
    episodes: (env over all workers, raw return, length) since the last report.
    wait_s, env_s, inference_s, elapsed_s: seconds since the incarnation began.
    reward_abs_max: largest absolute reward of a step, scaled and clipped.
    """

    worker: int
    incarnation: int
    stepped: int = 0
    collected: int = 0
    accepted: int = 0
    refused: int = 0
    in_flight: int = 0
    episodes: tuple[tuple[int, float, int], ...] = ()
    wait_s: float = 0.0
    env_s: float = 0.0
    inference_s: float = 0.0
    elapsed_s: float = 0.0
    epsilon: float = 0.0
    reward_abs_max: float = 0.0
    pid: int = 0
    finished: bool = False
    spent: Spent | None = None
    refused_by: dict[str, int] = dataclasses.field(default_factory=dict)
    refused_at_end: int = 0
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerReport:
    """The learner's running totals.

    q_abs_max: largest absolute Q-value of the actions learned from.
    td_errors: absolute, of the newest minibatches.
    wait_s: seconds that the training thread waited for data, of `elapsed_s` since sampling began.
    """

    gradient_steps: int = 0
    samples_per_insert: float = float("nan")
    version: WeightsVersion = BEFORE_ANY
    td_loss: float = float("nan")
    q_values: float = float("nan")
    grad_norm: float = float("nan")
    q_abs_max: float = float("nan")
    td_errors: LogHistogram = dataclasses.field(default_factory=LogHistogram)
    learning_rate: float = float("nan")
    wait_s: float = 0.0
    elapsed_s: float = 0.0
    compiled: bool = False
    compiling: bool = False
    device: str = "cpu"
    note: str = ""
    pid: int = 0
    spent: Spent | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Greedy episodes with one snapshot.

    online: `[P]`, empty where the evaluator has reported a better one.
    layout: names and shapes of its parameters.
    lengths, num_cut, start_values, discounted_returns: see `EvaluationResult`; empty where unknown.
    """

    env_steps: int
    returns: np.ndarray  # [E] raw, undiscounted
    online: np.ndarray
    lengths: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))  # [E]
    num_cut: int = 0
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()
    start_values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))  # [E]
    discounted_returns: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))  # [E]

    @property
    def q_start_mean(self) -> float:
        """Mean value of the first observations; NaN where unknown."""
        return float(np.mean(self.start_values)) if len(self.start_values) else math.nan

    @property
    def return_start_mean(self) -> float:
        """Mean discounted return realised from there; NaN where unknown."""
        return float(np.mean(self.discounted_returns)) if len(self.start_values) else math.nan

    def figures(self) -> EvaluationFigures:
        """What is written down of it."""
        return EvaluationFigures(
            episodic_return=float(np.mean(self.returns)),
            return_std=float(np.std(self.returns)),
            return_min=float(np.min(self.returns)),
            return_max=float(np.max(self.returns)),
            episodic_length=float(np.mean(self.lengths)) if len(self.lengths) else math.nan,
            episodes=len(self.returns),
        )


@dataclasses.dataclass(frozen=True)
class Poll:
    """What the driver learns at once: the status and what happened since it last asked.

    episodes: (env_steps at the report, raw return, length), lowest-epsilon envs only.
    histograms: counts `[n]` and edges `[n + 1]` by TensorBoard tag, where there are any.
    usage: what the parts have spent so far.
    """

    status: RunStatus
    episodes: list[tuple[int, float, int]]
    evaluations: list[EvaluationReport]
    notes: list[str]
    histograms: dict[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    usage: Usage = dataclasses.field(default_factory=Usage)
