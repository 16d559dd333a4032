"""Tables and lists of text on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_FILE_WIDTH = 140
_LEAST_WIDTH = 20
_UNLIMITED = 100_000


def print_facts(facts: Mapping[str, str], console: Console, whole: Collection[str] = ()) -> None:
    """A label and a text in each line; where it is narrow, texts go on below at a space.

    whole: labels whose texts stay one line however long, to be copied: commands.
    """
    from rich.text import Text

    indent = max(map(len, facts)) + 2
    width = max(console.width - indent, _LEAST_WIDTH)
    for label, text in facts.items():
        lines = [text] if label in whole else _wrapped(text, width)
        told = f"\n{' ' * indent}".join(lines)
        console.print(Text.assemble((label.ljust(indent), "dim"), told), soft_wrap=True)


def _stderr() -> Console:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:  # a file takes wide lines
        console.width = _FILE_WIDTH
    return console


def _wrapped(text: str, width: int) -> list[str]:
    """A path that is too long stays whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Collection[str] = (),
    console: Console | None = None,
) -> None:
    """On stderr; columns that are too narrow go on below at a space.

    Where not every word has room beside the others, each row becomes a list of facts.
    numbers: the columns that stand at the right.
    """
    from rich.box import SIMPLE
    from rich.measure import Measurement
    from rich.table import Column, Table
    from rich.text import Text

    heads = [Column(Text(c), justify="right" if c in numbers else "left") for c in columns]
    table, told = Table(*heads, box=SIMPLE, padding=0), list(rows)
    for cells in told:
        table.add_row(*map(Text, cells))
    console = console or _stderr()
    unlimited = console.options.update(max_width=_UNLIMITED)
    if Measurement.get(console, unlimited, table).minimum <= console.width:
        console.print(table)
        return
    for cells in told:
        console.print()
        print_facts(dict(zip(columns, cells, strict=True)), console)
