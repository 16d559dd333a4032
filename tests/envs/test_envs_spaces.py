"""A space written as plain values is read back as it was."""

import json
from collections import OrderedDict
from typing import Any

import gymnasium
import numpy as np
import pytest
from fake_envs import NESTED_SPACE

from distdqn.envs.observations import ObservationEncoder
from distdqn.envs.spaces import from_plain, seen_space, space_of, to_plain
from distdqn.types import ObservationSpec

spaces: Any = gymnasium.spaces
SPACES = [
    NESTED_SPACE,
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(np.array([[-1, -np.inf]], np.float32), np.array([[0.1, 3e38]], np.float32)),
    spaces.Box(0, 255, (8, 8, 3), np.uint8),
    spaces.Box(-(2**62), 2**62 + 1, (2,), np.int64),
    spaces.Box(0, 1, (2,), np.bool_),
    spaces.Box(0, 1, (), np.float64),
    spaces.Discrete(5, start=-2),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 3)),
    spaces.MultiDiscrete([3, 4], start=[1, -1]),
    spaces.Dict(OrderedDict(b=spaces.Discrete(2), a=spaces.Tuple([spaces.Discrete(3)]))),
    spaces.Dict({1: spaces.Discrete(2), 2: spaces.Discrete(3)}),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_a_space_comes_back_from_json(space):
    found = from_plain(json.loads(json.dumps(to_plain(space), allow_nan=False, sort_keys=True)))
    assert type(found) is type(space) and found == space
    assert list(getattr(found, "spaces", ())) == list(getattr(space, "spaces", ()))
    assert ObservationEncoder(found, "S").spec == ObservationEncoder(space, "S").spec


@pytest.mark.parametrize("space", [s for s in SPACES if not isinstance(s, spaces.Dict)], ids=repr)
def test_what_is_stored_as_it_is_tells_its_space(space):
    spec = ObservationEncoder(space, "S").spec
    found = ObservationEncoder(space_of(spec), "S").spec
    assert (found.shape, found.dtype, found.num_categories) == (
        spec.obs_shape,
        spec.dtype,
        spec.num_categories,
    )


@pytest.mark.parametrize(
    ("space", "observation", "seen"),
    [
        (spaces.Box(0, 255, (2, 3, 3), np.uint8), ObservationSpec((2, 3, 3), "uint8"), (2, 3, 3)),
        (
            spaces.Dict(a=spaces.Box(0, 1, (3,)), b=spaces.Discrete(1)),
            ObservationSpec((4,), "float32"),
            (4,),
        ),
        (spaces.Discrete(5), ObservationSpec((), "int32", num_categories=5), (5,)),
    ],
)
def test_a_users_torso_gets_the_space_of_what_its_module_is_given(space, observation, seen):
    shape = seen_space(observation, space).shape
    assert shape == seen and seen_space(observation, None).shape == seen
    is_own = isinstance(space, spaces.Box)
    assert (seen_space(observation, space) is space) == is_own
