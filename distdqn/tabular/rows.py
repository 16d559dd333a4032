"""A verification as lines and tables of text.

A row is its cells by column; the terminal shows fewer columns than the page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distdqn.tabular.result import Bound, Outcome, Result

Row = dict[str, str]

SHORT_COLUMNS = ("run", "max |q - q*|", "value error, visited", "greedy return", "optimum", "bound")
SHORT_ABLATION_COLUMNS = (
    "problem",
    "setting",
    "value of first states",
    "exact",
    "diverged",
    "greedy return",
)


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


def result_row(result: Result) -> Row:
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


def ablation_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """A row for each setting: the median over seeds, and the range."""
    rows: list[Row] = []
    for setting in dict.fromkeys(outcome.setting for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.setting == setting]
        exact = own[0].exact_start_value
        rows.append(
            {
                "problem": setting.problem,
                "setting": setting.title,
                "seeds": str(len(own)),
                "value of first states": _spread([outcome.start_value for outcome in own]),
                "exact": "-" if np.isnan(exact) else f"{exact:.3g}",
                "largest |q|": _spread([outcome.q_abs_max for outcome in own]),
                "diverged": f"{sum(outcome.soft_divergence for outcome in own)} of {len(own)}",
                "greedy return": _spread([outcome.greedy_return for outcome in own]),
            }
        )
    return rows


def only(columns: Sequence[str], rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The cells of some columns."""
    return [tuple(row[column] for column in columns) for row in rows]


def _bound(result: Result, bound: Bound) -> str:
    name = {"max_error": "error", "greedy_return": "return"}.get(bound.figure, bound.figure)
    return f"{name} {bound}: {'missed' if bound in result.missed else 'holds'}"


def _spread(values: Sequence[float]) -> str:
    """`median (lowest to highest)`."""
    low, middle, high = (f"{x:,.3g}" for x in np.quantile(values, (0.0, 0.5, 1.0)))
    return middle if low == high else f"{middle} ({low} to {high})"
