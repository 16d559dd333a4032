"""The learner's life: superbatches, target copies, figures, state."""

from __future__ import annotations

import dataclasses
import warnings
import weakref

import numpy as np
import pytest
import torch
from learner_parts import (
    VECTOR,
    A,
    B,
    K,
    learn,
    make_batch,
    make_learner,
    make_settings,
    make_weights,
    same_state,
    slice_batch,
)
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from distdqn.errors import ResourceError
from distdqn.learning.diagnostics import Diagnostics
from distdqn.learning.learner import Learner, choose_device
from distdqn.networks.q_network import make_network
from distdqn.types import ObservationSpec, ReplayBatch


def test_a_superbatch_is_its_minibatches_one_after_the_other():
    together, one_by_one = make_learner(target_period=3), make_learner(target_period=3)
    batch, weights = make_batch(0), make_weights(0)
    errors = learn(together, batch, weights, 1e-2)
    rows = [learn(one_by_one, slice_batch(batch, k), weights[k : k + 1], 1e-2) for k in range(K)]
    assert errors.shape == (K, B) and errors.dtype == np.float32
    np.testing.assert_array_equal(errors, np.concatenate(rows))
    assert same_state(together, one_by_one)
    assert together.gradient_steps == K and together.target_copies == 1


def test_td_errors_are_absolute_and_from_before_their_own_update():
    learner, batch = make_learner(), make_batch(0, 1)
    network = learner.parameters.module
    with torch.no_grad():
        q_tm1 = network(torch.tensor(batch.obs_tm1[0])).numpy()
        q_t = network(torch.tensor(batch.obs_t[0])).numpy()
    target = batch.r_t[0] + batch.discount_t[0] * q_t.max(1)
    expected = np.abs(target - q_tm1[np.arange(B), batch.a_tm1[0]])
    got = learn(learner, batch, None, 1e-2)
    np.testing.assert_allclose(got[0], expected, rtol=1e-5, atol=1e-6)


def test_the_learner_works_on_a_copy_of_the_network():
    network = make_network(VECTOR, A)
    learner = Learner(network, make_settings(precision="float64"), VECTOR, A)
    before = nn.utils.parameters_to_vector(network.parameters()).clone()
    errors = learn(learner, make_batch(0), None, 1e-2)
    after = nn.utils.parameters_to_vector(network.parameters())
    assert torch.equal(before, after) and before.dtype == torch.float32
    assert learner.online_vector().dtype == np.float64 and errors.dtype == np.float32
    assert not np.allclose(learner.online_vector(), before.detach().numpy())


def test_the_target_network_is_copied_every_period():
    learner = make_learner(target_period=5)
    first = learner.target_vector()
    learn(learner, make_batch(0), None, 1e-2)
    np.testing.assert_array_equal(learner.target_vector(), first)
    learn(learner, make_batch(1, 1), None, 1e-2)
    np.testing.assert_array_equal(learner.target_vector(), learner.online_vector())
    assert learner.target_copies == 1


def test_polyak_averaging_moves_the_target_by_its_share():
    learner = make_learner(target_period=1, target_tau=0.25)
    expected = learner.target_vector()
    for seed in range(3):
        learn(learner, make_batch(seed, 1), None, 1e-2)
        expected = 0.75 * expected + 0.25 * learner.online_vector()
        np.testing.assert_allclose(learner.target_vector(), expected, rtol=1e-5, atol=1e-7)
    assert learner.target_copies == 3


def test_the_importance_weights_are_those_of_the_whole_replay():
    plain, weighted = make_learner(loss="mse"), make_learner(loss="mse")
    probabilities = np.tile([0.1, 0.4], B // 2)[None]
    batch = dataclasses.replace(make_batch(0, 1), probabilities=probabilities)
    errors = learn(plain, batch, None, 1e-2)[0]
    plain.learn(batch, 0.5, 100, 0.0, 1e-2)
    priorities = weighted.learn(batch, 0.5, 100, 0.5, 1e-2).priorities
    np.testing.assert_array_equal(priorities, errors)
    expected = np.mean(np.tile([1.0, 0.5], B // 2) * errors**2)  # (P / min P)^-1/2
    assert weighted.diagnostics.scalars()["td_loss"] == pytest.approx(expected, rel=1e-5)


def test_scalars_are_those_of_the_last_update_and_nan_before_it():
    learner = make_learner(loss="mse")
    assert set(learner.diagnostics.scalars()) == {"td_loss", "q_values", "grad_norm"}
    assert all(np.isnan(x) for x in learner.diagnostics.scalars().values())
    errors = learn(learner, make_batch(0), None, 1e-2)
    assert learner.diagnostics.scalars()["td_loss"] == pytest.approx(
        np.mean(errors[-1] ** 2), rel=1e-5
    )


def test_read_only_arrays_and_odd_dtypes_are_taken_without_a_warning():
    batch, other = make_batch(0), make_learner()
    widened = dataclasses.replace(
        batch, r_t=batch.r_t.astype(np.float64), a_tm1=batch.a_tm1.astype(np.int32)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner = make_learner()
        learn(learner, batch, make_weights(0), 1e-2)
        learn(other, widened, make_weights(0), 1e-2)
    assert same_state(learner, other)


@pytest.mark.parametrize(
    "observation",
    [
        ObservationSpec((2, 3), "uint8", scale=1 / 255),
        ObservationSpec((), "int32", num_categories=7),
        ObservationSpec((3,), "bool"),
    ],
)
def test_observations_of_every_kind_are_learned_from_and_traced(observation):
    learner = make_learner(observation)
    assert learner.example_arguments()[-6].dtype == getattr(torch, observation.dtype)
    traced = make_fx(learner.build_update())(*learner.example_arguments())
    assert learner.swap(traced), learner.swap_refused


def test_values_that_are_not_finite_are_counted():
    learner, batch = make_learner(), make_batch(0, 1)
    r_t = batch.r_t.copy()
    r_t[0, :2] = np.nan, np.inf
    learn(learner, dataclasses.replace(batch, r_t=r_t), None, 1e-2)
    assert learner.diagnostics.non_finite == 2
    learn(learner, batch, None, 1e-2)  # the parameters are NaN by now
    assert learner.diagnostics.non_finite == 2 + B


def test_the_largest_value_is_of_every_update_of_the_whole_life():
    learner, twin, expected = make_learner(), make_learner(), []
    assert np.isnan(learner.diagnostics.q_abs_max)
    for seed, rate in enumerate((0.3, 1e-2, 1e-2)):  # the first throws the values about
        batch = make_batch(seed)
        for k in range(K):
            flat = torch.tensor(twin.online_vector())
            q = twin.parameters.apply(flat, torch.tensor(batch.obs_tm1[k])).numpy()
            expected.append(np.abs(q[np.arange(B), batch.a_tm1[k]]).max())
            learn(twin, slice_batch(batch, k), None, rate)
        learn(learner, batch, None, rate)
        assert learner.diagnostics.q_abs_max == pytest.approx(max(expected), rel=1e-5)
    assert max(expected) not in expected[K - 1 :: K]  # the last update of each would not do


def test_a_value_that_is_not_finite_makes_the_largest_one_infinite_for_good():
    learner, batch = make_learner(), make_batch(0)
    r_t = batch.r_t.copy()
    r_t[0, 0] = np.nan  # spoils the parameters, and so the values from the second update on
    learn(learner, dataclasses.replace(batch, r_t=r_t), None, 1e-2)
    assert learner.diagnostics.q_abs_max == np.inf
    learner.set_state(make_learner().get_state())
    learn(learner, batch, None, 1e-2)
    assert learner.diagnostics.q_abs_max == np.inf


def test_recent_td_errors_are_the_last_minibatches_of_the_newest_superbatches(monkeypatch):
    learner = make_learner()
    assert learner.diagnostics.recent_abs_td_errors().shape == (0,)
    errors = [learn(learner, make_batch(seed), None, 1e-2)[-1] for seed in range(103)]
    np.testing.assert_array_equal(
        learner.diagnostics.recent_abs_td_errors(), np.concatenate(errors[-100:])
    )


def test_of_a_superbatch_only_the_last_minibatch_is_kept():
    diagnostics, errors = Diagnostics(), np.ones((K, B), np.float32)
    whole = weakref.ref(errors)
    diagnostics.note(errors, np.zeros((K, 4), np.float32))
    del errors
    assert whole() is None and diagnostics.recent_abs_td_errors().shape == (B,)


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "rmsprop", "rmsprop_centered": True, "optimizer_momentum": 0.9}]
)
def test_a_restored_learner_goes_on_bit_for_bit(options):
    options = {"target_period": 3, **options}
    whole, first = make_learner(**options), make_learner(**options)
    for seed in range(2):
        learn(whole, make_batch(seed), make_weights(seed), 1e-2)
        learn(first, make_batch(seed), make_weights(seed), 1e-2)
    state = first.get_state()
    learn(first, make_batch(9), None, 1e-2)  # a state is a copy
    torch.manual_seed(1)
    second = make_learner(**options)
    learn(second, make_batch(8), None, 1e-2)
    second.set_state(state)
    for seed in range(2, 4):
        expected = learn(whole, make_batch(seed), make_weights(seed), 1e-3)
        got = learn(second, make_batch(seed), make_weights(seed), 1e-3)
        np.testing.assert_array_equal(got, expected)
    assert same_state(whole, second)
    assert second.gradient_steps == 16 and second.target_copies == 5


def test_a_state_of_another_network_or_optimizer_is_refused_and_nothing_changes():
    learner = make_learner()
    before = learner.get_state()
    with pytest.raises(ValueError, match=r"online must be \[98\] for this network, got \[50\]"):
        learner.set_state(make_learner(hidden=(8,)).get_state())
    with pytest.raises(ValueError, match="must hold .*'first_moment'"):
        learner.set_state(make_learner(optimizer="rmsprop").get_state())
    assert all(np.array_equal(before[name], x) for name, x in learner.get_state().items())


def test_parameters_by_name_start_both_networks():
    source, learner = make_learner(), make_learner(precision="float64")
    learn(source, make_batch(0), None, 1e-2)
    vector, arrays, start = source.online_vector(), {}, 0
    for name, shape in source.layout:
        size = int(np.prod(shape))
        arrays[name] = vector[start : start + size].reshape(shape)
        start += size
    learner.set_parameters(arrays)
    np.testing.assert_array_equal(learner.online_vector(), vector)
    np.testing.assert_array_equal(learner.target_vector(), vector)
    with pytest.raises(ValueError, match="missing"):
        learner.set_parameters({"torso.0.weight": arrays["torso.0.weight"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_t": np.zeros((K, B + 1), np.float32)}, r"r_t must be .*\[4, 8\].*got \[4, 9\]"),
        ({"obs_t": np.zeros((K, B, 4), np.float32)}, r"obs_t must be .*\[4, 8, 3\].*\[4, 8, 4\]"),
        ({"action_mask_t": np.ones((K, B, 3), bool)}, r"action_mask_t must be .*\[4, 8, 2\]"),
    ],
)
def test_a_batch_or_network_of_another_shape_is_refused_by_name(change, message):
    learner = make_learner()
    with pytest.raises(ValueError, match=message):
        learn(learner, dataclasses.replace(make_batch(0), **change), None, 1e-2)
    with pytest.raises(ValueError, match="importance_weights must be"):
        learn(learner, dataclasses.replace(make_batch(0), probabilities=np.ones(B)), None, 1e-2)
    assert learner.gradient_steps == 0


def test_a_regression_on_rewards_finds_their_means():
    # Three states, every episode ends after one step: q(s, a) is the mean reward.
    observation = ObservationSpec((), "int32", num_categories=3)
    learner = make_learner(observation, hidden=(16,), target_period=10)
    means, rng = np.array([[1.0, -1.0], [0.0, 2.0], [3.0, 0.5]]), np.random.default_rng(0)
    for step in range(60):
        s, a = rng.integers(3, size=(10, B)), rng.integers(A, size=(10, B))
        batch = ReplayBatch(
            obs_tm1=s.astype(np.int32),
            a_tm1=a,
            r_t=means[s, a].astype(np.float32),
            discount_t=np.zeros((10, B), np.float32),
            obs_t=s.astype(np.int32),
            item_ids=s,
            probabilities=np.ones((10, B)),
        )
        errors = learn(learner, batch, None, 0.02 * (1 - step / 60))
    assert errors.max() < 0.02


@pytest.mark.parametrize(
    "options", [{"double": False}, {"double": True}, {"gradient": "residual"}], ids=str
)
def test_a_chain_is_learned_to_its_exact_values(options):
    # State i: action 1 moves right for -1, action 0 stays for -2; the last move ends with 10.
    n, gamma = 4, 0.9
    exact = np.zeros((n, 2))
    for i in reversed(range(n)):
        exact[i, 1] = 10.0 if i == n - 1 else -1.0 + gamma * exact[i + 1].max()
        exact[i, 0] = -2.0 + gamma * exact[i, 1]
    assert (exact[:, 1] > exact[:, 0]).all()  # staying is never best, as assumed above
    s, a = (x.ravel() for x in np.mgrid[0:n, 0:2])  # all eight pairs are one batch
    last = (s == n - 1) & (a == 1)
    batch = ReplayBatch(
        obs_tm1=np.tile(s.astype(np.int32), (50, 1)),
        a_tm1=np.tile(a, (50, 1)),
        r_t=np.tile(np.where(last, 10, np.where(a == 1, -1, -2)).astype(np.float32), (50, 1)),
        discount_t=np.tile(np.where(last, 0, gamma).astype(np.float32), (50, 1)),
        obs_t=np.tile(np.minimum(s + a, n - 1).astype(np.int32), (50, 1)),
        item_ids=np.zeros((50, B), np.int64),
        probabilities=np.ones((50, B)),
    )
    observation = ObservationSpec((), "int32", num_categories=n)
    learner = make_learner(
        observation, hidden=(), loss="mse", target_period=20, precision="float64", **options
    )
    for rate in np.linspace(0.1, 0.001, 30):
        learn(learner, batch, None, float(rate))
    states = torch.arange(n, dtype=torch.int32)
    q = learner.parameters.apply(torch.tensor(learner.online_vector()), states)
    np.testing.assert_allclose(q.numpy(), exact, atol=0.01)


def test_a_gpu_that_is_not_there_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="use --learner.device cpu"):
        choose_device("cuda")
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
