"""A verification as lines and tables of text.

The terminal has fewer columns than the page, of the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distdqn.tabular.plan import Bound
from distdqn.tabular.result import Result
from distdqn.tabular.triad import Outcome

RESULT_COLUMNS = (
    "problem",
    "learner",
    "max |q - q*|",
    "value error, visited",
    "value error, uniform",
    "greedy return",
    "optimum",
    "bound",
    "env steps",
    "s",
    "run",
)
SHORT_COLUMNS = ("run", "max |q - q*|", "visited", "uniform", "return", "optimum", "bounds")
ABLATION_COLUMNS = (
    "problem",
    "setting",
    "seeds",
    "value of first states",
    "exact",
    "largest |q|",
    "diverged",
    "greedy return",
)
SHORT_ABLATION_COLUMNS = ("setting", "first value", "exact", "diverged", "return")


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


def result_row(result: Result) -> tuple[str, ...]:
    """A run in the order of `RESULT_COLUMNS`."""
    point, planned = result.point, result.planned
    return (
        planned.problem,
        planned.learner,
        f"{point.max_error:.4f}",
        f"{point.value_error:.2e}",
        f"{point.uniform_value_error:.2e}",
        f"{point.greedy_return:.4f}",
        f"{result.solution.optimal_return:.4f}",
        "; ".join(_bound(result, bound) for bound in planned.bounds) or "-",
        f"{result.summary['env_steps']:,}",
        f"{result.summary['wall_s']:.0f}",
        planned.name,
    )


def short_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A row of `SHORT_COLUMNS` for each run, for a terminal's width."""
    rows: list[tuple[str, ...]] = []
    for result in results:
        _, _, *figures, _, _, _, name = result_row(result)
        held = "missed" if result.missed else "hold" if result.planned.bounds else "-"
        rows.append((name, *figures, held))
    return rows


def short_ablation_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """A row of `SHORT_ABLATION_COLUMNS` for each setting."""
    return [
        (
            f"{problem}: {title}".replace(" network", ""),
            first.partition(" ")[0],
            exact,
            diverged,
            returned,
        )
        for problem, title, _, first, exact, _, diverged, returned in ablation_rows(outcomes)
    ]


def ablation_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """A row of `ABLATION_COLUMNS` for each setting: the median over seeds, and the range."""
    rows: list[tuple[str, ...]] = []
    for setting in dict.fromkeys(outcome.setting for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.setting == setting]
        exact = own[0].exact_start_value
        rows.append(
            (
                setting.problem,
                setting.title,
                str(len(own)),
                _spread([outcome.start_value for outcome in own]),
                "-" if np.isnan(exact) else f"{exact:.3g}",
                _spread([outcome.q_abs_max for outcome in own]),
                f"{sum(outcome.soft_divergence for outcome in own)} of {len(own)}",
                _spread([outcome.greedy_return for outcome in own]),
            )
        )
    return rows


def _bound(result: Result, bound: Bound) -> str:
    name = {"max_error": "error", "greedy_return": "return"}.get(bound.figure, bound.figure)
    return f"{name} {bound}: {'missed' if bound in result.missed else 'holds'}"


def _spread(values: Sequence[float]) -> str:
    """`median (lowest to highest)`."""
    low, middle, high = (f"{x:,.3g}" for x in np.quantile(values, (0.0, 0.5, 1.0)))
    return middle if low == high else f"{middle} ({low} to {high})"
