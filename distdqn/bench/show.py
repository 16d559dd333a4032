"""A result as tables, as one picture, and against an earlier one.

Cases of one kind stand in one table, and in one panel of the picture. What all of them share
is said above it, and a column that none of them fills is left out. In the picture each case is
a bar with the range of its repetitions and a mark where its limit lies; at the right the
median and its share of the limit.

Cases of two results belong together by their label. Ratios of figures from two machines,
versions or sets of options say little: where those differ, it is said. The share of the limit,
which was measured beside each figure, survives a change of machine better.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.bench.result import Case, Result
from distdqn.reporting.plots import ACCENT, INK, STYLE
from distdqn.reporting.text_table import print_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = ("", "median", "min - max", "limit", "of limit", "CPU us per unit", "peak MB")
_RATIO_COLUMNS = ("case", "unit", "old", "new", "times as good", "range", "share of limit")
_NOT_COMPARED = ("load_average", "distdqn")  # differs on one machine; is told by itself
_STYLE = STYLE | {
    "axes.grid.axis": "x", "axes.spines.bottom": False,
    "xtick.major.size": 0, "xtick.minor.size": 0, "ytick.major.size": 0,
}  # fmt: skip
_ROW_IN, _HEAD_IN, _WIDTH_IN = 0.27, 1.0, 10.0
_LOG_FROM = 30.0  # largest over smallest value of a panel; beyond it the small bars vanish


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """One case in both results.

    times: as good as the old one, above 1 is better: new / old, or old / new where the
      lower value is the better one.
    low, high: the same of the least and most favourable repetitions on both sides; a
      change within them may be chance.
    """

    label: str
    unit: str
    old: float
    new: float
    times: float
    low: float
    high: float
    old_share: float | None
    new_share: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from an older result to a newer one.

    only_old, only_new: labels of cases that the other side lacks.
    warnings: lines that say why the two may not be comparable.
    """

    old_created: str
    ratios: tuple[Ratio, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    warnings: tuple[str, ...]


def compare(old: Result, new: Result) -> Comparison:
    """Both of one benchmark."""
    before = {case.label: case for case in old.cases}
    after = {case.label: case for case in new.cases}
    pairs = [(before[label], case) for label, case in after.items() if label in before]
    alike = [(a, b) for a, b in pairs if (a.unit, a.better) == (b.unit, b.better)]
    return Comparison(
        old_created=old.created,
        ratios=tuple(_ratio(*pair) for pair in alike),
        only_old=tuple(label for label in before if label not in after),
        only_new=tuple(label for label in after if label not in before),
        warnings=(
            *_differences("versions of distdqn", {"": old.version}, {"": new.version}),
            *_differences("machines", old.machine, new.machine),
            *_differences("options", old.options, new.options),
            *(f"{b.label}: in another unit, not compared" for a, b in pairs if (a, b) not in alike),
        ),
    )


def _ratio(old: Case, new: Case) -> Ratio:
    above, below = (new.value, old.value) if new.better == "higher" else (old.value, new.value)
    return Ratio(
        new.label,
        new.unit,
        old.value.median,
        new.value.median,
        times=_over(above.median, below.median),
        low=_over(above.min, below.max),
        high=_over(above.max, below.min),
        old_share=old.share.median if old.share else None,
        new_share=new.share.median if new.share else None,
    )


def _over(above: float, below: float) -> float:
    """above / below; a time of 0 is infinitely good, and 0 of 0 no change."""
    if below:
        return above / below
    return float("inf") if above else 1.0


def _differences(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line, or none where nothing differs; JSON's lists equal tuples."""
    before, after = ({name: plain_text(value) for name, value in x.items()} for x in (old, new))
    changes = [
        f"{name} {before.get(name)} -> {after.get(name)}".strip()
        for name in {**before, **after}
        if name not in _NOT_COMPARED and before.get(name) != after.get(name)
    ]
    return [f"the {what} differ: {', '.join(changes)}"] if changes else []


def plain_text(value: Any) -> str:
    """Items of a list in a row."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """Cases of one name, unit and sense: one table, one set of axes.

    shared: what their settings have in common, as text.
    told: for each case, the settings that tell it apart.
    limit_name: of those that have a limit.
    """

    cases: tuple[Case, ...]
    title: str
    shared: str
    told: tuple[str, ...]
    limit_name: str


def panels(cases: Sequence[Case]) -> list[Panel]:
    """In order of appearance."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        sense = "" if case.better == "higher" else ", less is better"
        groups.setdefault(f"{case.name}, {case.unit}{sense}", []).append(case)
    return [_panel(title, tuple(group)) for title, group in groups.items()]


def _panel(title: str, cases: tuple[Case, ...]) -> Panel:
    every = [case.settings.items() for case in cases]
    common = set(every[0]).intersection(*every) if len(cases) > 1 else set()
    told = tuple(_text(x for x in settings if x not in common) for settings in every)
    limits = dict.fromkeys(case.limit_name for case in cases if case.limit and case.limit_name)
    return Panel(cases, title, _text(x for x in every[0] if x in common), told, "; ".join(limits))


def _text(settings: Iterable[tuple[str, Any]]) -> str:
    """`size 1,000,000  kind uniform`."""
    return "  ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in settings
    )


def number(value: float) -> str:
    """Three digits: 1.23, 45.6, 789, 12,300, 4.57M; what is not finite as it is."""
    millions = 1e6 <= abs(value) < math.inf
    rounded = float(f"{value / 1e6 if millions else value:.3g}")
    return f"{rounded:,.10g}{'M' if millions else ''}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{number(100 * share)} %"


def panel_rows(panel: Panel) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows: the cases of a panel, with those columns that any of them fills."""
    rows = [
        (
            told,
            number(case.value.median),
            f"{number(case.value.min)} - {number(case.value.max)}",
            "" if case.limit is None else number(case.limit.median),
            "" if case.share is None else percent(case.share.median),
            "" if case.cpu_s is None else number(1e6 * case.cpu_s),
            "" if case.peak_bytes is None else number(round(case.peak_bytes / 1e6)),
        )
        for told, case in zip(panel.told, panel.cases, strict=True)
    ]
    filled = [k for k, cells in enumerate(zip(*rows, strict=True)) if any(cells)]
    return tuple(_COLUMNS[k] for k in filled), [tuple(row[k] for k in filled) for row in rows]


def show(result: Result, comparison: Comparison | None = None) -> None:
    """All of it on stderr."""
    for panel in panels(result.cases):
        limit = f"limit: {panel.limit_name}" if panel.limit_name else ""
        _say(*filter(None, (panel.title, panel.shared, limit)))
        print_table(*panel_rows(panel), numbers=_COLUMNS[1:])
    _say(*result.notes)
    if comparison is not None:
        _say(f"against the result of {comparison.old_created}")
        rows = [
            (
                ratio.label,
                ratio.unit,
                number(ratio.old),
                number(ratio.new),
                f"{ratio.times:.2f}",
                f"{ratio.low:.2f} - {ratio.high:.2f}",
                f"{percent(ratio.old_share)} -> {percent(ratio.new_share)}",
            )
            for ratio in comparison.ratios
        ]
        print_table(_RATIO_COLUMNS, rows, numbers=_RATIO_COLUMNS[2:])
        for kind in ("warnings", "only_old", "only_new"):
            _say(*(f"{kind.replace('_', ' in the ')}: {x}" for x in getattr(comparison, kind)))
    machine = {"distdqn": result.version, **result.machine}
    _say(", ".join(f"{name} {plain_text(value)}" for name, value in machine.items() if value))


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


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
