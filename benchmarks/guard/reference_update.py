"""A DQN update in plain PyTorch: the fixed reference, never to be optimised.

Faster or slower, it would shift the ratio that distdqn's update is held to; change it only
together with the record. (Mnih et al. 2015, doi:10.1038/nature14236, algorithm 1, with the
importance weights of Schaul et al. 2016.)
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def dense_network() -> nn.Sequential:
    """4 numbers in, 120 and 84 hidden units, 2 actions: CleanRL's for CartPole."""
    return nn.Sequential(
        nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2)
    )


def picture_network() -> nn.Sequential:
    """Four pictures of 84 x 84 with values from 0 to 1 in, 4 actions: Mnih et al. 2015."""
    return nn.Sequential(
        *(nn.Conv2d(4, 32, 8, stride=4), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 4)),
    )


class ReferenceLearner:
    """Adam on the Huber loss of Q-learning's TD errors, minibatch by minibatch.

    scale: the network sees observations times it.
    """

    def __init__(self, network: nn.Sequential, scale: float, target_period: int) -> None:
        self.network, self._scale, self._target_period = network, scale, target_period
        self._target_network = copy.deepcopy(network)
        self._optimizer = torch.optim.Adam(network.parameters(), lr=0.0)
        self._gradient_steps = 0

    def learn(
        self,
        obs_tm1: np.ndarray,
        a_tm1: np.ndarray,
        r_t: np.ndarray,
        discount_t: np.ndarray,
        obs_t: np.ndarray,
        probabilities: np.ndarray,
        num_items: int,
        exponent: float,
        learning_rate: float,
    ) -> np.ndarray:
        """One update for each of K minibatches; arrays are `[K, B, ...]`.

        Returns `[K, B]` absolute TD errors, each before its own update.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        weights = (num_items * probabilities) ** -exponent
        weights = (weights / weights.max(axis=1, keepdims=True)).astype(np.float32)
        columns = (obs_tm1, a_tm1, r_t, discount_t, obs_t, weights)
        return np.stack(
            [self._update(*map(torch.from_numpy, row)) for row in zip(*columns, strict=True)]
        )

    def _update(
        self,
        obs_tm1: torch.Tensor,
        a_tm1: torch.Tensor,
        r_t: torch.Tensor,
        discount_t: torch.Tensor,
        obs_t: torch.Tensor,
        weights: torch.Tensor,
    ) -> np.ndarray:
        with torch.no_grad():
            target = r_t + discount_t * self._target_network(self._seen(obs_t)).max(dim=1).values
        q = self.network(self._seen(obs_tm1)).gather(1, a_tm1[:, None]).squeeze(1)
        loss = (weights * F.smooth_l1_loss(q, target, reduction="none")).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._gradient_steps += 1
        if self._gradient_steps % self._target_period == 0:
            self._target_network.load_state_dict(self.network.state_dict())
        return (target - q).detach().abs().numpy()

    def _seen(self, obs: torch.Tensor) -> torch.Tensor:
        return obs.float() * self._scale
