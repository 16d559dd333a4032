"""A new folder beside the runs, named by kind and time.

Creating it is what takes the name, so one command never writes over what an earlier one
left, and of two at once each has its own.
"""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

from distdqn.errors import RunError


def make_folder(runs_dir: str | Path, kind: str) -> Path:
    """`<kind>-<YYYYmmdd-HHMMSS>`, with `-2` and so on where that is taken.

    Raises RunError where `runs_dir` cannot be written.
    """
    runs_dir = Path(runs_dir)
    stem, number = f"{kind}-{datetime.datetime.now():%Y%m%d-%H%M%S}", 1
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        while True:
            folder = runs_dir / (stem if number == 1 else f"{stem}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
    except OSError as error:
        raise cannot_make(runs_dir, error) from error


def cannot_make(runs_dir: str | Path, error: OSError) -> RunError:
    """The refusal of a place that cannot be written."""
    return RunError(
        f"cannot make a folder in {runs_dir}: {error.strerror}; "
        "choose another place with --runs-dir"
    )
