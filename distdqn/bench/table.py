"""A result as lines of text, and on the terminal.

The same columns serve the terminal and the page; a column that no case fills is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distdqn.bench.panels import Panel, panels
from distdqn.bench.ratios import Comparison
from distdqn.bench.result import Case, Result

_FILE_WIDTH = 140

Columns = tuple[str, ...]
Rows = list[tuple[str, ...]]

_TEXTS = {"", "case", "unit", "besides"}
RATIO_COLUMNS = ("case", "unit", "old", "new", "times as good", "range", "share of limit")


def number(value: float) -> str:
    """Three digits: 1.23, 45.6, 789, 12,300, 4.57M; 0 and what is not finite as they are."""
    size = abs(value)
    if not size < float("inf"):
        return str(value)
    if size >= 1e6:
        power, name = next(p for p in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if size >= p[0])
        return f"{value / power:.3g}{name}" if size / power < 1e3 else f"{value / power:,.0f}{name}"
    if size >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def panel_rows(panel: Panel, details: bool = True) -> tuple[Columns, Rows]:
    """The cases of a panel, one a row, with those columns that any of them fills.

    details: whether to give those a column too.
    """
    told = dict(zip(map(id, panel.cases), panel.told, strict=True))
    columns: dict[str, Callable[[Case], str]] = {
        "": lambda case: told[id(case)],
        "median": lambda case: number(case.value.median),
        "min - max": lambda case: f"{number(case.value.min)} - {number(case.value.max)}",
        "limit": lambda case: "" if case.limit is None else number(case.limit.median),
        "of limit": lambda case: "" if case.share is None else percent(case.share.median),
        "CPU per unit": lambda case: "" if case.cpu_s is None else seconds(case.cpu_s),
        "peak memory": lambda case: "" if case.peak_bytes is None else megabytes(case.peak_bytes),
    }
    if details:
        columns["besides"] = lambda case: "; ".join(
            f"{name} {_plain(value)}" for name, value in case.details.items()
        )
    filled = {name: [text(case) for case in panel.cases] for name, text in columns.items()}
    filled = {name: texts for name, texts in filled.items() if any(texts)}
    return tuple(filled), list(zip(*filled.values(), strict=True))


def panel_lines(panel: Panel) -> list[str]:
    """What stands above a panel's rows, besides its title."""
    return [panel.shared] * bool(panel.shared) + [f"limit: {panel.limit_name}"] * bool(
        panel.limit_name
    )


def ratio_rows(comparison: Comparison) -> Rows:
    """One row for each case in both results, below `RATIO_COLUMNS`."""
    return [
        (
            ratio.label,
            ratio.unit,
            number(ratio.old),
            number(ratio.new),
            f"{ratio.times:.2f}",
            f"{ratio.low:.2f} - {ratio.high:.2f}",
            f"{_share(ratio.old_share)} -> {_share(ratio.new_share)}",
        )
        for ratio in comparison.ratios
    ]


def comparison_lines(comparison: Comparison) -> list[str]:
    """What a reader of the ratios must know besides."""
    lines = [f"careful: {warning}" for warning in comparison.warnings]
    lines += [f"only in the old result: {label}" for label in comparison.only_old]
    return lines + [f"only in the new result: {label}" for label in comparison.only_new]


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share < 1 else f"{100 * share:.0f} %"


def seconds(value: float) -> str:
    """In s, ms, us or ns."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value / 1e-9:.3g} ns"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def machine_text(result: Result) -> str:
    """One line: processor, cores, memory, GPU, versions, load."""
    host = result.machine
    parts = [
        str(host.get("cpu")),
        f"{host.get('cores')} cores",
        f"{host.get('memory_bytes', 0) / 1e9:.3g} GB",
        host.get("gpu") or "",
        f"distdqn {result.version}",
        *(
            f"{name} {host[name]}"
            for name in ("python", "torch", "ray", "gymnasium", "numpy", "numba")
            if host.get(name)
        ),
        f"load {' '.join(map(str, host.get('load_average', ())))} at the start",
    ]
    return ", ".join(part for part in parts if part)


def show(result: Result, comparison: Comparison | None = None) -> None:
    """All of it on stderr."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not console.is_terminal:  # a file takes wide lines
        console.width = _FILE_WIDTH
    for panel in panels(result.cases):
        console.print(f"[bold]{escape(panel.title)}[/]", soft_wrap=True)
        for line in panel_lines(panel):
            console.print(escape(line), soft_wrap=True)
        _print(console, *panel_rows(panel, details=False))
    for note in result.notes:
        console.print(escape(note), soft_wrap=True)
    if comparison is not None:
        console.print(f"against the result of {comparison.old_created}")
        _print(console, RATIO_COLUMNS, ratio_rows(comparison))
        for line in comparison_lines(comparison):
            console.print(escape(line), soft_wrap=True)
    console.print(escape(machine_text(result)), soft_wrap=True)


def _print(console: Any, columns: Sequence[str], rows: Rows) -> None:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Column, Table

    heads = (Column(name, overflow="fold", justify=_side(name)) for name in columns)
    table = Table(*heads, box=SIMPLE, padding=0)
    for cells in rows:
        table.add_row(*map(escape, cells))
    console.print(table)


def _side(column: str) -> Any:
    return "left" if column in _TEXTS else "right"


def _share(share: float | None) -> str:
    return "-" if share is None else percent(share)


def _plain(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
