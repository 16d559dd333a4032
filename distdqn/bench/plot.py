"""A result as one picture.

A panel for each thing measured: a bar for each case with the range of its repetitions, and
a mark where its limit lies; at the right the median and its share of the limit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distdqn.bench.result import Result
from distdqn.bench.table import Panel, number, panels, percent
from distdqn.reporting.plots import ACCENT, INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE = STYLE | {
    "axes.grid.axis": "x",
    "axes.spines.bottom": False,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
}
_ROW_IN, _HEAD_IN, _WIDTH_IN = 0.27, 1.0, 10.0
_LOG_FROM = 30.0  # largest over smallest value of a panel; beyond it the small bars vanish


def write_png(path: Path, result: Result) -> None:
    import matplotlib
    from matplotlib.figure import Figure as Picture  # without pyplot no display is looked for

    groups = panels(result.cases)
    heights = [_HEAD_IN + _ROW_IN * len(group.cases) for group in groups] or [1.0]
    with matplotlib.rc_context(_STYLE):
        picture = Picture(figsize=(_WIDTH_IN, sum(heights) + 0.4), layout="constrained")
        title = f"distdqn bench {result.benchmark}" + ("" if groups else ": nothing was measured")
        picture.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        axes = picture.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for one, group in zip(axes, groups, strict=False):
            _draw(one, group)
        picture.savefig(path, format="png", dpi=130)


def _draw(axes: Axes, panel: Panel) -> None:
    cases, rows = panel.cases, range(len(panel.cases))
    medians = [case.value.median for case in cases]
    below = [case.value.median - case.value.min for case in cases]
    above = [case.value.max - case.value.median for case in cases]
    whiskers = {"ecolor": INK, "elinewidth": 1.1, "capsize": 2.5}
    axes.barh(rows, medians, height=0.62, color="#5b7db1", xerr=[below, above], error_kw=whiskers)
    limits = [(case.limit.median, row) for row, case in enumerate(cases) if case.limit]
    for x, row in limits:
        axes.plot([x, x], [row - 0.42, row + 0.42], color=ACCENT, linewidth=2.4)
    highest = np.nanmax([case.value.max for case in cases] + [x for x, _ in limits])
    lowest = min(case.value.min for case in cases)
    is_log = 0 < lowest * _LOG_FROM < highest
    if is_log:
        axes.set_xscale("log")
    axes.set_xlim(lowest / 2 if is_log else 0, (1.3 if is_log else 1.06) * highest or 1.0)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.set_yticks(rows, panel.told, fontsize=9)
    shares = [f"   {percent(case.share.median)}" if case.share else "" for case in cases]
    figures = axes.secondary_yaxis("right")
    figures.set_yticks(rows, [number(x) + y for x, y in zip(medians, shares, strict=True)])
    figures.spines["right"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    axes.xaxis.set_minor_formatter("")
    axes.set_title(panel.title + (", logarithmic" if is_log else ""))
    limit = f"| limit: {panel.limit_name}" if panel.limit_name else ""
    axes.set_xlabel("\n".join(filter(None, (panel.shared, limit))), loc="left", fontsize=8.5)
