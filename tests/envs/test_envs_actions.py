"""Actions count from 0; masks say which of them are allowed."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from fake_envs import (
    NUM_ACTIONS,
    FaultyEnv,
    ScriptedEnv,
    ScriptedVectorEnv,
    SpaceEnv,
    stepper_of,
)
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from distdqn import errors
from distdqn.config import EnvConfig
from distdqn.envs.make import make_stepper
from distdqn.envs.stepper import VectorStepper
from distdqn.envs.tables import TAXI


def test_actions_count_from_zero_whatever_their_start():
    env = SpaceEnv(spaces.Discrete(4), action_start=5)
    stepper = stepper_of([env])
    stepper.reset(seed=0)
    for action in range(NUM_ACTIONS):
        stepper.step(np.array([action]))
    assert stepper.num_actions == NUM_ACTIONS and env.actions == [5, 6, 7]


class Named(ScriptedEnv):
    def get_action_meanings(self):
        return ["NOOP", "FIRE", "LEFT"]


class Misnamed(ScriptedEnv):
    def get_action_meanings(self):
        return ["NOOP"]


class NamedInMetadata(ScriptedEnv):
    metadata = {**ScriptedEnv.metadata, "action_names": ["stay", "left", "right"]}


class Mirrored(gymnasium.Wrapper):
    """Changes what the actions do, and says how they are called now."""

    def get_action_meanings(self):
        return ["NOOP", "FIRE", "RIGHT"]


@pytest.mark.parametrize(
    ("env", "names"),
    [
        (NamedInMetadata(), ("stay", "left", "right")),
        (gymnasium.wrappers.TimeLimit(NamedInMetadata(), 5), ("stay", "left", "right")),
        (Mirrored(Named()), ("NOOP", "FIRE", "RIGHT")),
        (Named(), ("NOOP", "FIRE", "LEFT")),
        (gymnasium.Wrapper(Named()), ("NOOP", "FIRE", "LEFT")),
        (ScriptedEnv(), ("0", "1", "2")),
        (Misnamed(), ("0", "1", "2")),
        (SpaceEnv(gymnasium.spaces.Box(0, 1, (2,)), action_start=-1), ("-1", "0", "1")),
    ],
)
def test_actions_have_the_envs_names_or_its_numbers(env, names):
    assert stepper_of([env]).action_names == names


def test_an_env_without_masks_has_none():
    stepper = VectorStepper(ScriptedVectorEnv(2), "S")
    stepper.reset()
    step = stepper.step(np.zeros(2, np.int64))
    assert stepper.action_mask is step.action_mask_t is step.next_action_mask is None


def test_a_mask_is_all_true_where_an_env_or_a_step_gives_none():
    envs = [ScriptedEnv(masks=True), ScriptedEnv(masks=False), ScriptedEnv(masks="reset")]
    stepper = stepper_of(envs)
    stepper.reset()
    assert stepper.action_mask[:, 0].tolist() == [False, True, False]
    first, second = (stepper.step(np.ones(3, np.int64)) for _ in range(2))
    assert first.action_mask_t.all()
    assert second.action_mask_t[:, 0].tolist() == [False, True, True]


def test_a_mask_may_be_empty_where_the_episode_has_terminated():
    env = FaultyEnv("empty_mask", at=2, lengths=(2,))
    stepper = stepper_of([env])
    stepper.reset()
    step = [stepper.step(np.array([1])) for _ in range(2)][-1]
    assert step.terminated.all() and step.action_mask_t.all()
    assert step.next_action_mask.tolist() == [[True, True, True]]


def test_a_mask_must_not_be_empty_where_the_episode_was_truncated():
    env = FaultyEnv("empty_mask", at=1, lengths=(1,), ends=("truncated",))
    stepper = stepper_of([env])
    stepper.reset()
    with pytest.raises(errors.EnvFailure, match="allows no action"):
        stepper.step(np.array([1]))


def test_a_mask_given_only_in_step_is_refused():
    stepper = stepper_of([ScriptedEnv(masks="step")])
    stepper.reset()
    with pytest.raises(errors.EnvFailure, match="in step but not in reset"):
        stepper.step(np.array([1]))


def test_a_mask_of_another_length_is_refused():
    env: Any = ScriptedEnv(masks=True)
    env.mask = lambda: np.ones(NUM_ACTIONS + 1)
    stepper = stepper_of([env])
    with pytest.raises(errors.EnvFailure, match="with the shape .3,., gave one of shape .4,"):
        stepper.reset()


def test_final_masks_without_marks_count_only_where_an_episode_ended():
    vector_env: Any = ScriptedVectorEnv(2, AutoresetMode.SAME_STEP, lengths=(1, 2), masks=True)
    marked_step = vector_env.step

    def unmarked_step(actions):
        *result, info = marked_step(actions)
        info["final_info"].pop("_action_mask")  # env 1's row of zeros no longer says it is empty
        return *result, info

    vector_env.step = unmarked_step
    stepper: Any = VectorStepper(vector_env, "S")
    stepper.reset()
    step = stepper.step(np.ones(2, np.int64))
    assert step.terminated.tolist() == [True, False]
    assert step.action_mask_t.tolist() == [[True, True, True], [True, True, True]]
    assert step.next_action_mask[:, 0].tolist() == [True, True]


def test_taxis_masks_arrive_with_their_observations():
    stepper: Any = make_stepper(EnvConfig(TAXI), 3)
    obs = stepper.reset(seed=0)
    taxi: Any = gymnasium.make(TAXI).unwrapped
    for _ in range(20):
        expected = [taxi.action_mask(int(state)) for state in obs]
        np.testing.assert_array_equal(stepper.action_mask, np.array(expected, bool))
        obs = stepper.step(stepper.action_mask.argmax(axis=1)).next_obs
