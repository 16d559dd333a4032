"""Transition tables of environments that expose them.

The table is the environment itself, written down: whatever is computed from it is exact,
with no episode played. Gymnasium's FrozenLake, CliffWalking and Taxi have one.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from distdqn import errors
from distdqn.config.sections import EnvConfig
from distdqn.envs.actions import discrete_actions
from distdqn.envs.atari import check_unused
from distdqn.envs.failures import explained
from distdqn.envs.learner_view import scaled_reward
from distdqn.envs.registry import find_spec, time_limit
from distdqn.errors import one_line, shorten


def _registered(*ids: str) -> str:
    """The first that this Gymnasium has."""
    return next(env_id for env_id in ids if env_id in gymnasium.registry)


# Older ones are the same environments, without the newer arguments.
CLIFF_WALKING = _registered("CliffWalking-v1", "CliffWalking-v0")
TAXI = _registered("Taxi-v4", "Taxi-v3")
WITH_A_TABLE = f"FrozenLake-v1, FrozenLake8x8-v1, {CLIFF_WALKING} and {TAXI}"


@dataclasses.dataclass(frozen=True)
class TransitionTable:
    """An environment of S states and A actions with up to K outcomes of each pair.

    States and actions are numbered from 0, as observations and actions are stored. Unused
    outcomes have probability 0 and lead to state 0.

    probabilities: `[S, A, K]` float64, of each outcome.
    rewards: `[S, A, K]` float64 as the learner sees them, scaled and then clipped.
    raw_rewards: `[S, A, K]` float64 as the env gives them; returns are made of these.
    next_states: `[S, A, K]` int64.
    terminated: `[S, A, K]` bool; the outcome ends the episode and is worth its reward.
    initial: `[S]` float64, the distribution of first states.
    allowed: `[S, A]` bool of the env's action mask; all True for an env without one.
    max_episode_steps: after which the env truncates, None for never.
    """

    probabilities: np.ndarray
    rewards: np.ndarray
    raw_rewards: np.ndarray
    next_states: np.ndarray
    terminated: np.ndarray
    initial: np.ndarray
    allowed: np.ndarray
    max_episode_steps: int | None

    @property
    def num_states(self) -> int:
        return self.probabilities.shape[0]

    @property
    def num_actions(self) -> int:
        return self.probabilities.shape[1]


def transition_table(settings: EnvConfig) -> TransitionTable:
    """Reads an environment's own table, `env.unwrapped.P`, as Gymnasium's toy text has it.

    Raises EnvError: it has no table or one that cannot be read, observations that are no states, or
    action masks that cannot be had for every state; UnknownEnvError, MissingExtraError,
    UnsupportedSpaceError, EnvFailure: as when a run makes its env; ConfigError: `settings.atari`
    changed for an env that is no Atari game.
    """
    spec = find_spec(settings.id)
    if not settings.is_atari:
        check_unused(settings, f"env.id {settings.id!r}")
    if settings.wrappers:
        raise errors.ConfigError(
            f"env.wrappers has {', '.join(settings.wrappers)}, must be empty where exact values "
            "are needed: the transition table is that of the environment without them"
        )
    with explained(settings.id, "make"):
        env = gymnasium.make(spec, **{"disable_env_checker": True, **settings.kwargs})
    with contextlib.closing(env):
        num_actions, first_action = discrete_actions(env.action_space, settings.id)
        actions = range(first_action, first_action + num_actions)
        states = _require_table(env, settings.id)
        try:
            arrays = _read(env.unwrapped, states, actions)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise errors.EnvError(
                f"environment {settings.id!r} has a transition table that cannot be read "
                f"({one_line(error)}): P[state][action] must be a list of (probability, next "
                "state, reward, terminated), initial_state_distrib [states] a distribution"
            ) from error
        allowed = _action_masks(env, settings.id, states, actions)
    rewards = scaled_reward(arrays["raw_rewards"], settings.reward_scale, settings.reward_clip)
    return TransitionTable(
        **arrays,
        rewards=rewards.astype(np.float64),
        allowed=allowed,
        max_episode_steps=time_limit(spec, settings.kwargs),
    )


def _require_table(env: Any, label: str) -> range:
    """The env's own numbers of its states; refuses envs without a table `P` of them."""
    space = env.observation_space
    if not isinstance(getattr(env.unwrapped, "P", None), (Mapping, list, tuple)):
        raise errors.EnvError(
            f"environment {label!r} has no transition table (env.unwrapped.P), which exact "
            f"values need; Gymnasium's {WITH_A_TABLE} have one"
        )
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise errors.EnvError(
            f"environment {label!r} has a transition table, but its observations are "
            f"{shorten(space)}; exact values need the state itself, Discrete, "
            f"as in {WITH_A_TABLE}"
        )
    return range(int(space.start), int(space.start + space.n))


def _read(source: Any, states: range, actions: range) -> dict[str, np.ndarray]:
    """The lists of outcomes as arrays `[S, A, K]`, and the distribution of first states."""
    outcomes = [[source.P[state][action] for action in actions] for state in states]
    shape = len(states), len(actions), max(len(listed) for row in outcomes for listed in row)
    probabilities, raw_rewards = np.zeros(shape), np.zeros(shape)
    next_states, terminated = np.zeros(shape, np.int64), np.zeros(shape, bool)
    for s, row in enumerate(outcomes):
        for a, listed in enumerate(row):
            for k, outcome in enumerate(listed):
                at = s, a, k
                probabilities[at], next_state, raw_rewards[at], terminated[at] = outcome
                next_states[at] = next_state - states.start
    if next_states.min() < 0 or next_states.max() >= len(states):
        raise ValueError(f"a next state outside of the {len(states)} states")
    initial = np.asarray(source.initial_state_distrib, np.float64)
    if initial.shape != (len(states),):
        raise ValueError(f"initial_state_distrib of shape {initial.shape}")
    for what, parts in (("P", probabilities), ("initial_state_distrib", initial)):
        if parts.min() < 0 or not np.allclose(parts.sum(axis=-1), 1.0):
            raise ValueError(f"probabilities in {what} that do not add up to 1")
    return {
        "probabilities": probabilities,
        "raw_rewards": raw_rewards,
        "next_states": next_states,
        "terminated": terminated,
        "initial": initial,
    }


def _action_masks(env: Any, label: str, states: range, actions: range) -> np.ndarray:
    """`[S, A]` bool from the env's own `action_mask(state)`."""
    action_mask: Callable[[int], Any] | None = getattr(env.unwrapped, "action_mask", None)
    shape = len(states), len(actions)
    with explained(label, "action_mask" if callable(action_mask) else "reset"):
        if callable(action_mask):
            rows = [np.asarray(action_mask(state)) for state in states]
            return np.array(rows).astype(bool).reshape(shape)
        info = env.reset(seed=0)[1]
    if "action_mask" in info:
        raise errors.EnvError(
            f"environment {label!r} gives info['action_mask'] but has no method "
            "action_mask(state): exact values need the mask of every state"
        )
    return np.ones(shape, bool)
