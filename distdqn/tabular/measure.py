"""What a run learned, measured against the exact solution.

Everything comes from the run's folder: its checkpoints are the values over time, its
`visits.safetensors` is how often the behaviour policy took each action in each state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from distdqn.config import EnvConfig
from distdqn.envs.make import make_stepper
from distdqn.envs.tables import transition_table
from distdqn.errors import RunError
from distdqn.files.checkpoint import checkpoints
from distdqn.policy import Policy, load_policy
from distdqn.tabular.exact import (
    expected_return,
    greedy_policy,
    optimal_policy,
    optimal_values,
    reachable_pairs,
    visiting_frequency,
    weighted_value_error,
)
from distdqn.tabular.result import (
    DISCOUNT,
    Learned,
    Outcome,
    Point,
    Setting,
    Solution,
    account_complaints,
)

MAX_POINTS = 24
_STARTS, _START_SEED = 100, 1_000_003


def solve(settings: EnvConfig, discount: float) -> Solution:
    """Solves an environment by its transition table; EnvError where it has none."""
    table = transition_table(settings)
    q_star = optimal_values(table, discount)
    policy = optimal_policy(q_star, table.allowed)
    return Solution(table, q_star, reachable_pairs(table), expected_return(table, policy))


def measure_run(run_folder: str | Path, solution: Solution) -> Learned:
    """Measures a finished run from its folder.

    Raises:
      RunError: it did not count its visits.
      CheckpointError: a checkpoint is missing, truncated or altered.
    """
    visits = _read_visits(Path(run_folder))
    frequency = visiting_frequency(visits, solution.pairs)
    states = np.arange(solution.table.num_states, dtype=np.int32)
    points, q = [], np.zeros_like(solution.q_star)
    for env_steps, policy in policies_over_time(run_folder):
        q = policy.q_values(states).astype(np.float64)
        points.append(measure_values(q, solution, frequency, env_steps))
    return Learned(q, visits, tuple(points))


def measure_values(
    q: np.ndarray, solution: Solution, frequency: np.ndarray, env_steps: int = 0
) -> Point:
    """The error of values `q [S, A]`; frequency: mu `[S, A]` of the behaviour policy."""
    uniform = visiting_frequency(np.ones_like(solution.pairs, np.int64), solution.pairs)
    policy = greedy_policy(q, solution.table.allowed)
    return Point(
        env_steps=env_steps,
        max_error=float(np.abs(q - solution.q_star)[solution.pairs].max()),
        value_error=weighted_value_error(q, solution.q_star, frequency),
        uniform_value_error=weighted_value_error(q, solution.q_star, uniform),
        greedy_return=expected_return(solution.table, policy),
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


def _read_visits(run_folder: Path) -> np.ndarray:
    path = run_folder / "visits.safetensors"
    try:
        return safetensors.numpy.load_file(path)["visits"]
    except FileNotFoundError as error:
        raise RunError(
            f"run {run_folder.name!r} has no {path.name}, the visits of each state and action; "
            "a run writes it at its end where observations are states"
        ) from error


def measure_outcome(setting: Setting, summary: Mapping[str, Any]) -> Outcome:
    """What came of a finished run; summary: as `summary.json` has it."""
    settings = EnvConfig(summary["env_id"])
    starts, exact = first_observations(settings), np.nan
    if np.issubdtype(starts.dtype, np.integer):  # a state, of which the exact values are known
        exact = float(solve(settings, DISCOUNT).q_star[starts].max(axis=1).mean())
    return Outcome(
        setting=setting,
        seed=summary["seed"],
        start_values=tuple(start_values(summary["run_folder"], starts)),
        exact_start_value=exact,
        greedy_return=summary["eval_return_mean"],
        q_abs_max=_number(summary["q_abs_max"]),
        q_bound=_number(summary["q_bound"]),
        soft_divergence=bool(summary["soft_divergence"]),
        run_folder=summary["run_folder"],
        complaints=tuple(account_complaints(summary["run_name"], summary)),
    )


def first_observations(settings: EnvConfig) -> np.ndarray:
    """`[100, *shape]` observations after a reset, the same at each call."""
    with contextlib.closing(make_stepper(settings, _STARTS)) as stepper:
        return stepper.reset(_START_SEED).copy()


def start_values(run_folder: str | Path, starts: np.ndarray) -> list[tuple[int, float]]:
    """(env steps, mean of max_a q at `starts`) of each checkpoint, oldest first."""
    return [
        (env_steps, float(policy.q_values(starts).max(axis=1).mean()))
        for env_steps, policy in policies_over_time(run_folder)
    ]


def _number(value: float | None) -> float:
    """A figure of a summary, where one that is not finite is None."""
    return np.nan if value is None else float(value)
