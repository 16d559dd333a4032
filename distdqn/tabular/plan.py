"""What a verification runs, and what it must reach.

Every run is an ordinary one: its settings are configuration keys, and `distdqn train`
with the `config.yaml` of its folder repeats it.

A table is learned from uniform replay that keeps every transition, with falling step sizes. Where
outcomes are random the values end at those of the empirical frequencies, and more steps are the
only way to better ones. RMSprop divides by the size of a pair's own gradients, so that rarely
visited pairs keep up; Adam does too, but its momentum carries them past their targets.

The ablation takes one remedy away at a time. Bootstrapping, function approximation and
off-policy data may diverge together (Sutton & Barto 2018, section 11.3). What replay, the
target network and double Q-learning each change is seen in lockstep runs, where nothing but
the setting and the seed decides.

CartPole is the control problem: one reward a step, so no policy has a value above
1 / (1 - discount) = 100, and what lies above it has diverged softly (van Hasselt et al.
2018, "Deep reinforcement learning and the deadly triad"). Whether a value within that
bound is too high shows only where the true one is known: for double Q-learning, FrozenLake
with a table whose step size stays large, so that its estimates stay noisy.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from distdqn.config import Config, EnvConfig, from_values
from distdqn.envs.tables import CLIFF_WALKING, TAXI, TransitionTable

DISCOUNT = 0.99  # of every planned run


@dataclasses.dataclass(frozen=True)
class Bound:
    """What a run must reach.

    figure: a field of `Point`.
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


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the ablation; the rest of the configuration is that of its problem.

    has_replay: else each transition is learned from once, in the order of arrival.
    has_target_network: else the bootstrap value is the online network's.
    double: the online network selects, the target network evaluates.
    """

    problem: str
    has_replay: bool = True
    has_target_network: bool = True
    double: bool = False

    @property
    def title(self) -> str:
        parts = ["replay" if self.has_replay else "no replay"]
        parts.append("target network" if self.has_target_network else "no target network")
        return ", ".join(parts + ["double"] * self.double)


Problem = tuple[str, Mapping[str, Any]]
"""What people call the environment, and its configuration."""

_SHARED: Mapping[str, Any] = {
    "learner.discount": DISCOUNT,
    "learner.device": "cpu",
    "learner.compile": False,  # 10 s of a core at each new shape; these updates take 1 ms
    "learner.superbatch": 8,
    "eval.period_env_steps": None,  # the table says what a policy is worth
    "eval.video_episodes": 0,
    "checkpoint.keep": 1000,
}
_RUN: dict[str, Any] = {
    **_SHARED,
    "learner.loss": "mse",
    "learner.snapshot_period_s": 1.0,  # a checkpoint is of the newest snapshot
    "workers.envs_per_worker": 64,
    "replay.min_size_to_sample": 4096,
    "eval.final_episodes": 20,
    "eval.max_episode_steps": 1000,
    "checkpoint.period_s": 1.0,
}
_RESIDUAL: Mapping[str, Any] = {"learner.gradient": "residual"}


def _over(env_steps: int, start: float, end: float, falling: float = 1.0) -> dict[str, Any]:
    """A run on replay of all its transitions, its step size falling over a part of it.

    What comes in at the end of the fall has little weight: random outcomes need it all.
    Certain ones do not, and a last stretch of small steps takes away the error that the
    large ones have left in all values alike.
    """
    rate = {"start": start, "end": end, "env_steps": round(falling * env_steps)}
    return {
        "total_env_steps": env_steps, "replay.capacity": env_steps, "learner.learning_rate": rate
    }  # fmt: skip


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


def _problem(
    title: str,
    env_id: str,
    epsilon: float,
    samples_per_insert: float,
    block: int = 2048,
    env_kwargs: Mapping[str, Any] | None = None,
) -> Problem:
    values = {
        "env.id": env_id,
        "env.kwargs": env_kwargs or {},
        "workers.epsilon.value": epsilon,
        "workers.block_transitions": block,
        "replay.samples_per_insert": samples_per_insert,
    }
    return title, _RUN | values


_LAKE = _problem("FrozenLake 4x4", "FrozenLake-v1", 0.7, 8.0, 4096)
_DRY_LAKE = _problem(
    "FrozenLake 4x4, not slippery", "FrozenLake-v1", 0.7, 8.0, 4096, {"is_slippery": False}
)
_LAKE_8X8 = _problem("FrozenLake 8x8", "FrozenLake8x8-v1", 0.3, 8.0, 4096)
_CLIFF = _problem("CliffWalking", CLIFF_WALKING, 0.5, 16.0)
_TAXI = _problem("Taxi", TAXI, 1.0, 16.0)

_LAKE_BOUNDS = (Bound("max_error", 0.03, True), Bound("greedy_return", 0.735, False))
_NEAR, _HIGH = (Bound("max_error", 0.05, True),), (Bound("greedy_return", 7.8, False),)
_RUNS = (
    _planned(
        "frozenlake-table", _LAKE, _table(2048), _over(1_600_000, 0.002, 1e-5), bounds=_LAKE_BOUNDS
    ),
    # A quarter of the steps: what it ends at, it has reached after half of these.
    _planned("frozenlake-residual", _LAKE, _table(2048), _RESIDUAL, _over(400_000, 0.002, 1e-5)),
    _planned("frozenlake-mlp", _LAKE, _mlp((64, 64), 50, 512), _over(400_000, 2e-3, 2e-5)),
    _planned("dry-lake-residual", _DRY_LAKE, _table(2048), _RESIDUAL, _over(300_000, 0.005, 1e-5)),
    _planned("frozenlake8x8-table", _LAKE_8X8, _table(2048), _over(800_000, 0.005, 1e-5)),
    _planned(
        "cliffwalking-table", _CLIFF, _table(512), _over(150_000, 0.3, 5e-4, 0.8), bounds=_NEAR
    ),
    _planned("cliffwalking-mlp", _CLIFF, _mlp((128,), 20, 256), _over(100_000, 0.02, 3e-5)),
    _planned("taxi-table", _TAXI, _table(512), _over(160_000, 0.1, 5e-4, 0.8), bounds=_HIGH),
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
    title, values = _problem(settings.id, settings.id, 0.5, 8.0, env_kwargs=settings.kwargs)
    rewards = {"env.reward_scale": settings.reward_scale, "env.reward_clip": settings.reward_clip}
    problem = title, {**values, **rewards}
    table_values = _table(1024) | _over(env_steps, 0.005 * largest, 1e-5 * largest)
    mlp_values = _mlp((128, 128), 50, 512) | _over(env_steps, 2e-3, 2e-5)
    return [
        _planned("table", problem, table_values),
        _planned("residual", problem, table_values, _RESIDUAL),
        _planned("mlp", problem, mlp_values),
    ]


CARTPOLE, LAKE = "CartPole", "FrozenLake 4x4"

SETTINGS = (
    Setting(CARTPOLE),
    Setting(CARTPOLE, has_target_network=False),
    Setting(CARTPOLE, has_replay=False),
    Setting(CARTPOLE, has_replay=False, has_target_network=False),
    Setting(CARTPOLE, double=True),
    Setting(LAKE),
    Setting(LAKE, double=True),
)

_LOCKSTEP: Mapping[str, Any] = {
    **_SHARED,
    "mode": "lockstep",
    "learner.batch_size": 32,
    "replay.min_size_to_sample": 32,
    "eval.final_episodes": 50,
}
# Each transition is learned from once, with replay too: what is compared is the order.
CARTPOLE_VALUES: Mapping[str, Any] = {
    **_LOCKSTEP,
    "env.id": "CartPole-v1",
    "total_env_steps": 40_000,
    "workers.envs_per_worker": 4,
    "workers.block_transitions": 32,
    "workers.epsilon.value": {"start": 1.0, "end": 0.05, "env_steps": 10_000},
    "replay.capacity": 40_000,
    "replay.samples_per_insert": 1.0,
    "network.hidden": (64, 64),
    "learner.learning_rate": 1e-3,
    "learner.target_period": 100,
    "checkpoint.period_rounds": 100,
}
NOISY_LAKE_VALUES: Mapping[str, Any] = {
    **_LOCKSTEP,
    "env.id": "FrozenLake-v1",
    "total_env_steps": 12_800,
    "workers.envs_per_worker": 16,
    "workers.block_transitions": 64,
    "workers.epsilon.value": 1.0,
    "replay.capacity": 12_800,
    "replay.samples_per_insert": 8.0,
    "network.hidden": (),
    "learner.loss": "mse",
    "learner.learning_rate": 0.05,
    "learner.target_period": 20,
    "checkpoint.period_rounds": 10,
}


def planned(setting: Setting, seed: int) -> PlannedRun:
    """The run of a setting with a seed."""
    is_cartpole = setting.problem == CARTPOLE
    words = setting.title.replace(",", "").replace(" ", "-")
    name = f"triad-{'cartpole' if is_cartpole else 'frozenlake'}-{words}-seed-{seed}"
    values = {
        **(CARTPOLE_VALUES if is_cartpole else NOISY_LAKE_VALUES),
        "replay.kind": "uniform" if setting.has_replay else "fifo",
        "learner.double": setting.double,
    }
    if not setting.has_target_network:
        values["learner.target_period"] = 1
    return PlannedRun(name, setting.problem, setting.title, values)
