"""Epsilon-greedy: the ladder's numbers, frequencies, masks."""

from __future__ import annotations

import numpy as np
import pytest

from distdqn.acting.exploration import STEPS_PER_DRAW, EpsilonGreedy, epsilon_greedy, ladder


def policies(num_envs, num_actions, seed):
    """Both forms of the policy as functions (q_values, epsilons, mask) -> actions."""
    rng = np.random.default_rng(seed)
    chunked = EpsilonGreedy(num_envs, num_actions, np.random.default_rng(seed))
    return [lambda q, eps, mask=None: epsilon_greedy(q, eps, rng, mask), chunked.select]


def frequencies(policy, q_values, epsilons, mask=None, num_steps=2000):
    """`[N, A]` share of each action over many steps."""
    counts = np.zeros(q_values.shape)
    for _ in range(num_steps):
        counts[np.arange(len(q_values)), policy(q_values, epsilons, mask)] += 1
    return counts / num_steps


def test_the_ladder_has_the_numbers_of_the_ape_x_formula():
    np.testing.assert_allclose(
        ladder(8, 0.4, 7.0),
        [0.4, 0.16, 0.064, 0.0256, 0.01024, 0.004096, 0.0016384, 0.00065536],
        rtol=1e-12,
    )
    np.testing.assert_allclose(ladder(3, 0.5, 2.0), [0.5, 0.25, 0.125], rtol=1e-12)


def test_a_single_env_gets_the_base():
    assert ladder(1, 0.4, 7.0).tolist() == [0.4]


@pytest.mark.parametrize("arguments", [(0, 0.4, 7.0), (8, 0.0, 7.0), (8, 1.5, 7.0), (8, 0.4, -1)])
def test_a_ladder_out_of_range_is_refused_with_its_values(arguments):
    with pytest.raises(ValueError, match=f"num_envs_total {arguments[0]}, base {arguments[1]}"):
        ladder(*arguments)


@pytest.mark.parametrize("form", [0, 1])
def test_epsilon_zero_is_greedy_and_takes_the_first_of_equal_values(form):
    policy = policies(3, 3, seed=0)[form]
    q_values = np.array([[0, 2, 1], [5, 5, 5], [-3, -2, -1]], np.float32)
    actions = policy(q_values, np.zeros(3))
    assert actions.tolist() == [1, 0, 2]
    assert actions.dtype == np.int64


@pytest.mark.parametrize("form", [0, 1])
def test_each_env_explores_with_its_own_epsilon_uniformly(form):
    policy = policies(3, 4, seed=1)[form]
    epsilons = np.array([1.0, 0.4, 0.0])
    q_values = np.tile(np.array([0, 0, 1, 0], np.float32), (3, 1))
    expected = epsilons[:, None] / 4 + (1 - epsilons[:, None]) * (q_values == 1)
    tolerance = 4 * np.sqrt(0.25 / 4000)  # 4 standard deviations at most
    got = frequencies(policy, q_values, epsilons, num_steps=4000)
    np.testing.assert_allclose(got, expected, atol=tolerance)


@pytest.mark.parametrize("form", [0, 1])
def test_greedy_and_exploring_actions_keep_to_the_mask(form):
    policy = policies(3, 4, seed=2)[form]
    q_values = np.tile(np.array([9, 1, 3, 2], np.float32), (3, 1))
    mask = np.array([[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 1, 0]], bool)
    greedy = policy(q_values, np.zeros(3), mask)
    assert greedy.tolist() == [3, 2, 2]
    got = frequencies(policy, q_values, np.ones(3), mask, num_steps=4000)
    expected = mask / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=4 * np.sqrt(0.25 / 4000))
    assert not got[~mask].any()


@pytest.mark.parametrize("form", [0, 1])
def test_a_mask_that_allows_nothing_counts_as_unknown(form):
    policy = policies(1, 2, seed=3)[form]
    mask = np.zeros((1, 2), bool)
    assert policy(np.array([[0.0, 1.0]]), np.zeros(1), mask).tolist() == [1]
    got = frequencies(policy, np.array([[0.0, 1.0]]), np.ones(1), mask)
    np.testing.assert_allclose(got, 0.5, atol=4 * np.sqrt(0.25 / 2000))


def test_the_chunked_form_does_not_repeat_its_draws():
    """Two chunks in a row must differ, and one seed must give one sequence."""
    q_values, epsilons = np.zeros((4, 5)), np.ones(4)

    def actions(seed):
        chunked = EpsilonGreedy(4, 5, np.random.default_rng(seed))
        return np.array([chunked.select(q_values, epsilons) for _ in range(2 * STEPS_PER_DRAW)])

    first, second = actions(7)[:STEPS_PER_DRAW], actions(7)[STEPS_PER_DRAW:]
    assert (first != second).mean() > 0.5
    np.testing.assert_array_equal(actions(7), actions(7))
    assert (actions(7) != actions(8)).any()


def test_masked_and_unmasked_calls_explore_at_the_same_steps():
    """Only the choice of the action depends on the mask, not the draw that precedes it."""
    masked, plain = (EpsilonGreedy(4, 3, np.random.default_rng(5)) for _ in range(2))
    q_values, epsilons = np.zeros((4, 3)), np.full(4, 0.5)
    for _ in range(300):
        np.testing.assert_array_equal(
            masked.select(q_values, epsilons, np.ones((4, 3), bool)),
            plain.select(q_values, epsilons),
        )
