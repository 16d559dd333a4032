"""A result as tables on the terminal.

Cases of one kind stand in one table. What all of them share is said above it, and a column
that none of them fills is left out.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from distdqn.bench.ratios import Comparison, Ratio, plain_text
from distdqn.bench.result import Case, Result
from distdqn.reporting.text_table import print_table

_COLUMNS = ("", "median", "min - max", "limit", "of limit", "CPU us per unit", "peak MB")
_RATIO_COLUMNS = ("case", "unit", "old", "new", "times as good", "range", "share of limit")


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
    return [_panel(title, group) for title, group in groups.items()]


def _panel(title: str, cases: Sequence[Case]) -> Panel:
    every = [case.settings.items() for case in cases]
    common = set(every[0]).intersection(*every) if len(cases) > 1 else set()
    told = tuple(_text(dict(x for x in settings if x not in common)) for settings in every)
    shared = _text(dict(x for x in every[0] if x in common))
    limits = dict.fromkeys(case.limit_name for case in cases if case.limit and case.limit_name)
    return Panel(tuple(cases), title, shared, told, "; ".join(limits))


def _text(settings: Mapping[str, Any]) -> str:
    """`size 1,000,000  kind uniform`."""
    return "  ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in settings.items()
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


def _ratio_row(ratio: Ratio) -> tuple[str, ...]:
    return (
        ratio.label,
        ratio.unit,
        number(ratio.old),
        number(ratio.new),
        f"{ratio.times:.2f}",
        f"{ratio.low:.2f} - {ratio.high:.2f}",
        f"{percent(ratio.old_share)} -> {percent(ratio.new_share)}",
    )


def show(result: Result, comparison: Comparison | None = None) -> None:
    """All of it on stderr."""
    for panel in panels(result.cases):
        limit = f"limit: {panel.limit_name}" if panel.limit_name else ""
        _say(*filter(None, (panel.title, panel.shared, limit)))
        print_table(*panel_rows(panel), numbers=_COLUMNS[1:])
    _say(*result.notes)
    if comparison is not None:
        _say(f"against the result of {comparison.old_created}")
        rows = map(_ratio_row, comparison.ratios)
        print_table(_RATIO_COLUMNS, rows, numbers=_RATIO_COLUMNS[2:])
        for kind in ("warnings", "only_old", "only_new"):
            _say(*(f"{kind.replace('_', ' in the ')}: {x}" for x in getattr(comparison, kind)))
    machine = {"distdqn": result.version, **result.machine}
    _say(", ".join(f"{name} {plain_text(value)}" for name, value in machine.items() if value))


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)
