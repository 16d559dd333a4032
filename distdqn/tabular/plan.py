"""What a verification runs, and what it must reach.

Every run is an ordinary one: its settings are configuration keys, and `distdqn train`
with the `config.yaml` of its folder repeats it.

A table is learned from uniform replay that keeps every transition, with falling step sizes.
Where outcomes are random the values end at those of the empirical frequencies, and more
steps are the only way to better ones. RMSprop divides by the size of a pair's own
gradients, so that rarely visited pairs keep up; Adam does too, but its momentum carries
them past their targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distdqn.config import EnvConfig
from distdqn.envs.tables import TransitionTable
from distdqn.tabular.result import DISCOUNT, Bound, PlannedRun

Problem = tuple[str, Mapping[str, Any]]
"""What people call the environment, and its configuration."""

_RUN: Mapping[str, Any] = {
    "learner.discount": DISCOUNT,
    "learner.loss": "mse",
    "learner.device": "cpu",
    "learner.compile": False,  # 10 s of a core at each new shape; these updates take 1 ms
    "learner.superbatch": 8,
    "learner.snapshot_period_s": 1.0,  # a checkpoint is of the newest snapshot
    "workers.envs_per_worker": 64,
    "workers.block_transitions": 2048,
    "replay.min_size_to_sample": 4096,
    "eval.period_env_steps": None,  # the table says what a policy is worth
    "eval.final_episodes": 20,
    "eval.max_episode_steps": 1000,
    "eval.video_episodes": 0,
    "checkpoint.period_s": 1.0,
    "checkpoint.keep": 1000,
}
_RESIDUAL: Mapping[str, Any] = {"learner.gradient": "residual"}


def _over(env_steps: int, start: float, end: float, falling: float = 1.0) -> dict[str, Any]:
    """A run on replay of all its transitions, its step size falling over a part of it.

    What comes in at the end of the fall has little weight: random outcomes need it all.
    Certain ones do not, and a last stretch of small steps takes away the error that the
    large ones have left in all values alike.
    """
    return {
        "total_env_steps": env_steps,
        "replay.capacity": env_steps,
        "learner.learning_rate": {
            "start": start,
            "end": end,
            "env_steps": round(falling * env_steps),
        },
    }


def _table(batch_size: int) -> dict[str, Any]:
    return {
        "network.hidden": (),
        "learner.target_period": 1,
        "learner.optimizer": "rmsprop",
        "learner.batch_size": batch_size,
    }


def _mlp(hidden: tuple[int, ...], target_period: int, batch_size: int) -> dict[str, Any]:
    return {
        "network.hidden": hidden,
        "learner.target_period": target_period,
        "learner.batch_size": batch_size,
        "learner.superbatch": 16,
    }


def _planned(
    name: str, problem: Problem, *changes: Mapping[str, Any], bounds: tuple[Bound, ...] = ()
) -> PlannedRun:
    """changes: to the problem's values; later ones win."""
    values = {key: each[key] for each in (problem[1], *changes) for key in each}
    learner = "MLP" if values["network.hidden"] else "table"
    residual = ", residual gradient" if values.get("learner.gradient") == "residual" else ""
    return PlannedRun(name, problem[0], learner + residual, values, bounds)


_LAKE_VALUES: Mapping[str, Any] = {
    **_RUN,
    "env.id": "FrozenLake-v1",
    "workers.block_transitions": 4096,
    "workers.epsilon.value": 0.7,
    "replay.samples_per_insert": 8.0,
}
_8X8_VALUES: Mapping[str, Any] = {"env.id": "FrozenLake8x8-v1", "workers.epsilon.value": 0.3}
_CLIFF_VALUES: Mapping[str, Any] = {
    **_RUN,
    "env.id": "CliffWalking-v1",
    "workers.epsilon.value": 0.5,
    "replay.samples_per_insert": 16.0,
}
_TAXI_VALUES: Mapping[str, Any] = {"env.id": "Taxi-v4", "replay.samples_per_insert": 16.0}
_LAKE: Problem = ("FrozenLake 4x4", _LAKE_VALUES)
_DRY_LAKE: Problem = (
    "FrozenLake 4x4, not slippery",
    {**_LAKE_VALUES, "env.kwargs": {"is_slippery": False}},
)
_LAKE_8X8: Problem = ("FrozenLake 8x8", {**_LAKE_VALUES, **_8X8_VALUES})
_CLIFF: Problem = ("CliffWalking", _CLIFF_VALUES)
_TAXI: Problem = ("Taxi", {**_RUN, **_TAXI_VALUES})

_RUNS = (
    _planned(
        "frozenlake-table",
        _LAKE,
        _table(2048),
        _over(1_600_000, 0.002, 1e-5),
        bounds=(Bound("max_error", 0.03, True), Bound("greedy_return", 0.735, False)),
    ),
    # A quarter of the steps: what it ends at, it has reached after half of these.
    _planned("frozenlake-residual", _LAKE, _table(2048), _RESIDUAL, _over(400_000, 0.002, 1e-5)),
    _planned("frozenlake-mlp", _LAKE, _mlp((64, 64), 50, 512), _over(400_000, 2e-3, 2e-5)),
    _planned("dry-lake-residual", _DRY_LAKE, _table(2048), _RESIDUAL, _over(300_000, 0.005, 1e-5)),
    _planned("frozenlake8x8-table", _LAKE_8X8, _table(2048), _over(800_000, 0.005, 1e-5)),
    _planned(
        "cliffwalking-table",
        _CLIFF,
        _table(512),
        _over(150_000, 0.3, 5e-4, 0.8),
        bounds=(Bound("max_error", 0.05, True),),
    ),
    _planned("cliffwalking-mlp", _CLIFF, _mlp((128,), 20, 256), _over(100_000, 0.02, 3e-5)),
    _planned(
        "taxi-table",
        _TAXI,
        _table(512),
        _over(160_000, 0.1, 5e-4, 0.8),
        {"workers.epsilon.value": 1.0},
        bounds=(Bound("greedy_return", 7.8, False),),
    ),
)
_TAXI_MLP = {**_mlp((128,), 100, 512), "workers.epsilon.value": 0.7}
_SLOW_RUNS = (
    _planned("frozenlake8x8-mlp", _LAKE_8X8, _mlp((128, 128), 50, 512), _over(800_000, 1e-3, 1e-5)),
    _planned("taxi-mlp", _TAXI, _TAXI_MLP, _over(300_000, 3e-3, 3e-5)),
)


def standard_runs(full: bool = False) -> list[PlannedRun]:
    """Gymnasium's four tabular environments; `full` adds what takes minutes more."""
    return [*_RUNS, *(_SLOW_RUNS if full else ())]


def runs_of(settings: EnvConfig, table: TransitionTable) -> list[PlannedRun]:
    """Table, residual gradient and MLP on any environment with a table; without bounds.

    The settings are those of the standard runs, with step sizes in proportion to the
    largest reward; a hard exploration problem may need better ones.
    """
    env_steps, largest = 400_000, abs(table.rewards).max()
    shared = {
        **_RUN,
        "env.id": settings.id,
        "env.kwargs": settings.kwargs,
        "env.reward_scale": settings.reward_scale,
        "env.reward_clip": settings.reward_clip,
        "workers.epsilon.value": 0.5,
        "replay.samples_per_insert": 8.0,
    }
    table_values = _table(1024) | _over(env_steps, 0.005 * largest, 1e-5 * largest)
    mlp_values = _mlp((128, 128), 50, 512) | _over(env_steps, 2e-3, 2e-5)
    problem = settings.id, shared
    return [
        _planned("table", problem, table_values),
        _planned("residual", problem, table_values, _RESIDUAL),
        _planned("mlp", problem, mlp_values),
    ]
