"""The CartPole experiment that every side runs.

The settings are CleanRL's (`dqn.py`, `dqn_jax.py`). This file runs in each peer's own
environment and needs nothing but Python; Gymnasium only to play.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

ENV_ID = "CartPole-v1"
HIDDEN = [120, 84]
BATCH_SIZE = 128
CAPACITY = LEARNING_STARTS = 10_000
STEPS_PER_UPDATE = 10  # env steps: 12.8 samples per insert
TARGET_PERIOD = 500  # env steps
EPSILON_END, EPSILON_FRACTION = 0.05, 0.5
LEARNING_RATE, DISCOUNT = 2.5e-4, 0.99
EPISODES = 100  # greedy ones after training


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The flags that every peer's script has."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=500_000, help="env steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of the numerical library")
    return parser


class LearningClock:
    """Measures env steps per second between the first update and the end.

    By updates, `STEPS_PER_UPDATE` env steps for each, so that a side whose envs ran ahead
    before it learned gains nothing by it.
    """

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self.env_steps_per_s = 0.0

    def learned(self, updates: int) -> None:
        """`updates` have been made by now; the first call with any starts the clock."""
        if self._first is None and updates:
            self._first = time.perf_counter(), updates

    def stop(self, updates: int) -> None:
        if self._first is None:
            raise SystemExit("the run ended before its first update: give it more --steps")
        seconds = time.perf_counter() - self._first[0]
        self.env_steps_per_s = STEPS_PER_UPDATE * (updates - self._first[1]) / seconds


def play(act: Callable[[Any], Any], seed: int) -> tuple[list[float], float]:
    """Returns of `EPISODES` episodes, and the seconds that they took.

    act: greedy actions `[N]` for observations `[N, 4]`; the episodes are played side by side.
    """
    import gymnasium
    import numpy as np

    began = time.perf_counter()
    envs = [gymnasium.make(ENV_ID) for _ in range(EPISODES)]
    obs = np.stack([env.reset(seed=seed + index)[0] for index, env in enumerate(envs)])
    returns, playing = np.zeros(EPISODES), list(range(EPISODES))
    while playing:
        going_on = []
        for index, action in zip(playing, np.asarray(act(obs[playing])), strict=True):
            obs[index], reward, terminated, truncated, _ = envs[index].step(int(action))
            returns[index] += float(reward)
            if not (terminated or truncated):
                going_on.append(index)
        playing = going_on
    return [float(value) for value in returns], time.perf_counter() - began


def report(
    act: Callable[[Any], Any],
    seed: int,
    clock: LearningClock,
    train_returns: list[float],
    **figures: Any,
) -> None:
    """Plays greedily, and prints the one JSON line that `cartpole.py` reads.

    train_returns: of all training episodes, the last 100 are averaged.
    figures: `env_steps` and `gradient_steps` as counted, and `versions`.
    """
    returns, seconds = play(act, seed + 1_000_000)
    row = {
        **figures,
        "env_steps_per_s": clock.env_steps_per_s,
        "train_return_mean": statistics.fmean(train_returns[-100:]) if train_returns else None,
        "eval_return_mean": statistics.fmean(returns),
        "eval_episodes": len(returns),
        "evaluation_s": seconds,
    }
    print("\n" + json.dumps(row), flush=True)
