"""Every env plays its share of greedy episodes; a video shows one of them."""

import functools
from typing import Any

import imageio.v2
import numpy as np
import pytest
from fake_envs import (
    NUM_ACTIONS,
    FaultyEnv,
    ScriptedEnv,
    ScriptedVectorEnv,
    make_scripted,
    rotated,
)
from gymnasium.vector import AutoresetMode

from distdqn import errors
from distdqn.envs import EnvSettings, VectorStepper, make_stepper
from distdqn.envs.serial import SerialVectorEnv
from distdqn.evaluate import evaluate
from distdqn.video import record_video

LENGTHS = (3, 5, 1, 2)
MODES = ["serial", *AutoresetMode]


def prefer(*values):
    """Action values that are the same everywhere."""
    return lambda obs: np.tile(np.array(values, np.float32), (len(obs), 1))


def scripted(mode, num_envs, masks=False, **kwargs):
    if mode != "serial":
        native = ScriptedVectorEnv(num_envs, mode, LENGTHS, masks=masks)
        return VectorStepper(native, "S", **kwargs)
    envs = [ScriptedEnv(rotated(LENGTHS, i), masks=masks) for i in range(num_envs)]
    return VectorStepper(SerialVectorEnv(envs, "S"), "S", **kwargs)


def expected_return(episode, length, action):
    return sum(100 * episode + 10 * time + action for time in range(1, length + 1))


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("num_envs, episodes", [(1, 5), (3, 7), (3, 3), (4, 2)])
def test_every_env_plays_its_share_in_order(mode, num_envs, episodes):
    result = evaluate(scripted(mode, num_envs), prefer(0, 2, 1), episodes, 0, 100)
    order = [(e % num_envs, e // num_envs) for e in range(episodes)]  # env, its episode
    lengths = [rotated(LENGTHS, env)[k % len(LENGTHS)] for env, k in order]
    returns = [expected_return(k, n, 1) for (_, k), n in zip(order, lengths, strict=True)]
    assert result.lengths.tolist() == lengths and result.returns.tolist() == returns
    assert result.num_cut == 0


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_masked_actions_are_not_chosen(mode):
    # Action 0, the best, is forbidden at even episode + step; action 2 is next.
    result = evaluate(scripted(mode, 2, masks=True), prefer(5, 1, 2), 4, 0, 100)
    by_hand = []
    for env, episode in [(0, 0), (1, 0), (0, 1), (1, 1)]:
        length = rotated(LENGTHS, env)[episode]
        actions = [0 if (episode + time) % 2 else 2 for time in range(length)]
        by_hand.append(expected_return(episode, length, 0) + sum(actions))
    assert result.returns.tolist() == by_hand
    assert result.start_values.tolist() == [2, 2, 5, 5]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_an_episode_at_the_limit_is_cut_and_counts_as_far_as_it_got(mode):
    # The envs' lengths are 3, 5, 1, 2 and 5, 1, 2, 3; cut at 3.
    result = evaluate(scripted(mode, 2), prefer(0, 0, 0), 4, 0, 3)
    second = (1, 3)  # env 0's second episode: number and steps made
    if mode == AutoresetMode.SAME_STEP:
        second = (2, 1)  # the one before had begun, unplayed, when all were reset
    assert result.lengths.tolist() == [3, 3, second[1], 1]
    by_hand = [(0, 3), (0, 3), second, (1, 1)]
    assert result.returns.tolist() == [expected_return(*episode, 0) for episode in by_hand]
    assert result.num_cut == 1 + (second[1] == 3)


def test_no_episode_is_lost_when_all_envs_must_be_reset_together():
    lengths_by_env: list[list[int]] = [[], []]
    result = evaluate(scripted(AutoresetMode.NEXT_STEP, 2), prefer(0, 0, 0), 16, 0, 4)
    for position, length in enumerate(result.lengths):
        lengths_by_env[position % 2].append(int(length))
    for i in range(2):
        # A reset after a wait begins a new episode: each is played from its first step.
        episodes = [min(n, 4) for n in rotated(LENGTHS, i)]
        assert set(lengths_by_env[i]) <= set(episodes) and len(lengths_by_env[i]) == 8
    assert result.num_cut == sum(length == 4 for length in result.lengths)


def test_discounted_returns_are_of_scaled_and_clipped_rewards():
    stepper = scripted("serial", 1, reward_scale=0.1, reward_clip=2.5)
    result = evaluate(stepper, prefer(7, 0, 0), 1, 0, 100, discount=0.5)
    assert result.returns.tolist() == [10 + 20 + 30]
    assert result.discounted_returns.tolist() == [1 + 0.5 * 2 + 0.25 * 2.5]
    assert result.start_values.tolist() == [7]


def test_the_seed_decides_and_a_stepper_can_be_used_again():
    stepper = make_stepper(EnvSettings("CartPole-v1"), 3)

    def q_values(obs):
        return np.stack([-obs[:, 2], obs[:, 2]], axis=1)  # push to where the pole leans

    first, again, other = (evaluate(stepper, q_values, 6, seed, 500) for seed in (1, 1, 2))
    assert first.returns.tolist() == again.returns.tolist() != other.returns.tolist()
    assert (first.returns == first.lengths).all()


def test_a_bad_value_ends_the_evaluation():
    stepper = VectorStepper(SerialVectorEnv([ScriptedEnv(), FaultyEnv("nan_reward")], "S"), "S")
    with pytest.raises(errors.EnvFailure, match="a NaN or infinite reward in env 1"):
        evaluate(stepper, prefer(1, 0, 0), 2, 0, 100)


@pytest.mark.parametrize("episodes, max_episode_steps", [(0, 10), (1, 0)])
def test_an_evaluation_of_nothing_is_refused(episodes, max_episode_steps):
    with pytest.raises(ValueError, match="at least one episode of one step"):
        evaluate(scripted("serial", 1), prefer(0, 0, 0), episodes, 0, max_episode_steps)


class TestVideo:
    def recorder(self, **kwargs):
        make_env = functools.partial(make_scripted, render_mode="rgb_array", **kwargs)
        return lambda: make_stepper(EnvSettings(""), 1, make_env, render_mode="rgb_array")

    def test_has_a_frame_for_each_observation_acted_on(self, tmp_path):
        path = tmp_path / "videos" / "episode.mp4"
        recorded = record_video(self.recorder(lengths=(5,)), prefer(0, 1, 0), path, 0, 100)
        assert recorded.path == path and recorded.length == 5 and recorded.ended
        assert recorded.episode_return == expected_return(0, 5, 1)
        reader: Any = imageio.v2.get_reader(path)
        frames = [np.asarray(frame) for frame in reader]
        assert reader.get_meta_data()["fps"] == 7
        shades = [round(float(frame.mean()) / 40) for frame in frames]
        assert shades == [0, 1, 2, 3, 4] and frames[0].shape == (32, 48, 3)
        assert list(path.parent.iterdir()) == [path]

    def test_stops_at_the_limit(self, tmp_path):
        make = self.recorder(lengths=(50,))
        recorded = record_video(make, prefer(0, 1, 0), tmp_path / "v.mp4", 0, 3)
        assert recorded.length == 3 and not recorded.ended

    def test_leaves_no_file_behind_when_it_fails(self, tmp_path):
        def q_values(obs):
            raise RuntimeError("no network")

        with pytest.raises(RuntimeError, match="no network"):
            record_video(self.recorder(), q_values, tmp_path / "v.mp4", 0, 9)
        assert list(tmp_path.iterdir()) == []

    def test_of_an_env_without_pictures_is_refused_in_one_line(self, tmp_path):
        def make():
            return make_stepper(EnvSettings(""), 1, make_scripted, render_mode="rgb_array")

        with pytest.raises(errors.EnvError) as caught:
            record_video(make, prefer(*range(NUM_ACTIONS)), tmp_path / "v.mp4", 0, 9)
        assert "cannot be rendered" in str(caught.value) and "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []
