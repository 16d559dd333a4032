"""Every supported space is stored as documented; others are refused in one line."""

from typing import Any

import numpy as np
import pytest
from fake_envs import NESTED_SPACE, make_space_env
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from distdqn import errors
from distdqn.config import EnvConfig
from distdqn.envs.make import describe, make_stepper
from distdqn.envs.observations import ObservationEncoder
from distdqn.types import ObservationSpec

ROWS = 7
BOOL: Any = np.bool_  # Gymnasium takes it as a dtype; its annotations do not say so


def batch_of(space, rows=ROWS, seed=0):
    """Samples of a space, alone and as a vector env batches them."""
    space.seed(seed)
    samples = [space.sample() for _ in range(rows)]
    empty: Any = create_empty_array(space, rows)
    return samples, concatenate(space, samples, empty)


@pytest.mark.parametrize(
    "space, spec",
    [
        (spaces.Box(0, 1, (5,), BOOL), ObservationSpec((5,), "uint8")),
        (spaces.Box(-1, 1, (4,), np.float32), ObservationSpec((4,), "float32")),
        (spaces.Box(-1, 1, (2, 3), np.float64), ObservationSpec((2, 3), "float32")),
        (spaces.Box(-1, 1, (2,), np.float16), ObservationSpec((2,), "float16")),
        (spaces.Box(-9, 9, (), np.int64), ObservationSpec((), "int64")),
        (spaces.Box(0, 255, (9,), np.uint8), ObservationSpec((9,), "uint8")),
        (spaces.Box(0, 7, (2, 2, 1), np.uint8), ObservationSpec((2, 2, 1), "uint8")),
        (
            spaces.Box(0, 255, (8, 8, 3), np.uint8),
            ObservationSpec((8, 8, 3), "uint8", scale=1 / 255),
        ),
        (spaces.Box(0, 255, (8, 8), np.uint8), ObservationSpec((8, 8), "uint8", scale=1 / 255)),
        (spaces.MultiBinary((2, 3)), ObservationSpec((2, 3), "int8")),
    ],
    ids=str,
)
def test_an_array_keeps_its_shape_and_values(space, spec):
    encoder = ObservationEncoder(space, "E")
    samples, batch = batch_of(space)
    stored = encoder.encode(batch, ROWS)
    assert encoder.spec == spec
    assert stored.dtype == spec.dtype and stored.shape == (ROWS, *spec.shape)
    np.testing.assert_array_equal(stored, np.stack(samples).astype(spec.dtype))
    assert not np.shares_memory(stored, batch)


def test_a_discrete_observation_is_an_index_from_zero():
    encoder = ObservationEncoder(spaces.Discrete(4, start=-2), "E")
    assert encoder.spec == ObservationSpec((), "int32", num_categories=4)
    stored = encoder.encode(np.array([-2, 1, 0]), 3)
    assert stored.dtype == np.int32 and stored.tolist() == [0, 3, 2]


@pytest.mark.parametrize(
    "space",
    [
        NESTED_SPACE,
        spaces.MultiDiscrete([3, 1, 4]),
        spaces.MultiDiscrete(np.array([[2, 2], [3, 5]])),
        spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 255, (2, 2, 1), np.uint8))),
        spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Dict({"c": spaces.Box(-1, 1, (2,))})}),
    ],
    ids=str,
)
def test_a_composite_observation_is_gymnasiums_flat_vector(space):
    encoder = ObservationEncoder(space, "E")
    samples, batch = batch_of(space)
    stored = encoder.encode(batch, ROWS)
    flat = np.stack([np.asarray(spaces.flatten(space, sample)) for sample in samples])
    assert encoder.spec == ObservationSpec((spaces.flatdim(space),), "float32")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, flat.astype(np.float32))


def test_a_composite_observation_comes_through_a_stepper():
    settings = EnvConfig()
    stepper = make_stepper(settings, 2, lambda: make_space_env(NESTED_SPACE))
    obs = stepper.reset(seed=[3, 4])
    NESTED_SPACE.seed(4)
    expected = np.asarray(spaces.flatten(NESTED_SPACE, NESTED_SPACE.sample()), np.float32)
    assert obs.shape == (2, *stepper.observation.shape)
    np.testing.assert_array_equal(obs[1], expected)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
        spaces.Dict({"name": spaces.Text(5)}),
        spaces.Tuple(()),
        spaces.Box(0, 1, (0,)),
        spaces.Box(0, 1, (3, 0)),
    ],
    ids=lambda space: type(space).__name__,
)
def test_other_observation_spaces_are_refused(space):
    with pytest.raises(errors.UnsupportedSpaceError) as caught:
        describe(EnvConfig(), lambda: make_space_env(space))
    message = str(caught.value)
    assert message.startswith("environment 'make_env()' has the observation space")
    assert "supports Box, Discrete, MultiBinary, MultiDiscrete, and Dict or Tuple" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2,)),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))),
    ],
    ids=lambda space: type(space).__name__,
)
def test_other_action_spaces_are_refused(space):
    with pytest.raises(errors.UnsupportedSpaceError) as caught:
        describe(EnvConfig(), lambda: make_space_env(spaces.Discrete(2), space))
    message = str(caught.value)
    assert "has the action space" in message and "supports Discrete action spaces" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "space, batch, message",
    [
        (
            spaces.Box(0, 1, (4,)),
            np.zeros((2, 5)),
            "changed its observation shape from (4,) to (5,)",
        ),
        (spaces.Box(0, 1, (4,)), np.zeros((3, 4)), "shape from (4,) to (3, 4)"),
        (spaces.Box(0, 9, (4,), np.uint8), np.zeros((2, 4)), "dtype from uint8 to float64"),
        (spaces.Discrete(3, start=1), np.array([1, 4]), "the observation 4, which is not in"),
        (spaces.Discrete(3), np.array([0.5, 1.0]), "dtype from int64 to float64"),
        (spaces.MultiDiscrete([2, 3]), np.array([[0, 2], [2, 0]]), "the observation 2, which is"),
        (spaces.Dict({"a": spaces.Discrete(2)}), {"b": np.zeros(2)}, "its observation structure"),
        (
            spaces.Dict({"a": spaces.Box(0, 1, (2,))}),
            {"a": np.zeros((2, 3))},
            "shape at ['a'] from (2,) to (3,)",
        ),
        (spaces.Tuple((spaces.Discrete(2),)), (np.array([0, 5]),), "5 at [0], which is not in"),
    ],
)
def test_an_observation_outside_its_space_is_refused(space, batch, message):
    with pytest.raises(errors.EnvFailure) as caught:
        ObservationEncoder(space, "E").encode(batch, 2)
    assert message in str(caught.value) and str(caught.value).startswith("environment 'E' ")


def test_a_narrower_dtype_of_the_same_kind_is_taken():
    encoder = ObservationEncoder(spaces.Box(0, 1, (2,), np.float64), "E")
    np.testing.assert_array_equal(encoder.encode(np.ones((1, 2), np.int8), 1), [[1.0, 1.0]])
