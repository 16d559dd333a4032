"""TorchRL's DQN on CartPole, of the pieces that its own CartPole example uses.

Collector, replay buffer, loss and target updater are TorchRL's; a round of 1,000 env steps
and 100 updates is its example's too.
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import Any

import cartpole_task as task
import torch
from tensordict.nn import TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import Composite, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import RewardSum, SerialEnv, TransformedEnv
from torchrl.envs.libs.gym import GymEnv
from torchrl.modules import MLP, EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate


def make_env(envs: int) -> TransformedEnv:
    """One env as it is, several one after the other in this process."""
    env = GymEnv(task.ENV_ID) if envs == 1 else SerialEnv(envs, lambda: GymEnv(task.ENV_ID))
    return TransformedEnv(env, RewardSum())


def make_actor() -> tuple[Any, QValueActor]:
    """The network, and the greedy actor around it."""
    spec = make_env(1).action_spec
    network = MLP(
        in_features=4,
        out_features=spec.space.n,
        num_cells=task.HIDDEN,
        activation_class=torch.nn.ReLU,
    )
    return network, QValueActor(network, in_keys=["observation"], spec=Composite(action=spec))


class Learner:
    """Loss, optimizer and target network; `update` makes one update."""

    def __init__(self, actor: QValueActor, compiled: bool) -> None:
        self._loss = DQNLoss(actor, loss_function="l2", delay_value=True)
        self._loss.make_value_estimator(gamma=task.DISCOUNT)
        self._target = HardUpdate(
            self._loss, value_network_update_interval=task.TARGET_PERIOD // task.STEPS_PER_UPDATE
        )
        self._optimizer = torch.optim.Adam(self._loss.parameters(), lr=task.LEARNING_RATE)
        self._forward = torch.compile(self._loss) if compiled else self._loss

    def update(self, batch: Any) -> None:
        loss = self._forward(batch)["loss"]
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._target.step()

    @property
    def updates(self) -> int:
        states = list(self._optimizer.state.values())
        return int(states[0]["step"]) if states else 0


def main() -> None:
    parser = task.arguments(__doc__)
    parser.add_argument("--envs", type=int, default=1)
    parser.add_argument("--round", type=int, default=1_000, help="env steps between updates")
    parser.add_argument("--compiled", action="store_true", help="torch.compile the loss")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network, actor = make_actor()
    explore = EGreedyModule(
        spec=actor.spec,
        eps_init=1.0,
        eps_end=task.EPSILON_END,
        annealing_num_steps=int(task.EPSILON_FRACTION * options.steps),
    )
    learner = Learner(actor, options.compiled)
    collector = Collector(
        make_env(options.envs),
        TensorDictSequential(actor, explore),
        frames_per_batch=options.round,
        total_frames=options.steps,
        init_random_frames=task.LEARNING_STARTS,
    )
    collector.set_seed(options.seed)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(task.CAPACITY), batch_size=task.BATCH_SIZE
    )
    clock, env_steps = task.LearningClock(), 0
    returns: list[float] = []
    for data in collector:
        data = data.reshape(-1)
        buffer.extend(data)
        env_steps += data.numel()
        explore.step(data.numel())
        ended = data["next", "done"]
        returns += data["next", "episode_reward"][ended].tolist()
        if env_steps <= task.LEARNING_STARTS:
            continue
        for _ in range(data.numel() // task.STEPS_PER_UPDATE):
            learner.update(buffer.sample())
            clock.learned(learner.updates)
        collector.update_policy_weights_()
    clock.stop(learner.updates)
    greedy = copy.deepcopy(network).requires_grad_(False)
    task.report(
        lambda obs: greedy(torch.as_tensor(obs)).argmax(dim=1).numpy(),
        options.seed,
        clock,
        returns,
        env_steps=env_steps,
        gradient_steps=learner.updates,
        versions={n: version(n) for n in ("torchrl", "tensordict", "gymnasium", "numpy", "torch")},
    )
    collector.shutdown()


if __name__ == "__main__":
    main()
