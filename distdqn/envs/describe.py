"""What a run must know about an environment before it starts.

Makes the env once, reads its spaces, and closes it: no reset, no step.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium

from distdqn.envs.actions import discrete_actions
from distdqn.envs.make import env_label, find_spec, make_vector_env, time_limit
from distdqn.envs.observations import ObservationEncoder
from distdqn.envs.settings import EnvSettings, MakeEnv
from distdqn.types import ObservationSpec


@dataclasses.dataclass(frozen=True)
class EnvDescription:
    """The shape of the problem.

    observation: how one observation is stored.
    num_actions: actions are `0 .. num_actions - 1` everywhere in distdqn.
    action_start: the env's own number for action 0.
    observation_space: the env's own, of a single observation.
    max_episode_steps: after which the env truncates, None where it does not say.
    """

    observation: ObservationSpec
    num_actions: int
    action_start: int
    observation_space: gymnasium.Space[Any]
    max_episode_steps: int | None


def describe(settings: EnvSettings, make_env: MakeEnv | None = None) -> EnvDescription:
    """Describes the environment, or says in one line why distdqn cannot train on it.

    Raises:
      UnknownEnvError, MissingExtraError, UnsupportedSpaceError, EnvFailure: see
        `make_vector_env`.
    """
    label = env_label(settings, make_env)
    vector_env = make_vector_env(settings, 1, make_env)
    try:
        num_actions, action_start = discrete_actions(vector_env.single_action_space, label)
        space = vector_env.single_observation_space
        spec = find_spec(settings.id) if make_env is None else vector_env.spec
        kwargs = settings.kwargs if make_env is None else {}
        return EnvDescription(
            observation=ObservationEncoder(space, label).spec,
            num_actions=num_actions,
            action_start=action_start,
            observation_space=space,
            max_episode_steps=time_limit(spec, kwargs),
        )
    finally:
        vector_env.close()
