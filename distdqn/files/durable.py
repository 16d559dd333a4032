"""Files that are whole on the disk, and known to be as they were written.

A writer lists each file's length and SHA-256; a reader holds the file against them.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distdqn.errors import CheckpointError


def listing(data: bytes) -> dict[str, Any]:
    """What a manifest says of a file that holds `data`."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_file(path: Path, data: bytes) -> None:
    """Writes `path`, in place of one that is there: the old one or the new one, never half.

    Its content is on the disk when this returns, its name after `sync_folder`. Raises
    OSError where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def left_over(folder: Path) -> Iterator[Path]:
    """What broken-off writers left in `folder`."""
    return folder.glob(".*.partial-*")


def sync_folder(folder: Path) -> None:
    """The names in a folder are on the disk only when the folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path, listed: Mapping[str, Any]) -> bytes:
    """The content of `path`, which was written with the `listing` `listed`.

    Raises CheckpointError, which names it, where it is missing, not as written, or unreadable.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file {path} is missing") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read: {error.strerror}") from error
    found = listing(data)
    if found["bytes"] != listed["bytes"]:
        raise CheckpointError(
            f"checkpoint file {path} is truncated: {listed['bytes']} bytes were written, "
            f"{found['bytes']} are there"
        )
    if found["sha256"] != listed["sha256"]:
        raise CheckpointError(f"checkpoint file {path} is altered: its SHA-256 differs")
    return data
