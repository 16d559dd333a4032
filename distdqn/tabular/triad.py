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

from collections.abc import Mapping
from typing import Any

from distdqn.tabular.result import DISCOUNT, PlannedRun, Setting

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


def planned(setting: Setting, seed: int) -> PlannedRun:
    """The run of a setting with a seed."""
    is_cartpole = setting.problem == CARTPOLE
    base = _CARTPOLE_VALUES if is_cartpole else _LAKE_VALUES
    words = setting.title.replace(",", "").replace(" ", "-")
    name = f"triad-{'cartpole' if is_cartpole else 'frozenlake'}-{words}-seed-{seed}"
    values = {
        **base,
        "replay.kind": "uniform" if setting.has_replay else "fifo",
        "learner.double": setting.double,
    }
    if not setting.has_target_network:
        values["learner.target_period"] = 1
    return PlannedRun(name, setting.problem, setting.title, values)
