"""The learner's life: superbatches, target copies, state, compiled updates."""

from __future__ import annotations

import dataclasses
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from distdqn.errors import ResourceError
from distdqn.learner import Learner, LearnerSettings, choose_device
from distdqn.networks import make_network
from distdqn.types import ObservationSpec, ReplayBatch

VECTOR = ObservationSpec((3,), "float32")
K, B, A = 4, 8, 2


def make_learner(observation=VECTOR, num_actions=A, hidden=(16,), **changes):
    torch.manual_seed(0)
    network = make_network(observation, num_actions, hidden=hidden)
    settings = LearnerSettings(**{"batch_size": B, **changes})
    return Learner(network, settings, observation, num_actions)


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


def test_a_superbatch_is_its_minibatches_one_after_the_other():
    together, one_by_one = make_learner(target_period=3), make_learner(target_period=3)
    batch, weights = make_batch(0), make_weights(0)
    errors = together.update_superbatch(batch, weights, 1e-2)
    rows = [
        one_by_one.update_superbatch(slice_batch(batch, k), weights[k : k + 1], 1e-2)
        for k in range(K)
    ]
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
    got = learner.update_superbatch(batch, None, 1e-2)
    np.testing.assert_allclose(got[0], expected, rtol=1e-5, atol=1e-6)


def test_the_learner_works_on_a_copy_of_the_network():
    network = make_network(VECTOR, A)
    learner = Learner(network, LearnerSettings(B, precision="float64"), VECTOR, A)
    before = nn.utils.parameters_to_vector(network.parameters()).clone()
    errors = learner.update_superbatch(make_batch(0), None, 1e-2)
    after = nn.utils.parameters_to_vector(network.parameters())
    assert torch.equal(before, after) and before.dtype == torch.float32
    assert learner.online_vector().dtype == np.float64 and errors.dtype == np.float32
    assert not np.allclose(learner.online_vector(), before.detach().numpy())


def test_the_target_network_is_copied_every_period():
    learner = make_learner(target_period=5)
    first = learner.target_vector()
    learner.update_superbatch(make_batch(0), None, 1e-2)
    np.testing.assert_array_equal(learner.target_vector(), first)
    learner.update_superbatch(make_batch(1, 1), None, 1e-2)
    np.testing.assert_array_equal(learner.target_vector(), learner.online_vector())
    assert learner.target_copies == 1


def test_polyak_averaging_moves_the_target_by_its_share():
    learner = make_learner(target_period=1, target_tau=0.25)
    expected = learner.target_vector()
    for seed in range(3):
        learner.update_superbatch(make_batch(seed, 1), None, 1e-2)
        expected = 0.75 * expected + 0.25 * learner.online_vector()
        np.testing.assert_allclose(learner.target_vector(), expected, rtol=1e-5, atol=1e-7)
    assert learner.target_copies == 3


def test_importance_weights_scale_the_loss_and_none_stands_for_ones():
    plain, ones, halves = (make_learner() for _ in range(3))
    batch = make_batch(0, 1)
    plain.update_superbatch(batch, None, 1e-2)
    ones.update_superbatch(batch, np.ones((1, B), np.float32), 1e-2)
    halves.update_superbatch(batch, np.full((1, B), 0.5, np.float32), 1e-2)
    assert same_state(plain, ones)
    assert halves.scalars()["td_loss"] == pytest.approx(0.5 * plain.scalars()["td_loss"])
    assert halves.scalars()["grad_norm"] == pytest.approx(0.5 * plain.scalars()["grad_norm"])


def test_scalars_are_those_of_the_last_update_and_nan_before_it():
    learner = make_learner(loss="mse")
    assert set(learner.scalars()) == {"td_loss", "q_values", "grad_norm"}
    assert all(np.isnan(x) for x in learner.scalars().values())
    errors = learner.update_superbatch(make_batch(0), None, 1e-2)
    assert learner.scalars()["td_loss"] == pytest.approx(np.mean(errors[-1] ** 2), rel=1e-5)


def test_read_only_arrays_and_odd_dtypes_are_taken_without_a_warning():
    batch, other = make_batch(0), make_learner()
    widened = dataclasses.replace(
        batch, r_t=batch.r_t.astype(np.float64), a_tm1=batch.a_tm1.astype(np.int32)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner = make_learner()
        learner.update_superbatch(batch, make_weights(0), 1e-2)
        other.update_superbatch(widened, make_weights(0), 1e-2)
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
    traced = make_fx(learner.update_function)(*learner.example_arguments())
    assert learner.swap(traced), learner.swap_refused


def test_values_that_are_not_finite_are_counted():
    learner, batch = make_learner(), make_batch(0, 1)
    r_t = batch.r_t.copy()
    r_t[0, :2] = np.nan, np.inf
    learner.update_superbatch(dataclasses.replace(batch, r_t=r_t), None, 1e-2)
    assert learner.non_finite == 2
    learner.update_superbatch(batch, None, 1e-2)  # the parameters are NaN by now
    assert learner.non_finite == 2 + B


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "rmsprop", "rmsprop_centered": True, "optimizer_momentum": 0.9}]
)
def test_a_restored_learner_goes_on_bit_for_bit(options):
    options = {"target_period": 3, **options}
    whole, first = make_learner(**options), make_learner(**options)
    for seed in range(2):
        whole.update_superbatch(make_batch(seed), make_weights(seed), 1e-2)
        first.update_superbatch(make_batch(seed), make_weights(seed), 1e-2)
    state = first.get_state()
    first.update_superbatch(make_batch(9), None, 1e-2)  # a state is a copy
    torch.manual_seed(1)
    second = make_learner(**options)
    second.update_superbatch(make_batch(8), None, 1e-2)
    second.set_state(state)
    for seed in range(2, 4):
        expected = whole.update_superbatch(make_batch(seed), make_weights(seed), 1e-3)
        got = second.update_superbatch(make_batch(seed), make_weights(seed), 1e-3)
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
    source.update_superbatch(make_batch(0), None, 1e-2)
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


@pytest.mark.parametrize("double", [False, True])
def test_a_traced_update_takes_the_eager_ones_place_and_gives_its_results(double):
    options = {"double": double, "target_period": 3, "max_grad_norm": 1.0}
    eager, swapped = make_learner(**options), make_learner(**options)
    for learner in (eager, swapped):
        learner.update_superbatch(make_batch(0), make_weights(0), 1e-2)
    before = swapped.get_state()
    traced = make_fx(swapped.update_function)(*swapped.example_arguments())
    assert swapped.swap(traced) and swapped.compiled and not swapped.swap_refused
    assert all(np.array_equal(before[name], x) for name, x in swapped.get_state().items())
    for seed in range(1, 4):
        expected = eager.update_superbatch(make_batch(seed), make_weights(seed), 1e-2)
        got = swapped.update_superbatch(make_batch(seed), make_weights(seed), 1e-2)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(swapped.online_vector(), eager.online_vector(), atol=1e-6)
    assert swapped.scalars() == pytest.approx(eager.scalars(), rel=1e-4)


def fails(*arguments):
    arguments[0].fill_(7.0)
    raise RuntimeError("illegal instruction")


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (fails, "fails: RuntimeError: illegal instruction"),
        (make_learner(loss="mse").update_function, "scalars is off by"),
        (lambda *arguments: (torch.zeros(B + 1), torch.zeros(3)), r"td_errors is \[9\]"),
        (lambda *arguments: (torch.full((B,), torch.nan), torch.zeros(3)), "off by nan"),
        (lambda *arguments: None, "fails: TypeError"),
    ],
)
def test_a_wrong_compiled_update_is_refused_and_the_learner_goes_on(candidate, reason):
    learner, untouched = make_learner(), make_learner()
    for x in (learner, untouched):
        x.update_superbatch(make_batch(0), None, 1e-2)
    assert not learner.swap(candidate) and not learner.compiled
    assert re.search(reason, learner.swap_refused)
    for x in (learner, untouched):
        x.update_superbatch(make_batch(1), None, 1e-2)
    assert same_state(learner, untouched)


def test_masked_batches_have_a_compiled_update_of_their_own():
    learner = make_learner()
    learner.update_superbatch(make_batch(0, with_mask=True), None, 1e-2)
    traced = make_fx(learner.update_function)(*learner.example_arguments(with_action_mask=True))
    calls = []

    def counted(*arguments):
        calls.append(len(arguments))
        return traced(*arguments)

    assert learner.swap(counted), learner.swap_refused
    del calls[:]
    learner.update_superbatch(make_batch(0, with_mask=True), None, 1e-2)
    assert len(calls) == K
    learner.update_superbatch(make_batch(1), None, 1e-2)  # eager: no compiled one fits
    assert len(calls) == K and learner.gradient_steps == 3 * K


def test_the_function_to_compile_shares_no_network_with_the_learner():
    learner = make_learner()
    learner.update_superbatch(make_batch(0), None, 1e-2)
    before = learner.get_state()
    arguments = learner.example_arguments()
    learner.update_function(*arguments)
    assert all(np.array_equal(before[name], x) for name, x in learner.get_state().items())
    assert not np.array_equal(arguments[0].numpy(), before["online"])


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
        learner.update_superbatch(dataclasses.replace(make_batch(0), **change), None, 1e-2)
    with pytest.raises(ValueError, match="importance_weights must be"):
        learner.update_superbatch(make_batch(0), np.ones(B, np.float32), 1e-2)
    assert learner.gradient_steps == 0
    with pytest.raises(ValueError, match=r"\[2, 5\] floats, got \[2, 2\]"):
        Learner(make_network(VECTOR, 2), LearnerSettings(B), VECTOR, 5)


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
        errors = learner.update_superbatch(batch, None, 0.02 * (1 - step / 60))
    assert errors.max() < 0.02


@pytest.mark.parametrize("double", [False, True])
def test_a_chain_is_learned_to_its_exact_values(double):
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
        observation, hidden=(), loss="mse", double=double, target_period=20, precision="float64"
    )
    for rate in np.linspace(0.1, 0.001, 30):
        learner.update_superbatch(batch, None, float(rate))
    states = torch.arange(n, dtype=torch.int32)
    q = learner.parameters.apply(torch.tensor(learner.online_vector()), states)
    np.testing.assert_allclose(q.numpy(), exact, atol=0.01)


def test_a_gpu_that_is_not_there_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="use --learner.device cpu"):
        choose_device("cuda")
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


def test_a_capture_that_fails_leaves_the_eager_update(monkeypatch):
    def no_capture(*arguments):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr("distdqn.learner.capture_cuda_graph", no_capture)
    learner, untouched = make_learner(), make_learner()
    learner._capture_due = True  # as on a GPU
    for x in (learner, untouched):
        x.update_superbatch(make_batch(0), None, 1e-2)
    assert "not captured: RuntimeError: operation not permitted" in learner.swap_refused
    assert not learner.compiled and same_state(learner, untouched)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch sees")
def test_a_captured_graph_gives_the_cpus_results():
    cpu, gpu = make_learner(target_period=3), make_learner(target_period=3, device="cuda")
    for seed in range(4):
        expected = cpu.update_superbatch(make_batch(seed), make_weights(seed), 1e-3)
        got = gpu.update_superbatch(make_batch(seed), make_weights(seed), 1e-3)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    assert gpu.compiled, gpu.swap_refused
    np.testing.assert_allclose(gpu.online_vector(), cpu.online_vector(), atol=1e-4)
