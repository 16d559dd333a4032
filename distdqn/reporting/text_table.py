"""Tables and lists of text on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_FILE_WIDTH = 140
_LEAST_WIDTH = 20


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


def _wrapped(text: str, width: int) -> list[str]:
    """A path that is too long stays whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()
) -> None:
    """On stderr; where columns are too narrow for their texts, these go on in the next line.

    numbers: the columns that stand at the right.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    heads = [
        Column(Text(name), overflow="fold", justify="right" if name in numbers else "left")
        for name in columns
    ]
    table = Table(*heads, box=SIMPLE, padding=0)
    for cells in rows:
        table.add_row(*map(Text, cells))
    console = Console(stderr=True)
    if not console.is_terminal:  # a file takes wide lines
        console.width = _FILE_WIDTH
    console.print(table)
