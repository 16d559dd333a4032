"""The deadly triad, one remedy removed at a time.

Bootstrapping, function approximation and off-policy data may diverge together (Sutton &
Barto 2018, section 11.3). What replay, the target network and double Q-learning each change
is seen in lockstep runs, where nothing but the setting and the seed decides.

CartPole is the control problem: one reward a step, so no policy has a value above
1 / (1 - discount) = 100, and what lies above it has diverged softly (van Hasselt et al.
2018, "Deep reinforcement learning and the deadly triad"). Whether a value within that
bound is too high shows only where the true one is known: for double Q-learning, FrozenLake
with a table whose step size stays large, so that its estimates stay noisy.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.config import EnvConfig
from distdqn.envs import make_stepper
from distdqn.tabular.measure import account_complaints, policies_over_time, solve
from distdqn.tabular.plan import DISCOUNT, PlannedRun

CARTPOLE, LAKE = "CartPole", "FrozenLake 4x4"
_STARTS = 100
_START_SEED = 1_000_003


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

    @property
    def values(self) -> dict[str, Any]:
        base = _CARTPOLE_VALUES if self.problem == CARTPOLE else _LAKE_VALUES
        return {
            **base,
            "replay.kind": "uniform" if self.has_replay else "fifo",
            "learner.target_period": base["learner.target_period"]
            if self.has_target_network
            else 1,
            "learner.double": self.double,
        }

    def planned(self, seed: int) -> PlannedRun:
        words = self.title.replace(",", "").replace(" ", "-")
        where = "cartpole" if self.problem == CARTPOLE else "frozenlake"
        return PlannedRun(
            f"triad-{where}-{words}-seed-{seed}", self.problem, self.title, self.values
        )


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
    "mode": "lockstep",
    "learner.discount": DISCOUNT,
    "learner.device": "cpu",
    "learner.compile": False,
    "learner.batch_size": 32,
    "learner.superbatch": 8,
    "replay.min_size_to_sample": 32,
    "eval.period_env_steps": None,
    "eval.final_episodes": 50,
    "eval.video_episodes": 0,
    "checkpoint.keep": 1000,
}
# Each transition is learned from once, with replay too: what is compared is the order.
_CARTPOLE_VALUES: Mapping[str, Any] = {
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
_LAKE_VALUES: Mapping[str, Any] = {
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


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One run of a setting.

    start_values: (env steps, mean over first states of max_a q) over time.
    exact_start_value: what that mean should be, NaN where there is no exact solution.
    greedy_return: mean over fresh greedy episodes with the last weights.
    q_abs_max, q_bound: the largest |q| learned from, and r_max / (1 - discount).
    soft_divergence: whether the one exceeds the other.
    run_folder: of the run.  complaints: a line where its counts do not close.
    """

    setting: Setting
    seed: int
    start_values: tuple[tuple[int, float], ...]
    exact_start_value: float
    greedy_return: float
    q_abs_max: float
    q_bound: float
    soft_divergence: bool
    run_folder: str
    complaints: tuple[str, ...] = ()

    @property
    def start_value(self) -> float:
        """Of the last weights."""
        return self.start_values[-1][1]

    def to_json(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self),
            "title": self.setting.title,
            "start_value": self.start_value,
        }


def measure_outcome(setting: Setting, summary: Mapping[str, Any]) -> Outcome:
    """What came of a finished run; summary: as `summary.json` has it."""
    settings = EnvConfig(summary["env_id"])
    starts, exact = first_observations(settings), np.nan
    if setting.problem != CARTPOLE:
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
