"""The control groups (version 2) that bound this process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


def control_groups(group: Path, proc: Path) -> Iterator[Path]:
    """Folders of this process's own group and of those around it; some may not exist.

    group: where control groups are.  proc: where the proc file system is.
    """
    own = group
    with contextlib.suppress(OSError, ValueError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
        own = group / next((x[4:] for x in lines if x.startswith("0::/")), "")
    yield from (own, *own.parents)
