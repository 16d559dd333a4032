"""A result as one picture.

A panel for each thing measured: a bar for each case with the range of its repetitions,
and a mark where its limit lies. What all cases of a panel share is said in its title.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distdqn.bench.panels import Panel, panels
from distdqn.bench.result import Case, Result
from distdqn.bench.table import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

_BAR, _LIMIT, _INK, _SOFT, _GRID = "#5b7db1", "#c2410c", "#1f2933", "#52606d", "#e4e7eb"
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": _SOFT,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _INK,
    "svg.hashsalt": "distdqn",  # the same result gives the same file
}
_ROW_IN, _HEAD_IN, _WIDTH_IN = 0.27, 1.1, 10.0
_LOG_FROM = 30.0  # largest over smallest value of a panel; beyond it the small bars vanish


def write_png(path: Path, result: Result) -> None:
    """The picture as a file."""
    _write(path, result, "png")


def svg_text(result: Result) -> str:
    """The picture as an `<svg>` element."""
    out = io.StringIO()
    _write(out, result, "svg")
    text = out.getvalue()
    return text[text.index("<svg") :]


def _write(out: Any, result: Result, kind: str) -> None:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        # A page has a title of its own.
        picture = _draw(result, f"distdqn bench {result.benchmark}" if kind == "png" else "")
        # Without a date the file depends on the result alone.
        metadata = {"Date": None} if kind == "svg" else None
        picture.savefig(out, format=kind, dpi=130, metadata=metadata)


def _draw(result: Result, title: str) -> Picture:
    from matplotlib.figure import Figure as Picture  # without pyplot no display is looked for

    groups = panels(result.cases)
    heights = [_HEAD_IN + _ROW_IN * len(group.cases) for group in groups] or [1.0]
    picture = Picture(figsize=(_WIDTH_IN, sum(heights) + 0.4), layout="constrained")
    if title:
        picture.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    axes = picture.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for one, group in zip(axes, groups, strict=False):
        _panel(one, group)
    if not groups:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "nothing was measured", ha="center")
    return picture


def _panel(axes: Axes, panel: Panel) -> None:
    cases = panel.cases
    rows = range(len(cases))
    medians = [case.value.median for case in cases]
    below = [case.value.median - case.value.min for case in cases]
    above = [case.value.max - case.value.median for case in cases]
    axes.barh(
        rows,
        medians,
        height=0.62,
        color=_BAR,
        xerr=[below, above],
        error_kw={"ecolor": _INK, "elinewidth": 1.1, "capsize": 2.5},
    )
    limits = [(case.limit.median, row) for row, case in enumerate(cases) if case.limit]
    for x, row in limits:
        axes.plot([x, x], [row - 0.42, row + 0.42], color=_LIMIT, linewidth=2.4)
    _scale(axes, cases)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.set_yticks(rows, panel.told)
    for row, case in enumerate(cases):
        _figures(axes, row, case)
    _finish(axes, panel)


def _figures(axes: Axes, row: int, case: Case) -> None:
    """The median and its share, right of the axes, where they cover nothing."""
    share = "" if case.share is None else f"   {percent(case.share.median)}"
    axes.annotate(
        number(case.value.median) + share,
        (1.0, row),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )


def _scale(axes: Axes, cases: Sequence[Case]) -> None:
    """From 0, or in powers of ten where small bars would vanish; the axis says which."""
    figures = [figure for case in cases for figure in (case.value, case.limit) if figure]
    least = min(min(case.value.median, case.value.min) for case in cases)
    most = max(figure.max if figure.max == figure.max else 0.0 for figure in figures)
    if 0 < least * _LOG_FROM < most:
        axes.set_xscale("log")
        axes.set_xlim(least / 2, most * 1.3)
    else:
        axes.set_xlim(0, most * 1.06 or 1.0)


def _finish(axes: Axes, panel: Panel) -> None:
    scale = ", logarithmic" if axes.get_xscale() == "log" else ""
    limit = f"| limit: {panel.limit_name}" if panel.limit_name else ""
    lines = [(text, colour) for text, colour in ((panel.shared, _SOFT), (limit, _LIMIT)) if text]
    pad = 6 + 12 * len(lines)
    axes.set_title(panel.title + scale, loc="left", fontsize=10.5, fontweight="bold", pad=pad)
    for line, (text, colour) in enumerate(reversed(lines)):
        axes.annotate(
            text,
            (0.0, 1.0),
            xycoords="axes fraction",
            xytext=(0, 5 + 12 * line),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
        )
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    axes.xaxis.set_minor_formatter("")
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelsize=9)
