"""The Python API: trains, or goes on with, one run.

Everything that can be refused without starting anything is refused here; what a run
then does is in `run/async_run.py` and `lockstep/run.py`.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distdqn.config import Config, load_config, to_yaml
from distdqn.errors import RunError
from distdqn.files.checkpoint import has_resumable
from distdqn.files.run_folder import RunFolder
from distdqn.reporting.progress import Progress, print_summary
from distdqn.reporting.summary import Summary
from distdqn.run.checkpointer import initial_parameters
from distdqn.run.factory import Factory, make_factory

MakeEnv = Callable[[], Any]
MakeNetwork = Callable[[Any, int], Any]


def train(
    config: Config,
    make_env: MakeEnv | None = None,
    make_network: MakeNetwork | None = None,
    *,
    display: bool = True,
) -> Summary:
    """Trains as `config` says and returns the run's figures.

    make_env: makes one `gymnasium.Env`; distdqn vectorises and seeds. None: `env.id`.
    make_network: (observation space, number of actions) -> module giving `[B, A]`.
    display: progress on stderr.
    A Ray session that the caller has opened is used and left open. Ctrl-C and SIGTERM end the run
    with a checkpoint (`stopped_by`), in lockstep at its next one; a second Ctrl-C ends at once.
    Raises DistDQNError, one line, after saving the weights where there are any.
    """
    factory = make_factory(config, make_env, make_network)
    initial = initial_parameters(config)
    folder = RunFolder.create(config.runs_dir, config.run_name, config.env.id, to_yaml(config))
    return _carry_out(factory, folder, display, lambda run: run.execute(initial))


def resume(
    run: str | Path,
    runs_dir: str | Path = "runs",
    make_env: MakeEnv | None = None,
    make_network: MakeNetwork | None = None,
    *,
    display: bool = True,
) -> Summary:
    """Goes on with a lockstep run from its newest valid checkpoint, bit for bit.

    run: its name or folder.  make_env, make_network: what it was trained with, if anything.
    Raises RunError for a run that is live, has finished, or is asynchronous, CheckpointError
    where no checkpoint is intact.
    """
    folder = RunFolder.find(run, runs_dir)
    config = load_config(folder.config_path)
    if config.mode == "async":
        raise RunError(
            f"run {folder.name!r} is asynchronous: so far only lockstep runs are resumed; "
            f"--init-from {folder.name} starts a new run from its weights"
        )
    factory = make_factory(config, make_env, make_network)
    return _carry_out(factory, folder, display, lambda run: run.resume())


def _carry_out(
    factory: Factory, folder: RunFolder, display: bool, call: Callable[[Any], Summary]
) -> Summary:
    """A run of the configured mode; call: sets it going."""
    config, make = factory.config, _kind_of_run(factory.config.mode)
    ratio, limit = config.replay.samples_per_insert, config.max_log_lines_per_s
    progress = Progress(ratio, enabled=display, max_lines_per_s=limit)
    with contextlib.closing(folder), progress:
        run = make(factory, folder, progress)
        run.interruption.last_acts.append(folder.leave)
        with run.interruption.heard():
            progress.say(factory.memory_budget().line())
            summary = call(run)
    if display:
        print_summary(summary.to_json(), folder.path, resumable=has_resumable(folder.path))
    if summary.stopped_by != run.interruption.name:  # it came while the run was closing
        run.interruption.end()
    return summary


def _kind_of_run(mode: str) -> Any:
    if mode == "async":
        from distdqn.run.async_run import AsyncRun

        return AsyncRun
    from distdqn.lockstep.run import LockstepRun

    return LockstepRun
