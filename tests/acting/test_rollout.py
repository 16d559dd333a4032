"""Rollout over a scripted stepper: blocks, allowances, bad steps, priorities, seeds.

Observations are `[env, number]`; the numbers count up with every observation.
"""

from __future__ import annotations

import dataclasses
import math
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rollout_parts import FakeStepper, Linear, make_rollout, rows, snapshot

from distdqn.envs.stepper import VectorStepper
from distdqn.errors import EnvFailure
from distdqn.types import BEFORE_ANY

FOREVER = math.inf


def test_a_block_is_sealed_when_enough_steps_are_complete():
    rollout = make_rollout(FakeStepper(2), block_transitions=4)
    block = rollout.collect(100, FOREVER)
    assert rows(block) == [
        (0, 1, 2, 1, 0.5),
        (1, 1, 2, 1, 0.5),
        (0, 2, 3, 1, 0.5),
        (1, 2, 3, 1, 0.5),
    ]
    assert (block.worker, block.incarnation, block.sequence) == (3, 2, 0)
    assert (block.collected, block.refused, block.weights_version) == (4, 0, BEFORE_ANY)
    assert block.priorities is None
    assert rollout.collect(100, FOREVER).sequence == 1
    assert (rollout.stepped, rollout.collected) == (8, 8)


def test_open_windows_do_not_count_towards_a_block():
    rollout = make_rollout(FakeStepper(2), n_step=3, block_transitions=4)
    for _ in range(2):
        assert rollout.collect(100, FOREVER).num_transitions == 4
    assert (rollout.stepped, rollout.collected) == (12, 8)
    assert rollout.flush().num_transitions == 4
    assert rollout.flush() is None
    assert (rollout.stepped, rollout.collected) == (12, 12)


def test_surplus_steps_are_dropped_and_close_the_window_before_them():
    stepper = FakeStepper(2)
    rollout = make_rollout(stepper, n_step=2, block_transitions=3)
    assert rollout.collect(3, FOREVER) is None
    assert (rollout.stepped, stepper.steps) == (3, 2)
    block = rollout.collect(3, FOREVER)
    # Env 1: step 1 closes after one step with gamma, step 2 is dropped, step 3 starts at 3.
    assert rows(block) == [(0, 1, 3, 1.5, 0.25), (1, 1, 2, 1, 0.5), (0, 2, 4, 1.5, 0.25)]
    assert sorted(rows(rollout.flush())) == [(0, 3, 4, 1, 0.5), (1, 3, 4, 1, 0.5)]
    assert (rollout.stepped, rollout.collected) == (5, 5)


@pytest.mark.parametrize("style", ["within", "next step"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_the_allowance_is_exact_and_every_step_becomes_one_transition(style, n_step):
    rollout = make_rollout(FakeStepper(4, 5, style), n_step=n_step, block_transitions=7)
    rng, allowed, sources = np.random.default_rng(0), 0, []
    while allowed < 300:
        allowance = int(rng.integers(0, 12))
        allowed += allowance
        while rollout.stepped < allowed:
            if block := rollout.collect(allowed - rollout.stepped, FOREVER):
                sources += [row[:2] for row in rows(block)]
        assert rollout.stepped == allowed
    sources += [row[:2] for row in rows(rollout.flush())]
    assert rollout.collected == len(sources) == len(set(sources)) == allowed


def test_an_allowance_of_zero_and_a_time_gone_by_take_no_step():
    stepper = FakeStepper(2)
    rollout = make_rollout(stepper)
    assert rollout.collect(0, FOREVER) is None
    assert rollout.collect(100, time.monotonic()) is None
    assert stepper.steps == 0


def test_an_old_block_goes_before_it_is_full_once_a_window_has_closed(monkeypatch):
    clock = [100.0]

    def now():
        clock[0] += 0.001
        return clock[0]

    monkeypatch.setattr("distdqn.acting.rollout.time.monotonic", now)
    stepper = FakeStepper(2)
    rollout = make_rollout(stepper, n_step=3, block_transitions=100, max_block_age_s=0.0)
    assert rollout.collect(100, FOREVER).num_transitions == 2
    assert stepper.steps == 3
    rollout = make_rollout(FakeStepper(2), block_transitions=100, max_block_age_s=0.05)
    assert rollout.collect(2, FOREVER) is None
    clock[0] += 0.06
    assert rollout.collect(0, FOREVER).num_transitions == 2


def test_autoreset_steps_are_not_counted():
    stepper = FakeStepper(2, length=2, style="next step")
    rollout = make_rollout(stepper, block_transitions=6)
    block = rollout.collect(100, FOREVER)
    assert [row[1:3] for row in rows(block)[::2]] == [(1, 2), (2, 3), (4, 5)]
    assert block.discount_t.tolist() == [0.5, 0.5, 0, 0, 0.5, 0.5]
    assert (rollout.stepped, stepper.steps) == (6, 4)


def blocks_of(seed, worker, incarnation, num_blocks=6):
    stepper = FakeStepper(4, length=7)
    identity = {"seed": seed, "worker": worker, "incarnation": incarnation}
    rollout = make_rollout(stepper, epsilon=0.5, n_step=3, block_transitions=200, **identity)
    blocks = [rollout.collect(10**6, FOREVER) for _ in range(num_blocks)]
    return stepper.seed, blocks


def test_the_same_seed_gives_the_same_blocks():
    (seed, blocks), (other_seed, others) = blocks_of(1, 2, 3), blocks_of(1, 2, 3)
    assert seed == other_seed
    for block, other in zip(blocks, others, strict=True):
        for name in ("frames", "tm1", "t", "a_tm1", "r_t", "discount_t"):
            np.testing.assert_array_equal(getattr(block, name), getattr(other, name))


@pytest.mark.parametrize("identity", [(0, 2, 3), (1, 0, 3), (1, 2, 4)])
def test_another_seed_worker_or_incarnation_acts_differently(identity):
    (seed, blocks), (other_seed, others) = blocks_of(1, 2, 3), blocks_of(*identity)
    assert seed != other_seed
    actions = [np.concatenate([block.a_tm1 for block in b]) for b in (blocks, others)]
    assert (actions[0] != actions[1]).mean() > 0.1


def test_the_initial_parameters_act_until_weights_come():
    stepper = FakeStepper(2)
    rollout = make_rollout(stepper, Linear([0.0, 0.0, 1.0]))
    rollout.collect(2, FOREVER)
    rollout.set_weights(snapshot([1.0, 0.0, 0.0]))
    rollout.collect(2, FOREVER)
    assert stepper.actions == [[2, 2], [0, 0]]


def test_weights_are_copied_and_a_read_only_vector_will_do():
    stepper = FakeStepper(1)
    rollout = make_rollout(stepper)
    weights = snapshot([1.0, 0.0, 0.0])
    rollout.set_weights(weights)
    weights.online[:] = [0.0, 0.0, 1.0]
    rollout.collect(1, FOREVER)
    weights.online.setflags(write=False)
    rollout.set_weights(weights)
    rollout.collect(1, FOREVER)
    assert stepper.actions == [[0], [2]]


def test_weights_of_another_network_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"3 parameters here, got \[2\]"):
        make_rollout(FakeStepper(1)).set_weights(snapshot([1.0, 0.0]))


def test_a_block_names_the_weights_of_its_first_action():
    rollout = make_rollout(FakeStepper(1), n_step=2, block_transitions=2)
    versions = []
    for counter in range(1, 8):
        rollout.set_weights(snapshot([1.0, 0.0, 0.0], counter))
        if block := rollout.collect(1, FOREVER):
            versions.append(block.weights_version.counter)
    # Steps 1 and 2 are complete with step 3, steps 3 and 4 with step 5, and so on.
    assert versions == [1, 3, 5]


def test_masked_actions_are_never_taken_and_masks_are_in_the_block():
    stepper = FakeStepper(2, mask=[True, False, True])
    rollout = make_rollout(stepper, Linear([0.5, 1.0, 0.0]), epsilon=0.5)
    block = rollout.collect(100, FOREVER)
    rollout.collect(100, FOREVER)
    assert 1 not in np.ravel(stepper.actions)
    assert block.action_mask.tolist() == [[True, False, True]] * len(block.frames)


# Online w = (0, 1, 2), target w = (3, 0, -1), obs 1 -> 2 -> 3 -> 4, greedy action 2:
# q(s, 2) = 2s; q_target(s') = (3s', 0, -s').
@pytest.mark.parametrize(
    ("double", "mask", "expected"),
    [
        # |1 + 0.5 * 3 s' - 2 s| with s' = s + 1
        (False, None, [1 + 3 - 2, 1 + 4.5 - 4, 1 + 6 - 6]),
        # the online network prefers action 2, worth -s' to the target
        (True, None, [-(1 - 1 - 2), -(1 - 1.5 - 4), -(1 - 2 - 6)]),
        # without action 0 the target's best is 0
        (False, [False, True, True], [-(1 - 2), -(1 - 4), -(1 - 6)]),
    ],
)
def test_priorities_are_the_td_errors_of_online_and_target_weights(double, mask, expected):
    rollout = make_rollout(
        FakeStepper(1, mask=mask), block_transitions=3, with_priorities=True, double=double
    )
    rollout.set_weights(snapshot([0.0, 1.0, 2.0], target=[3.0, 0.0, -1.0]))
    rollout.set_weights(snapshot([0.0, 1.0, 2.0], counter=2))  # the target stays
    block = rollout.collect(100, FOREVER)
    assert block.a_tm1.tolist() == [2, 2, 2]
    assert block.priorities.dtype == np.float32
    np.testing.assert_allclose(block.priorities, expected, rtol=1e-6)


def test_without_a_target_the_online_weights_stand_in():
    network = Linear([0.0, 1.0, 2.0])
    rollout = make_rollout(FakeStepper(1, length=2), network, with_priorities=True)
    block = rollout.collect(100, FOREVER)
    # |1 + 0.5 * 4 - 2| and at the end |1 - 4|; |1 + 0.5 * 10 - 8| and |1 - 10|
    np.testing.assert_allclose(block.priorities, [1, 3, 2, 9])


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_transitions_that_touch_a_bad_step_are_refused_and_the_env_is_reset(what):
    stepper = FakeStepper(2, bad={(1, 3): what})
    rollout = make_rollout(stepper, n_step=2, block_transitions=8)
    block = rollout.collect(100, FOREVER)
    assert stepper.resets == [[False, True]]
    assert np.isfinite(block.frames).all()
    assert np.isfinite(block.r_t).all()
    # Number 4 is the bad arrival of step 3, number 5 the observation after the reset.
    assert [row[1] for row in rows(block) if row[0] == 1] == [1, 5]
    assert block.refused == rollout.refused == 2
    assert block.collected == rollout.collected == block.num_transitions + 2
    report = rollout.report()
    assert report.refused_by == {f"{what} not finite": 2}
    value = "the reward nan" if what == "reward" else "an observation with nan at [0]"
    assert report.note.startswith(f"environment 1 of worker 3 gave {value} in its step 3: ")
    rollout.flush()
    assert rollout.collected == rollout.stepped


def test_envs_reset_with_a_bad_one_bootstrap_from_where_they_were():
    stepper = FakeStepper(2, style="together", bad={(1, 2): "reward"})
    rollout = make_rollout(stepper, n_step=3, block_transitions=2)
    assert rows(rollout.collect(100, FOREVER)) == [(0, 1, 3, 1.5, 0.25), (0, 2, 3, 1, 0.5)]
    assert rollout.refused == 2
    assert rows(rollout.flush())[0][:2] == (0, 4)


def test_a_block_of_nothing_but_refused_transitions_is_not_sent_but_counted():
    rollout = make_rollout(FakeStepper(1, bad={(0, 1): "reward"}), max_block_age_s=0.0)
    block = rollout.collect(100, FOREVER)
    assert (block.sequence, block.num_transitions) == (0, 1)
    assert (block.collected, block.refused) == (2, 1)


def test_a_dropped_step_that_is_bad_resets_its_env_and_counts_nowhere():
    stepper = FakeStepper(2, bad={(1, 2): "observation"})
    rollout = make_rollout(stepper, block_transitions=3)
    rollout.collect(3, FOREVER)
    assert stepper.resets == [[False, True]]
    rollout.flush()
    assert (rollout.stepped, rollout.collected, rollout.refused) == (3, 3, 0)


def test_a_second_bad_step_within_a_thousand_is_a_failure_that_says_where():
    stepper = FakeStepper(2, bad={(1, 5): "reward", (0, 9): "reward", (1, 1005): "observation"})
    rollout = make_rollout(stepper, block_transitions=10**6)
    line = r"environment 1 of worker 3 gave a NaN or infinite observation in its step 1005, .*5\)"
    with pytest.raises(EnvFailure, match=line):
        rollout.collect(10**6, FOREVER)


def test_bad_steps_further_apart_only_reset():
    stepper = FakeStepper(1, bad={(0, 5): "reward", (0, 1006): "reward"})
    rollout = make_rollout(stepper, block_transitions=1100)
    assert rollout.collect(1200, FOREVER).refused == 2


def test_epsilons_are_asked_once_per_change_of_the_clock():
    asked = []

    def epsilons(env_steps):
        asked.append(env_steps)
        return np.array([0.0, 1.0])

    rollout = make_rollout(FakeStepper(2), epsilons=epsilons)
    rollout.collect(20, FOREVER)
    rollout.set_clock(100)
    rollout.set_weights(snapshot([1.0, 0.0, 0.0], env_steps=90))  # overtaken on its way
    rollout.set_weights(snapshot([1.0, 0.0, 0.0], env_steps=100))
    rollout.collect(20, FOREVER)
    assert asked == [0, 100]
    assert rollout.report().epsilon == 0.5


def test_episodes_are_given_once_and_broken_ones_never():
    stepper = FakeStepper(2, length=3, style="together", bad={(1, 2): "reward"})
    rollout = make_rollout(stepper, block_transitions=100)
    rollout.collect(2 * 5, FOREVER)
    episodes = rollout.drain_episodes()
    assert [(e.env, e.episode_return, e.length) for e in episodes] == [(0, 3.0, 3), (1, 3.0, 3)]
    assert rollout.drain_episodes() == []


class Paying(FakeStepper):
    """Rewards of the vector steps in turn; 50 in a step that is no transition."""

    def __init__(self, rewards, num_envs=1, **options):
        super().__init__(num_envs, **options)
        self.rewards = rewards

    def step(self, actions):
        step = super().step(actions)
        reward = self.rewards[self.steps - 1]
        r_t = np.where(step.valid, np.where(step.bad, step.r_t, reward), 50.0)
        return dataclasses.replace(step, r_t=r_t.astype(np.float32))


def test_the_largest_reward_counts_without_its_sign_and_only_in_transitions():
    rollout = make_rollout(Paying([1, -3, 2, 1, 1], length=2, style="next step"))
    seen = []
    for _ in range(4):
        rollout.collect(1, FOREVER)
        seen.append(rollout.reward_abs_max)
    assert seen == [1, 3, 3, 3]


def test_a_reward_that_is_not_finite_or_surplus_is_not_the_largest():
    rollout = make_rollout(Paying([1, 2], num_envs=2, bad={(0, 1): "reward"}))
    rollout.collect(2, FOREVER)
    assert rollout.reward_abs_max == 1
    rollout = make_rollout(Paying([1, 2], num_envs=2, bad={(0, 2): "reward"}))
    rollout.collect(3, FOREVER)  # of the second step only the bad env's is kept
    assert rollout.reward_abs_max == 1


def test_times_are_added_up():
    rollout = make_rollout(FakeStepper(1))
    rollout.collect(3, FOREVER)
    assert rollout.env_s > 0
    assert rollout.inference_s > 0


class Counting(gymnasium.Env):
    """Observation: its episode, counted over all episodes and envs, and the step in it."""

    observation_space = gymnasium.spaces.Box(0, 1e9, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)
    episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Counting.episodes += 1
        self.episode, self.steps = Counting.episodes, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        self.steps += 1
        obs = np.array([self.episode, self.steps], np.float32)
        return obs, 1.0, self.episode % 5 == self.steps, self.steps == 4, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_with_real_envs_no_transition_leaves_its_episode(mode):
    stepper = VectorStepper(SyncVectorEnv([Counting] * 3, autoreset_mode=mode), "Counting")
    rollout = make_rollout(stepper, n_step=3, epsilon=1.0, block_transitions=20)
    blocks = []
    while rollout.stepped < 500:
        blocks.append(rollout.collect(500 - rollout.stepped, FOREVER) or rollout.flush())
    blocks.append(rollout.flush())
    transitions = [
        (*block.frames[tm1], *block.frames[t], discount)
        for block in filter(None, blocks)
        for tm1, t, discount in zip(block.tm1, block.t, block.discount_t, strict=True)
    ]
    assert len(transitions) == rollout.collected == 500
    for episode, step, arrival_episode, arrival_step, discount in transitions:
        assert arrival_episode == episode
        assert 1 <= arrival_step - step <= 3
        terminal = arrival_step == episode % 5
        assert discount == (0 if terminal else 0.5 ** (arrival_step - step))
