"""Stacked observations: their spec, their space, and what cannot be stacked."""

import numpy as np
import pytest
from fake_envs import make_space_env
from gymnasium import spaces

from distdqn import errors
from distdqn.config import EnvConfig
from distdqn.envs.make import describe, make_stepper
from distdqn.envs.observations import stacked_space


def test_a_network_is_told_of_stacks_and_a_stepper_gives_frames():
    settings = EnvConfig("CartPole-v1", frame_stack=3, stack_padding="repeat")
    description = describe(settings)
    spec = description.observation
    assert (spec.shape, spec.obs_shape) == ((4,), (3, 4))
    assert (spec.stack, spec.padding) == (3, "repeat")
    assert description.observation_space.shape == (3, 4)
    stepper = make_stepper(settings, 2)
    assert stepper.observation == spec and stepper.reset(seed=1).shape == (2, 4)


def test_without_a_stack_the_space_is_the_envs_own():
    space = spaces.Box(1, 2, (2,), np.float32)
    assert stacked_space(space, 1) is space
    description = describe(EnvConfig(), lambda: make_space_env(space))
    assert description.observation_space == space and description.observation.stack == 1


def test_a_stacks_space_holds_its_frames_and_zeros():
    low, high = np.array([1, -3], np.float32), np.array([2, -1], np.float32)
    space = stacked_space(spaces.Box(low, high), 2)
    assert space.shape == (2, 2) and space.dtype == np.float32
    assert space.contains(np.stack([np.zeros(2, np.float32), low]))
    assert space.contains(np.stack([low, high]))
    assert not space.contains(np.stack([low, high + 2]))


@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(3), spaces.MultiBinary(3), spaces.Dict({"a": spaces.Box(0, 1, (1,))})],
    ids=str,
)
def test_only_boxes_are_stacked(space):
    settings = EnvConfig(frame_stack=2)
    for make in (describe, lambda settings, make_env: make_stepper(settings, 1, make_env)):
        with pytest.raises(errors.UnsupportedSpaceError, match="env.frame_stack is 2: only Box"):
            make(settings, lambda: make_space_env(space))
    assert describe(EnvConfig(frame_stack=1), lambda: make_space_env(space))
