"""Tables and lists on terminals of several widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from distdqn.reporting.text_table import print_facts, print_table

COLUMNS = ("problem", "max |q - q*|", "bound")
ROWS = [
    ("FrozenLake-v1 4x4, table", "0.0123", "error at most 0.05: holds"),
    ("Taxi-v3", "0.5", "-"),
]


def table(width: int) -> list[str]:
    """The lines of a table on a terminal so many columns wide."""
    shown = io.StringIO()
    console = Console(file=shown, width=width, color_system=None)
    print_table(COLUMNS, ROWS, numbers=COLUMNS[1:2], console=console)
    return [line.rstrip() for line in shown.getvalue().splitlines()]


@pytest.mark.parametrize("width", [48, 60, 80])
def test_a_table_breaks_no_word(width):
    lines = table(width)
    words = set(" ".join(lines).split())
    assert max(map(len, lines)) <= width
    for text in (*COLUMNS, *(cell for row in ROWS for cell in row)):
        assert set(text.split()) <= words


def test_where_words_have_no_room_beside_each_other_each_row_is_a_list():
    assert table(26) == [
        "",
        "problem       FrozenLake-v1 4x4,",
        "              table",
        "max |q - q*|  0.0123",
        "bound         error at most 0.05:",
        "              holds",
        "",
        "problem       Taxi-v3",
        "max |q - q*|  0.5",
        "bound         -",
    ]


def test_a_path_that_is_too_long_stays_whole():
    console = Console(file=io.StringIO(), width=40, color_system=None)
    path = "/a/long/path/" + "x" * 60
    print_facts({"video": f"see {path} now"}, console)
    assert console.file.getvalue().splitlines() == ["video  see", f"       {path}", "       now"]
