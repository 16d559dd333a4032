"""Stable-Baselines3's DQN on CartPole.

It has no squared error (its loss is the Huber loss), and bounds the gradient's norm; the
bound is set to infinity here.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import cartpole_task as task
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env


class Account(BaseCallback):
    """Returns of the training episodes, and the clock of learning."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = task.LearningClock()
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        self.clock.learned(self.model._n_updates)
        self.returns += [i["episode"]["r"] for i in self.locals["infos"] if "episode" in i]
        return True


def main() -> None:
    parser = task.arguments(__doc__)
    parser.add_argument("--envs", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = DQN(
        "MlpPolicy",
        make_vec_env(task.ENV_ID, n_envs=options.envs, seed=options.seed),
        learning_rate=task.LEARNING_RATE,
        buffer_size=task.CAPACITY,
        learning_starts=task.LEARNING_STARTS,
        batch_size=task.BATCH_SIZE,
        gamma=task.DISCOUNT,
        train_freq=(task.STEPS_PER_UPDATE, "step"),  # vector steps
        gradient_steps=options.envs,
        target_update_interval=task.TARGET_PERIOD,
        exploration_fraction=task.EPSILON_FRACTION,
        exploration_final_eps=task.EPSILON_END,
        max_grad_norm=float("inf"),
        policy_kwargs={"net_arch": task.HIDDEN},
        seed=options.seed,
        device="cpu",
    )
    account = Account()
    model.learn(options.steps, callback=account)
    account.clock.stop(model._n_updates)

    def act(obs: Any) -> Any:
        return model.predict(obs, deterministic=True)[0]

    task.report(
        act,
        options.seed,
        account.clock,
        account.returns,
        env_steps=model.num_timesteps,
        gradient_steps=model._n_updates,
        versions={
            name: version(name) for name in ("stable_baselines3", "gymnasium", "numpy", "torch")
        },
    )


if __name__ == "__main__":
    main()
