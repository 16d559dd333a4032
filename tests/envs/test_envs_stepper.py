"""The stream of transitions is the single env's, whatever the vector env does."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from fake_envs import (
    ScriptedEnv,
    ScriptedVectorEnv,
    rotated,
    stepper_of,
)
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.config import EnvConfig
from distdqn.envs.make import make_stepper
from distdqn.envs.serial import SerialVectorEnv
from distdqn.envs.stepper import VectorStepper

NUM_ENVS = 4
LENGTHS, ENDS = (3, 5, 1, 2), ("terminated", "truncated", "truncated")


def serial(masks=False, lengths=LENGTHS, ends=ENDS):
    envs = [ScriptedEnv(rotated(lengths, i), ends, masks) for i in range(NUM_ENVS)]
    return SerialVectorEnv(envs, "Scripted")


def native(mode, final="objects"):
    def make(masks=False, lengths=LENGTHS, ends=ENDS):
        return ScriptedVectorEnv(NUM_ENVS, mode, lengths, ends, masks, final)

    return make


def sync(mode):
    def make(masks=False, lengths=LENGTHS, ends=ENDS):
        def env(i):
            return lambda: ScriptedEnv(rotated(lengths, i), ends, masks, awkward=False)

        return SyncVectorEnv([env(i) for i in range(NUM_ENVS)], autoreset_mode=mode)

    return make


VECTOR_ENVS = {
    "serial": serial,
    "native disabled": native(AutoresetMode.DISABLED),
    "native next step": native(AutoresetMode.NEXT_STEP),
    "native same step": native(AutoresetMode.SAME_STEP),
    "native same step, batched": native(AutoresetMode.SAME_STEP, "batched"),
    "sync disabled": sync(AutoresetMode.DISABLED),
    "sync next step": sync(AutoresetMode.NEXT_STEP),
    "sync same step": sync(AutoresetMode.SAME_STEP),
}
every_vector_env = pytest.mark.parametrize("make", VECTOR_ENVS.values(), ids=VECTOR_ENVS.keys())


def policy(obs):
    """An action that depends on the observation, so that a wrong source shows; never 0."""
    return 1 + (obs @ np.array([2, 3, 1])).astype(np.int64) % 2


def as_list(mask):
    return None if mask is None else np.asarray(mask, bool).tolist()


def single_env_stream(env, num_steps):
    """Transitions of one env, from the plainest loop."""
    stream = []
    obs, info = env.reset()
    obs, mask = obs.copy(), info.get("action_mask")
    for _ in range(num_steps):
        action = int(policy(obs[None])[0])
        arrived, reward, terminated, truncated, info = env.step(action)
        arrived, mask_t = arrived.copy(), info.get("action_mask")
        numbers = (action, reward, terminated, truncated)
        stream.append((obs.tolist(), as_list(mask), *numbers, arrived.tolist(), as_list(mask_t)))
        obs, mask = arrived, mask_t
        if terminated or truncated:
            obs, info = env.reset()
            obs, mask = obs.copy(), info.get("action_mask")
    return stream


def stepper_streams(stepper, num_steps):
    """Transitions of each env of a stepper, `num_steps` of each."""
    streams: list[list[Any]] = [[] for _ in range(stepper.num_envs)]
    obs, mask = stepper.reset(seed=0), stepper.action_mask
    while min(map(len, streams)) < num_steps:
        actions = policy(obs)
        step = stepper.step(actions)
        for i in np.flatnonzero(step.valid):
            numbers = (actions[i], step.raw_reward[i], step.terminated[i], step.truncated[i])
            source = (obs[i].tolist(), None if mask is None else as_list(mask[i]))
            mask_t = None if step.action_mask_t is None else as_list(step.action_mask_t[i])
            streams[i].append((*source, *numbers, step.obs_t[i].tolist(), mask_t))
        obs, mask = step.next_obs, step.next_action_mask
        assert mask is stepper.action_mask
    return [stream[:num_steps] for stream in streams]


@every_vector_env
@pytest.mark.parametrize("masks", [False, True])
def test_the_stream_is_that_of_single_envs(make, masks):
    streams = stepper_streams(VectorStepper(make(masks), "Scripted"), 30)
    for i, stream in enumerate(streams):
        env = ScriptedEnv(rotated(LENGTHS, i), ENDS, masks)
        assert stream == single_env_stream(env, 30)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    ends=st.lists(st.sampled_from(["terminated", "truncated"]), min_size=1, max_size=3).map(tuple),
    name=st.sampled_from(sorted(VECTOR_ENVS)),
)
def test_any_pattern_of_ends_gives_the_stream_of_single_envs(lengths, ends, name):
    stepper = VectorStepper(VECTOR_ENVS[name](True, lengths, ends), "Scripted")
    for i, stream in enumerate(stepper_streams(stepper, 12)):
        assert stream == single_env_stream(ScriptedEnv(rotated(lengths, i), ends, True), 12)


def test_real_envs_in_series_step_as_single_envs():
    stepper = make_stepper(EnvConfig("CartPole-v1"), 2, lambda: gymnasium.make("CartPole-v1"))
    obs, stream = stepper.reset(seed=[5, 9]), []
    for _ in range(60):
        step = stepper.step((obs[:, 2] > 0).astype(np.int64))
        stream.append((obs[1].tolist(), step.obs_t[1].tolist(), step.terminated[1]))
        obs = step.next_obs
    env = gymnasium.make("CartPole-v1")
    obs = env.reset(seed=9)[0]
    for source, arrival, terminated in stream:
        assert source == obs.tolist()
        obs, _, ended, _, _ = env.step(int(obs[2] > 0))
        assert arrival == obs.tolist() and terminated == ended
        if ended:
            obs = env.reset()[0]


@every_vector_env
def test_a_step_that_only_resets_is_not_valid_and_rewards_nothing(make):
    vector_env = make()
    stepper = VectorStepper(vector_env, "Scripted")
    resets_later = vector_env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    obs, ended_before = stepper.reset(seed=0), np.zeros(NUM_ENVS, bool)
    for _ in range(20):
        step = stepper.step(policy(obs))
        waits = ended_before & resets_later
        np.testing.assert_array_equal(step.valid, ~waits)
        assert not step.raw_reward[waits].any() and not step.r_t[waits].any()
        ended_before = step.terminated | step.truncated
        restarted = ended_before & (not resets_later)
        np.testing.assert_array_equal((step.next_obs != step.obs_t).any(axis=1), restarted)
        obs = step.next_obs


def test_cartpoles_own_vector_env_is_cut_at_the_registered_limit_with_its_final_observation():
    stepper = make_stepper(EnvConfig("CartPole-v1", {"max_episode_steps": 4}), 2)
    stepper.reset(seed=1)
    for time in range(1, 5):
        step = stepper.step(np.array([time % 2, 1 - time % 2]))
        assert step.truncated.tolist() == [time == 4] * 2 and not step.terminated.any()
    after = stepper.step(np.zeros(2, np.int64))
    assert not after.valid.any()
    assert np.abs(after.obs_t).max() <= 0.05 < np.abs(step.obs_t).max()


def test_one_seed_gives_each_env_another_and_the_same_ones_again():
    def seeds(seed):
        envs = [ScriptedEnv() for _ in range(3)]
        stepper_of(envs).reset(seed=seed)
        return [env.seeds[0] for env in envs]

    assert len(set(seeds(7) + seeds(8))) == 6 and seeds(7) == seeds(7)
    assert seeds([4, 5, 6]) == [4, 5, 6] and seeds(None) == [None] * 3


def test_a_native_vector_env_gets_one_seed():
    vector_env = ScriptedVectorEnv(2)
    stepper = VectorStepper(vector_env, "Scripted")
    stepper.reset(seed=7)
    stepper.reset(seed=[4, 5])
    stepper.reset()
    first, second, third = vector_env.seeds
    assert isinstance(first, int) and isinstance(second, int) and first != second
    assert third is None


@every_vector_env
def test_reset_envs_resets_those_asked_for_or_all(make):
    stepper: Any = VectorStepper(make(masks=True), "Scripted")
    before = stepper.step(policy(stepper.reset(seed=0))).next_obs.copy()
    asked = np.array([True, False, False, False])
    obs, reset_mask = stepper.reset_envs(asked)
    expected = asked if stepper.resets_singly else np.ones(NUM_ENVS, bool)
    np.testing.assert_array_equal(reset_mask, expected)
    assert (obs[reset_mask, 1] == 0).all()  # the step within the episode
    np.testing.assert_array_equal(obs[~reset_mask], before[~reset_mask])
    even = (obs[:, 0] + obs[:, 1]) % 2 == 0
    np.testing.assert_array_equal(stepper.action_mask[:, 0], ~even)
    step = stepper.step(policy(obs))
    assert step.valid.all() and (step.obs_t[reset_mask, 1] == 1).all()


def test_reset_envs_of_nothing_changes_nothing():
    stepper = VectorStepper(ScriptedVectorEnv(2), "Scripted")
    obs = stepper.reset(seed=0)
    again, reset_mask = stepper.reset_envs(np.zeros(2, bool))
    assert again is obs and not reset_mask.any()


@pytest.mark.parametrize("clip, expected", [(None, [5.5, 6.0]), (5.75, [5.5, 5.75])])
def test_rewards_are_scaled_then_clipped(clip, expected):
    envs = [ScriptedEnv(), ScriptedEnv()]
    stepper = stepper_of(envs, reward_scale=0.5, reward_clip=clip)
    stepper.reset()
    step = stepper.step(np.array([1, 2]))
    assert step.r_t.dtype == np.float32 and step.r_t.tolist() == expected
    assert step.raw_reward.tolist() == [11.0, 12.0]
