"""What a run must know about an environment before it starts.

Makes the env once, reads its spaces, and closes it: no reset, no step.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium

from distdqn.config.sections import EnvConfig
from distdqn.envs import atari
from distdqn.envs.actions import discrete_actions
from distdqn.envs.make import MakeEnv, env_label, find_spec, make_vector_env, time_limit
from distdqn.envs.observations import ObservationEncoder
from distdqn.envs.stacks import frames_stacked, stacked_space, stacked_spec
from distdqn.types import ObservationSpec


@dataclasses.dataclass(frozen=True)
class EnvDescription:
    """The shape of the problem.

    observation: how one frame of an observation is stored, and how many are stacked.
    num_actions: actions are `0 .. num_actions - 1` everywhere in distdqn.
    action_start: the env's own number for action 0.
    observation_space: of one observation as a network sees it; the env's own where
      nothing is stacked.
    max_episode_steps: after which the env truncates, None where it does not say.
    """

    observation: ObservationSpec
    num_actions: int
    action_start: int
    observation_space: gymnasium.Space[Any]
    max_episode_steps: int | None


def describe(settings: EnvConfig, make_env: MakeEnv | None = None) -> EnvDescription:
    """Describes the environment, or says in one line why distdqn cannot train on it.

    Raises:
      UnknownEnvError, MissingExtraError, UnsupportedSpaceError, EnvFailure: see
        `make_vector_env`.
      ConfigError: arguments or `settings.atari` that the env would not heed.
    """
    label = env_label(settings, make_env)
    vector_env = make_vector_env(settings, 1, make_env)
    try:
        num_actions, action_start = discrete_actions(vector_env.single_action_space, label)
        space = vector_env.single_observation_space
        stack = frames_stacked(settings, settings.is_atari and make_env is None)
        frame = ObservationEncoder(space, label).spec
        return EnvDescription(
            observation=stacked_spec(frame, space, stack, settings.stack_padding, label),
            num_actions=num_actions,
            action_start=action_start,
            observation_space=stacked_space(space, stack),
            max_episode_steps=_max_episode_steps(settings, make_env, vector_env.spec),
        )
    finally:
        vector_env.close()


def _max_episode_steps(settings: EnvConfig, make_env: MakeEnv | None, made: Any) -> int | None:
    """made: the spec of what `make_env` built."""
    if make_env is not None:
        return time_limit(made, {})
    if settings.is_atari:
        return atari.max_steps(settings.atari)
    return time_limit(find_spec(settings.id), settings.kwargs)
