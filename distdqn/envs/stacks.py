"""Observations of several frames, as a network is told of them.

Envs give single frames; the newest `stack` of an episode are put together where a network
is to see them. Here only shapes and spaces are settled.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from distdqn import errors
from distdqn.config.sections import EnvConfig
from distdqn.envs.failures import shorten
from distdqn.types import ObservationSpec

ATARI_STACK = 4  # frames; "agent history length" of Mnih et al. 2015, extended data table 1


def frames_stacked(settings: EnvConfig, is_atari: bool) -> int:
    """Frames in an observation, where `settings` leave it open too."""
    if settings.frame_stack is not None:
        return settings.frame_stack
    return ATARI_STACK if is_atari else 1


def stacked_spec(
    frame: ObservationSpec,
    space: spaces.Space[Any],
    stack: int,
    padding: Literal["zero", "repeat"],
    label: str,
) -> ObservationSpec:
    """`frame`, of which `stack` make an observation.

    Raises:
      UnsupportedSpaceError: frames that are not arrays of one space, stacked.
    """
    if stack > 1 and not isinstance(space, spaces.Box):
        raise errors.UnsupportedSpaceError(
            f"environment {label!r} has the observation space {shorten(space)}, but "
            f"env.frame_stack is {stack}: only Box observations are stacked; leave it at 1"
        )
    return dataclasses.replace(frame, stack=stack, padding=padding)


def stacked_space(space: spaces.Space[Any], stack: int) -> spaces.Space[Any]:
    """The space of one observation: `[stack, *shape]`, or `space` for a stack of 1.

    It holds zeros too, which may stand before an episode's first frame.
    """
    if stack == 1:
        return space
    assert isinstance(space, spaces.Box), space
    low = np.repeat(np.minimum(space.low, 0)[None], stack, axis=0).astype(space.dtype)
    high = np.repeat(np.maximum(space.high, 0)[None], stack, axis=0).astype(space.dtype)
    return spaces.Box(low, high, dtype=space.dtype)
