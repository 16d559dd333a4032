"""A table of text on the terminal."""

from collections.abc import Iterable, Sequence

_FILE_WIDTH = 140


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
