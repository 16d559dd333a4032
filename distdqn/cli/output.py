"""What goes to stdout: one JSON document, or nothing.

Everything a person reads goes to stderr. Libraries print where they like (pygame greets
on import), so with `--json` their stdout is turned to stderr as well.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any


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


def to_json(value: Any) -> str:
    """JSON text; a number that JSON does not have (nan, inf) becomes null."""
    return json.dumps(_plain(value), indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if hasattr(value, "tolist"):  # a numpy array or number
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
