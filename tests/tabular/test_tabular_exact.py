"""Exact solutions against hand-worked numbers, a linear solver, episodes, and files."""

from __future__ import annotations

import ast
import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.config import EnvConfig
from distdqn.envs.tables import CLIFF_WALKING, TAXI, TransitionTable, transition_table
from distdqn.tabular.exact import (
    expected_return,
    greedy_policy,
    optimal_policy,
    optimal_values,
    reachable_pairs,
    visiting_frequency,
    weighted_value_error,
)

DATA = Path(__file__).parents[3] / "shared" / "data"

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the files of exact values are not beside the checkout ({DATA})"
)

# (env, kwargs, E[max q*] of a first state at discount 0.99, return of the optimal policy):
# exact values of Gymnasium 1.4.0, from the tables of these envs.
EXACT: list[tuple[str, dict, float, float]] = [
    ("FrozenLake-v1", {}, 0.54202593, 0.740165),
    ("FrozenLake8x8-v1", {}, 0.41464036, 0.862955),
    (CLIFF_WALKING, {}, -12.2478977, -13.0),
    (TAXI, {}, 6.32746431, 7.93),
]


def table_of(env_id, kwargs=None):
    return transition_table(EnvConfig(env_id, kwargs or {}))


def corridor(length=3, limit=None, mask=None):
    """States 0, 1, ... of which action 0 stays for -1 and action 1 goes on for -1; the last
    step is terminal and pays 10."""
    shape = (length, 2, 1)
    next_states = np.zeros(shape, int)
    next_states[:, 0, 0] = np.arange(length)
    next_states[:-1, 1, 0] = np.arange(1, length)
    rewards, terminated = np.full(shape, -1.0), np.zeros(shape, bool)
    rewards[-1, 1], terminated[-1, 1] = 10.0, True
    return TransitionTable(
        probabilities=np.ones(shape),
        rewards=rewards,
        raw_rewards=rewards,
        next_states=next_states,
        terminated=terminated,
        initial=np.eye(length)[0],
        allowed=np.ones((length, 2), bool) if mask is None else mask,
        max_episode_steps=limit,
    )


@st.composite
def random_tables(draw):
    """Small tables with masks, every kind of outcome, and unreachable states."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    s, a, k = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rewards = rng.normal(size=(s, a, k))
    allowed = rng.random((s, a)) < 0.7
    allowed[np.arange(s), rng.integers(a, size=s)] = True
    return TransitionTable(
        probabilities=rng.dirichlet(np.ones(k), size=(s, a)) * 1.0,
        rewards=rewards,
        raw_rewards=rewards,
        next_states=rng.integers(s, size=(s, a, k)),
        terminated=rng.random((s, a, k)) < 0.2,
        initial=np.eye(s)[rng.integers(s)],
        allowed=allowed,
        max_episode_steps=draw(st.integers(1, 8)),
    )


# --- optimal values ------------------------------------------------------------------


def test_a_terminal_step_is_worth_its_reward_and_values_fall_with_distance():
    q = optimal_values(corridor(), 0.5)

    # Forward: 10; -1 + 0.5 * 10 = 4; -1 + 0.5 * 4 = 1. Staying: -1 + 0.5 * best there.
    np.testing.assert_allclose(q, [[-0.5, 1.0], [1.0, 4.0], [4.0, 10.0]], atol=1e-11)


def test_actions_that_are_not_allowed_are_out_of_the_maximum_but_have_a_value():
    mask = np.array([[True, True], [True, False], [True, True]])

    q = optimal_values(corridor(mask=mask), 0.5)

    # In state 1 nothing but staying is allowed: -1 / (1 - 0.5).
    np.testing.assert_allclose(q[1], [-2.0, 4.0], atol=1e-11)
    np.testing.assert_allclose(q[0], [-2.0, -2.0], atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(random_tables(), st.floats(0.0, 0.95))
def test_optimal_values_are_those_of_their_greedy_policy_and_no_policy_has_better(table, discount):
    q = optimal_values(table, discount)
    policy = greedy_policy(q, table.allowed)

    value = value_of(table, policy, discount)
    np.testing.assert_allclose(value, q[np.arange(len(q)), policy], atol=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(5):
        other = np.array([rng.choice(np.flatnonzero(row)) for row in table.allowed])
        assert (value_of(table, other, discount) <= value + 1e-9).all()


def value_of(table, policy, discount):
    """A policy's discounted values by solving v = r + discount P v."""
    rows = np.arange(table.num_states)
    p, r = table.probabilities[rows, policy], table.rewards[rows, policy]
    matrix = np.zeros((table.num_states, table.num_states))
    for s in rows:
        for k in range(p.shape[1]):
            if not table.terminated[s, policy[s], k]:
                matrix[s, table.next_states[s, policy[s], k]] += p[s, k]
    return np.linalg.solve(np.eye(len(rows)) - discount * matrix, (p * r).sum(axis=1))


def test_without_discount_value_iteration_ends_or_says_that_it_does_not():
    np.testing.assert_allclose(optimal_values(corridor(), 1.0)[:, 1], [8.0, 9.0, 10.0])
    endless = dataclasses.replace(corridor(), terminated=np.zeros((3, 2, 1), bool))
    with pytest.raises(RuntimeError, match="discount below 1, got 1"):
        optimal_values(endless, 1.0, max_sweeps=50)


def test_values_are_of_scaled_rewards_and_returns_of_raw_ones():
    scaled = transition_table(EnvConfig(CLIFF_WALKING, reward_scale=0.1))
    q, plain = optimal_values(scaled, 0.99), optimal_values(table_of(CLIFF_WALKING), 0.99)

    np.testing.assert_allclose(q, 0.1 * plain, rtol=1e-6)  # rewards are float32 in training
    assert expected_return(scaled, optimal_policy(q, scaled.allowed)) == -13.0


# --- which pairs count ---------------------------------------------------------------


def test_pairs_count_that_an_episode_can_come_to_before_it_ends():
    table = corridor(mask=np.array([[True, True], [True, False], [True, True]]))

    np.testing.assert_array_equal(
        reachable_pairs(table), [[True, True], [True, False], [False, False]]
    )


@pytest.mark.parametrize(
    ("env_id", "pairs"),
    [
        ("FrozenLake-v1", 11 * 4),  # 16 fields less four holes and the goal
        ("FrozenLake8x8-v1", 53 * 4),  # 64 less ten holes and the goal
        (CLIFF_WALKING, 37 * 4),  # 36 fields above the cliff, and the start
        # 400 states with the passenger not at the destination, from Gymnasium's own masks.
        (TAXI, 1_116),
    ],
)
def test_holes_goals_and_what_the_mask_forbids_are_left_out(env_id, pairs):
    table = table_of(env_id)
    found = reachable_pairs(table)

    assert found.sum() == pairs
    assert not (found & ~table.allowed).any()


@settings(deadline=None, max_examples=30)
@given(random_tables())
def test_pairs_are_those_that_long_random_walks_visit(table):
    rng = np.random.default_rng(1)
    visited = np.zeros(table.allowed.shape, bool)
    state = None
    for _ in range(4_000):
        if state is None:
            state = rng.choice(table.num_states, p=table.initial)
        action = rng.choice(np.flatnonzero(table.allowed[state]))
        visited[state, action] = True
        k = rng.choice(table.probabilities.shape[2], p=table.probabilities[state, action])
        is_over = table.terminated[state, action, k] or rng.random() < 0.05
        state = None if is_over else table.next_states[state, action, k]

    assert not (visited & ~reachable_pairs(table)).any()
    if table.probabilities.min() > 0.05:
        np.testing.assert_array_equal(visited, reachable_pairs(table))


# --- policies and returns ------------------------------------------------------------


def test_of_equal_actions_the_first_allowed_one_is_taken():
    q = np.array([[3.0, 3.0, 1.0], [3.0, 3.0, 1.0], [0.0, 0.5, 0.5 + 1e-12]])
    allowed = np.array([[True] * 3, [False, True, True], [True] * 3])

    np.testing.assert_array_equal(greedy_policy(q, allowed), [0, 1, 2])
    np.testing.assert_array_equal(optimal_policy(q, allowed), [0, 1, 1])


def test_a_return_is_undiscounted_and_ends_with_the_time_limit():
    forward = np.array([1, 1, 1])

    assert expected_return(corridor(), forward) == -1 - 1 + 10
    assert expected_return(corridor(limit=2), forward) == -1 - 1
    assert expected_return(corridor(limit=7), np.array([1, 0, 1])) == -7
    assert expected_return(corridor(), np.array([0, 0, 0])) == -1_000  # where there is no limit


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", CLIFF_WALKING])
def test_an_expected_return_is_the_mean_of_episodes(env_id):
    """Of a policy that is not the optimal one; 4 standard errors."""
    table = dataclasses.replace(table_of(env_id), max_episode_steps=60)
    rng = np.random.default_rng(5)
    policy = rng.integers(table.num_actions, size=table.num_states)
    num_episodes = 4_000
    state = rng.choice(table.num_states, size=num_episodes, p=table.initial)
    total, is_over = np.zeros(num_episodes), np.zeros(num_episodes, bool)
    for _ in range(60):
        action = policy[state]
        chance = table.probabilities[state, action].cumsum(axis=1)
        k = (rng.random(num_episodes)[:, None] > chance[:, :-1]).sum(axis=1)
        total += np.where(is_over, 0.0, table.raw_rewards[state, action, k])
        is_over |= table.terminated[state, action, k]
        state = table.next_states[state, action, k]

    error = abs(total.mean() - expected_return(table, policy))
    assert error <= 4 * total.std() / np.sqrt(num_episodes) + 1e-12


@pytest.mark.parametrize(("env_id", "kwargs", "first_value", "optimum"), EXACT)
def test_four_environments_have_their_known_optimum(env_id, kwargs, first_value, optimum):
    table = table_of(env_id, kwargs)
    q = optimal_values(table, 0.99)
    best = np.where(table.allowed, q, -np.inf).max(axis=1)

    assert table.initial @ best == pytest.approx(first_value, abs=1e-8)
    policy = optimal_policy(q, table.allowed)
    assert expected_return(table, policy) == pytest.approx(optimum, abs=1e-6)


@needs_data
@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("frozenlake_4x4_true", "FrozenLake-v1"),
        ("frozenlake8x8", "FrozenLake8x8-v1"),
        ("cliffwalking", CLIFF_WALKING),
        ("taxi", TAXI),
    ],
)
def test_every_optimal_value_is_that_of_the_file(name, env_id):
    expected = np.loadtxt(DATA / f"qstar_{name}_g0.99.csv", delimiter=",", comments="#")

    np.testing.assert_allclose(optimal_values(table_of(env_id), 0.99), expected, atol=1e-9)


@needs_data
def test_every_optimum_is_that_of_the_file():
    """With discount 1 policies tie that differ within a time limit: there values alone."""
    lines = (DATA / "tabular_optimal.csv").read_text().splitlines()
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        kwargs, discount = ast.literal_eval(row["kwargs"]), float(row["gamma"])
        table = table_of(row["env"], kwargs)
        q = optimal_values(table, discount)
        best = np.where(table.allowed, q, -np.inf).max(axis=1)
        assert table.initial @ best == pytest.approx(float(row["v0"]), abs=1e-7), row
        if not row["H"] and kwargs:  # the file ends such an episode after 200 steps
            table = dataclasses.replace(table, max_episode_steps=200)
        if discount < 1:
            found = expected_return(table, optimal_policy(q, table.allowed))
            assert found == pytest.approx(float(row["greedy_return_H"]), abs=1e-6), row


# --- errors of values ----------------------------------------------------------------


def test_a_value_error_weighs_each_pairs_square_by_its_share():
    q, q_star = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 4.0], [2.0, 4.0]])
    weights = visiting_frequency(np.array([[1, 2], [6, 5]]), np.array([[1, 1], [1, 0]], bool))

    np.testing.assert_allclose(weights, [[1 / 9, 2 / 9], [6 / 9, 0.0]])
    assert weighted_value_error(q, q_star, weights) == pytest.approx(2 / 9 * 4 + 6 / 9 * 1)


def test_visits_to_none_of_the_pairs_are_refused():
    with pytest.raises(ValueError, match="all are 0"):
        visiting_frequency(np.array([[0, 3]]), np.array([[True, False]]))
