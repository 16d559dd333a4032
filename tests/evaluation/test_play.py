"""Every env plays its share of greedy episodes, and the accounts are of whole ones."""

import numpy as np
import pytest
from fake_envs import FaultyEnv, ScriptedEnv, ScriptedVectorEnv, rotated
from gymnasium.vector import AutoresetMode
from rollout_parts import FakeStepper
from step_parts import make_step

from distdqn import errors
from distdqn.config import EnvConfig
from distdqn.envs.make import make_stepper
from distdqn.envs.serial import SerialVectorEnv
from distdqn.envs.stepper import VectorStepper
from distdqn.evaluation.play import play_episodes

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
    result = play_episodes(scripted(mode, num_envs), prefer(0, 2, 1), episodes, 0, 100)
    order = [(e % num_envs, e // num_envs) for e in range(episodes)]  # env, its episode
    lengths = [rotated(LENGTHS, env)[k % len(LENGTHS)] for env, k in order]
    returns = [expected_return(k, n, 1) for (_, k), n in zip(order, lengths, strict=True)]
    assert result.lengths.tolist() == lengths and result.returns.tolist() == returns
    assert result.num_cut == 0


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_masked_actions_are_not_chosen(mode):
    # Action 0, the best, is forbidden at even episode + step; action 2 is next.
    result = play_episodes(scripted(mode, 2, masks=True), prefer(5, 1, 2), 4, 0, 100)
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
    result = play_episodes(scripted(mode, 2), prefer(0, 0, 0), 4, 0, 3)
    second = (1, 3)  # env 0's second episode: number and steps made
    if mode == AutoresetMode.SAME_STEP:
        second = (2, 1)  # the one before had begun, unplayed, when all were reset
    assert result.lengths.tolist() == [3, 3, second[1], 1]
    by_hand = [(0, 3), (0, 3), second, (1, 1)]
    assert result.returns.tolist() == [expected_return(*episode, 0) for episode in by_hand]
    assert result.num_cut == 1 + (second[1] == 3)


def test_no_episode_is_lost_when_all_envs_must_be_reset_together():
    lengths_by_env: list[list[int]] = [[], []]
    result = play_episodes(scripted(AutoresetMode.NEXT_STEP, 2), prefer(0, 0, 0), 16, 0, 4)
    for position, length in enumerate(result.lengths):
        lengths_by_env[position % 2].append(int(length))
    for i in range(2):
        # A reset after a wait begins a new episode: each is played from its first step.
        episodes = [min(n, 4) for n in rotated(LENGTHS, i)]
        assert set(lengths_by_env[i]) <= set(episodes) and len(lengths_by_env[i]) == 8
    assert result.num_cut == sum(length == 4 for length in result.lengths)


def test_discounted_returns_are_of_scaled_and_clipped_rewards():
    stepper = scripted("serial", 1, reward_scale=0.1, reward_clip=2.5)
    result = play_episodes(stepper, prefer(7, 0, 0), 1, 0, 100, discount=0.5)
    assert result.returns.tolist() == [10 + 20 + 30]
    assert result.discounted_returns.tolist() == [1 + 0.5 * 2 + 0.25 * 2.5]
    assert result.start_values.tolist() == [7]


def test_the_seed_decides_and_a_stepper_can_be_used_again():
    stepper = make_stepper(EnvConfig("CartPole-v1"), 3)

    def q_values(obs):
        return np.stack([-obs[:, 2], obs[:, 2]], axis=1)  # push to where the pole leans

    first, again, other = (play_episodes(stepper, q_values, 6, seed, 500) for seed in (1, 1, 2))
    assert first.returns.tolist() == again.returns.tolist() != other.returns.tolist()
    assert (first.returns == first.lengths).all()


def test_a_bad_value_ends_the_evaluation():
    stepper = VectorStepper(SerialVectorEnv([ScriptedEnv(), FaultyEnv("nan_reward")], "S"), "S")
    with pytest.raises(errors.EnvFailure, match="a NaN or infinite reward in env 1"):
        play_episodes(stepper, prefer(1, 0, 0), 2, 0, 100)


@pytest.mark.parametrize("episodes, max_episode_steps", [(0, 10), (1, 0)])
def test_an_evaluation_of_nothing_is_refused(episodes, max_episode_steps):
    with pytest.raises(ValueError, match="at least one episode of one step"):
        play_episodes(scripted("serial", 1), prefer(0, 0, 0), episodes, 0, max_episode_steps)


class Firing(FakeStepper):
    """The first step of an episode is no choice of the policy's, and pays 7."""

    fresh = True

    def step(self, actions):
        if not self.fresh:
            step = super().step(actions)
            self.fresh = bool(step.ended.all())
            return step
        self.fresh, self.obs = False, self.observe()
        no = np.zeros(self.num_envs, bool)
        seven = np.full(self.num_envs, 7.0)
        return make_step(
            self.obs, r_t=seven.astype(np.float32), raw_reward=seven, valid=no, starts=~no
        )


def newest_number(obs):
    """The value of action 1 is the newest frame's number."""
    return obs.reshape(len(obs), -1)[:, -1:] * np.array([0, 1, 0], np.float32)


def test_a_game_counts_whole_and_its_values_promise_one_life():
    stepper = FakeStepper(2, length=5, life=2)
    result = play_episodes(stepper, newest_number, 2, 0, 100, discount=0.5)
    assert result.returns.tolist() == [5, 5] and result.lengths.tolist() == [5, 5]
    assert result.discounted_returns.tolist() == [1 + 0.5] * 2
    again = play_episodes(stepper, newest_number, 4, 0, 100, discount=0.5)
    assert again.discounted_returns.tolist() == [1 + 0.5] * 4  # the next game has a life too


def test_a_fire_at_the_start_counts_in_the_return_alone():
    result = play_episodes(Firing(1, length=3), newest_number, 2, 0, 100, discount=0.5)
    assert result.returns.tolist() == [7 + 3] * 2 and result.lengths.tolist() == [3, 3]
    assert result.discounted_returns.tolist() == [1 + 0.5 + 0.25] * 2
    # 1 is the reset, 2 what FIRE led to, 3 4 5 the game; 6 and 7 the next start.
    assert result.start_values.tolist() == [2, 7]


def test_the_policy_sees_stacks_that_begin_with_an_episode_and_after_a_cut():
    seen = []

    def q_values(obs):
        seen.append(obs[0, :, 1].tolist())
        return newest_number(obs)

    play_episodes(FakeStepper(1, length=2, stack=3), q_values, 2, 0, 100)
    assert seen == [[0, 0, 1], [0, 1, 2], [0, 0, 4], [0, 4, 5]]
    seen.clear()
    result = play_episodes(FakeStepper(1, stack=3), q_values, 2, 0, 2)
    assert seen == [[0, 0, 1], [0, 1, 2], [0, 0, 4], [0, 4, 5]] and result.num_cut == 2


def test_with_epsilon_a_share_of_the_actions_is_random():
    # Three actions: an action is other than the best with probability epsilon 2 / 3.
    actions = []

    class Noting(FakeStepper):
        def step(self, chosen):
            actions.extend(chosen.tolist())
            return super().step(chosen)

    play_episodes(Noting(8, length=50), prefer(0, 1, 0), 64, 3, 100, epsilon=0.3)
    others = sum(action != 1 for action in actions) / len(actions)
    assert others == pytest.approx(0.3 * 2 / 3, abs=0.03)  # 3 standard deviations at 3,200
