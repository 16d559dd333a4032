"""`distdqn resume RUN`: goes on with a run that was broken off."""

from __future__ import annotations

from collections.abc import Sequence

from distdqn.cli.flags import FlagParser
from distdqn.cli.output import json_only


def run(arguments: Sequence[str]) -> int:
    """Trains to the end; returns the exit status."""
    options = _parser().read(arguments)
    with json_only(options.json) as print_json:
        from distdqn.api import resume

        summary = resume(options.run, runs_dir=options.runs_dir)
        print_json(summary.to_json())
    return summary.exit_status


def _parser() -> FlagParser:
    parser = FlagParser(
        "distdqn resume",
        description="Goes on with a lockstep run from its newest valid checkpoint, with the "
        "configuration it was started with. The weights become, bit for bit, those of a run "
        "that was never broken off.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's name, or its folder")
    parser.add_argument(
        "--runs-dir", default="runs", metavar="DIR", help="folder of all runs (default: runs)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout, nothing else")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of one line")
    return parser
