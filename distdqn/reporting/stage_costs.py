"""What an env step costs each stage of a run.

Costs hold per unit of each stage's own work (a worker's per env step, the learner's per
update), so they stay right where one is ahead of the other within the band, and they say
what another number of parts or another ratio would do.
"""

from __future__ import annotations

import dataclasses
import math

from distdqn.telemetry.usage import Usage

_LEAST_CORES = 0.05  # left to the run where others seem to take all


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """How a run is configured.

    workers, shards: how many.  batch_size: transitions in one update.
    samples_per_insert: transitions sampled per one inserted.
    """

    workers: int
    shards: int
    batch_size: int
    samples_per_insert: float

    @property
    def updates_per_env_step(self) -> float:
        return self.samples_per_insert / self.batch_size


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one stage's work: those due with each env step, those with each update."""

    per_env_step: float = 0.0
    per_update: float = 0.0

    def at(self, setup: Setup) -> float:
        """Seconds for an env step and the updates that belong to it."""
        return self.per_env_step + self.per_update * setup.updates_per_env_step


@dataclasses.dataclass(frozen=True, slots=True)
class Costs:
    """Of all stages.

    workers, shards, learner: wall clock of one working thread with a core at hand.
    cpu: core seconds by stage, "workers", "shards" and "learner".
    free_cores: that everything else on the machine leaves to them.
    """

    workers: Cost
    shards: Cost
    learner: Cost
    cpu: dict[str, Cost]
    free_cores: float

    @classmethod
    def of(cls, spent: Usage) -> Costs:
        """From a window with env steps and updates in it."""
        steps, updates = spent.env_steps, spent.gradient_steps
        adding = spent.adding_s / spent.replay_s if spent.replay_s > 0 else 0.0

        def shards(seconds: float) -> Cost:
            return Cost(seconds * adding / steps, seconds * (1.0 - adding) / updates)

        return cls(
            workers=Cost(per_env_step=spent.workers.running_s / steps),
            shards=shards(spent.shards.running_s),
            learner=Cost(per_update=spent.learner.running_s / updates),
            cpu={
                "workers": Cost(per_env_step=spent.workers.cpu_s / steps),
                "shards": shards(spent.shards.cpu_s),
                "learner": Cost(per_update=spent.learner.cpu_s / updates),
            },
            free_cores=max(spent.cores - spent.rest_cpu_s / spent.at_s, _LEAST_CORES),
        )

    def capacities(self, setup: Setup) -> dict[str, float]:
        """Env steps per second that each stage could do if it never waited; inf: no cost."""
        return {
            "workers": _per(setup.workers, self.workers.at(setup)),
            "learner": _per(1.0, self.learner.at(setup)),
            "shards": _per(setup.shards, self.shards.at(setup)),
            "cores": _per(self.free_cores, sum(cost.at(setup) for cost in self.cpu.values())),
        }

    def without_learner(self) -> Costs:
        """As if updates cost nothing: the bound for a faster learner."""
        cpu = self.cpu | {"learner": Cost()}
        return dataclasses.replace(self, learner=Cost(), cpu=cpu)

    def with_cores(self, cores: float) -> Costs:
        return dataclasses.replace(self, free_cores=cores)


def reached(spent: Usage, setup: Setup) -> float:
    """Env steps per second, the updates that belong to them made.

    Either side may be ahead of the other by the band of the ratio, at the start of a run
    above all; the one behind tells.
    """
    by_updates = spent.gradient_steps / setup.updates_per_env_step
    return min(spent.env_steps, by_updates) / spent.at_s


def _per(parts: float, cost_s: float) -> float:
    return parts / cost_s if cost_s > 0 else math.inf
