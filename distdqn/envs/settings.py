"""Which environment, and how its rewards are scaled.

A frozen value that travels to every worker: it names the env, it does not hold it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]
"""Builds one new environment at each call; distdqn vectorises, seeds and closes it."""


@dataclasses.dataclass(frozen=True)
class EnvSettings:
    """An environment by name.

    id: a registered Gymnasium id (`CartPole-v1`) or `module:Id-v0`, where importing
      the module registers it. Not used when a `make_env` is given.
    kwargs: constructor arguments, as for `gymnasium.make`.
    reward_scale: factor on every reward.
    reward_clip: `c` limits the scaled reward to `[-c, c]`; None leaves it.
      Scaling comes first, so that the limit is on what the learner sees.
    """

    id: str
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reward_scale: float = 1.0
    reward_clip: float | None = None
