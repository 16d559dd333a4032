"""A small learner and batches for it, for tests of learning."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from distdqn.config.sections import LearnerConfig
from distdqn.learning.learner import Learner
from distdqn.networks.q_network import make_network
from distdqn.types import ObservationSpec, ReplayBatch

VECTOR = ObservationSpec((3,), "float32")
K, B, A = 4, 8, 2

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++, without which updates stay eager"
)
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU that PyTorch sees"
)


def make_learner(observation=VECTOR, num_actions=A, hidden=(16,), **changes):
    torch.manual_seed(0)
    network = make_network(observation, num_actions, hidden=hidden)
    return Learner(network, make_settings(**changes), observation, num_actions)


def make_settings(**changes):
    defaults = {"batch_size": B, "target_period": 1, "device": "cpu"}
    return LearnerConfig(**{**defaults, **changes})


def learn(learner, batch, weights, learning_rate):
    """The |TD errors| `[K, B]`; weights: importance weights, scaled to at most 1, or None."""
    if weights is not None:
        probabilities = weights.min(axis=1, keepdims=True) / weights.astype(np.float64)
        batch = dataclasses.replace(batch, probabilities=probabilities)
    update = learner.learn(batch, 1.0, 1, 1.0, learning_rate)
    return update.priorities.reshape(batch.r_t.shape)


def make_batch(seed, num_batches=K, with_mask=False):
    rng, size = np.random.default_rng(seed), (num_batches, B)
    batch = ReplayBatch(
        obs_tm1=rng.standard_normal((*size, 3), np.float32),
        a_tm1=rng.integers(A, size=size),
        r_t=rng.standard_normal(size, np.float32),
        discount_t=rng.choice([0.0, 0.9], size).astype(np.float32),
        obs_t=rng.standard_normal((*size, 3), np.float32),
        item_ids=np.zeros(size, np.int64),
        probabilities=np.ones(size),
        action_mask_t=np.ones((*size, A), bool) if with_mask else None,
    )
    for field in dataclasses.fields(batch):  # as it comes out of shared memory
        array = getattr(batch, field.name)
        if array is not None:
            array.flags.writeable = False
    return batch


def make_weights(seed, num_batches=K):
    return np.random.default_rng(seed).uniform(0.1, 1, (num_batches, B)).astype(np.float32)


def slice_batch(batch, k):
    arrays = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return dataclasses.replace(
        batch, **{name: x[k : k + 1] for name, x in arrays.items() if x is not None}
    )


def same_state(a, b):
    a, b = a.get_state(), b.get_state()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
