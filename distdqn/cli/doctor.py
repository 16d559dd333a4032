"""`distdqn doctor`: is this machine fit to train, and if not, what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from distdqn.cli.flags import read_options
from distdqn.cli.output import json_only

if TYPE_CHECKING:
    from distdqn.cli.checks import Check

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Checks this machine and says what to do."""

    start_ray: bool = False
    """Also start an embedded Ray and end it (10 s)."""
    json: bool = False
    """Print JSON on stdout, nothing else."""
    debug: bool = False
    """Tracebacks instead of one line."""


def run(arguments: Sequence[str]) -> int:
    """Runs every check; the exit status is 1 if one fails."""
    options = read_options("distdqn doctor", Options, arguments)
    with json_only(options.json) as print_json:
        results = [check() for check in _checks(options.start_ray)]
        failed = any(result.status == "fail" for result in results)
        if not options.json:
            _show(results)
        print_json(
            {
                "status": "fail" if failed else "ok",
                "checks": [vars(result) for result in results],
            }
        )
    return int(failed)


def _checks(start_ray: bool) -> list[Callable[[], Check]]:
    from distdqn.cli import checks, ray_checks

    found = [
        checks.python_version,
        checks.packages,
        ray_checks.shared_memory,
        checks.memory,
        checks.gpu,
        checks.compiler,
        checks.compile_cache,
        ray_checks.ray_temp,
        ray_checks.socket_path,
        ray_checks.ray_environment,
        ray_checks.ray_ports,
    ]
    return [*found, ray_checks.ray_starts] if start_ray else found


def _show(results: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(
        "check", "", *(Column(title, overflow="fold") for title in ("found", "what to do"))
    )
    for result in results:
        colour = _COLOURS[result.status]
        status = f"[{colour}]{result.status}[/{colour}]"
        table.add_row(result.name, status, escape(result.found), escape(result.advice))
    Console(stderr=True).print(table)
