"""Folders named by what is in them and the time."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path

from distdqn.errors import RunError


def make_folder(runs_dir: str | Path, kind: str) -> Path:
    """`<kind>-<YYYYmmdd-HHMMSS>`, with `-2` and so on where that is taken.

    Creating it is what takes the name: of two commands at once each has its own. Raises
    RunError where `runs_dir` cannot be written.
    """
    stem = f"{kind}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    try:
        Path(runs_dir).mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = Path(runs_dir) / (stem if number == 1 else f"{stem}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
        return folder
    except OSError as error:
        raise cannot_make(runs_dir, error) from error


@contextlib.contextmanager
def results_folder(runs_dir: str | Path, kind: str) -> Iterator[Path]:
    """As `make_folder`; gone again where nothing came of it."""
    folder = make_folder(runs_dir, kind)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # not empty: the results
            folder.rmdir()


def cannot_make(runs_dir: str | Path, error: OSError) -> RunError:
    """What to raise where the disk refuses a folder."""
    return RunError(
        f"cannot make a folder in {runs_dir}: {error.strerror}; "
        "choose another place with --runs-dir"
    )
