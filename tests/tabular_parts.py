"""Small verifications: made up where only their text counts, trained where runs do."""

from __future__ import annotations

import functools

import numpy as np

from distdqn.config import EnvConfig, from_values
from distdqn.envs.tables import CLIFF_WALKING
from distdqn.tabular.counterexamples import divergence
from distdqn.tabular.plan import SETTINGS, Bound, PlannedRun
from distdqn.tabular.result import Learned, Outcome, Result, Verification
from distdqn.tabular.verification import measure_values, solve

TINY = {
    "mode": "lockstep",
    "env.id": "FrozenLake-v1",
    "total_env_steps": 1_024,
    "workers.envs_per_worker": 8,
    "workers.block_transitions": 64,
    "workers.epsilon.value": 1.0,
    "replay.capacity": 1_024,
    "replay.min_size_to_sample": 64,
    "replay.samples_per_insert": 1.0,
    "learner.batch_size": 32,
    "learner.compile": False,
    "learner.device": "cpu",
    "network.hidden": (),
    "eval.period_env_steps": None,
    "eval.final_episodes": 2,
    "eval.video_episodes": 0,
    "checkpoint.period_rounds": 4,
    "checkpoint.keep": 100,
}


def tiny(name="tiny", bounds=(), **changes):
    """A lockstep run of a second; `a__b=` stands for the key a.b."""
    values = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return PlannedRun(name, "FrozenLake 4x4", "table", values, bounds)


@functools.cache
def solution_of(env_id="FrozenLake-v1"):
    return solve(EnvConfig(env_id), 0.99)


def made_up_result(
    name="lake-table", learner="table", error=0.01, bounds=(), env_id="FrozenLake-v1", **values
):
    """A run whose values are all `error` too high; its counts close."""
    solution = solution_of(env_id)
    q = solution.q_star + error
    visits = np.where(solution.pairs, 5, 0).astype(np.int64)
    points = tuple(
        measure_values(solution.q_star + factor * error, solution, visits / visits.sum(), steps)
        for steps, factor in ((100, 4.0), (500, 2.0), (1_000, 1.0))
    )
    planned = PlannedRun(name, env_id, learner, {**TINY, "env.id": env_id, **values}, bounds)
    summary = {
        "run_folder": f"runs/{name}",
        "env_id": env_id,
        "seed": 1,
        "env_steps": 1_000,
        "gradient_steps": 30,
        "wall_s": 12.5,
        "samples_per_insert": 1.0,
        "transitions_collected": 1_000,
        "transitions_accepted": 990,
        "transitions_refused": 7,
        "transitions_lost": 3,
        "weights_sha256": "0" * 64,
    }
    config = from_values({**planned.values, "seed": 1})
    return Result(planned, config, summary, solution, Learned(q, visits, points))


def made_up_outcomes(seeds=(1, 2)):
    return [
        Outcome(
            setting=setting,
            seed=seed,
            start_values=((0, 0.1), (100, 1.0 + index + seed)),
            exact_start_value=np.nan if setting.problem == "CartPole" else 0.542,
            greedy_return=10.0 * seed,
            q_abs_max=50.0 * (1 + index),
            q_bound=100.0,
            soft_divergence=index > 1,
            run_folder=f"runs/triad-{index}-{seed}",
        )
        for index, setting in enumerate(SETTINGS)
        for seed in seeds
    ]


def made_up(results=None, outcomes=None):
    """A verification of three runs and an ablation; all bounds hold."""
    if results is None:
        results = [
            made_up_result(bounds=(Bound("max_error", 0.03, True),)),
            made_up_result("lake-residual", "table, residual gradient", 0.6, **_RESIDUAL),
            made_up_result("cliff-mlp", "MLP", 2.0, env_id=CLIFF_WALKING, **_MLP),
        ]
    outcomes = made_up_outcomes() if outcomes is None else outcomes
    baird, weights = divergence()
    return Verification("runs/verify-1", 61.0, results, outcomes, baird, weights)


_RESIDUAL = {"learner.gradient": "residual"}
_MLP = {"network.hidden": (8,)}
