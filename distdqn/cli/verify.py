"""`distdqn verify`: learned values against exact solutions.

One embedded Ray serves all runs. The exit status is 1 where a stated bound is missed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from distdqn.cli.flags import UsageError, read_options
from distdqn.cli.output import json_only, say
from distdqn.config import EnvConfig
from distdqn.config.values import Range
from distdqn.errors import begun
from distdqn.files.folders import results_folder
from distdqn.plain_json import to_json

if TYPE_CHECKING:
    from distdqn.tabular.plan import PlannedRun
    from distdqn.tabular.result import Verification

_SEEDS, _SEEDS_FULL = 3, 8  # of each setting of the ablation


@dataclasses.dataclass(frozen=True)
class Env:
    """Only this environment; no bound is stated then."""

    id: str | None = None
    """Gymnasium id; it must expose its transition table. None: FrozenLake 4x4 and 8x8,
    CliffWalking, Taxi."""
    kwargs: Mapping[str, Any] | None = None
    """Its constructor arguments: '{"is_slippery": false}'."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Trains on tabular problems and holds the learned values against exact solutions; 5
    minutes on 2 cores. Writes verify.json and verify.html."""

    full: bool = False
    """Also the MLP on Taxi and FrozenLake 8x8, and 8 seeds of the ablation in place of 3; 15
    minutes."""
    env: Env = dataclasses.field(default_factory=Env)
    seed: Annotated[int, Range("seeds are unsigned", 0)] = 1
    """Seed of the runs; the ablation has its own."""
    runs_dir: str = "runs"
    """Folder of all runs."""


def run(arguments: Sequence[str]) -> int:
    """Makes the runs, writes `verify.json` and `verify.html`; returns the exit status."""
    options, wants_json = read_options("distdqn verify", Options, arguments)
    if options.env.kwargs is not None and options.env.id is None:
        raise UsageError("--env.kwargs is given, --env.id must be too")
    with json_only(wants_json) as print_json:
        from distdqn.api import train
        from distdqn.run.refusals import check_address
        from distdqn.tabular.page import to_html
        from distdqn.tabular.verification import verify

        runs, seeds = plan_of(options)
        check_address(runs[0].config(options.runs_dir, 0))  # before there is a folder
        with results_folder(options.runs_dir, "verify") as folder:
            with one_ray(folder, runs), begun():
                make_run = functools.partial(train, display=False, by_force=True)
                found = verify(folder, runs, seeds, options.seed, make_run, say)
            document = found.to_json()
            (folder / "verify.json").write_text(to_json(document, indent=2) + "\n")
            (folder / "verify.html").write_text(to_html(found))
        _show(found)
        say(f"see {folder / 'verify.html'}")
        print_json(document)
    return int(bool(found.complaints))


def plan_of(options: Options) -> tuple[list[PlannedRun], Sequence[int]]:
    """The runs against exact solutions, and the seeds of the ablation."""
    from distdqn.tabular.plan import runs_of, standard_runs

    if options.env.id is None:
        return standard_runs(options.full), range(1, 1 + (_SEEDS_FULL if options.full else _SEEDS))
    from distdqn.envs.tables import transition_table

    env = EnvConfig(options.env.id, options.env.kwargs or {})
    return runs_of(env, transition_table(env)), ()


@contextlib.contextmanager
def one_ray(folder: Path, runs: Sequence[PlannedRun]) -> Iterator[None]:
    """A Ray for all runs, which each of them takes for its caller's."""
    from distdqn.run.actors import embedded_cpus
    from distdqn.run.ray_session import connect

    cpus = max(embedded_cpus(run.config(str(folder), 0)) for run in runs)
    session = connect(None, folder.name, cpus, 0, folder / "ray_token")
    try:
        for line in session.notes:
            say(line)
        yield
    finally:
        session.close()


def _show(found: Verification) -> None:
    """The tables, and a line for each thing that does not hold, on stderr."""
    from distdqn.reporting.text_table import print_table
    from distdqn.tabular import result

    rows = [result.result_row(each) for each in found.results]
    ablation = result.ablation_rows(found.outcomes)
    tables = {result.SHORT_COLUMNS: rows, result.SHORT_ABLATION_COLUMNS: ablation}
    for columns, lines in tables.items():
        if lines:
            print_table(columns, result.only(columns, lines))
    for line in found.complaints:
        say(f"missed {line}")
