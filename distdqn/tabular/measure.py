"""What a run learned, measured against the exact solution.

Everything comes from the run's folder: its checkpoints are the values over time, its
`visits.safetensors` is how often the behaviour policy took each action in each state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from distdqn.config import EnvConfig
from distdqn.envs import TransitionTable, transition_table
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

MAX_POINTS = 24


@dataclasses.dataclass(frozen=True)
class Solution:
    """An environment, solved.

    q_star: `[S, A]` optimal action values.
    pairs: `[S, A]` bool of the reachable, non-terminal, allowed pairs; they alone count.
    optimal_return: expected undiscounted return within the time limit of the greedy
      policy of `q_star`; of raw rewards.
    """

    table: TransitionTable
    q_star: np.ndarray
    pairs: np.ndarray
    optimal_return: float


@dataclasses.dataclass(frozen=True)
class Point:
    """The error of one set of weights.

    max_error: max |q - q*|.
    value_error: sum of mu (q* - q)^2, mu the visiting frequency of the whole run.
    uniform_value_error: the same under uniform mu.
    greedy_return: exact, of the greedy policy of q within the time limit.
    """

    env_steps: int
    max_error: float
    value_error: float
    uniform_value_error: float
    greedy_return: float


@dataclasses.dataclass(frozen=True)
class Learned:
    """What one run learned.

    q: `[S, A]` float64, of the last weights.
    visits: `[S, A]` int64, how often each pair was added to replay.
    points: the errors over time, the last one those of `q`.
    """

    q: np.ndarray
    visits: np.ndarray
    points: tuple[Point, ...]


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


def account_complaints(name: str, summary: Mapping[str, Any]) -> list[str]:
    """A line where collected is not accepted + refused + lost; name: of the run."""
    collected = summary["transitions_collected"]
    counts = {part: summary[f"transitions_{part}"] for part in ("accepted", "refused", "lost")}
    if collected == sum(counts.values()):
        return []
    shown = ", ".join(f"{part} {count}" for part, count in counts.items())
    return [f"{name}: {collected} transitions collected, must be the sum of {shown}"]


def _read_visits(run_folder: Path) -> np.ndarray:
    path = run_folder / "visits.safetensors"
    try:
        return safetensors.numpy.load_file(path)["visits"]
    except FileNotFoundError as error:
        raise RunError(
            f"run {run_folder.name!r} has no {path.name}, the visits of each state and action; "
            "a run writes it at its end where observations are states"
        ) from error
