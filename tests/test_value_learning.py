"""Every equation against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.value_learning import (
    action_values,
    double_q_learning,
    huber,
    importance_weights,
    q_learning,
    residual_q_learning,
    squared,
    weighted_mean,
)

Q_TM1 = torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]])
A_TM1 = torch.tensor([1, 0])
R_T = torch.tensor([0.5, -1.0])
DISCOUNT_T = torch.tensor([0.9, 0.0])  # the second transition terminated
Q_T_VALUE = torch.tensor([[10.0, 20.0, 30.0], [7.0, 8.0, 9.0]])
Q_T_SELECTOR = torch.tensor([[3.0, 2.0, 1.0], [0.0, 1.0, 0.0]])
MASK_T = torch.tensor([[False, True, False], [False, False, False]])
TRANSITIONS = (Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T_VALUE)


def test_q_learning_bootstraps_from_the_largest_value_and_not_after_termination():
    td_errors = q_learning(*TRANSITIONS)
    # 0.5 + 0.9 * 30 - 2 and -1 + 0 * 9 - 3
    torch.testing.assert_close(td_errors, torch.tensor([25.5, -4.0]))


def test_double_q_learning_takes_the_selectors_action_at_the_targets_value():
    td_errors = double_q_learning(*TRANSITIONS, Q_T_SELECTOR)
    # The selector prefers action 0, worth 10: 0.5 + 0.9 * 10 - 2.
    torch.testing.assert_close(td_errors, torch.tensor([7.5, -4.0]))


def test_double_q_learning_with_one_network_twice_is_q_learning():
    td_errors = double_q_learning(*TRANSITIONS, Q_T_VALUE)
    torch.testing.assert_close(td_errors, q_learning(*TRANSITIONS))


def test_masked_actions_are_out_of_the_maximum_and_of_the_choice():
    # Only action 1, worth 20, is allowed: 0.5 + 0.9 * 20 - 2.
    expected = torch.tensor([16.5, -4.0])
    torch.testing.assert_close(q_learning(*TRANSITIONS, MASK_T), expected)
    torch.testing.assert_close(double_q_learning(*TRANSITIONS, Q_T_SELECTOR, MASK_T), expected)


def test_a_mask_that_allows_everything_changes_nothing():
    everything = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(q_learning(*TRANSITIONS, everything), q_learning(*TRANSITIONS))


@pytest.mark.parametrize("double", [False, True])
def test_a_row_without_any_allowed_action_is_finite_only_where_the_discount_is_zero(double):
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    if double:
        td_errors = double_q_learning(*TRANSITIONS, Q_T_SELECTOR, nothing)
    else:
        td_errors = q_learning(*TRANSITIONS, nothing)
    assert td_errors.tolist() == [-math.inf, -4.0]


def test_the_discount_of_three_steps_multiplies_the_bootstrap_value_once():
    # r = 1 + 0.5 + 0.25 over three steps with gamma 0.5, then 0.125 * 8.
    td_errors = q_learning(
        torch.tensor([[0.0]]),
        torch.tensor([0]),
        torch.tensor([1.75]),
        torch.tensor([0.125]),
        torch.tensor([[8.0]]),
    )
    assert td_errors.tolist() == [2.75]


@pytest.mark.parametrize("double", [False, True])
def test_only_the_value_of_the_taken_action_gets_a_gradient(double):
    q_tm1, q_t_value, q_t_selector = (
        x.clone().requires_grad_() for x in (Q_TM1, Q_T_VALUE, Q_T_SELECTOR)
    )
    if double:
        td_errors = double_q_learning(q_tm1, A_TM1, R_T, DISCOUNT_T, q_t_value, q_t_selector)
    else:
        td_errors = q_learning(q_tm1, A_TM1, R_T, DISCOUNT_T, q_t_value)
    (0.5 * td_errors.square()).sum().backward()
    expected = torch.zeros(2, 3)
    expected[0, 1], expected[1, 0] = -td_errors[0], -td_errors[1]
    torch.testing.assert_close(q_tm1.grad, expected)
    assert q_t_value.grad is None and q_t_selector.grad is None


@pytest.mark.parametrize("mask", [None, MASK_T])
def test_the_residual_form_has_the_values_of_q_learning(mask):
    td_errors = residual_q_learning(*TRANSITIONS, mask)
    torch.testing.assert_close(td_errors, q_learning(*TRANSITIONS, mask))


@pytest.mark.parametrize(("mask", "best"), [(None, 2), (MASK_T, 1)])
def test_the_residual_form_has_a_gradient_at_the_best_allowed_arrival_too(mask, best):
    q_tm1, q_t = Q_TM1.clone().requires_grad_(), Q_T_VALUE.clone().requires_grad_()
    td_errors = residual_q_learning(q_tm1, A_TM1, R_T, DISCOUNT_T, q_t, mask)
    (0.5 * td_errors.square()).sum().backward()
    at_source, at_arrival = torch.zeros(2, 3), torch.zeros(2, 3)
    at_source[0, 1], at_source[1, 0] = -td_errors[0], -td_errors[1]
    at_arrival[0, best] = 0.9 * td_errors[0]  # nothing after termination, not even NaN
    torch.testing.assert_close(q_tm1.grad, at_source)
    torch.testing.assert_close(q_t.grad, at_arrival)


def test_of_equal_values_at_arrival_the_first_takes_the_whole_gradient():
    q_t = torch.tensor([[2.0, 5.0, 5.0]], requires_grad=True)
    one = torch.tensor([1.0])
    residual_q_learning(torch.zeros(1, 3), torch.tensor([0]), one, 0.5 * one, q_t).backward()
    assert q_t.grad is not None and q_t.grad.tolist() == [[0.0, 0.5, 0.0]]


@pytest.mark.parametrize(
    "change",
    [
        {2: R_T.unsqueeze(1)},
        {3: DISCOUNT_T.unsqueeze(1)},
        {1: A_TM1.unsqueeze(1)},
        {1: A_TM1.to(torch.int32)},
        {2: R_T.double()},
        {4: Q_T_VALUE[:, :2]},
    ],
)
def test_shapes_and_dtypes_that_would_broadcast_or_promote_are_refused(change):
    q_tm1, a_tm1, r_t, discount_t, q_t_value = (change.get(i, x) for i, x in enumerate(TRANSITIONS))
    with pytest.raises(AssertionError):
        q_learning(q_tm1, a_tm1, r_t, discount_t, q_t_value)
    with pytest.raises(AssertionError):
        double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t_value, Q_T_SELECTOR)
    with pytest.raises(AssertionError):
        residual_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t_value)


def test_action_values_are_those_of_the_given_actions():
    assert action_values(Q_TM1, A_TM1).tolist() == [2.0, 3.0]


def test_huber_is_quadratic_up_to_one_and_linear_beyond():
    td_errors = torch.tensor([0.0, 0.5, 1.0, -3.0, 1e30], requires_grad=True)
    losses = huber(td_errors)
    torch.testing.assert_close(losses, torch.tensor([0.0, 0.125, 0.5, 2.5, 1e30]))
    losses.sum().backward()
    assert td_errors.grad is not None
    assert td_errors.grad.tolist() == [0.0, 0.5, 1.0, -1.0, 1.0]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_the_losses_are_those_of_torch(values):
    td_errors = torch.tensor(values, dtype=torch.float64)
    zeros = torch.zeros_like(td_errors)
    torch.testing.assert_close(
        huber(td_errors), torch.nn.functional.huber_loss(td_errors, zeros, reduction="none")
    )
    torch.testing.assert_close(
        squared(td_errors).mean(), torch.nn.functional.mse_loss(td_errors, zeros)
    )


def test_weights_meet_their_own_losses_before_the_mean():
    losses, weights = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.5])
    assert weighted_mean(losses, weights).item() == 1.25  # (1 * 1 + 3 * 0.5) / 2
    assert (losses.mean() * weights).mean().item() == 1.5  # the mistake gives another number


def test_weights_of_another_shape_than_the_losses_are_refused():
    losses = torch.ones(4)
    for weights in (torch.ones(4, 1), torch.ones(1), torch.ones(())):
        with pytest.raises(AssertionError):
            weighted_mean(losses, weights)


def test_importance_weights_of_shards_of_sizes_one_to_three_follow_the_global_formula():
    # Shard 0 holds p^alpha 2, shard 1 holds 1, 2 and 3: drawn in proportion 2 to 6.
    shard_probability = np.array([2 / 8, 6 / 8, 6 / 8, 6 / 8])
    within_shard = np.array([2 / 2, 1 / 6, 2 / 6, 3 / 6])
    weights = importance_weights(shard_probability * within_shard, num_items=4, exponent=0.5)
    global_probability = [2 / 8, 1 / 8, 2 / 8, 3 / 8]
    plain = [(1 / (4 * p)) ** 0.5 for p in global_probability]
    np.testing.assert_allclose(weights, [w / max(plain) for w in plain], rtol=1e-6)
    assert weights[0] == weights[2]  # equal priorities weigh the same in either shard


def test_uniform_replay_over_unequal_shards_needs_no_correction():
    in_proportion = np.array([0.25 * 1.0, 0.75 / 3, 0.75 / 3, 0.75 / 3])
    assert importance_weights(in_proportion, 4, 1.0).tolist() == [1.0] * 4
    # Shards drawn evenly would favour the small one's item threefold.
    evenly = np.array([0.5 * 1.0, 0.5 / 3, 0.5 / 3, 0.5 / 3])
    np.testing.assert_allclose(importance_weights(evenly, 4, 1.0), [1 / 3, 1, 1, 1], rtol=1e-6)


def test_each_minibatch_of_a_superbatch_is_normalised_by_itself():
    probabilities = np.array([[0.1, 0.2], [0.4, 0.8]])
    weights = importance_weights(probabilities, 10, 1.0)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [[1.0, 0.5], [1.0, 0.5]])


@given(
    st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=20),
    st.integers(1, 10**7),
    st.floats(0.0, 1.0),
)
@settings(deadline=None, max_examples=50)
def test_importance_weights_lie_in_zero_to_one_and_the_rarest_item_has_one(p, n, beta):
    weights = importance_weights(np.array(p), n, beta)
    assert np.all((weights > 0) & (weights <= 1)) and weights[np.argmin(p)] == 1.0


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.1, np.nan, np.inf])
def test_a_probability_that_no_sampled_item_can_have_is_refused(bad):
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        importance_weights(np.array([0.5, bad]), 2, 0.5)


def test_a_negative_exponent_and_an_empty_replay_are_refused():
    for num_items, exponent in ((0, 0.5), (2, -0.5)):
        with pytest.raises(ValueError, match="num_items >= 1"):
            importance_weights(np.array([0.5]), num_items, exponent)
