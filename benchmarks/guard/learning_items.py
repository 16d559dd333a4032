"""What is guarded of the update and of acting.

The update's limit is its large products alone, each at its shape: forward for both networks,
backward for one. Acting's limit is the env stepped with actions known beforehand.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from distdqn.acting.rollout import Rollout, RolloutSettings
from distdqn.bench.alone import compile_now
from distdqn.config import EnvConfig, LearnerConfig
from distdqn.envs.make import make_stepper
from distdqn.errors import DistDQNError
from distdqn.learning.learner import Learner
from distdqn.networks.q_network import make_network
from distdqn.types import ObservationSpec, ReplayBatch
from guard.reference_rollout import ReferenceRollout
from guard.reference_update import ReferenceLearner, dense_network, picture_network
from guard.replay_items import NUMBERS, PICTURES
from guard.turns import Item, Work

NUM_ENVS, N_STEP, DISCOUNT, EXPLORATION = 16, 3, 0.99, 0.1
VECTOR_STEPS = 64  # of a block, in a call

_TARGET_PERIOD, _LEARNING_RATE, _EXPONENT = 500, 1e-4, 0.4
_NUM_ITEMS = 100_000
_NO_LIMIT = 2**62


def learning_items() -> list[Item]:
    """Two networks' updates, compiled, on one thread; acting in CartPole.

    Raises DistDQNError where the updates cannot be compiled.
    """
    learners = [
        _learner(NUMBERS, 2, "mlp", batch_size=128),
        _learner(PICTURES, 4, "nature", batch_size=32),
    ]
    for learner in learners:
        how = compile_now(learner)
        if not learner.compiled:
            raise DistDQNError(
                f"the compiled update is to be compared, and there is none: {how}; "
                "install a C++ compiler, or name one in CXX"
            )
    return [
        _update_item("update of a dense network, batch 128", learners[0], dense_network(), 16),
        _update_item("update of a picture network, batch 32", learners[1], picture_network(), 1),
        _rollout_item(),
    ]


def make_batch(
    observation: ObservationSpec, num_actions: int, size: tuple[int, int], seed: int
) -> ReplayBatch:
    """A superbatch of `size` (K, B), made up."""
    rng = np.random.default_rng(seed)

    def observations() -> np.ndarray:
        shape = (*size, *observation.obs_shape)
        if observation.dtype == "uint8":
            return rng.integers(0, 256, shape, np.uint8)
        return rng.standard_normal(shape, np.float32)

    return ReplayBatch(
        obs_tm1=observations(),
        a_tm1=rng.integers(num_actions, size=size),
        r_t=rng.standard_normal(size, np.float32),
        discount_t=rng.choice([0.0, 0.99], size).astype(np.float32),
        obs_t=observations(),
        item_ids=np.zeros(size, np.int64),
        probabilities=rng.uniform(0.5, 1.5, size) / _NUM_ITEMS,
    )


def _learner(
    observation: ObservationSpec, num_actions: int, torso: str, batch_size: int
) -> Learner:
    network = make_network(observation, num_actions, torso)
    settings = LearnerConfig(
        batch_size=batch_size, target_period=_TARGET_PERIOD, device="cpu", num_threads=1
    )
    return Learner(network, settings, observation, num_actions)


def _update_item(name: str, learner: Learner, network: nn.Sequential, num_batches: int) -> Item:
    observation, num_actions = (PICTURES, 4) if isinstance(network[0], nn.Conv2d) else (NUMBERS, 2)
    size = (num_batches, learner.settings.batch_size)
    batch = make_batch(observation, num_actions, size, seed=0)
    reference = ReferenceLearner(network, observation.scale, _TARGET_PERIOD)
    columns = (batch.obs_tm1, batch.a_tm1, batch.r_t, batch.discount_t, batch.obs_t)

    def learn() -> None:
        learner.learn(batch, 1.0, _NUM_ITEMS, _EXPONENT, _LEARNING_RATE)

    def learn_reference() -> None:
        probabilities = batch.probabilities
        reference.learn(*columns, probabilities, _NUM_ITEMS, _EXPONENT, _LEARNING_RATE)

    return Item(
        name=name,
        part="update",
        ours=learn,
        limit=products(network, torch.from_numpy(batch.obs_tm1[0]).float(), num_batches),
        limit_name="its matrix products and convolutions alone",
        reference=learn_reference,
    )


def products(network: nn.Sequential, obs: torch.Tensor, times: int) -> Work:
    """The products of `times` updates: each layer twice forward and once backward."""
    parts: list[Work] = []
    x = obs
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Conv2d):
                x = x.contiguous(memory_format=torch.channels_last)
                parts.append(_convolution(layer, x, first=not parts))
            elif isinstance(layer, nn.Linear):
                parts.append(_dense(layer, x, first=not parts))
            x = layer(x)

    def work() -> None:
        with torch.inference_mode():
            for _ in range(times):
                for part in parts:
                    part()

    return work


def _dense(layer: nn.Linear, x: torch.Tensor, first: bool) -> Work:
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    gradient = torch.ones(len(x), layer.out_features)

    def work() -> None:
        for _ in range(2):
            torch.addmm(bias, x, weight.T)
        torch.mm(gradient.T, x)
        if not first:  # nobody asks for the observations' gradient
            torch.mm(gradient, weight)

    return work


def _convolution(layer: nn.Conv2d, x: torch.Tensor, first: bool) -> Work:
    weight = layer.weight.detach().clone(memory_format=torch.channels_last)
    bias, stride = layer.bias, list(layer.stride)
    assert bias is not None
    bias = bias.detach().clone()
    gradient = torch.ones_like(F.conv2d(x, weight, bias, layer.stride))

    def work() -> None:
        for _ in range(2):
            F.conv2d(x, weight, bias, layer.stride)
        torch.ops.aten.convolution_backward(
            *(gradient, x, weight, [len(bias)], stride, [0, 0], [1, 1], False, [0, 0], 1),
            [not first, True, True],
        )

    return work


def _rollout_item() -> Item:
    rollout = cartpole_rollout()
    torch.manual_seed(0)
    reference = ReferenceRollout(
        make_cartpole(), dense_network(), N_STEP, DISCOUNT, EXPLORATION, seed=0
    )
    env = make_cartpole()
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(2, size=(VECTOR_STEPS, NUM_ENVS))

    def step() -> None:
        for row in actions:
            env.step(row)

    return Item(
        name=f"act in {NUM_ENVS} CartPole envs, {N_STEP} steps",
        part="rollout",
        ours=lambda: rollout.collect(_NO_LIMIT, math.inf),  # until a block is due
        limit=step,
        limit_name="the envs stepped alone",
        reference=lambda: reference.collect(VECTOR_STEPS * NUM_ENVS),
    )


def make_cartpole() -> Any:
    return gymnasium.make_vec(
        "CartPole-v1", num_envs=NUM_ENVS, vectorization_mode="vector_entry_point"
    )


def cartpole_rollout() -> Rollout:
    """Whose network differs by chance alone from that of the reference."""
    stepper = make_stepper(EnvConfig("CartPole-v1"), NUM_ENVS)
    torch.manual_seed(0)
    return Rollout(
        stepper=stepper,
        network=make_network(stepper.observation, stepper.num_actions),
        settings=RolloutSettings(N_STEP, DISCOUNT, VECTOR_STEPS * NUM_ENVS),
        epsilons=lambda env_steps: np.full(NUM_ENVS, EXPLORATION),
    )
