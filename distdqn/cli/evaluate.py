"""`distdqn evaluate RUN`: greedy episodes with a run's policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distdqn.cli.flags import FlagParser, probability, whole_number
from distdqn.cli.output import json_only


def run(arguments: Sequence[str]) -> int:
    """Plays the episodes and prints what they returned; returns the exit status."""
    options = _parser().read(arguments)
    with json_only(options.json) as print_json:
        from distdqn.policy import evaluate_run

        result = evaluate_run(
            options.run,
            checkpoint=options.checkpoint,
            episodes=options.episodes,
            seed=options.seed,
            epsilon=options.epsilon,
            video=options.video,
            runs_dir=options.runs_dir,
        )
        if not options.json:
            _show(result)
        print_json(result)
    return 0


def _parser() -> FlagParser:
    parser = FlagParser(
        "distdqn evaluate", description="Plays greedy episodes with a run's policy."
    )
    parser.add_argument("run", metavar="RUN", help="a run's name, or its folder")
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="best|newest|PATH",
        help="which weights (default: best; newest where there is no best)",
    )
    parser.add_argument(
        "--episodes",
        type=whole_number(1),
        default=100,
        metavar="N",
        help="episodes (default: 100)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="seed of the first env (default: 0)",
    )
    parser.add_argument(
        "--epsilon",
        type=probability,
        metavar="P",
        help="probability of a random action (default: the run's eval.epsilon, mostly 0)",
    )
    parser.add_argument("--video", action="store_true", help="record an episode as a video")
    parser.add_argument(
        "--runs-dir", default="runs", metavar="DIR", help="folder of all runs (default: runs)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout, nothing else")
    parser.add_argument("--debug", action="store_true", help="tracebacks instead of one line")
    return parser


def _show(result: Mapping[str, Any]) -> None:
    """The figures, one a line, on stderr; a list of texts takes a line for each."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table("", Column(overflow="fold"), show_header=False, box=None)
    for name, value in result.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        for item in items:
            shown = f"{item:.2f}" if isinstance(item, float) else str(item)
            table.add_row(name.replace("_", " "), escape(shown))
    Console(stderr=True).print(table)
