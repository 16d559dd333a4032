"""Transition tables against the environments they describe; the messages are read."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from distdqn.config import EnvConfig
from distdqn.envs.tables import CLIFF_WALKING, TAXI, TransitionTable, transition_table
from distdqn.errors import EnvError, EnvFailure, UnknownEnvError, UnsupportedSpaceError


class ForkEnv(gymnasium.Env):
    """States 5 and 6, actions 2 and 3. Action 2 stays or, one time in four, ends with 8."""

    observation_space = spaces.Discrete(2, start=5)
    action_space = spaces.Discrete(2, start=2)

    def __init__(self, fault="", masks=None):
        self.P = {
            s: {2: [(0.75, s, -1.0, False), (0.25, 6, 8.0, True)], 3: [(1.0, 6, 0.5, False)]}
            for s in (5, 6)
        }
        self.initial_state_distrib = [0.25, 0.75]
        self._masks = masks
        if masks == "method":
            self.action_mask = lambda state: np.array([state == 5, True], np.int8)
        if fault == "space":
            self.observation_space = spaces.Box(0, 1, (2,))
        elif fault == "initial":
            del self.initial_state_distrib
        elif fault == "sum":
            self.P[5][3] = [(0.5, 6, 0.5, False)]
        elif fault == "next":
            self.P[6][3] = [(1.0, 7, 0.5, False)]
        elif fault == "pair":
            del self.P[6][3]
        elif fault == "raises":
            raise RuntimeError("no such map")

    def reset(self, *, seed=None, options=None):
        return 5, {"action_mask": np.ones(2, np.int8)} if self._masks == "info" else {}


@pytest.fixture
def fork():
    """Settings of a registered ForkEnv with the given arguments."""
    gymnasium.register("Fork-v0", ForkEnv, max_episode_steps=30)
    yield lambda scale=1.0, clip=None, **kwargs: EnvConfig(
        "Fork-v0", kwargs, reward_scale=scale, reward_clip=clip
    )
    gymnasium.registry.pop("Fork-v0")


def message_of(error_class, settings):
    with pytest.raises(error_class) as caught:
        transition_table(settings)
    assert type(caught.value) is error_class and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_table_is_read_outcome_by_outcome(fork):
    table = transition_table(fork())

    assert (table.num_states, table.num_actions, table.max_episode_steps) == (2, 2, 30)
    np.testing.assert_array_equal(table.probabilities[0], [[0.75, 0.25], [1.0, 0.0]])
    np.testing.assert_array_equal(table.rewards[0], [[-1.0, 8.0], [0.5, 0.0]])
    np.testing.assert_array_equal(table.next_states[0], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(table.terminated[0], [[False, True], [False, False]])
    np.testing.assert_array_equal(table.initial, [0.25, 0.75])
    assert table.allowed.all() and table.allowed.shape == (2, 2)


def test_rewards_are_scaled_and_clipped_as_in_training_and_raw_ones_are_kept(fork):
    table = transition_table(fork(scale=0.5, clip=2.0))

    np.testing.assert_array_equal(table.rewards[0], [[-0.5, 2.0], [0.25, 0.0]])
    np.testing.assert_array_equal(table.raw_rewards[0], [[-1.0, 8.0], [0.5, 0.0]])


def test_masks_come_from_the_envs_own_method(fork):
    np.testing.assert_array_equal(
        transition_table(fork(masks="method")).allowed, [[True, True], [False, True]]
    )


def test_masks_that_come_only_with_a_step_are_refused(fork):
    assert "action_mask(state)" in message_of(EnvError, fork(masks="info"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("initial", "initial_state_distrib"),
        ("sum", "probabilities in P that do not add up to 1"),
        ("next", "next state outside of the 2 states"),
        ("pair", "KeyError: 3"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_what_it_should_be(fork, fault, words):
    message = message_of(EnvError, fork(fault=fault))

    assert words in message and "P[state][action] must be a list" in message


def test_an_env_without_a_table_is_refused_and_four_that_have_one_are_named():
    message = message_of(EnvError, EnvConfig("CartPole-v1"))

    assert "'CartPole-v1' has no transition table" in message
    for env_id in ("FrozenLake-v1", "FrozenLake8x8-v1", CLIFF_WALKING, TAXI):
        assert env_id in message
        assert isinstance(transition_table(EnvConfig(env_id)), TransitionTable)


def test_observations_that_are_no_states_are_refused(fork):
    message = message_of(EnvError, fork(fault="space"))

    assert "Box(" in message and "Discrete" in message


def test_what_cannot_be_made_is_refused_as_in_training(fork):
    assert "FrozenLake-v1" in message_of(UnknownEnvError, EnvConfig("FrozenLakes-v1"))
    assert "no such map" in message_of(EnvFailure, fork(fault="raises"))
    message_of(UnsupportedSpaceError, EnvConfig("Pendulum-v1"))


def test_frozen_lake_slips_to_three_sides_and_cliff_walking_does_not():
    lake = transition_table(EnvConfig("FrozenLake-v1"))
    dry = transition_table(EnvConfig("FrozenLake-v1", {"is_slippery": False}))
    cliff = transition_table(EnvConfig(CLIFF_WALKING))

    assert lake.probabilities.shape == (16, 4, 3) and dry.probabilities.shape == (16, 4, 1)
    assert (lake.max_episode_steps, cliff.max_episode_steps) == (100, None)
    # From the state left of the goal, to the right: down and up stay on the lake.
    np.testing.assert_array_equal(lake.next_states[14, 2], [14, 15, 10])
    np.testing.assert_array_equal(lake.terminated[14, 2], [False, True, False])
    np.testing.assert_allclose(lake.probabilities[14, 2], 1 / 3)
    # Off the cliff and back to the start, and the episode goes on.
    assert (cliff.rewards[36, 1, 0], cliff.next_states[36, 1, 0]) == (-100, 36)
    assert not cliff.terminated[36, 1, 0] and cliff.initial[36] == 1


SLIPPERY = {"is_slippery": True} if CLIFF_WALKING == "CliffWalking-v1" else {}


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [("FrozenLake-v1", {}), (CLIFF_WALKING, SLIPPERY), (TAXI, {})],
)
def test_every_step_of_the_env_is_an_outcome_of_its_table(env_id, kwargs):
    table = transition_table(EnvConfig(env_id, kwargs))
    env = gymnasium.make(env_id, **kwargs)
    rng = np.random.default_rng(3)
    state, info = env.reset(seed=3)
    for _ in range(2_000):
        if "action_mask" in info:
            np.testing.assert_array_equal(table.allowed[state], info["action_mask"])
        action = int(rng.integers(table.num_actions))
        next_state, reward, terminated, truncated, info = env.step(action)
        outcomes = zip(
            table.next_states[state, action],
            table.raw_rewards[state, action],
            table.terminated[state, action],
            table.probabilities[state, action] > 0,
            strict=True,
        )
        assert (next_state, reward, terminated, True) in list(outcomes)
        state = next_state
        if terminated or truncated:
            state, info = env.reset()
            assert table.initial[state] > 0
