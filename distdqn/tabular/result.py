"""What a verification plans and finds, and whether it holds.

A result is a run and its exact solution; what it says of itself (`to_json`,
`complaints`) is computed from those two, nothing is stored twice.
"""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distdqn.config import Config
from distdqn.envs.tables import TransitionTable
from distdqn.tabular.plan import Bound, PlannedRun, Setting
from distdqn.version import __version__

_FROM_SUMMARY = (
    "run_folder", "env_id", "seed", "env_steps", "gradient_steps", "wall_s", "samples_per_insert",
    "transitions_collected", "transitions_accepted", "transitions_refused", "transitions_lost",
    "weights_sha256",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Solution:
    """An environment, solved.

    q_star: `[S, A]` optimal action values.
    pairs: `[S, A]` bool of the reachable, non-terminal, allowed pairs; they alone count.
    optimal_return: expected undiscounted return within the time limit of the greedy
      policy of `q_star`; of raw rewards.
    """

    table: TransitionTable
    q_star: np.ndarray
    pairs: np.ndarray
    optimal_return: float


@dataclasses.dataclass(frozen=True)
class Point:
    """The error of one set of weights.

    max_error: max |q - q*|.
    value_error: sum of mu (q* - q)^2, mu the visiting frequency of the whole run.
    uniform_value_error: the same under uniform mu.
    greedy_return: exact, of the greedy policy of q within the time limit.
    """

    env_steps: int
    max_error: float
    value_error: float
    uniform_value_error: float
    greedy_return: float


@dataclasses.dataclass(frozen=True)
class Learned:
    """What one run learned.

    q: `[S, A]` float64, of the last weights.
    visits: `[S, A]` int64, how often each pair was added to replay.
    points: the errors over time, the last one those of `q`.
    """

    q: np.ndarray
    visits: np.ndarray
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One run of a setting.

    start_values: (env steps, mean over first states of max_a q) over time.
    exact_start_value: what that mean should be, NaN where there is no exact solution.
    greedy_return: mean over fresh greedy episodes with the last weights.
    q_abs_max, q_bound: the largest |q| learned from, and r_max / (1 - discount).
    soft_divergence: whether the one exceeds the other.
    run_folder: of the run.  complaints: a line where its counts do not close.
    """

    setting: Setting
    seed: int
    start_values: tuple[tuple[int, float], ...]
    exact_start_value: float
    greedy_return: float
    q_abs_max: float
    q_bound: float
    soft_divergence: bool
    run_folder: str
    complaints: tuple[str, ...] = ()

    @property
    def start_value(self) -> float:
        """Of the last weights."""
        return self.start_values[-1][1]

    def to_json(self) -> dict[str, Any]:
        own = {"title": self.setting.title, "start_value": self.start_value}
        return dataclasses.asdict(self) | own


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
    def missed(self) -> list[Bound]:
        """The bounds that do not hold."""
        bounds = self.planned.bounds
        return [bound for bound in bounds if not bound.holds(getattr(self.point, bound.figure))]

    @property
    def complaints(self) -> list[str]:
        """One line for each bound that is missed, and one for counts that do not close."""
        name = self.planned.name
        lines = [
            f"{name}: {bound.figure} is {getattr(self.point, bound.figure):.6g}, must be {bound}"
            for bound in self.missed
        ]
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
            "fewest_visits": int(self.learned.visits[self.solution.pairs].min()),
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
                f"discount {d:g}": x.tolist() for d, x in self.tsitsiklis_van_roy.items()
            },
        }


def account_complaints(name: str, summary: Mapping[str, Any]) -> list[str]:
    """A line where collected is not accepted + refused + lost; name: of the run."""
    collected = summary["transitions_collected"]
    counts = {part: summary[f"transitions_{part}"] for part in ("accepted", "refused", "lost")}
    if collected == sum(counts.values()):
        return []
    shown = ", ".join(f"{part} {count}" for part, count in counts.items())
    return [f"{name}: {collected} transitions collected, must be the sum of {shown}"]


SHORT_COLUMNS = ("run", "max |q - q*|", "value error, visited", "greedy return", "optimum", "bound")
SHORT_ABLATION_COLUMNS = (
    "problem", "setting", "value of first states", "exact", "diverged", "greedy return"
)  # fmt: skip


def result_line(result: Result) -> str:
    """A finished run in one line."""
    point = result.point
    return (
        f"{result.planned.problem}, {result.planned.learner}: max |q - q*| "
        f"{point.max_error:.4f}, greedy return {point.greedy_return:.4f} of "
        f"{result.solution.optimal_return:.4f}, {result.summary['wall_s']:.0f} s"
    )


def outcome_line(outcome: Outcome) -> str:
    """A finished run of the ablation in one line."""
    return (
        f"{outcome.setting.problem}, {outcome.setting.title}, seed {outcome.seed}: value of first "
        f"states {outcome.start_value:.3g}, greedy return {outcome.greedy_return:.2f}"
        + (", diverged" if outcome.soft_divergence else "")
    )


def result_row(result: Result) -> dict[str, str]:
    """A run."""
    point, planned = result.point, result.planned
    return {
        "problem": planned.problem,
        "learner": planned.learner,
        "max |q - q*|": f"{point.max_error:.4f}",
        "value error, visited": f"{point.value_error:.2e}",
        "value error, uniform": f"{point.uniform_value_error:.2e}",
        "greedy return": f"{point.greedy_return:.4f}",
        "optimum": f"{result.solution.optimal_return:.4f}",
        "bound": "; ".join(_bound(result, bound) for bound in planned.bounds) or "-",
        "env steps": f"{result.summary['env_steps']:,}",
        "s": f"{result.summary['wall_s']:.0f}",
        "run": planned.name,
    }


def ablation_rows(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """A row for each setting: the median over seeds, and the range."""
    return [_ablation_row(setting, own) for setting, own in by_setting(outcomes).items()]


def _ablation_row(setting: Setting, outcomes: Sequence[Outcome]) -> dict[str, str]:
    exact = outcomes[0].exact_start_value
    return {
        "problem": setting.problem,
        "setting": setting.title,
        "seeds": str(len(outcomes)),
        "value of first states": _spread([each.start_value for each in outcomes]),
        "exact": "-" if np.isnan(exact) else f"{exact:.3g}",
        "largest |q|": _spread([each.q_abs_max for each in outcomes]),
        "diverged": f"{sum(each.soft_divergence for each in outcomes)} of {len(outcomes)}",
        "greedy return": _spread([each.greedy_return for each in outcomes]),
    }


def by_setting(outcomes: Sequence[Outcome]) -> dict[Setting, list[Outcome]]:
    """In order of appearance."""
    groups: dict[Setting, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.setting, []).append(outcome)
    return groups


def only(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
    """The cells of some columns."""
    return [tuple(row[column] for column in columns) for row in rows]


def _bound(result: Result, bound: Bound) -> str:
    name = {"max_error": "error", "greedy_return": "return"}.get(bound.figure, bound.figure)
    return f"{name} {bound}: {'missed' if bound in result.missed else 'holds'}"


def _spread(values: Sequence[float]) -> str:
    """`median (lowest to highest)`."""
    low, middle, high = (f"{x:,.3g}" for x in np.quantile(values, (0.0, 0.5, 1.0)))
    return middle if low == high else f"{middle} ({low} to {high})"
