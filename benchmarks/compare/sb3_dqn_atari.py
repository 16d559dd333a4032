"""Stable-Baselines3's DQN on an Atari game; one JSON line on stdout.

    PYTHON_WITH_SB3 benchmarks/compare/sb3_dqn_atari.py --steps 100000 --seed 1

For `atari_sb3.py`, which runs it in turn with distdqn. It needs stable-baselines3, ale-py
and OpenCV, in an environment of their own. Rewards, life losses, no-ops, FIRE and pictures
are those of Stable-Baselines3's own Atari wrappers.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import ale_py
import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

DETERMINISTIC: dict[str, Any] = {"frameskip": 1, "repeat_action_probability": 0.0}


class Account(BaseCallback):
    """Returns of whole games, and the clocks at the first step after `min_size`."""

    def __init__(self, min_size: int) -> None:
        super().__init__()
        self.min_size = min_size
        self.returns: list[float] = []
        self.began: tuple[float, float, int] | None = None

    def _on_step(self) -> bool:
        if self.began is None and self.num_timesteps > self.min_size:
            self.began = time.perf_counter(), time.process_time(), self.num_timesteps
        self.returns += [i["episode"]["r"] for i in self.locals["infos"] if "episode" in i]
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env-id", default="ALE/Breakout-v5")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--min-size", type=int, default=5_000)
    parser.add_argument("--epsilon-steps", type=int, default=30_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gymnasium.register_envs(ale_py)
    envs = make_atari_env(
        options.env_id, n_envs=options.envs, seed=options.seed, env_kwargs=DETERMINISTIC
    )
    model = DQN(
        "CnnPolicy",
        VecFrameStack(envs, 4),
        learning_rate=1e-4,
        buffer_size=100_000,
        learning_starts=options.min_size,
        batch_size=32,
        gamma=0.99,
        train_freq=(4, "step"),  # vector steps: 4 env steps for each of the updates
        gradient_steps=options.envs,
        target_update_interval=1_000,
        exploration_fraction=min(1.0, options.epsilon_steps / options.steps),
        exploration_final_eps=0.05,
        max_grad_norm=10,
        seed=options.seed,
        device="cpu",
    )
    account = Account(options.min_size)
    model.learn(options.steps, callback=account)
    assert account.began is not None, "the run ended before it learned"
    wall = time.perf_counter() - account.began[0]
    print(
        json.dumps(
            {
                "who": f"Stable-Baselines3 {stable_baselines3.__version__}",
                "seed": options.seed,
                "env_steps": model.num_timesteps,
                "gradient_steps": model._n_updates,
                "env_steps_per_s": (model.num_timesteps - account.began[2]) / wall,
                "cores_busy": (time.process_time() - account.began[1]) / wall,
                "games": len(account.returns),
                "train_return_mean": float(np.mean(account.returns[-100:])),
            }
        )
    )


if __name__ == "__main__":
    main()
