"""What goes to stdout: one JSON document, or nothing.

Everything a person reads goes to stderr. Libraries print where they like (pygame greets
on import), so with `--json` their stdout is turned to stderr as well.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from distdqn.plain_json import to_json


def say(line: str) -> None:
    """A line for a person."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def json_only(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """Gives a function that prints a value as JSON (nothing, unless `wanted`).

    Until the block ends, whatever else this process and its children write to stdout
    goes to stderr: the file descriptor is turned, not only Python's `sys.stdout`.
    """
    if not wanted:
        yield lambda value: None
        return
    stdout, python_stdout = os.dup(1), sys.stdout
    python_stdout.flush()
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    documents: list[str] = []
    try:
        yield lambda value: documents.append(to_json(value))
    finally:
        sys.stdout = python_stdout
        os.dup2(stdout, 1)
        os.close(stdout)
    for document in documents:
        print(document)
