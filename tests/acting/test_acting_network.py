"""The acting network: numpy equals torch, and parameters change in place.

Priorities and versions are tested where blocks are made, in `test_rollout.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distdqn.acting.acting_network import ActingNetwork
from distdqn.acting.dense_forward import MAX_PRODUCTS, dense_forward
from distdqn.acting.frames import FrameStack
from distdqn.networks.q_network import QNetwork, make_network
from distdqn.types import ObservationSpec, WeightSnapshot, WeightsVersion

VECTOR = ObservationSpec((4,), "float32")


def observations(spec, num=16):
    return np.random.default_rng(0).integers(0, 256, (num, *spec.shape)).astype(spec.dtype)


def torch_values(network, obs):
    with torch.inference_mode():
        return network(torch.from_numpy(obs)).numpy()


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("hidden", [(), (120, 84)])
@pytest.mark.parametrize(
    "spec",
    [
        VECTOR,
        ObservationSpec((), "float32"),
        ObservationSpec((5,), "int8"),
        ObservationSpec((5, 5, 4), "uint8", scale=1 / 255),
    ],
)
def test_a_dense_network_gives_the_same_values_in_numpy(spec, hidden, dueling):
    torch.manual_seed(0)
    network = make_network(spec, 3, hidden=hidden, dueling=dueling)
    obs = observations(spec)
    forward = dense_forward(network, 16)
    assert forward is not None
    expected = torch_values(network, obs)
    # Sums of up to 200 float32 products in another order, some of which cancel.
    tolerance = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(forward(obs), expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("num", [32, 33, 52])
def test_many_rows_are_computed_in_two_pieces_with_the_same_values(num):
    network = make_network(VECTOR, 2, hidden=(120, 84))
    obs = np.random.default_rng(1).standard_normal((num, 4), np.float32)
    assert num * 120 * 84 > MAX_PRODUCTS
    forward = dense_forward(network, num)
    assert forward is not None
    np.testing.assert_allclose(forward(obs), torch_values(network, obs), rtol=1e-5, atol=1e-6)


def test_more_rows_than_two_pieces_hold_act_through_torch():
    assert dense_forward(make_network(VECTOR, 2, hidden=(120, 84)), 53) is None
    assert dense_forward(make_network(VECTOR, 2, hidden=(600, 600)), 1) is None


def test_double_precision_stays_double():
    network = make_network(VECTOR, 3).double()
    values = dense_forward(network, 16)(observations(VECTOR))
    assert values.dtype == np.float64
    expected = torch_values(network, observations(VECTOR))
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


class Doubled(QNetwork):
    def forward(self, obs):
        return 2 * super().forward(obs)


@pytest.mark.parametrize(
    "network",
    [
        make_network(ObservationSpec((), "int32", num_categories=6), 3),
        QNetwork(VECTOR, nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Linear(8, 3)),
        QNetwork(VECTOR, nn.Sequential(nn.Linear(4, 8, bias=False)), nn.Linear(8, 3)),
        QNetwork(VECTOR, nn.Linear(4, 8), nn.Linear(8, 3)),
        QNetwork(
            ObservationSpec((2, 4), "float32"),
            nn.Sequential(nn.Linear(4, 8), nn.Flatten()),
            nn.Linear(16, 3),
        ),
        Doubled(VECTOR, nn.Sequential(nn.Linear(4, 8)), nn.Linear(8, 3)),
        make_network(VECTOR, 3, hidden=(128, 257)),  # over 2^18 products with 16 rows
        nn.Linear(4, 3),
    ],
)
def test_any_other_network_acts_through_torch(network):
    assert dense_forward(network, 16) is None
    spec = getattr(network, "observation", VECTOR)
    obs = observations(spec) % 6
    np.testing.assert_array_equal(
        ActingNetwork(network, 16, double=False).q_values(obs), torch_values(network, obs)
    )


@pytest.mark.parametrize("torso", [nn.Sequential(nn.Linear(4, 8)), nn.Linear(4, 8)])
def test_new_weights_act_at_once_by_either_way(torso):
    network = QNetwork(VECTOR, torso, nn.Linear(8, 3))
    acting = ActingNetwork(network, 16, double=False)
    version = WeightsVersion(1, 1)
    vector = np.zeros(4 * 8 + 8 + 8 * 3 + 3, np.float32)
    vector[-3:] = [1, 2, 3]  # the head's bias
    acting.set(WeightSnapshot(version, version, 0, vector))
    assert acting.q_values(observations(VECTOR, 2)).tolist() == [[1, 2, 3]] * 2
    assert acting.version == version


def lent(vector, offset=0):
    """A copy that nobody can write to, so many bytes past a cache line; and its memory."""
    memory = np.zeros(vector.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    own = memory[start : start + vector.nbytes].view(vector.dtype)
    own[:] = vector
    view = own.view()
    view.flags.writeable = False
    return view, own


@pytest.mark.parametrize(("offset", "follows"), [(0, True), (4, False)])
def test_vectors_that_nobody_can_write_to_act_where_they_lie_if_they_lie_well(offset, follows):
    acting = ActingNetwork(QNetwork(VECTOR, nn.Linear(4, 8), nn.Linear(8, 3)), 16, double=False)
    vector = np.zeros(4 * 8 + 8 + 8 * 3 + 3, np.float32)
    vector[-3:] = [1, 2, 3]
    view, own = lent(vector, offset)
    version = WeightsVersion(1, 1)
    acting.set(WeightSnapshot(version, version, 0, view))
    assert acting.q_values(observations(VECTOR, 1)).tolist() == [[1, 2, 3]]
    own[-1] = 9  # as only this test can
    assert acting.q_values(observations(VECTOR, 1))[0, 2] == (9 if follows else 3)


def test_a_dense_network_copies_whatever_it_is_given():
    acting = ActingNetwork(make_network(VECTOR, 3, hidden=()), 16, double=False)
    view, own = lent(np.arange(4 * 3 + 3, dtype=np.float32))
    version = WeightsVersion(1, 1)
    acting.set(WeightSnapshot(version, version, 0, view))
    expected = acting.q_values(observations(VECTOR, 2)).copy()
    own[:] = 0
    np.testing.assert_array_equal(acting.q_values(observations(VECTOR, 2)), expected)
    assert expected.any()


def test_writable_vectors_after_lent_ones_leave_those_alone():
    acting = ActingNetwork(QNetwork(VECTOR, nn.Linear(4, 8), nn.Linear(8, 3)), 16, double=False)
    vector = np.zeros(4 * 8 + 8 + 8 * 3 + 3, np.float32)
    view, _ = lent(vector)
    version = WeightsVersion(1, 1)
    acting.set(WeightSnapshot(version, version, 0, view))
    acting.set(WeightSnapshot(version, version, 0, vector + 1))
    assert not view.any() and acting.q_values(observations(VECTOR, 1)).all()


def test_stacked_pictures_act_as_they_would_alone():
    torch.manual_seed(0)
    spec = ObservationSpec((84, 84), "uint8", scale=1 / 255, stack=4)
    network = make_network(spec, 4, torso="nature")
    acting = ActingNetwork(network, 3, double=False)
    stack = FrameStack(3, spec)
    frames = np.random.default_rng(0).integers(0, 256, (6, 3, 84, 84)).astype(np.uint8)
    obs = stack.begin(frames[0])
    for step in frames[1:]:
        obs = stack.push(step, np.zeros(3, bool))  # a view whose rows lie apart
    values = acting.q_values(obs)
    np.testing.assert_array_equal(values, acting.q_values(obs.copy()))
    for env in range(3):
        alone = torch_values(network, obs[env : env + 1].copy())[0]
        np.testing.assert_allclose(values[env], alone, rtol=1e-5, atol=1e-6)


def test_a_dense_network_takes_stacks_flat():
    spec = ObservationSpec((5,), "float32", stack=3)
    network = make_network(spec, 2, torso="mlp")
    forward = dense_forward(network, 16)
    obs = np.random.default_rng(0).standard_normal((16, 3, 5)).astype(np.float32)
    assert forward is not None
    np.testing.assert_allclose(forward(obs), torch_values(network, obs), rtol=1e-4, atol=1e-6)
    table = QNetwork(spec, nn.Sequential(nn.Linear(5, 8)), nn.Linear(8, 2))
    assert dense_forward(table, 16) is None  # that layer sees the frames one by one
