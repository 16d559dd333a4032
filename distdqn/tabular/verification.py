"""Makes the planned runs and measures what they learned.

They are made one after another. A Ray session that the caller has opened serves all of
them; without one each run starts its own. What a run learned is read from its folder: its
checkpoints are the values over time, its `visits.safetensors` is how often the behaviour
policy took each action in each state.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from distdqn.config import Config, EnvConfig
from distdqn.envs.make import make_stepper
from distdqn.envs.tables import transition_table
from distdqn.errors import RunError
from distdqn.files.checkpoint import checkpoints
from distdqn.policy import Policy, load_policy
from distdqn.reporting.summary import Summary
from distdqn.tabular import exact, result
from distdqn.tabular.counterexamples import divergence
from distdqn.tabular.plan import DISCOUNT, SETTINGS, PlannedRun, Setting, planned
from distdqn.tabular.result import Learned, Outcome, Point, Result, Solution, Verification

Train = Callable[[Config], Summary]

MAX_POINTS = 24
_STARTS, _START_SEED = 100, 1_000_003


def verify(
    folder: str | Path,
    runs: Sequence[PlannedRun],
    ablation_seeds: Sequence[int],
    seed: int,
    train: Train,
    say: Callable[[str], None],
) -> Verification:
    """Makes the runs in `folder` and measures what they learned.

    ablation_seeds: of the runs of each of `SETTINGS`; empty leaves them out.
    seed: of every other run.
    train: makes a run, without a display.
    say: takes a line for each run that is done.

    Raises:
      DistDQNError: a run fails.  KeyboardInterrupt, SystemExit: one was interrupted.
    """
    began = time.monotonic()
    ablation = [(setting, s) for setting in SETTINGS for s in ablation_seeds]
    total = len(runs) + len(ablation)
    results, outcomes = [], []
    say(f"{total} runs, in {folder}")
    for run in runs:
        config = run.config(str(folder), seed)
        solution = solve(config.env, config.learner.discount)
        summary = _uninterrupted(train(config))
        learned = measure_run(summary.run_folder, solution)
        results.append(Result(run, config, summary.to_json(), solution, learned))
        say(f"{len(results)}/{total} {result.result_line(results[-1])}")
    for setting, own_seed in ablation:
        summary = _uninterrupted(train(planned(setting, own_seed).config(str(folder), own_seed)))
        outcomes.append(measure_outcome(setting, summary.to_json()))
        say(f"{len(runs) + len(outcomes)}/{total} {result.outcome_line(outcomes[-1])}")
    wall_s = time.monotonic() - began
    return Verification(str(folder), wall_s, results, outcomes, *divergence())


def _uninterrupted(summary: Summary) -> Summary:
    """What interrupted the run ends the verification too."""
    if summary.stopped_by == "SIGINT":
        raise KeyboardInterrupt
    if summary.exit_status:
        raise SystemExit(summary.exit_status)
    return summary


def solve(settings: EnvConfig, discount: float) -> Solution:
    """Solves an environment by its transition table; EnvError where it has none."""
    table = transition_table(settings)
    q_star = exact.optimal_values(table, discount)
    optimum = exact.expected_return(table, exact.optimal_policy(q_star, table.allowed))
    return Solution(table, q_star, exact.reachable_pairs(table), optimum)


def measure_run(run_folder: str | Path, solution: Solution) -> Learned:
    """Measures a finished run from its folder.

    Raises:
      RunError: it did not count its visits.
      CheckpointError: a checkpoint is missing, truncated or altered.
    """
    path = Path(run_folder) / "visits.safetensors"
    try:
        visits = safetensors.numpy.load_file(path)["visits"]
    except FileNotFoundError as error:
        raise RunError(
            f"run {path.parent.name!r} has no {path.name}, the visits of each state and action; "
            "a run writes it at its end where observations are states"
        ) from error
    frequency = exact.visiting_frequency(visits, solution.pairs)
    states = np.arange(solution.table.num_states, dtype=np.int32)
    points, q = [], np.zeros_like(solution.q_star)
    for env_steps, policy in policies_over_time(run_folder):
        q = policy.q_values_of_stored(states).astype(np.float64)
        points.append(measure_values(q, solution, frequency, env_steps))
    return Learned(q, visits, tuple(points))


def measure_values(
    q: np.ndarray, solution: Solution, frequency: np.ndarray, env_steps: int = 0
) -> Point:
    """The error of values `q [S, A]`; frequency: mu `[S, A]` of the behaviour policy."""
    uniform = exact.visiting_frequency(np.ones_like(solution.pairs, np.int64), solution.pairs)
    policy = exact.greedy_policy(q, solution.table.allowed)
    return Point(
        env_steps=env_steps,
        max_error=float(np.abs(q - solution.q_star)[solution.pairs].max()),
        value_error=exact.weighted_value_error(q, solution.q_star, frequency),
        uniform_value_error=exact.weighted_value_error(q, solution.q_star, uniform),
        greedy_return=exact.expected_return(solution.table, policy),
    )


def policies_over_time(
    run_folder: str | Path, max_points: int = MAX_POINTS
) -> Iterator[tuple[int, Policy]]:
    """(env steps, policy) of the run's checkpoints, oldest first.

    Of more than `max_points` checkpoints some are left out, evenly; the newest is not.
    """
    paths = checkpoints(run_folder)
    places = np.linspace(0, len(paths) - 1, min(len(paths), max_points)).round()
    for path in (paths[int(place)] for place in places):
        yield int(path.name.removeprefix("step_")), load_policy(run_folder, path)


def measure_outcome(setting: Setting, summary: Mapping[str, Any]) -> Outcome:
    """What came of a finished run; summary: as `summary.json` has it."""
    settings = EnvConfig(summary["env_id"])
    starts, start_value = first_observations(settings), np.nan
    if np.issubdtype(starts.dtype, np.integer):  # a state, of which the exact values are known
        start_value = float(solve(settings, DISCOUNT).q_star[starts].max(axis=1).mean())
    return Outcome(
        setting=setting,
        seed=summary["seed"],
        start_values=tuple(start_values(summary["run_folder"], starts)),
        exact_start_value=start_value,
        greedy_return=summary["eval_return_mean"],
        q_abs_max=np.nan if summary["q_abs_max"] is None else summary["q_abs_max"],
        q_bound=np.nan if summary["q_bound"] is None else summary["q_bound"],
        soft_divergence=bool(summary["soft_divergence"]),
        run_folder=summary["run_folder"],
        complaints=tuple(result.account_complaints(summary["run_name"], summary)),
    )


def first_observations(settings: EnvConfig) -> np.ndarray:
    """`[100, *shape]` observations after a reset, the same at each call."""
    with contextlib.closing(make_stepper(settings, _STARTS)) as stepper:
        return stepper.reset(_START_SEED).copy()


def start_values(run_folder: str | Path, starts: np.ndarray) -> list[tuple[int, float]]:
    """(env steps, mean of max_a q at `starts`) of each checkpoint, oldest first."""
    return [
        (env_steps, float(policy.q_values_of_stored(starts).max(axis=1).mean()))
        for env_steps, policy in policies_over_time(run_folder)
    ]
