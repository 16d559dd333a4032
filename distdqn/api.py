"""The Python API: trains, or goes on with, one run.

Everything that can be refused without starting anything is refused here; what a run
then does is in `run/async_run.py` and `lockstep/run.py`.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.config import Config, load_config, to_yaml
from distdqn.config.schedules import outlasting
from distdqn.config.sections import function_id
from distdqn.config.tree import own_modules
from distdqn.errors import (
    DistDQNError,
    RunError,
    one_line,
    own_frame,
    traceback_of,
)
from distdqn.files.checkpoint import has_any, has_resumable
from distdqn.files.run_folder import RunFolder, check_free
from distdqn.machine.commands import python_path
from distdqn.reporting.closing import print_summary
from distdqn.reporting.progress import Progress
from distdqn.reporting.summary import Summary
from distdqn.run.checkpointer import initial_parameters
from distdqn.run.factory import Factory, make_factory
from distdqn.run.interruption import Interruption
from distdqn.run.refusals import check_address, check_arguments

# What Ray prints, a kilobyte each, of dead processes and of many: the run has its own lines.
# Ray reads this when it is imported.
_LEFT_OUT = "worker died or was killed|killed due to memory|worker processes have been started"
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _LEFT_OUT)

MakeEnv = Callable[[], Any]
MakeNetwork = Callable[[Any, int], Any]


def train(
    config: Config,
    make_env: MakeEnv | None = None,
    make_network: MakeNetwork | None = None,
    *,
    display: bool = True,
    preset: str | None = None,
    by_force: bool = False,
) -> Summary:
    """Trains as `config` says and returns the run's figures.

    make_env: makes one `gymnasium.Env`; distdqn vectorises and seeds. None: `env.id`.
    make_network: (observation space, number of actions) -> module giving `[B, A]`.
    display: progress on stderr.
    preset: the name of the one that `config` started from, for `run.json` and the plot's title.
    by_force: this process is ended at a second Ctrl-C, and where the run does not end in time;
      for a command. Otherwise a second Ctrl-C raises KeyboardInterrupt.
    A Ray session that the caller has opened is used and left open. Ctrl-C ends the run
    within 10 s and SIGTERM or SIGHUP within 20 s, with a checkpoint (`stopped_by`); Ctrl-C in
    lockstep at its next one. Before the run has begun it raises KeyboardInterrupt, at once.
    Raises DistDQNError, one line, after saving the weights where there are any.
    """
    interruption = Interruption(by_force)
    with interruption.heard():
        with interruption.until(0):
            factory, initial = _checked(config, make_env, make_network, display)
        config = factory.config
        text = to_yaml(config)  # schedules that follow the run's length follow this length
        folder = RunFolder.create(config.runs_dir, config.run_name, config.env.id, text)
        folder.tell(preset=preset)
        try:
            return _carry_out(
                factory, folder, display, interruption, lambda run: run.execute(initial)
            )
        except BaseException:
            folder.drop_failed_start()
            raise


def resume(
    run: str | Path,
    runs_dir: str | Path = "runs",
    make_env: MakeEnv | None = None,
    make_network: MakeNetwork | None = None,
    *,
    display: bool = True,
    by_force: bool = False,
) -> Summary:
    """Goes on with a lockstep run from its newest valid checkpoint, bit for bit.

    run: its name or folder.  make_env, make_network: what it was trained with, if anything.
    display, by_force: as in `train`.
    Raises RunError for a run that is live, has finished, or is asynchronous, CheckpointError
    where no checkpoint is intact.
    """
    interruption = Interruption(by_force)
    with interruption.heard():
        with interruption.until(0):
            folder = RunFolder.find(run, runs_dir)
            config = load_config(folder.config_path)
            if config.mode == "async":
                raise RunError(
                    f"run {folder.name!r} is asynchronous: so far only lockstep runs are resumed; "
                    + (
                        f"--init-from {folder.argument} starts a new run from its weights"
                        if has_any(folder.path)
                        else "it has no checkpoint from which a new run could start"
                    )
                )
            check_arguments(config, make_env, make_network)
            folder.require_make_env(config.env.id, make_env, "distdqn.resume")
            check_address(config)
            factory = make_factory(config, make_env, make_network)
        return _carry_out(factory, folder, display, interruption, lambda run: run.resume())


def dry_run(config: Config) -> dict[str, str]:
    """What `train` would start, by part, for a person to read.

    Starts and writes nothing. Raises DistDQNError as `train` does before it has started.
    """
    from distdqn.run.plan import plan  # loads ray, which a run in lockstep does without

    factory = make_factory(config)
    factory.check_network(initial_parameters(config))
    check_address(config)
    check_free(config.runs_dir, config.run_name)
    return plan(factory)


def _checked(
    config: Config, make_env: MakeEnv | None, make_network: MakeNetwork | None, display: bool
) -> tuple[Factory, dict[str, np.ndarray] | None]:
    """What makes the parts, and the parameters to begin with; raises what can be refused."""
    check_arguments(config, make_env, make_network)
    if make_env is not None:
        env = dataclasses.replace(config.env, id=function_id(make_env))
        config = dataclasses.replace(config, env=env)
    with (
        Progress(enabled=display) as progress,
        progress.stage("checking configuration and environment"),
    ):
        check_address(config)
        factory = make_factory(config, make_env, make_network)
        initial = initial_parameters(config)
        factory.check_network(initial)
    return factory, initial


def _carry_out(
    factory: Factory,
    folder: RunFolder,
    display: bool,
    interruption: Interruption,
    call: Callable[[Any], Summary],
) -> Summary:
    """A run of the configured mode; call: sets it going."""
    config, make = factory.config, _kind_of_run(factory.config.mode)
    ratio, limit = config.replay.samples_per_insert, config.max_log_lines_per_s
    progress = Progress(ratio, enabled=display, max_lines_per_s=limit)
    with contextlib.ExitStack() as stack:
        stack.callback(folder.close)
        stack.callback(folder.leave)
        stack.enter_context(progress)
        run = make(factory, folder, progress, interruption)
        interruption.last_acts += [partial(folder.leave, "stopped"), folder.remove_token]
        for line in (*outlasting(config), *factory.budget_lines()):
            progress.say(line)
        try:
            summary = call(run)
        except Exception as error:
            told = _written_down(error, factory, folder, progress.say)
            if told is error:
                raise
            raise told from error
    if display:
        resumable, found_by = has_resumable(folder.path), python_path(own_modules(config))
        print_summary(summary.to_json(), folder.path, resumable=resumable, found_by=found_by)
    if summary.stopped_by != interruption.name:  # it came while the run was closing
        interruption.end()
    return summary


def _written_down(
    error: Exception, factory: Factory, folder: RunFolder, say: Callable[[str], None]
) -> Exception:
    """What to raise for `error`, whose traceback is kept in the run's folder.

    What a network of the user's own raised in this process becomes a RunError. Of a bug of ours
    the file's path goes along as the attribute `log`.
    """
    details = traceback_of(error)
    frame = own_frame(details) if factory.has_own_network else ""
    if frame and not isinstance(error, DistDQNError):
        error = RunError(f"the network raised {one_line(error)}{frame}")
        error.details, error.exit_status = details, 1
    if not isinstance(error, DistDQNError):
        vars(error)["log"] = folder.log_internal_error(details)
    elif error.details and (path := folder.log_error(error.part or "run", error.details)):
        say(f"{path} has more of it")
    return error


def _kind_of_run(mode: str) -> Any:
    if mode == "async":
        from distdqn.run.async_run import AsyncRun

        return AsyncRun
    from distdqn.lockstep.run import LockstepRun

    return LockstepRun
