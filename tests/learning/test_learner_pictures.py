"""The learner on pictures: precision, threads, and a compiled update."""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest
import torch
from learner_parts import learn, make_settings, needs_compiler
from torch import nn

from distdqn.learning.compilation import BackgroundCompile
from distdqn.learning.compiled_cache import CompiledCache
from distdqn.learning.learner import Learner
from distdqn.machine.cpu_threads import cpu_threads, default_num_threads
from distdqn.networks.q_network import make_network
from distdqn.types import ObservationSpec, ReplayBatch

ATARI = ObservationSpec((84, 84), "uint8", scale=1 / 255, stack=4)
MINATAR = ObservationSpec((10, 10, 4), "uint8")
B, A = 8, 4
NATURE_2015 = {
    "optimizer": "rmsprop",
    "optimizer_eps": 0.01 / 32**2,
    "rmsprop_decay": 0.95,
    "rmsprop_centered": True,
    "rmsprop_eps_inside_sqrt": True,
}


def make_learner(observation=MINATAR, dueling=False, **changes):
    torch.manual_seed(0)
    network = make_network(observation, A, torso="auto", dueling=dueling)
    settings = make_settings(**{"batch_size": B, "num_threads": 1, **changes})
    return Learner(network, settings, observation, A)


def make_batch(seed, observation=MINATAR, num_batches=3):
    rng, size = np.random.default_rng(seed), (num_batches, B)
    high = 2 if observation is MINATAR else 256

    def obs():
        return rng.integers(high, size=(*size, *observation.obs_shape), dtype=np.uint8)

    return ReplayBatch(
        obs_tm1=obs(),
        a_tm1=rng.integers(A, size=size),
        r_t=rng.standard_normal(size, np.float32),
        discount_t=rng.choice([0.0, 0.9], size).astype(np.float32),
        obs_t=obs(),
        item_ids=np.zeros(size, np.int64),
        probabilities=np.ones(size),
    )


def test_an_update_on_stacks_is_that_of_plain_modules_and_torch_optim():
    learner = make_learner(ATARI, optimizer="adam", optimizer_eps=1e-4)
    online = copy.deepcopy(learner.parameters.module)
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-3, eps=1e-4)
    batch, errors = make_batch(0, ATARI, 2), []
    for k in range(2):
        obs_tm1, a_tm1, r_t, discount_t, obs_t = (
            torch.from_numpy(x[k])
            for x in (batch.obs_tm1, batch.a_tm1, batch.r_t, batch.discount_t, batch.obs_t)
        )
        with torch.no_grad():
            y = r_t + discount_t * online(obs_t).max(1).values  # target_period is 1
        q = online(obs_tm1)[torch.arange(B), a_tm1]
        errors.append((y - q).detach().abs().numpy())
        optimizer.zero_grad()
        nn.functional.huber_loss(q, y).backward()
        optimizer.step()
    got = learn(learner, batch, None, 1e-3)
    np.testing.assert_allclose(got, errors, rtol=1e-3, atol=1e-4)
    expected = nn.utils.parameters_to_vector(online.parameters()).detach().numpy()
    moved = learner.online_vector() - make_learner(ATARI).online_vector()
    error = np.linalg.norm(learner.online_vector() - expected)
    assert error < 1e-2 * np.linalg.norm(moved)  # Adam turns rounding near 0 into steps


@pytest.mark.parametrize("observation", [ATARI, MINATAR], ids=["nature", "minatar"])
@pytest.mark.parametrize("dueling", [False, True])
def test_bfloat16_gives_float32s_errors_and_step_up_to_rounding(observation, dueling):
    options = {"dueling": dueling, "double": True, **NATURE_2015}
    exact = make_learner(observation, **options)
    rounded = make_learner(observation, precision="bfloat16", **options)
    before, batch = exact.online_vector(), make_batch(0, observation, 1)
    expected, got = (learn(x, batch, None, 1e-3) for x in (exact, rounded))
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert not np.array_equal(got, expected)
    moves = [x.online_vector() - before for x in (exact, rounded)]
    cosine = moves[0] @ moves[1] / np.linalg.norm(moves[0]) / np.linalg.norm(moves[1])
    assert cosine > 0.98
    state = rounded.get_state()
    assert {state[name].dtype for name in ("online", "target", "second_moment")} == {
        np.dtype("float32")
    }


def test_small_steps_are_not_lost_in_bfloat16():
    # 1 + 1e-3 is 1 in bfloat16; parameters in float32 take the step.
    learner = make_learner(precision="bfloat16")
    learner.set_parameters({name: np.ones(shape, np.float32) for name, shape in learner.layout})
    learn(learner, make_batch(0), None, 1e-4)
    moved = learner.online_vector() - 1
    assert 0 < np.abs(moved).max() < 1e-3


class OwnNetwork(nn.Module):
    """A user's module, which knows nothing of precision."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.seen = nn.Linear(400, 16), nn.Linear(16, A), []

    def forward(self, obs):
        features = torch.tanh(self.body(obs.float().flatten(1)))
        self.seen.append(features.dtype)
        return self.head(features)


def test_a_users_network_computes_in_bfloat16_too():
    settings = make_settings(batch_size=B, precision="bfloat16", num_threads=1)
    learner = Learner(OwnNetwork(), settings, MINATAR, A)
    del learner.parameters.module.seen[:]
    errors = learn(learner, make_batch(0), None, 1e-3)
    assert set(learner.parameters.module.seen) == {torch.bfloat16}
    assert np.isfinite(errors).all() and learner.online_vector().dtype == np.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pictures_are_told_apart_in_either_precision(precision):
    """Each of four pictures has its own mean reward for each action."""
    learner = make_learner(precision=precision, target_period=10)
    rng = np.random.default_rng(0)
    pictures = rng.integers(2, size=(4, 10, 10, 4), dtype=np.uint8)
    means = rng.uniform(-1, 1, (4, A)).astype(np.float32)
    for step in range(40):
        s, a = rng.integers(4, size=(10, B)), rng.integers(A, size=(10, B))
        batch = ReplayBatch(
            obs_tm1=pictures[s],
            a_tm1=a,
            r_t=means[s, a],
            discount_t=np.zeros((10, B), np.float32),
            obs_t=pictures[s],
            item_ids=s,
            probabilities=np.ones((10, B)),
        )
        errors = learn(learner, batch, None, 3e-3 * (1 - step / 40))
    assert errors.max() < (0.01 if precision == "float32" else 0.05)


def test_the_update_alone_uses_the_learners_threads():
    learner = make_learner(num_threads=3)
    seen, update = [], learner.build_update()
    with cpu_threads(1):
        learner.swap(
            lambda *arguments: (seen.append(torch.get_num_threads()), update(*arguments))[1]
        )
        learn(learner, make_batch(0), None, 1e-3)
        assert torch.get_num_threads() == 1
    assert seen == [3] * 4  # one in comparison
    default = default_num_threads(learner.parameters.module)
    assert make_learner(num_threads=None).num_threads == default


def test_the_eager_update_in_chunks_is_the_pure_one_bit_for_bit():
    in_chunks, whole = make_learner(ATARI, **NATURE_2015), make_learner(ATARI, **NATURE_2015)
    assert whole.swap(whole.build_update()), whole.swap_refused
    for seed in range(2):
        for learner in (in_chunks, whole):
            learn(learner, make_batch(seed, ATARI, 1), None, 1e-3)
    a, b = in_chunks.get_state(), whole.get_state()
    assert all(np.array_equal(a[name], b[name]) for name in a)


def start_compiling(learner, folder, **options):
    with cpu_threads(learner.num_threads):
        return BackgroundCompile(
            learner.build_update,
            learner.example_arguments(),
            CompiledCache(folder),
            nice=0,
            **options,
        )


@needs_compiler
def test_a_compiled_update_on_pictures_takes_the_eager_ones_place(tmp_path):
    options = {"dueling": True, "double": True, "precision": "bfloat16", **NATURE_2015}
    learner, eager = make_learner(**options), make_learner(**options)
    compiling = start_compiling(learner, tmp_path)
    deadline = time.monotonic() + 300
    while compiling.state == "compiling":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert learner.swap(compiling.poll()), (compiling.reason, learner.swap_refused)
    for seed in range(3):
        batch = make_batch(seed)
        got, expected = (learn(x, batch, None, 1e-3) for x in (learner, eager))
        np.testing.assert_allclose(got, expected, rtol=0.05, atol=0.02)
    assert start_compiling(learner, tmp_path, command=["false"]).state == "cached"
    assert start_compiling(eager, tmp_path, command=["false"]).state == "cached"
    others = (make_learner(**(options | {"precision": "float32"})), make_learner(**options))
    others[1].num_threads = 2
    for other in others:
        assert start_compiling(other, tmp_path, command=["false"]).state != "cached"
    wrong = make_learner(**(options | {"loss": "mse"}))
    assert not wrong.swap(compiling.poll()) and "off by" in wrong.swap_refused
