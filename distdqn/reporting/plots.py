"""The learning curve as a picture.

Returns of training episodes come from an exploring policy and belong to a cloud;
evaluations are greedy and are the line to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MEAN_OVER = 100
_MAX_DOTS = 20_000
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
    **{"font.size": 11, "axes.titlesize": 13, "axes.titlepad": 30, "legend.fontsize": 9.5},
    **{"axes.grid.axis": "y", "axes.spines.left": False, "axes.xmargin": 0.015},
    **{"xtick.major.size": 0, "ytick.major.size": 0},
}


def plot_learning_curve(
    path: str | Path,
    train: np.ndarray,
    evaluations: Sequence[tuple[int, float, float, float]],
    title: str,
    solved_at: float | None = None,
) -> Path:
    """Writes the picture as PNG and returns its path; either series may be empty.

    train: `[E, 2]` env steps and raw return of training episodes, in order.
    evaluations: (env steps, mean, min, max) of the returns of each, in order.
    solved_at: a return to be marked by a line.
    """
    import matplotlib

    with matplotlib.rc_context(_CURVE_STYLE):
        from matplotlib.figure import Figure  # without pyplot no display is looked for

        figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        _draw_training(axes, np.asarray(train, np.float64).reshape(-1, 2))
        _draw_evaluations(axes, np.asarray(evaluations, np.float64).reshape(-1, 4))
        if solved_at is not None:
            _draw_goal(axes, solved_at)
        _finish(axes, title)
        figure.savefig(path)
    return Path(path)


def running_mean(values: np.ndarray, over: int = _MEAN_OVER) -> np.ndarray:
    """Mean of each value and up to `over - 1` before it, `[E]`."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - over, 0)
    return (sums[end] - sums[start]) / (end - start)


def _draw_training(axes: Axes, train: np.ndarray) -> None:
    if not len(train):
        return
    dots = train[:: -(-len(train) // _MAX_DOTS)]  # more are no more to see
    axes.plot(*dots.T, ".", color=EDGE, markersize=3, markeredgewidth=0, alpha=0.5)
    label = f"training, mean of {_MEAN_OVER} episodes"
    axes.plot(train[:, 0], running_mean(train[:, 1]), color=MUTED, linewidth=1.6, label=label)


def _draw_evaluations(axes: Axes, evaluations: np.ndarray) -> None:
    if not len(evaluations):
        return
    env_steps, mean, low, high = evaluations.T
    axes.fill_between(env_steps, low, high, color=ACCENT, alpha=0.13, linewidth=0)
    dots, label = "o" if len(env_steps) <= 60 else "", "greedy evaluation, mean and range"
    axes.plot(env_steps, mean, f"{dots}-", color=ACCENT, label=label, markersize=3.5, linewidth=2.2)


def _draw_goal(axes: Axes, solved_at: float) -> None:
    axes.axhline(solved_at, color=INK, linewidth=1, linestyle=(0, (4, 4)), alpha=0.7, zorder=1.5)
    beside = axes.get_yaxis_transform()
    axes.text(1.005, solved_at, f"goal {solved_at:g}", transform=beside, va="center", fontsize=9.5)


def _finish(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="env steps", ylabel="return of an episode")
    axes.xaxis.set_major_formatter(thousands)
    axes.set_xlim(left=0)
    handles, labels = axes.get_legend_handles_labels()
    if handles:  # above the axes, where it covers nothing
        place: dict[str, Any] = {"bbox_to_anchor": (-0.01, 1.0), "borderaxespad": 0.4}
        axes.legend(handles[::-1], labels[::-1], ncols=2, loc="lower left", **place)
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no episode ended", ha="center", transform=axes.transAxes)


def thousands(value: float, _: Any = None) -> str:
    """`150k`, `2M`: for the ticks of an axis of env steps."""
    return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k" if value else "0"
