"""One vector stands for a module's parameters."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from distdqn.networks.q_network import make_network
from distdqn.types import ObservationSpec
from distdqn.weights.flat_parameters import FlatParameters

OBS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return make_network(ObservationSpec((4,), "float32"), 2, hidden=(8, 6), dueling=True)


@pytest.fixture
def parameters(module):
    return FlatParameters(module)


def test_the_vector_holds_the_parameters_in_the_modules_order(module, parameters):
    flat = parameters.flatten()
    own = list(module.named_parameters())
    assert parameters.layout == tuple((name, tuple(p.shape)) for name, p in own)
    assert flat.shape == (parameters.size,) and not flat.requires_grad
    assert torch.equal(flat, nn.utils.parameters_to_vector(module.parameters()))
    for view, (_, p) in zip(parameters.views(flat), own, strict=True):
        assert torch.equal(view, p)


def test_the_vector_is_a_copy_and_views_share_it(module, parameters):
    flat = parameters.flatten()
    parameters.views(flat)[0].zero_()
    assert not flat[:32].any() and next(module.parameters()).any()


def test_apply_is_the_module_with_other_parameters(module, parameters):
    torch.testing.assert_close(parameters.apply(parameters.flatten(), OBS), module(OBS))
    other = torch.randn(parameters.size)
    named = dict(zip(parameters.names, parameters.views(other), strict=True))
    expected = torch.func.functional_call(module, named, (OBS,))
    torch.testing.assert_close(parameters.apply(other, OBS), expected)


def test_the_gradient_of_the_vector_is_the_modules_gradient(module, parameters):
    flat = parameters.flatten().requires_grad_()
    (gradient,) = torch.autograd.grad(parameters.apply(flat, OBS).square().sum(), flat)
    module(OBS).square().sum().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    torch.testing.assert_close(gradient, expected)


def test_a_parameter_that_the_output_ignores_has_a_zero_gradient():
    module = nn.Linear(4, 2)
    module.unused = nn.Parameter(torch.ones(3))
    parameters = FlatParameters(module)
    flat = parameters.flatten().requires_grad_()
    (gradient,) = torch.autograd.grad(parameters.apply(flat, OBS).sum(), flat)
    assert parameters.names[-1] == "unused" and gradient[-3:].tolist() == [0.0] * 3


def test_apply_gives_the_module_its_own_parameters_back_even_after_an_error(module, parameters):
    own = list(module.parameters())
    parameters.apply(torch.zeros(parameters.size), OBS)
    with pytest.raises(RuntimeError):
        parameters.apply(torch.zeros(parameters.size), torch.zeros(5, 3))
    assert all(a is b for a, b in zip(own, module.parameters(), strict=True))


def test_a_vector_of_another_size_is_refused(parameters):
    with pytest.raises(AssertionError):
        parameters.apply(torch.zeros(parameters.size + 1), OBS)


def test_apply_works_in_inference_mode(parameters):
    with torch.inference_mode():
        assert parameters.apply(parameters.flatten(), OBS).shape == (5, 2)


def test_loading_a_received_array_sets_the_module_without_a_warning(module, parameters):
    vector = np.arange(parameters.size, dtype=np.float32)
    vector.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parameters.load(vector)
    assert parameters.flatten().tolist() == vector.tolist()
    parameters.load(torch.zeros(parameters.size))
    assert not parameters.flatten().any()


def state_dict_of(parameters, flat):
    views = dict(zip(parameters.names, parameters.views(flat), strict=True))
    own = parameters.module.state_dict()
    return {name: views.get(name, value).clone() for name, value in own.items()}


def test_the_vector_of_a_state_dict_is_that_of_its_network(module, parameters):
    module.register_buffer("constant", torch.tensor([1.0, 2.0]))
    other = torch.randn(parameters.size)
    state_dict = state_dict_of(parameters, other)
    assert torch.equal(parameters.from_state_dict(state_dict), other)
    module.load_state_dict(state_dict)  # strict: the names are the module's own
    assert torch.equal(parameters.flatten(), other)
    del state_dict["constant"]
    assert torch.equal(parameters.from_state_dict(state_dict), other)


def test_a_state_dict_of_another_network_is_refused_by_name_and_shape(module, parameters):
    state_dict = state_dict_of(parameters, parameters.flatten())
    renamed = dict(state_dict)
    renamed["head.extra"] = renamed.pop("head.value.bias")
    with pytest.raises(ValueError, match=r"missing \['head.value.bias'\], extra \['head.extra'\]"):
        parameters.from_state_dict(renamed)
    wider = dict(state_dict, **{"torso.0.bias": torch.zeros(9)})
    with pytest.raises(ValueError, match=r"torso.0.bias is \[8\] here, got \[9\]"):
        parameters.from_state_dict(wider)
    module.register_buffer("constant", torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="buffer constant has other values"):
        parameters.from_state_dict(dict(state_dict, constant=torch.zeros(2)))


def test_float64_parameters_make_a_float64_vector(module):
    parameters = FlatParameters(module.double())
    flat = parameters.flatten()
    assert parameters.dtype == flat.dtype == torch.float64
    assert parameters.apply(flat, OBS).dtype == torch.float64


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight


def frozen():
    module = nn.Linear(4, 2)
    module.bias.requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Tied(), "second.weight is shared with first.weight"),
        (nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), "1 keeps running statistics"),
        (nn.BatchNorm1d(2).eval(), "BatchNorm1d keeps running statistics"),
        (frozen(), "parameter bias is frozen"),
        (nn.Flatten(), "no parameters"),
        (nn.Linear(4, 2).half(), "all float32 or all float64, got .*float16"),
        (nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2).double()), "all float32 or all float64"),
    ],
)
def test_modules_that_no_vector_stands_for_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        FlatParameters(module)


def test_layer_normalisation_and_constant_buffers_are_allowed():
    module = nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2))
    module.register_buffer("constant", torch.ones(2))
    assert FlatParameters(module).size == 4 * 2 + 2 + 2 + 2
