"""How the commands of this installation are typed from where the user stands."""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path


def typed(name: str, module: str) -> str:
    """`name` where the shell finds this installation's, else its path, else `python -m module`."""
    own, found = Path(sysconfig.get_path("scripts")) / name, shutil.which(name)
    if found and (not own.exists() or os.path.samefile(found, own)):
        return name
    if own.exists():
        return shlex.quote(_from_here(own))
    return f"{shlex.quote(_from_here(Path(sys.executable)))} -m {module}"


def _from_here(path: Path) -> str:
    """Relative to the working directory where it lies in a folder below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") or os.sep not in relative else relative
