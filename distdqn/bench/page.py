"""A result as one self-contained HTML page."""

from __future__ import annotations

import html
from typing import Any

from distdqn.bench.panels import panels
from distdqn.bench.plot import svg_text
from distdqn.bench.ratios import Comparison
from distdqn.bench.result import Result
from distdqn.bench.table import (
    RATIO_COLUMNS,
    comparison_lines,
    machine_text,
    panel_lines,
    panel_rows,
    ratio_rows,
)
from distdqn.reporting.html_page import figure, page, table

_CAPTION = """A bar is the median of the repetitions, its whisker the smallest and the largest. The
mark is the limit: what cannot be passed on this machine, measured in the same run, in turn with
the figure itself. The numbers at the right are the median and its share of the limit."""


def to_html(result: Result, comparison: Comparison | None = None) -> str:
    """The page, with the ratios to an earlier result where there is one."""
    parts = [
        f"<h1>distdqn bench {html.escape(result.benchmark)}</h1>",
        _small(f"{result.created}, {machine_text(result)}"),
        *map(_paragraph, result.notes),
        figure(svg_text(result), _CAPTION),
        "<h2>Figures</h2>",
    ]
    for panel in panels(result.cases):
        parts += [f"<h3>{html.escape(panel.title)}</h3>", *map(_small, panel_lines(panel))]
        parts.append(table(*panel_rows(panel)))
    if comparison is not None:
        parts += _ratios(comparison)
    parts += ["<h2>Options</h2>", _pairs(result.options)]
    parts += ["<h2>Machine</h2>", _pairs(result.machine)]
    return page(f"distdqn bench {result.benchmark}", parts)


def _ratios(comparison: Comparison) -> list[str]:
    return [
        f"<h2>Against the result of {html.escape(comparison.old_created)}</h2>",
        *map(_paragraph, comparison_lines(comparison)),
        table(RATIO_COLUMNS, ratio_rows(comparison)),
    ]


def _pairs(values: Any) -> str:
    return table(("", ""), [(name, _text(value)) for name, value in values.items()])


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _small(text: str) -> str:
    return f'<p class="small">{html.escape(text)}</p>'
