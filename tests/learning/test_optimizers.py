"""The optimizers against torch.optim, and against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distdqn.learning.optimizers import (
    adam,
    clip_by_global_norm,
    make_optimizer,
    move,
    rmsprop,
)

LEARNING_RATE = torch.tensor(0.1, dtype=torch.float64)
STEP_ONE = torch.tensor(1)


def run(optimizer, params, gradients, learning_rates):
    """The parameters after each gradient."""
    slots = [torch.zeros_like(params) for _ in optimizer.slot_names]
    trajectory = []
    for step, (gradient, rate) in enumerate(zip(gradients, learning_rates, strict=True), start=1):
        rate = torch.tensor(rate, dtype=torch.float64)
        params, slots = optimizer.update(params, gradient, slots, torch.tensor(step), rate)
        trajectory.append(params)
    return torch.stack(trajectory)


def run_torch(make, params, gradients, learning_rates):
    params = torch.nn.Parameter(params.clone())
    optimizer = make([params])
    trajectory = []
    for gradient, rate in zip(gradients, learning_rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        params.grad = gradient.clone()
        optimizer.step()
        trajectory.append(params.detach().clone())
    return torch.stack(trajectory)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"name": "adam", "eps": 1e-8}, lambda p: torch.optim.Adam(p, eps=1e-8)),
        ({"name": "adam", "eps": 0.01 / 32}, lambda p: torch.optim.Adam(p, eps=0.01 / 32)),
        (
            {"name": "rmsprop", "eps": 1e-5, "decay": 0.95},
            lambda p: torch.optim.RMSprop(p, alpha=0.95, eps=1e-5),
        ),
        (
            {"name": "rmsprop", "eps": 1e-3, "momentum": 0.9},
            lambda p: torch.optim.RMSprop(p, alpha=0.99, eps=1e-3, momentum=0.9),
        ),
        (
            {"name": "rmsprop", "eps": 0.01, "momentum": 0.95, "decay": 0.95, "centered": True},
            lambda p: torch.optim.RMSprop(p, alpha=0.95, eps=0.01, momentum=0.95, centered=True),
        ),
    ],
    ids=["adam", "adam_large_eps", "rmsprop", "rmsprop_momentum", "rmsprop_centered"],
)
def test_fifty_steps_match_torch(ours, theirs, dtype):
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(200, generator=generator, dtype=dtype)
    scales = torch.logspace(-4, 1, 200, dtype=dtype)
    gradients = [torch.randn(200, generator=generator, dtype=dtype) * scales for _ in range(50)]
    rates = np.linspace(1e-2, 1e-3, 50).tolist()
    got = run(make_optimizer(**ours), params, gradients, rates)
    assert got.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 5e-6
    expected = run_torch(theirs, params, gradients, rates)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_adams_first_step_is_the_learning_rate_against_the_sign():
    params, gradient, zeros = torch.zeros(3), torch.tensor([4.0, -0.5, 0.0]), torch.zeros(3)
    params, (first, second) = adam(
        params, gradient, (zeros, zeros), STEP_ONE, LEARNING_RATE, eps=1e-12
    )
    torch.testing.assert_close(params, torch.tensor([-0.1, 0.1, 0.0]))
    torch.testing.assert_close(first, 0.1 * gradient)
    torch.testing.assert_close(second, 0.001 * gradient.square())


def test_rmsprop_without_a_past_divides_by_the_share_of_the_new_square():
    params, gradient = torch.zeros(1), torch.tensor([3.0])
    params, (second,) = rmsprop(
        params, gradient, (torch.zeros(1),), STEP_ONE, LEARNING_RATE, eps=0.0, decay=0.96
    )
    # v = 0.04 * 9, its root 0.6, the step 0.1 * 3 / 0.6
    assert second.item() == pytest.approx(0.36) and params.item() == pytest.approx(-0.5)


def test_eps_inside_the_root_is_the_dqn_papers_rule():
    # Two steps of Mnih et al. 2015: n, g decay by 0.95, step lr * dw / sqrt(n - g^2 + 0.01).
    optimizer = make_optimizer("rmsprop", eps=0.01, decay=0.95, centered=True, eps_inside_sqrt=True)
    got = run(optimizer, torch.zeros(1), [torch.tensor([2.0]), torch.tensor([1.0])], [0.1, 0.1])
    n, g, w, expected = 0.0, 0.0, 0.0, []
    for dw in (2.0, 1.0):
        n, g = 0.95 * n + 0.05 * dw * dw, 0.95 * g + 0.05 * dw
        w -= 0.1 * dw / math.sqrt(n - g * g + 0.01)
        expected.append(w)
    assert got.squeeze(1).tolist() == pytest.approx(expected)


def test_a_variance_that_rounds_below_zero_gives_no_nan():
    # A constant gradient: v and m^2 both tend to g^2, and their difference to rounding.
    optimizer = make_optimizer("rmsprop", eps=1e-8, decay=0.5, centered=True)
    gradients = [torch.full((64,), 0.1) * torch.arange(64)] * 60
    assert torch.isfinite(run(optimizer, torch.zeros(64), gradients, [1e-3] * 60)).all()


def test_updates_leave_their_arguments_alone():
    for name in ("adam", "rmsprop"):
        optimizer = make_optimizer(name, eps=1e-8, momentum=0.9 if name == "rmsprop" else 0.0)
        arguments = [torch.ones(5) for _ in range(2 + len(optimizer.slot_names))]
        params, gradient, *slots = arguments
        optimizer.update(params, gradient, slots, STEP_ONE, LEARNING_RATE)
        assert all(torch.equal(x, torch.ones(5)) for x in arguments)


def test_slots_are_named_in_the_order_of_the_vectors():
    assert make_optimizer("adam", 1e-8).slot_names == ("first_moment", "second_moment")
    assert make_optimizer("rmsprop", 1e-8).slot_names == ("second_moment",)
    everything = make_optimizer("rmsprop", 1e-8, momentum=0.9, centered=True)
    assert everything.slot_names == ("second_moment", "first_moment", "momentum")


def test_clipping_scales_long_gradients_and_reports_the_norm_before():
    gradient = torch.tensor([3.0, 4.0])
    clipped, norm = clip_by_global_norm(gradient, 1.0)
    assert norm.item() == 5.0
    torch.testing.assert_close(clipped, torch.tensor([0.6, 0.8]))
    for max_norm in (10.0, None):
        untouched, norm = clip_by_global_norm(gradient, max_norm)
        assert untouched.tolist() == [3.0, 4.0] and norm.item() == 5.0


def test_clipping_matches_torch():
    parameter = torch.nn.Parameter(torch.zeros(50))
    parameter.grad = torch.linspace(-1.0, 2.0, 50)
    clipped, norm = clip_by_global_norm(parameter.grad.clone(), 0.5)
    expected_norm = torch.nn.utils.clip_grad_norm_([parameter], 0.5)
    torch.testing.assert_close(clipped, parameter.grad)
    torch.testing.assert_close(norm, expected_norm)


def test_an_unknown_optimizer_and_momentum_for_adam_are_refused():
    with pytest.raises(ValueError, match="adam or rmsprop, got 'sgd'"):
        make_optimizer("sgd", 1e-8)
    with pytest.raises(ValueError, match=r"momentum belongs to rmsprop, got 0\.9"):
        make_optimizer("adam", 1e-8, momentum=0.9)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
@pytest.mark.parametrize("chunk", [1, 7, 10, 64])
def test_moving_in_chunks_writes_what_the_rule_gives_as_a_whole(name, chunk):
    optimizer, generator = make_optimizer(name, eps=1e-3), torch.Generator().manual_seed(0)
    params, gradient = torch.randn(2, 10, dtype=torch.float64, generator=generator)
    slots = [torch.rand(10, dtype=torch.float64) for _ in optimizer.slot_names]
    expected, expected_slots = optimizer.update(params, gradient, slots, STEP_ONE, LEARNING_RATE)
    move(optimizer, params, gradient, slots, STEP_ONE, LEARNING_RATE, chunk)
    torch.testing.assert_close(params, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(slots, list(expected_slots), rtol=1e-14, atol=1e-14)
