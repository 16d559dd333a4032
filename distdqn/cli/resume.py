"""`distdqn resume RUN`: goes on with a run that was broken off."""

import dataclasses
from collections.abc import Sequence

from distdqn.cli.flags import read_options
from distdqn.cli.output import json_only


@dataclasses.dataclass(frozen=True)
class Options:
    """Goes on with a lockstep run from its newest valid checkpoint, with the configuration it
    was started with. The weights become, bit for bit, those of a run never broken off."""

    run: str
    """A run's name, or its folder."""
    runs_dir: str = "runs"
    """Folder of all runs."""


def run(arguments: Sequence[str]) -> int:
    """Trains to the end; returns the exit status."""
    options, wants_json = read_options("distdqn resume", Options, arguments)
    with json_only(wants_json) as print_json:
        from distdqn.api import resume

        summary = resume(**vars(options), by_force=True)
        print_json(summary.to_json())
    return summary.exit_status
