"""Tests the verdict's predictions by making the changes that it proposes.

    python benchmarks/verdict.py --repeats 3 --json FILE

Each situation is a run whose verdict names a limit; the first change among its proposals
that is a setting is made, and the env steps per second that it predicted are held against
those of a second run. Prints the medians over the repeats; exit status 1 where a
situation does not arise, or a prediction is more than 20 percent off. Made for a machine
with 2 cores and nothing else to do; a run takes about 15 s.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import distdqn
from distdqn.bench.result import describe_machine

TOLERANCE = 0.2
OBS_SIZE = 8
PICTURE = (84, 84, 4)
EPISODE = 200
COMMON: dict[str, Any] = {
    "learner.compile": False,  # it would come in the middle of a short run
    "learner.device": "cpu",
    "eval.period_env_steps": None,
    "eval.final_episodes": 1,
    "eval.max_episode_steps": 10,
    "eval.video_episodes": 0,
    "checkpoint.period_s": 1000.0,
}


class PacedEnv(gymnasium.Env):
    """Episodes of 200 steps, each of which sleeps and computes for a while."""

    action_space = spaces.Discrete(2)

    def __init__(self, sleep_s: float = 0.0, work: int = 0, picture: bool = False) -> None:
        """work: multiplications of a 32 x 32 matrix.  picture: observations are pictures."""
        self._sleep_s, self._work, self._time = sleep_s, work, 0
        self._matrix = np.full((32, 32), 1e-3)
        self._obs: np.ndarray = np.zeros(OBS_SIZE, np.float32)
        self.observation_space: spaces.Box = spaces.Box(-1, 1, (OBS_SIZE,), np.float32)
        if picture:
            self._obs = np.repeat(np.arange(84, dtype=np.uint8), 84 * 4).reshape(PICTURE)
            self.observation_space = spaces.Box(0, 255, PICTURE, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._time = 0
        return self._obs.copy(), {}

    def step(self, action: Any) -> Any:
        self._time += 1
        if self._sleep_s:
            time.sleep(self._sleep_s)
        for _ in range(self._work):
            self._matrix @ self._matrix
        return self._obs.copy(), float(action), False, self._time >= EPISODE, {}


def corner_network(observation_space: Any, num_actions: int) -> Any:
    """A linear network of the first row of a picture: hardly any work for the learner."""
    from torch import nn

    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(observation_space.shape[1], num_actions)

        def forward(self, obs: Any) -> Any:
            return self.head(obs[:, 0, :, 0].float() / 255.0)

    return Corner()


@dataclasses.dataclass(frozen=True)
class Situation:
    """A run with one limit.

    limits: of the verdict, one of which must be named.
    settings: besides COMMON.  env: arguments of `PacedEnv`.
    """

    limits: tuple[str, ...]
    settings: Mapping[str, Any]
    env: Mapping[str, Any]
    network: Callable[[Any, int], Any] | None = None


SITUATIONS = {
    "slow env": Situation(
        ("workers",),
        {
            "total_env_steps": 9_000,
            "workers.envs_per_worker": 8,
            "workers.block_transitions": 64,
            "replay.min_size_to_sample": 500,
            "replay.samples_per_insert": 4.0,
            "learner.batch_size": 32,
            "learner.superbatch": 4,
        },
        {"sleep_s": 0.001},
    ),
    "slow network": Situation(
        ("learner",),
        {
            "total_env_steps": 16_000,
            "workers.block_transitions": 64,
            "workers.envs_per_worker": 8,
            "replay.min_size_to_sample": 1_000,
            "replay.samples_per_insert": 8.0,
            "learner.batch_size": 64,
            "learner.superbatch": 4,
            "learner.num_threads": 1,
            "network.hidden": (512, 512),
        },
        {},
    ),
    "too few workers": Situation(
        ("workers",),
        {
            "total_env_steps": 40_000,
            "workers.block_transitions": 256,
            "replay.min_size_to_sample": 1_000,
            "replay.samples_per_insert": 1.0,
            "learner.batch_size": 64,
            "learner.superbatch": 4,
            "network.hidden": (32,),
        },
        {"work": 40},
    ),
    "replay of one shard": Situation(
        ("shards",),
        {
            "total_env_steps": 12_000,
            "workers.envs_per_worker": 8,
            "workers.block_transitions": 64,
            "replay.capacity": 8_000,
            "replay.min_size_to_sample": 1_000,
            "replay.samples_per_insert": 16.0,
            "replay.compression": "lz4",
            "learner.batch_size": 256,
            "learner.superbatch": 2,
        },
        {"picture": True, "sleep_s": 0.0},
        corner_network,
    ),
}


def run(situation: Situation, settings: Mapping[str, Any]) -> dict[str, Any]:
    """`verdict_detail` of one run."""
    with tempfile.TemporaryDirectory() as runs:
        values = COMMON | dict(situation.settings) | dict(settings) | {"runs_dir": runs}
        config = distdqn.load_config(values=values)
        summary = distdqn.train(
            config, lambda: PacedEnv(**situation.env), situation.network, display=False
        )
    return summary.verdict_detail


def proposed(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first proposal that can be made by a setting, on a machine without a GPU."""
    usable = [c for c in verdict["changes"] if c["setting"] and not c["at_most"]]
    return usable[0] if usable else None


def trial(name: str) -> dict[str, Any]:
    """One run, the change that its verdict proposes, and a run with it."""
    situation = SITUATIONS[name]
    before = run(situation, {})
    change = proposed(before)
    row = {"situation": name, "before": before, "change": change}
    if before["limit"] not in situation.limits or change is None:
        return row | {"ratio": None, "failure": f"limit {before['limit']!r}, change {change}"}
    steps = round(situation.settings["total_env_steps"] * max(change["gain"], 1.0))
    after = run(situation, {change["setting"]: change["value"], "total_env_steps": steps})
    if after["env_steps_per_s"] is None:
        return row | {"ratio": None, "failure": f"after the change: {after['line']}"}
    ratio = change["env_steps_per_s"] / after["env_steps_per_s"]
    return row | {"after": after, "ratio": ratio}


def show(row: Mapping[str, Any]) -> None:
    print(f"{row['situation']}: {row['before']['line']}")
    if row["ratio"] is None:
        print(f"  the situation did not arise: {row['failure']}", flush=True)
        return
    change, rates = row["change"], [row[w]["env_steps_per_s"] for w in ("before", "after")]
    print(
        f"  {change['setting']} = {change['value']}: {rates[0]:,.0f} env steps/s became "
        f"{rates[1]:,.0f}, predicted {change['env_steps_per_s']:,.0f} "
        f"({row['ratio']:.2f} of it); then limited by {row['after']['limit']}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=SITUATIONS, action="append", help="default: all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for _ in range(options.repeats):
        for name in options.only or SITUATIONS:
            rows.append(trial(name))
            show(rows[-1])
    medians = {}
    for name in options.only or SITUATIONS:
        ratios = [row["ratio"] for row in rows if row["situation"] == name]
        medians[name] = None if None in ratios else statistics.median(ratios)
    passed = all(m is not None and 1 - TOLERANCE <= m <= 1 + TOLERANCE for m in medians.values())
    for name, median in medians.items():
        told = "did not arise each time" if median is None else f"{median:.2f}"
        print(f"{name}: predicted / measured {told}")
    if options.json is not None:
        result = {
            "machine": describe_machine(),
            "passed": passed,
            "predicted_to_measured": medians,
            "rows": rows,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
