"""`distdqn evaluate RUN`: greedy episodes with a run's policy."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from distdqn.cli.flags import read_options
from distdqn.cli.output import json_only
from distdqn.config.values import Range


@dataclasses.dataclass(frozen=True)
class Options:
    """Plays greedy episodes with a run's policy."""

    run: str
    """A run's name, or its folder."""
    checkpoint: str = "best"
    """Which weights: best (newest where there is no best), newest, or a path."""
    episodes: Annotated[int, Range("a mean needs an episode", 1)] = 100
    """Episodes to play."""
    seed: Annotated[int, Range("seeds are unsigned", 0)] = 0
    """Seed of the first env."""
    epsilon: Annotated[float | None, Range("it is a probability", 0, 1)] = None
    """Probability of a random action; none: the run's eval.epsilon, mostly 0."""
    video: bool = False
    """Record an episode as a video."""
    runs_dir: str = "runs"
    """Folder of all runs."""


def run(arguments: Sequence[str]) -> int:
    """Plays the episodes and prints what they returned; returns the exit status."""
    options, wants_json = read_options("distdqn evaluate", Options, arguments)
    with json_only(wants_json) as print_json:
        from distdqn.policy import evaluate

        result = evaluate(**vars(options)).to_json()
        if not wants_json:
            _show(result)
        print_json(result)
    return 0


def _show(result: Mapping[str, Any]) -> None:
    """The figures, one a line, on stderr; a list of texts takes a line for each."""
    from distdqn.reporting.text_table import print_table

    rows = []
    for name, value in result.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            shown = f"{item:.2f}" if isinstance(item, float) else str(item)
            rows.append((name.replace("_", " "), shown))
    print_table(("figure", "value"), rows)
