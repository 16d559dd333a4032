"""The pictures of a verification, as SVG text.

Drawn without a display and without pyplot. Text stays text, so that a page is light and
can be searched.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.reporting.plots import EDGE, INK, STYLE, thousands
from distdqn.tabular.result import Outcome, Result, by_setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _PURPLE, _GREEN, _RED = "#2166ac", "#d9730d", "#7b3294", "#1b7837", "#b2182b"
_OF_LEARNER = {"table": _BLUE, "MLP": _ORANGE, "table, residual gradient": _PURPLE}
_STYLE = STYLE | {
    "svg.fonttype": "none",
    "svg.hashsalt": "distdqn",  # the same picture gets the same ids
    "font.family": ["DejaVu Sans", "sans-serif"],
}
_WIDTH = 10.5  # inches, of every picture
_WIDE = 5.0  # largest |q*| over the median, from which axes are logarithmic


def values_figure(results: Sequence[Result]) -> str:
    """Learned against exact values, a panel for each run."""
    return _panels(results, 3, 3.3, _draw_values)


def errors_figure(results: Sequence[Result]) -> str:
    """Value errors over time, a panel for each problem."""
    problems = list(dict.fromkeys(result.planned.problem for result in results))

    def draw(axes: Axes, problem: str) -> None:
        for result in results:
            if result.planned.problem == problem:
                _draw_errors(axes, result)
        axes.set(title=problem, xlabel="env steps", ylabel="Σ weight (q* - q)²", yscale="log")
        axes.xaxis.set_major_formatter(thousands)
        axes.set_xlim(left=0)
        axes.legend()

    return _panels(problems, 2, 3.2, draw)


def divergence_figure(
    baird: Mapping[str, np.ndarray], tsitsiklis_van_roy: Mapping[float, np.ndarray]
) -> str:
    """The two counterexamples, sweep by sweep."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for (name, values), color in zip(baird.items(), _FOUR_COLORS, strict=True):
            left.plot(values, label=name, color=color)
        discounts = tsitsiklis_van_roy.items()
        for (discount, weights), color in zip(discounts, reversed(_FOUR_COLORS), strict=True):
            right.plot(weights, label=f"discount {discount:g}", color=color)
        left.set(title="Baird's star", ylabel="largest |v(s)|; the true value is 0")
        right.set(title="Tsitsiklis and Van Roy: w → 2w", ylabel="w; the true value is 0")
        for axes in (left, right):
            axes.set(xlabel="sweeps over all states", yscale="log")
            axes.margins(x=0.01)
            axes.legend(loc="upper left")
        left.set_ylim(top=1e4 * baird[next(iter(baird))].max())  # room for the legend

    return _svg(3.8, draw)


def ablation_figure(outcomes: Sequence[Outcome]) -> str:
    """First-state values over time and greedy returns, by setting."""
    cartpole = [o for o in outcomes if np.isnan(o.exact_start_value)]
    lake = [o for o in outcomes if not np.isnan(o.exact_start_value)]

    def draw(figure: Figure) -> None:
        grid = figure.add_gridspec(2, 2, width_ratios=(3, 2))
        values, returns = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
        start = figure.add_subplot(grid[1, 1])
        _draw_start_values(values, cartpole, _FIVE_COLORS)
        values.set(title="CartPole: first states", yscale="log")
        _draw_level(values, cartpole[0].q_bound, "largest possible, 1 / (1 - discount)")
        _draw_returns(returns, cartpole)
        _draw_start_values(start, lake, (_BLUE, _ORANGE))
        start.set_title("FrozenLake, noisy table: first state")
        start.set_ylim(top=1.4 * start.get_ylim()[1])  # room for the legend
        _draw_level(start, lake[0].exact_start_value, "exact")

    return _svg(6.4, draw)


_FOUR_COLORS = (_RED, _ORANGE, _GREEN, _PURPLE)
_FIVE_COLORS = (_BLUE, _RED, _ORANGE, _PURPLE, _GREEN)


def _panels(
    shown: Sequence[Any], columns: int, row_height: float, draw_one: Callable[[Axes, Any], None]
) -> str:
    rows = math.ceil(len(shown) / columns)

    def draw(figure: Figure) -> None:
        for place, each in enumerate(shown, start=1):
            draw_one(figure.add_subplot(rows, columns, place), each)

    return _svg(row_height * rows, draw)


def _svg(height: float, draw: Callable[[Figure], None]) -> str:
    """What `draw` puts on a new figure, as an `<svg>` element as wide as its place."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        from matplotlib.figure import Figure  # without pyplot no display is looked for

        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', svg, count=1)


def _draw_values(axes: Axes, result: Result) -> None:
    pairs = result.solution.pairs
    q_star, q = result.solution.q_star[pairs], result.learned.q[pairs]
    visits = np.log10(1 + result.learned.visits[pairs])
    ends = [min(q_star.min(), q.min()), max(q_star.max(), q.max())]
    axes.plot(ends, ends, color=EDGE, linewidth=1, zorder=1)
    order = np.argsort(-visits)  # the rare ones on top: they are the ones to look at
    look: dict[str, Any] = {"s": 16, "linewidths": 0.3, "edgecolors": "white", "zorder": 2}
    axes.scatter(q_star[order], q[order], c=visits[order], cmap="viridis", **look)
    if np.abs(q_star).max() > _WIDE * np.median(np.abs(q_star)):  # one cliff hides the rest
        axes.set_xscale("symlog", linthresh=10.0)
        axes.set_yscale("symlog", linthresh=10.0)
    title = f"{result.planned.problem}\n{result.planned.learner}"
    axes.set(title=title, xlabel="exact q*", ylabel="learned q")
    error = f"max |q - q*| {result.point.max_error:.3g}"
    axes.text(0.03, 0.96, error, transform=axes.transAxes, va="top", fontsize=9)


def _draw_errors(axes: Axes, result: Result) -> None:
    points, learner = result.learned.points, result.planned.learner
    steps = [point.env_steps for point in points]
    color = _OF_LEARNER.get(learner, _GREEN)
    axes.plot(steps, [p.value_error for p in points], color=color, label=f"{learner}, visited")
    uniform = [point.uniform_value_error for point in points]
    axes.plot(steps, uniform, color=color, linestyle=(0, (4, 2)), label=f"{learner}, uniform")


def _draw_start_values(axes: Axes, outcomes: Sequence[Outcome], colors: Sequence[str]) -> None:
    """A line for each run, one colour and one label for each setting."""
    for (setting, own), color in zip(by_setting(outcomes).items(), colors, strict=True):
        for outcome in own:
            steps, values = zip(*outcome.start_values, strict=True)
            label = setting.title if outcome is own[0] else None
            axes.plot(steps, values, color=color, label=label, linewidth=1.4, alpha=0.85)
    axes.set(xlabel="env steps", ylabel="mean of max q(s0, a)")
    axes.xaxis.set_major_formatter(thousands)
    axes.set_xlim(left=0)
    axes.legend()


def _draw_level(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    place: dict[str, Any] = {"xytext": (-2, 3), "textcoords": "offset points", "ha": "right"}
    axes.annotate(label, (1.0, value), xycoords=("axes fraction", "data"), fontsize=8.5, **place)


def _draw_returns(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    settings = by_setting(outcomes)
    for row, (own, color) in enumerate(zip(settings.values(), _FIVE_COLORS, strict=True)):
        returns = [outcome.greedy_return for outcome in own]
        axes.plot(returns, [row] * len(returns), "o", color=color, markersize=5, alpha=0.75)
    axes.set_yticks(range(len(settings)), [setting.title for setting in settings], fontsize=8.5)
    axes.set(title="CartPole: greedy return", xlabel="mean return of 50 episodes")
    axes.invert_yaxis()
    axes.set_xlim(left=0)
