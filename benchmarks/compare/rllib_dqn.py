"""RLlib's DQN on CartPole, on its new API stack.

Its prioritized episode buffer with exponent 0 samples uniformly. Updates are those that its
optimizer counted.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import cartpole_task as task
import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig


def make_config(options: Any) -> DQNConfig:
    """A round: `fragment` steps of each env, then the updates that they are worth."""
    sampled = options.fragment * options.envs * max(options.runners, 1)
    if sampled % task.STEPS_PER_UPDATE:
        raise SystemExit(f"a round of {sampled} env steps is no whole number of updates")
    updates = sampled // task.STEPS_PER_UPDATE
    # RLlib divides this by the same ratio, in which it counts one runner too many.
    counted = options.fragment * options.envs * (options.runners + 1)
    config = DQNConfig().environment(task.ENV_ID).framework("torch")
    config.env_runners(
        num_env_runners=options.runners,
        num_envs_per_env_runner=options.envs,
        rollout_fragment_length=options.fragment,
    )
    config.training(
        lr=task.LEARNING_RATE,
        gamma=task.DISCOUNT,
        train_batch_size=task.BATCH_SIZE,
        training_intensity=updates * task.BATCH_SIZE / counted,
        num_steps_sampled_before_learning_starts=task.LEARNING_STARTS,
        target_network_update_freq=task.TARGET_PERIOD,
        epsilon=[(0, 1.0), (int(task.EPSILON_FRACTION * options.steps), task.EPSILON_END)],
        grad_clip=None,
        double_q=False,
        dueling=False,
        num_atoms=1,
        n_step=1,
        td_error_loss_fn="mse",
        replay_buffer_config={
            "type": "PrioritizedEpisodeReplayBuffer",
            "capacity": task.CAPACITY,
            "alpha": 0.0,
            "beta": 0.0,
        },
    )
    config.rl_module(
        model_config=DefaultModelConfig(
            fcnet_hiddens=task.HIDDEN, fcnet_activation="relu", head_fcnet_hiddens=[]
        )
    )
    config.debugging(seed=options.seed, log_level="ERROR")
    return config


def updates_of(algorithm: Any) -> int:
    """As its Adam counted them."""
    (optimizer,) = algorithm.learner_group._learner._named_optimizers.values()
    states = list(optimizer.state.values())
    return int(states[0]["step"]) if states else 0


def main() -> None:
    parser = task.arguments(__doc__)
    parser.add_argument("--runners", type=int, default=0, help="remote env runners; 0: its own")
    parser.add_argument("--envs", type=int, default=1, help="of each runner")
    parser.add_argument("--fragment", type=int, default=10, help="steps of each env in a round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ray.init(include_dashboard=False, log_to_driver=False)
    algorithm = make_config(options).build_algo()
    clock, env_steps, result = task.LearningClock(), 0, {}
    while env_steps < options.steps:
        result = algorithm.train()
        env_steps = int(result["env_runners"]["num_env_steps_sampled_lifetime"])
        clock.learned(updates_of(algorithm))
    updates = updates_of(algorithm)
    clock.stop(updates)
    module = algorithm.learner_group._learner.module["default_policy"]

    @torch.no_grad()
    def act(obs: Any) -> Any:
        batch = {Columns.OBS: torch.as_tensor(np.asarray(obs), dtype=torch.float32)}
        return module.forward_inference(batch)[Columns.ACTIONS].numpy()

    task.report(
        act,
        options.seed,
        clock,
        [float(result["env_runners"]["episode_return_mean"])],
        env_steps=env_steps,
        gradient_steps=updates,
        versions={name: version(name) for name in ("ray", "gymnasium", "numpy", "torch")},
    )
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
