"""What a command prints: one JSON document on stdout, or lines for a person.

Everything a person reads goes to stderr (`say`). Libraries print where they like (pygame greets
on import), so with `--json` their stdout is turned to stderr as well.
"""

import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distdqn.plain_json import to_json

_SOON_S = 0.3


@dataclasses.dataclass(frozen=True)
class OutputFlags:
    """The flags of every command; `main` has taken --debug out before a verb sees it."""

    json: bool = False
    """Print JSON on stdout, nothing else."""
    debug: bool = False
    """Tracebacks instead of one line."""


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
        yield lambda value: documents.append(to_json(value, indent=2))
    finally:
        sys.stdout = python_stdout
        os.dup2(stdout, 1)
        os.close(stdout)
    for document in documents:
        print(document)


def say(line: str) -> None:
    """Prints a line for a person, at once."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def told_if_slow(line: str) -> Iterator[None]:
    """Says the line, on a terminal, if the block has not ended soon."""
    timer = threading.Timer(_SOON_S, say, [line])
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def listing(meanings: Mapping[str, str], indent: str = "") -> str:
    """A line for each name, its meaning beside it."""
    width = max(map(len, meanings))
    return "\n".join(f"{indent}{name:{width}}  {meaning}" for name, meaning in meanings.items())
