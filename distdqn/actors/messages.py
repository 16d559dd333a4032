"""What the actors tell each other besides blocks and batches.

Everybody reports to control and is answered with a directive; nobody is called
while it works, so a busy or dead part never blocks another.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.accounting import StreamAccount
from distdqn.metrics import LogHistogram, RunStatus
from distdqn.types import BEFORE_ANY, ReplayBatch, WeightsVersion
from distdqn.usage import Spent, Usage

if TYPE_CHECKING:  # the driver hears of these, without torch and numba
    from distdqn.evaluate import EvaluationResult
    from distdqn.learner import Learner
    from distdqn.replay import Replay

EVALUATION_TIMEOUT_S = 3600.0
_SAMPLED_PRIORITIES = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class ShardMap:
    """The shards, by index; a newer generation replaces an older.

    handles: actor handles, None where the shard is dead.
    epochs: of the shards, so that a revived one is not taken for its predecessor.
    """

    generation: int = -1
    handles: tuple[Any, ...] = ()
    epochs: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ShardCounters:
    """What the learner must know of a shard; comes with every answer.

    inserts: transitions accepted by this epoch of the shard, ever.
    size: items held.  mass: items if uniform, sum of p^alpha if prioritized.
    """

    shard: int
    epoch: int
    inserts: int
    size: int
    mass: float


@dataclasses.dataclass(frozen=True, slots=True)
class SampleReply:
    """Answer to a sample request; no batch where the shard is empty."""

    counters: ShardCounters
    batch: ReplayBatch | None


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

    @classmethod
    def of(cls, replay: Replay, newest: WeightsVersion) -> ReplayDiagnostics:
        """Of a replay now; newest: weights. At most 10,000 items' priorities stand for all."""
        sample = LogHistogram(replay.priorities(_SAMPLED_PRIORITIES))
        return cls(
            priorities=sample.scaled(replay.size),
            stale_fraction_10=replay.stale_fraction(newest, 10),
            stale_fraction_100=replay.stale_fraction(newest, 100),
        )


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
    dropped_updates: int
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


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerDirective:
    """What a worker is to do next.

    allowance: env steps that this incarnation may take in all.
    env_steps: the global clock.
    finish: no more will be allowed; use up the allowance, flush and return.
    stop: flush and return now.
    """

    allowance: int
    env_steps: int
    finish: bool
    stop: bool
    shards: ShardMap | None


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerReport:
    """The learner's running totals.

    q_abs_max: largest absolute Q-value of the actions learned from.
    td_errors: absolute, of the newest minibatches.
    wait_s: seconds that the training thread waited for data, of `elapsed_s` since
      sampling began.
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

    @classmethod
    def of(cls, learner: Learner, **others: Any) -> LearnerReport:
        """Of a learner in this process; others: the fields that it does not know."""
        scalars = learner.scalars()
        return cls(
            gradient_steps=learner.gradient_steps,
            td_loss=scalars["td_loss"],
            q_values=scalars["q_values"],
            grad_norm=scalars["grad_norm"],
            q_abs_max=learner.q_abs_max,
            compiled=learner.compiled,
            device=learner.device.type,
            pid=os.getpid(),
            **others,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerDirective:
    """collection_finished: make the updates still owed, then return; stop: return now."""

    env_steps: int
    collection_finished: bool
    stop: bool
    shards: ShardMap | None


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Greedy episodes with one snapshot.

    online: `[P]`, empty unless it is a new best.  layout: names and shapes of its parameters.
    start_values, discounted_returns: see `EvaluationResult`; empty where unknown.
    """

    env_steps: int
    version: WeightsVersion
    returns: np.ndarray  # [E] raw, undiscounted
    lengths: np.ndarray  # [E]
    num_cut: int
    online: np.ndarray
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()
    start_values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))  # [E]
    discounted_returns: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))  # [E]

    @classmethod
    def of(
        cls,
        result: EvaluationResult,
        version: WeightsVersion,
        env_steps: int,
        online: np.ndarray,
        layout: tuple[tuple[str, tuple[int, ...]], ...],
    ) -> EvaluationReport:
        """A result with the snapshot it is of."""
        return cls(
            env_steps=env_steps,
            version=version,
            returns=result.returns,
            lengths=result.lengths,
            num_cut=result.num_cut,
            online=online,
            layout=layout,
            start_values=result.start_values,
            discounted_returns=result.discounted_returns,
        )

    @property
    def q_start_mean(self) -> float:
        """Mean value of the first observations; NaN where unknown."""
        return float(np.mean(self.start_values)) if len(self.start_values) else math.nan

    @property
    def return_start_mean(self) -> float:
        """Mean discounted return realised from there; NaN where unknown."""
        return float(np.mean(self.discounted_returns)) if len(self.start_values) else math.nan


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
    busy: dict[str, float]
    histograms: dict[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    usage: Usage = dataclasses.field(default_factory=Usage)
