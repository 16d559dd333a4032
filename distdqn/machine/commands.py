"""How the commands of this installation are typed from where the user stands."""

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path


def typed(name: str, module: str) -> str:
    """`name` where the shell finds this installation's, else its path, else `python -m module`."""
    own, found = Path(sysconfig.get_path("scripts")) / name, shutil.which(name)
    if found and (not own.exists() or os.path.samefile(found, own)):
        return name
    if own.exists():
        return shlex.quote(_from_here(own))
    return f"{shlex.quote(_from_here(Path(sys.executable)))} -m {module}"


def python_path(modules: Iterable[str]) -> str:
    """What a command begins with that must find the user's modules; "" where it does by itself.

    modules: dotted names of such as this process has loaded.
    """
    folders = []
    for name in modules:
        package = name.partition(".")[0]
        file = getattr(sys.modules.get(package), "__file__", None)
        if file is None:
            continue
        folder = Path(file).parent.parent if Path(file).stem == "__init__" else Path(file).parent
        is_found = folder == Path.cwd() or "site-packages" in folder.parts
        if not is_found and str(folder) not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
            relative = os.path.relpath(folder)
            folders.append(str(folder) if relative.startswith("..") else relative)
    return f"PYTHONPATH={shlex.quote(os.pathsep.join(dict.fromkeys(folders)))} " if folders else ""


def _from_here(path: Path) -> str:
    """Relative to the working directory where it lies in a folder below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") or os.sep not in relative else relative
