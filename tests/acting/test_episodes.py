"""Returns are raw, lengths count transitions, broken episodes are not reported."""

import numpy as np
from fake_envs import FaultyEnv, ScriptedEnv, ScriptedVectorEnv

from distdqn.acting.rollout import Episode, EpisodeTracker
from distdqn.envs.serial import SerialVectorEnv
from distdqn.envs.stepper import VectorStepper


def play(vector_env, num_steps):
    stepper = VectorStepper(vector_env, "S", reward_scale=0.01, reward_clip=0.05)
    tracker, episodes = EpisodeTracker(stepper.num_envs), []
    stepper.reset()
    for _ in range(num_steps):
        episodes += tracker.update(stepper.step(np.ones(stepper.num_envs, np.int64)))
    return episodes


def test_episodes_count_raw_rewards_and_transitions_only():
    # Rewards: 100 episode + 10 step + action 1; the resets of NEXT_STEP count for nothing.
    expected = [
        Episode(env=0, episode_return=11 + 21, length=2, truncated=False),
        Episode(env=0, episode_return=111.0, length=1, truncated=True),
        Episode(env=0, episode_return=211 + 221, length=2, truncated=False),
    ]
    lengths, ends = (2, 1), ("terminated", "truncated")
    assert play(ScriptedVectorEnv(1, lengths=lengths, ends=ends), 7) == expected
    assert play(SerialVectorEnv([ScriptedEnv(lengths, ends)], "S"), 5) == expected


def test_envs_end_on_their_own():
    envs = [ScriptedEnv(lengths=(3,)), ScriptedEnv(lengths=(2,))]
    ends = [(episode.env, episode.length) for episode in play(SerialVectorEnv(envs, "S"), 6)]
    assert ends == [(1, 2), (0, 3), (1, 2), (0, 3), (1, 2)]


def test_an_episode_with_a_bad_value_is_not_reported():
    for fault in ("nan_reward", "inf_reward", "nan_obs"):
        env = FaultyEnv(fault, at=2, lengths=(3,))
        episodes = play(SerialVectorEnv([env], "S"), 6)
        assert [e.episode_return for e in episodes] == [111 + 121 + 131]  # the second alone


def test_a_dropped_episode_is_forgotten():
    stepper = VectorStepper(SerialVectorEnv([ScriptedEnv(lengths=(4,))], "S"), "S")
    tracker = EpisodeTracker(1)
    stepper.reset()
    for _ in range(3):
        assert tracker.update(stepper.step(np.array([0]))) == []
    stepper.reset_envs(np.array([True]))
    tracker.drop(np.array([True]))
    episodes = [e for _ in range(4) for e in tracker.update(stepper.step(np.array([0])))]
    assert episodes == [Episode(0, 110.0 + 120 + 130 + 140, 4, truncated=True)]
