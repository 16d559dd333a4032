"""Builds each peer's own virtual environment.

    python benchmarks/compare/environments.py --into DIR [sb3 cleanrl ...]

The versions are those of `requirements/<peer>.txt`. Needs nothing but Python; a peer that
fails is named in one line with pip's last words, the others are built all the same, and the
status is 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"


def peers() -> list[str]:
    """All that there are requirements for."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def python_of(folder: Path, peer: str) -> Path:
    """The interpreter of a peer's environment."""
    scripts = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return folder.joinpath(peer, *scripts)


def build(folder: Path, peer: str) -> str:
    """Makes the environment, or completes the one that is there; "" or what failed, one line.

    pip's output is kept in `<folder>/<peer>.log`.
    """
    python = python_of(folder, peer)
    try:
        if not python.exists():
            venv.create(folder / peer, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{peer}: no virtual environment: {error}"
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--requirement", str(REQUIREMENTS / f"{peer}.txt")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (folder / f"{peer}.log").write_text(done.stdout)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    words = errors[-1] if errors else f"pip ended with {done.returncode}"
    return f"{peer}: {words} (all of it in {folder / peer}.log)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, required=True, help="folder of the environments")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(peers())}; none: all")
    options = parser.parse_args()
    if unknown := set(options.names) - set(peers()):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(peers())}")
    options.into.mkdir(parents=True, exist_ok=True)
    failed = 0
    for peer in options.names or peers():
        print(f"{peer}: building", flush=True)
        failure = build(options.into, peer)
        failed += bool(failure)
        print(failure or f"{peer}: {python_of(options.into, peer)}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
