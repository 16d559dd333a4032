"""What a verification found, and whether it holds.

A result is a run and its exact solution; what it says of itself (`to_json`,
`complaints`) is computed from those two, nothing is stored twice.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distdqn.config import Config
from distdqn.tabular.measure import Learned, Point, Solution, account_complaints
from distdqn.tabular.plan import Bound, PlannedRun
from distdqn.tabular.triad import Outcome
from distdqn.version import __version__

_FROM_SUMMARY = (
    "run_folder",
    "env_id",
    "seed",
    "env_steps",
    "gradient_steps",
    "wall_s",
    "samples_per_insert",
    "transitions_collected",
    "transitions_accepted",
    "transitions_refused",
    "transitions_lost",
    "weights_sha256",
)


@dataclasses.dataclass(frozen=True)
class Result:
    """One run against the exact solution.

    summary: the run's own, as in its `summary.json`.
    """

    planned: PlannedRun
    config: Config
    summary: Mapping[str, Any]
    solution: Solution
    learned: Learned

    @property
    def point(self) -> Point:
        """The errors of the last weights."""
        return self.learned.points[-1]

    @property
    def fewest_visits(self) -> int:
        """Of any pair that counts."""
        return int(self.learned.visits[self.solution.pairs].min())

    @property
    def missed(self) -> list[Bound]:
        """The bounds that do not hold."""
        bounds = self.planned.bounds
        return [bound for bound in bounds if not bound.holds(getattr(self.point, bound.figure))]

    @property
    def complaints(self) -> list[str]:
        """One line for each bound that is missed, and one for counts that do not close."""
        name, lines = self.planned.name, []
        for bound in self.missed:
            value = getattr(self.point, bound.figure)
            lines.append(f"{name}: {bound.figure} is {value:.6g}, must be {bound}")
        return lines + account_complaints(name, self.summary)

    def to_json(self) -> dict[str, Any]:
        errors = dataclasses.asdict(self.point)
        del errors["env_steps"]  # the run's own count is among its counts
        return {
            "name": self.planned.name,
            "problem": self.planned.problem,
            "learner": self.planned.learner,
            **{name: self.summary[name] for name in _FROM_SUMMARY},
            "counts_close": not account_complaints(self.planned.name, self.summary),
            "env_kwargs": dict(self.config.env.kwargs),
            "discount": self.config.learner.discount,
            "max_episode_steps": self.solution.table.max_episode_steps,
            "pairs": int(self.solution.pairs.sum()),
            "fewest_visits": self.fewest_visits,
            **errors,
            "optimal_return": self.solution.optimal_return,
            "bounds": [
                {**dataclasses.asdict(bound), "holds": bound not in self.missed}
                for bound in self.planned.bounds
            ],
            "over_time": [dataclasses.asdict(point) for point in self.learned.points],
            "visits": self.learned.visits.tolist(),
            "q": self.learned.q.tolist(),
            "q_star": self.solution.q_star.tolist(),
        }


@dataclasses.dataclass(frozen=True)
class Verification:
    """All of it.

    folder: of all the runs.  wall_s: seconds, from the start of the first run.
    results: one for each planned run.  outcomes: of the ablation, empty where none was made.
    baird: `[sweeps + 1]` max |v| by variant.
    tsitsiklis_van_roy: `[sweeps + 1]` the weight by discount.
    """

    folder: str
    wall_s: float
    results: Sequence[Result]
    outcomes: Sequence[Outcome]
    baird: Mapping[str, np.ndarray]
    tsitsiklis_van_roy: Mapping[float, np.ndarray]

    @property
    def complaints(self) -> list[str]:
        """One line for each thing that does not hold; empty where all does."""
        lines = [line for result in self.results for line in result.complaints]
        return lines + [line for outcome in self.outcomes for line in outcome.complaints]

    def to_json(self) -> dict[str, Any]:
        """As plain values; curves by env steps, or by sweep."""
        return {
            "distdqn": __version__,
            "python": platform.python_version(),
            "holds": not self.complaints,
            "complaints": self.complaints,
            "folder": self.folder,
            "wall_s": self.wall_s,
            "runs": [result.to_json() for result in self.results],
            "ablation": [outcome.to_json() for outcome in self.outcomes],
            "baird_largest_value": {name: x.tolist() for name, x in self.baird.items()},
            "tsitsiklis_van_roy_weight": {
                f"discount {discount:g}": x.tolist()
                for discount, x in self.tsitsiklis_van_roy.items()
            },
        }
