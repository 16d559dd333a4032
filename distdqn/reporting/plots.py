"""The learning curve as a picture.

Returns of training episodes come from an exploring policy and become a median with a band;
evaluations are greedy and are the line to read.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRETCHES, _KEPT_OF_EACH = 128, 64  # of a thinned curve
_BINS, _LEAST_IN_A_BIN = 60, 8  # fewer training episodes have no quantiles worth drawing
_MOST_MARKERS = 60
_LEAST_BINS = 4  # of fewer the episodes themselves are drawn
_GOAL_WITHIN = 1.0  # of the height of what is drawn; a goal farther off is told at the edge
_TITLE_WIDTH = 76  # characters
EDGE, MUTED, ACCENT, INK, _GRID = "#9aa5b1", "#52606d", "#c2410c", "#1f2933", "#e4e7eb"
STYLE: dict[Any, Any] = {
    **{"font.size": 10, "axes.titlesize": 10.5, "legend.fontsize": 9},
    **{"axes.titleweight": "bold", "axes.titlelocation": "left", "legend.frameon": False},
    **{"axes.spines.right": False, "axes.spines.top": False},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": _GRID, "axes.edgecolor": EDGE},
    **{"axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED},
}
"""Matplotlib's settings for every picture of the package."""
_CURVE_STYLE = STYLE | {
    **{"font.size": 12, "axes.titlesize": 12, "axes.titlepad": 32, "legend.fontsize": 11},
    **{"axes.grid.axis": "y", "axes.spines.left": False, "axes.xmargin": 0.015},
    **{"xtick.major.size": 0, "ytick.major.size": 0},
}

_EVALUATED: dict[str, Any] = {"color": ACCENT, "markersize": 4.5, "linewidth": 2.2, "zorder": 3}

Legend = dict[str, Any]
"""What was drawn by what it means, in the order of the legend."""


def plot_learning_curve(
    path: str | Path,
    train: np.ndarray,
    evaluations: Sequence[tuple[int, float, float, float]],
    title: str,
    goal: float | None = None,
) -> Path:
    """Writes the picture as PNG and returns its path; either series may be empty.

    train: `[E, 2]` env steps and raw return of training episodes, in order.
    evaluations: (env steps, mean, min, max) of the returns of each, in order.
    goal: a return to be marked by a line, or told at the edge where it is far off.
    What is not finite is left out.
    """
    import matplotlib

    episodes = _finite(np.asarray(train, np.float64).reshape(-1, 2))
    evaluated = _finite(np.asarray(evaluations, np.float64).reshape(-1, 4))
    with matplotlib.rc_context(_CURVE_STYLE):
        from matplotlib.figure import Figure  # without pyplot no display is looked for

        figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        legend = _draw_evaluations(axes, evaluated) | _draw_training(axes, thinned(episodes))
        if legend:
            legend |= _draw_goal(axes, math.nan if goal is None else goal)
        _finish(axes, title, legend)
        figure.savefig(path)
    return Path(path)


def thinned(curve: np.ndarray) -> np.ndarray:
    """At most 64 episodes of each of 128 equal stretches of env steps, evenly chosen.

    curve: `[E, 2]` env steps, ascending, and return.
    """
    if not len(curve):
        return curve
    borders = np.linspace(0.0, curve[-1, 0] + 1.0, _STRETCHES + 1)
    kept = [
        np.linspace(first, end - 1, min(end - first, _KEPT_OF_EACH)).round().astype(int)
        for first, end in itertools.pairwise(np.searchsorted(curve[:, 0], borders))
    ]
    return curve[np.concatenate(kept)]


def binned(curve: np.ndarray) -> list[np.ndarray]:
    """Consecutive parts of a curve `[E, 2]`: up to 60 of equal width in env steps.

    One with fewer than 8 episodes goes on into the next, so that the episodes of vector envs,
    which are told together, make no columns.
    """
    if not len(curve):
        return []
    borders = np.linspace(0.0, curve[-1, 0], _BINS + 1)[1:-1]
    ends, last = list[int](), 0
    for end in np.searchsorted(curve[:, 0], borders, side="right").tolist():
        if end - last >= _LEAST_IN_A_BIN and len(curve) - end >= _LEAST_IN_A_BIN:
            ends.append(end)
            last = end
    return np.split(curve, ends)


def _finite(rows: np.ndarray) -> np.ndarray:
    return rows[np.isfinite(rows).all(axis=1)]


def _draw_evaluations(axes: Axes, evaluations: np.ndarray) -> Legend:
    if not len(evaluations):
        return {}
    env_steps, mean, low, high = evaluations.T
    if len(env_steps) <= _MOST_MARKERS:
        # Rounding may put the mean of equal returns beside them.
        reach = np.maximum([mean - low, high - mean], 0.0)
        spread: dict[str, Any] = {"yerr": reach, "elinewidth": 1.2}
        line: Any = axes.errorbar(env_steps, mean, fmt="o-", capsize=2.5, **spread, **_EVALUATED)
    else:
        band = axes.fill_between(env_steps, low, high, color=ACCENT, alpha=0.2, linewidth=0)
        line = (band, *axes.plot(env_steps, mean, **_EVALUATED))
    return {"greedy evaluation: mean, range": line}


def _draw_training(axes: Axes, train: np.ndarray) -> Legend:
    if not len(train):
        return {}
    bins = binned(train)
    if len(bins) < _LEAST_BINS:
        (dots,) = axes.plot(*train.T, "o", color=EDGE, markersize=3.5, zorder=1.8)
        return {"training episode": dots}
    env_steps = [float(part[:, 0].mean()) for part in bins]
    low, middle, high = np.transpose([np.quantile(part[:, 1], (0.1, 0.5, 0.9)) for part in bins])
    band = axes.fill_between(env_steps, low, high, color=EDGE, alpha=0.35, linewidth=0)
    (line,) = axes.plot(env_steps, middle, color=MUTED, linewidth=1.6)
    return {"training episodes: median, 10 to 90 %": (band, line)}


def _draw_goal(axes: Axes, goal: float) -> Legend:
    """A line where the axis stays useful, else a word at the edge towards it."""
    low, high = axes.dataLim.intervaly
    reach = _GOAL_WITHIN * (high - low)
    if not math.isfinite(goal):
        return {}
    if low - reach <= goal <= high + reach:
        style: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": (0, (4, 4))}
        return {f"goal {goal:g}": axes.axhline(goal, **style, zorder=1.5)}
    y, side, where = (0.97, "top", "above") if goal > high else (0.03, "bottom", "below")
    place: dict[str, Any] = {"ha": "right", "va": side, "transform": axes.transAxes}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 3}
    axes.text(0.99, y, f"goal {goal:g}, {where}", bbox=box, **place)
    return {}


def _finish(axes: Axes, title: str, legend: Legend) -> None:
    axes.set_title(textwrap.fill(title, _TITLE_WIDTH))
    axes.set(xlabel="env steps", ylabel="return of an episode (raw rewards)")
    axes.xaxis.set_major_formatter(thousands)
    if not legend:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no episode ended", ha="center", transform=axes.transAxes)
        return
    low, high = axes.dataLim.intervaly
    if high - low < 1e-9 * max(abs(low), abs(high), 1.0):  # ticks of 1e-13 would be no help
        half = max(0.1 * abs(high), 1.0)
        axes.set_ylim(low - half, high + half)
    axes.set_xlim(left=0)
    place: dict[str, Any] = {"bbox_to_anchor": (-0.012, 1.0), "borderaxespad": 0.3}
    look: dict[str, Any] = {"ncols": 3, "handlelength": 1.6, "columnspacing": 1.5}
    axes.legend(legend.values(), legend.keys(), loc="lower left", **place, **look)


def thousands(value: float, _: Any = None) -> str:
    """`500`, `150k`, `2M`: for the ticks of an axis of env steps."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
