"""Q-networks: what they compute, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distdqn.errors import ConfigError
from distdqn.networks.q_network import (
    DuelingHead,
    check_network,
    make_network,
    preprocess,
)
from distdqn.types import ObservationSpec

VECTOR = ObservationSpec((4,), "float32")
IMAGE = ObservationSpec((2, 3, 3), "uint8", scale=1 / 255)
INDEX = ObservationSpec((), "int32", num_categories=5)

seen_by_torso: list[object] = []


def torso(observation):
    """A user's torso: found by its name `module:function`."""
    seen_by_torso.append(observation)
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 6), nn.Tanh()), 6


def torso_of_another_size(observation):
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 6)), 7


def torso_that_fails(observation):
    return nn.Linear(5, 6), 6


def torso_that_raises(observation):
    raise KeyError("no")


def torso_without_width(observation):
    return 3


def test_the_mlp_is_linear_layers_with_relu_between():
    network = make_network(VECTOR, 2, hidden=(120, 84))
    plain = nn.Sequential(
        nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2)
    )
    shapes = [tuple(p.shape) for p in network.parameters()]
    assert shapes == [tuple(p.shape) for p in plain.parameters()]
    with torch.no_grad():
        for own, other in zip(plain.parameters(), network.parameters(), strict=True):
            own.copy_(other)
    obs = torch.randn(7, 4)
    torch.testing.assert_close(network(obs), plain(obs))


def test_initial_parameters_are_pytorchs_and_follow_the_seed():
    torch.manual_seed(3)
    network = make_network(VECTOR, 2, hidden=(8,))
    torch.manual_seed(3)
    first, second = nn.Linear(4, 8), nn.Linear(8, 2)
    expected = [*first.parameters(), *second.parameters()]
    assert all(map(torch.equal, network.parameters(), expected))


def test_the_dueling_head_adds_the_value_to_the_centred_advantages():
    head = DuelingHead(1, 3)
    with torch.no_grad():
        head.value.weight.fill_(10.0)
        head.value.bias.fill_(1.0)
        head.advantage.weight.copy_(torch.tensor([[1.0], [2.0], [6.0]]))
        head.advantage.bias.zero_()
    # features 2: value 21; advantages 2, 4, 12 with mean 6
    assert head(torch.tensor([[2.0]])).tolist() == [[17.0, 19.0, 27.0]]


def test_a_constant_added_to_the_advantages_changes_no_value():
    head = DuelingHead(4, 3)
    features = torch.randn(5, 4)
    before = head(features)
    with torch.no_grad():
        head.advantage.bias.add_(100.0)
    torch.testing.assert_close(head(features), before, atol=1e-4, rtol=0)


def test_images_are_cast_and_scaled_inside_the_network():
    obs = torch.full((2, 2, 3, 3), 255, dtype=torch.uint8)
    assert torch.equal(preprocess(obs, IMAGE, torch.float32), torch.ones(2, 2, 3, 3))
    assert make_network(IMAGE, 4)(obs).shape == (2, 4)


def test_indices_become_one_hot_vectors():
    one_hot = preprocess(torch.tensor([0, 4], dtype=torch.int32), INDEX, torch.float32)
    assert one_hot.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


def test_a_network_without_hidden_layers_on_indices_is_a_table():
    network = make_network(INDEX, 2, hidden=())
    q = network(torch.arange(5, dtype=torch.int32))
    weight, bias = network.parameters()
    torch.testing.assert_close(q, weight.T + bias)


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "float64"])
def test_scalars_of_any_dtype_are_one_feature(dtype):
    observation = ObservationSpec((), dtype)
    network = make_network(observation, 3, hidden=(4,))
    check_network(network, observation, 3)
    assert network(torch.from_numpy(np.ones(6, dtype))).shape == (6, 3)


@pytest.mark.parametrize("dueling", [False, True])
def test_a_network_in_float64_computes_in_float64(dueling):
    network = make_network(VECTOR, 2, hidden=(8,), dueling=dueling).double()
    assert network(torch.zeros(3, 4)).dtype == torch.float64


def test_a_users_torso_is_found_by_its_name_and_gets_the_observation():
    network = make_network(IMAGE, 3, torso=f"{__name__}:torso", dueling=True)
    assert seen_by_torso[-1] == IMAGE
    assert network(torch.zeros((2, 2, 3, 3), dtype=torch.uint8)).shape == (2, 3)


def test_a_users_torso_gets_the_observation_space_where_there_is_one():
    space = object()
    make_network(IMAGE, 3, torso=f"{__name__}:torso", observation_space=space)
    assert seen_by_torso[-1] is space


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown torso 'resnet': network.torso must be auto, mlp, nature, minatar, or"),
        ("", "unknown torso '': network.torso must be auto, mlp, nature, minatar, or module:f"),
        ("nature", "torso nature needs pictures of at least 36x36, got 3x3; use --network.torso"),
        (
            "no_such_module:torso",
            "cannot be imported: there is no module 'no_such_module' here; known",
        ),
        (f"{__name__}:absent", "absent' cannot be imported: .* function 'absent'; known are auto"),
        (f"{__name__}:IMAGE", "IMAGE' cannot be imported: .* has no function 'IMAGE'"),
        (f"{__name__}:torso_that_raises", r"raises' raised KeyError: 'no' at .*:\d+ in torso_that"),
        (f"{__name__}:torso_without_width", r"return a module .*, \(module, width\), returned 3$"),
        (":torso", "':torso' cannot be imported"),
        (f"{__name__}:torso_of_another_size", r"must give \[B, H\] = \[2, 7\].* got \[2, 6\]"),
        (f"{__name__}:torso_that_fails", r"torso_that_fails' fails on input \[2, 2, 3, 3\]"),
    ],
)
def test_a_torso_that_cannot_be_used_is_refused_with_the_way_out(name, message):
    with pytest.raises(ConfigError, match=message):
        make_network(IMAGE, 3, torso=name)


def test_a_network_of_another_width_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\[B, A\] = \[2, 4\] floats, got \[2, 3\]"):
        check_network(nn.Linear(4, 3), VECTOR, 4)
    with pytest.raises(ValueError, match=r"= \[2, 4\] floats, got \[2\]"):
        check_network(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), VECTOR, 4)


class Argmax(nn.Linear):
    def forward(self, obs):
        return super().forward(obs).round().long()


class TwoOutputs(nn.Linear):
    def forward(self, obs):
        return super().forward(obs), obs


def test_a_network_that_gives_no_floats_or_fails_is_refused():
    with pytest.raises(ValueError, match=r"got \[2, 3\] of torch\.int64"):
        check_network(Argmax(4, 3), VECTOR, 3)
    with pytest.raises(ValueError, match=r"must give a tensor, got \(tensor"):
        check_network(TwoOutputs(4, 3), VECTOR, 3)
    with pytest.raises(ValueError, match=r"the network fails on input \[2, 4\] of torch.float32"):
        check_network(nn.Linear(5, 3), VECTOR, 3)


def test_a_network_whose_buffers_change_is_refused_and_constant_ones_are_not():
    with pytest.raises(ValueError, match="buffer 1.running_mean of the network changes"):
        check_network(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), VECTOR, 3)
    network = nn.Linear(4, 3)
    network.register_buffer("constant", torch.ones(3))
    check_network(network, VECTOR, 3)
