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

import dataclasses
from collections.abc import Mapping
from typing import Any

from distdqn.config import Config, EnvConfig, from_values
from distdqn.envs import TransitionTable

DISCOUNT = 0.99


@dataclasses.dataclass(frozen=True)
class Bound:
    """What a run must reach.

    figure: a field of `measure.Point`.
    at_most: whether `limit` is the largest value allowed, else the smallest.
    """

    figure: str
    limit: float
    at_most: bool

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}"


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One row of the result.

    name: of the run, and of its folder.
    problem: the environment, as people call it; rows of one problem are shown together.
    learner: what is different about this row: "table", "MLP", "table, residual gradient".
    values: what is not the default, by dotted configuration key.
    """

    name: str
    problem: str
    learner: str
    values: Mapping[str, Any]
    bounds: tuple[Bound, ...] = ()

    def config(self, runs_dir: str, seed: int) -> Config:
        return from_values(
            {**self.values, "run_name": self.name, "runs_dir": runs_dir, "seed": seed}
        )


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
_TABLE: Mapping[str, Any] = {
    "network.hidden": (),
    "learner.target_period": 1,
    "learner.optimizer": "rmsprop",
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


_LAKE: Mapping[str, Any] = {
    **_RUN,
    "env.id": "FrozenLake-v1",
    "workers.block_transitions": 4096,
    "workers.epsilon.value": 0.7,
    "replay.samples_per_insert": 8.0,
}
_LAKE_8X8: Mapping[str, Any] = {**_LAKE, "env.id": "FrozenLake8x8-v1", "workers.epsilon.value": 0.3}
_CLIFF: Mapping[str, Any] = {
    **_RUN,
    "env.id": "CliffWalking-v1",
    "workers.epsilon.value": 0.5,
    "replay.samples_per_insert": 16.0,
}
_TAXI: Mapping[str, Any] = {**_RUN, "env.id": "Taxi-v4", "replay.samples_per_insert": 16.0}
_LAKE_TABLE: Mapping[str, Any] = {
    **_LAKE,
    **_TABLE,
    **_over(1_600_000, 0.002, 1e-5),
    "learner.batch_size": 2048,
}


def standard_runs(full: bool = False) -> list[PlannedRun]:
    """Gymnasium's four tabular environments; `full` adds what takes minutes more."""
    runs = [
        PlannedRun(
            "frozenlake-table",
            "FrozenLake 4x4",
            "table",
            _LAKE_TABLE,
            (Bound("max_error", 0.03, True), Bound("greedy_return", 0.735, False)),
        ),
        PlannedRun(
            "frozenlake-residual",
            "FrozenLake 4x4",
            "table, residual gradient",
            # A quarter of the steps: what it ends at, it has reached after half of these.
            {**_LAKE_TABLE, **_RESIDUAL, **_over(400_000, 0.002, 1e-5)},
        ),
        PlannedRun(
            "frozenlake-mlp",
            "FrozenLake 4x4",
            "MLP",
            {**_LAKE, **_over(400_000, 2e-3, 2e-5), **_mlp((64, 64), 50, 512)},
        ),
        PlannedRun(
            "dry-lake-residual",
            "FrozenLake 4x4, not slippery",
            "table, residual gradient",
            {
                **_LAKE_TABLE,
                **_RESIDUAL,
                **_over(300_000, 0.005, 1e-5),
                "env.kwargs": {"is_slippery": False},
            },
        ),
        PlannedRun(
            "frozenlake8x8-table",
            "FrozenLake 8x8",
            "table",
            {**_LAKE_8X8, **_TABLE, **_over(800_000, 0.005, 1e-5), "learner.batch_size": 2048},
        ),
        PlannedRun(
            "cliffwalking-table",
            "CliffWalking",
            "table",
            {**_CLIFF, **_TABLE, **_over(150_000, 0.3, 5e-4, 0.8), "learner.batch_size": 512},
            (Bound("max_error", 0.05, True),),
        ),
        PlannedRun(
            "cliffwalking-mlp",
            "CliffWalking",
            "MLP",
            {**_CLIFF, **_over(100_000, 0.02, 3e-5), **_mlp((128,), 20, 256)},
        ),
        PlannedRun(
            "taxi-table",
            "Taxi",
            "table",
            {
                **_TAXI,
                **_TABLE,
                **_over(160_000, 0.1, 5e-4, 0.8),
                "learner.batch_size": 512,
                "workers.epsilon.value": 1.0,
            },
            (Bound("greedy_return", 7.8, False),),
        ),
    ]
    return runs + _slow_runs() if full else runs


def _slow_runs() -> list[PlannedRun]:
    return [
        PlannedRun(
            "frozenlake8x8-mlp",
            "FrozenLake 8x8",
            "MLP",
            {**_LAKE_8X8, **_over(800_000, 1e-3, 1e-5), **_mlp((128, 128), 50, 512)},
        ),
        PlannedRun(
            "taxi-mlp",
            "Taxi",
            "MLP",
            {
                **_TAXI,
                **_over(300_000, 3e-3, 3e-5),
                **_mlp((128,), 100, 512),
                "workers.epsilon.value": 0.7,
            },
        ),
    ]


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
    tabular = {
        **shared,
        **_TABLE,
        **_over(env_steps, 0.005 * largest, 1e-5 * largest),
        "learner.batch_size": 1024,
    }
    mlp = {**shared, **_over(env_steps, 2e-3, 2e-5), **_mlp((128, 128), 50, 512)}
    return [
        PlannedRun("table", settings.id, "table", tabular),
        PlannedRun("residual", settings.id, "table, residual gradient", {**tabular, **_RESIDUAL}),
        PlannedRun("mlp", settings.id, "MLP", mlp),
    ]


def _mlp(hidden: tuple[int, ...], target_period: int, batch_size: int) -> dict[str, Any]:
    return {
        "network.hidden": hidden,
        "learner.target_period": target_period,
        "learner.batch_size": batch_size,
        "learner.superbatch": 16,
    }
