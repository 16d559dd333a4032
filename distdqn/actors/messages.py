"""What the actors tell each other besides blocks and batches.

Everybody reports to control and is answered with a directive; nobody is called
while it works, so a busy or dead part never blocks another.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from distdqn.accounting import StreamAccount
from distdqn.metrics import RunStatus
from distdqn.types import BEFORE_ANY, ReplayBatch, WeightsVersion


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
class ShardReport:
    """A shard's state, pushed to control a few times a second.

    streams: per (worker, incarnation).
    staleness_counts: `[bins]` accepted transitions by weight versions behind.
    busy_s: time spent inside the replay since the start of this epoch.
    """

    counters: ShardCounters
    priority_max: float
    dropped_updates: int
    refused_priorities: int
    streams: dict[tuple[int, int], StreamAccount]
    staleness_counts: np.ndarray
    busy_s: float
    pid: int


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker incarnation's running totals; its acknowledgements are its ledger.

    stepped: env steps that yield a transition.  collected: transitions sealed.
    episodes: (env over all workers, raw return, length) since the last report.
    wait_s, env_s, inference_s, elapsed_s: seconds since the incarnation began.
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
    pid: int = 0
    finished: bool = False


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

    wait_s: seconds that the training thread waited for data, of `elapsed_s` since
      sampling began.
    """

    gradient_steps: int = 0
    samples_per_insert: float = float("nan")
    version: WeightsVersion = BEFORE_ANY
    td_loss: float = float("nan")
    q_values: float = float("nan")
    grad_norm: float = float("nan")
    learning_rate: float = float("nan")
    wait_s: float = 0.0
    elapsed_s: float = 0.0
    compiled: bool = False
    note: str = ""
    pid: int = 0


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
    """

    env_steps: int
    version: WeightsVersion
    returns: np.ndarray  # [E] raw, undiscounted
    lengths: np.ndarray  # [E]
    num_cut: int
    online: np.ndarray
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclasses.dataclass(frozen=True)
class Poll:
    """What the driver learns at once: the status and what happened since it last asked.

    episodes: (env_steps at the report, raw return, length), lowest-epsilon envs only.
    """

    status: RunStatus
    episodes: list[tuple[int, float, int]]
    evaluations: list[EvaluationReport]
    notes: list[str]
    busy: dict[str, float]
