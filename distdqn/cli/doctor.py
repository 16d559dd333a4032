"""`distdqn doctor`: is this machine fit to train, and if not, what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from distdqn.cli import checks
from distdqn.cli.flags import read_options
from distdqn.cli.output import json_only

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
        results = _look(options.start_ray)
        status = "fail" if any(result.status == "fail" for result in results) else "ok"
        if not options.json:
            _show(results)
        print_json({"status": status, "checks": [vars(result) for result in results]})
    return int(status == "fail")


def _look(start_ray: bool) -> list[checks.Check]:
    return [
        checks.python_version(),
        checks.packages(),
        checks.shared_memory(),
        checks.memory(),
        checks.gpu(),
        checks.compiler(),
        checks.compile_cache(),
        checks.ray_temp(),
        checks.socket_path(),
        checks.ray_environment(),
        checks.ray_ports(),
        *([checks.ray_starts()] if start_ray else []),
    ]


def _show(results: Sequence[checks.Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    texts = [Column(title, overflow="fold") for title in ("found", "what to do")]
    table = Table("check", "", *texts)
    for result in results:
        colour = _COLOURS[result.status]
        status = f"[{colour}]{result.status}[/{colour}]"
        table.add_row(result.name, status, escape(result.found), escape(result.advice))
    Console(stderr=True).print(table)
