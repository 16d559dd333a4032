"""The guard's references and limits do the work that distdqn's parts do."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from guard import learning_items, replay_items
from guard.reference_replay import ReferenceReplay, ReferenceSampler, stacked_pictures
from guard.reference_rollout import ReferenceRollout
from guard.reference_update import ReferenceLearner, dense_network, picture_network
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from torch.utils.flop_counter import FlopCounterMode

from distdqn.acting.rollout import Rollout, RolloutSettings
from distdqn.config import LearnerConfig
from distdqn.envs.stepper import VectorStepper
from distdqn.learning.learner import Learner
from distdqn.networks.q_network import make_network
from distdqn.replay.replay import Replay
from distdqn.replay.sampling import PlainSampler, PrioritizedSampler


def test_the_reference_sampler_draws_in_proportion_to_the_powers_of_priorities():
    sampler, rng = ReferenceSampler(6, 0.5, 0.0), np.random.default_rng(0)
    sampler.update(np.arange(6), np.array([1.0, 4.0, 9.0, 16.0, 0.25, 2.25]))
    expected = np.array([1.0, 2.0, 3.0, 4.0, 0.5, 1.5]) / 12.0
    assert sampler.nodes[1] == 12.0
    draws = [sampler.sample(8, rng) for _ in range(2_000)]
    slots = np.concatenate([each[0] for each in draws])
    assert np.bincount(slots, minlength=6) / len(slots) == pytest.approx(expected, abs=0.01)
    for slots, probabilities in draws[:10]:
        assert probabilities == pytest.approx(expected[slots])


def test_the_reference_sampler_agrees_with_ours_draw_by_draw():
    ours, reference = PrioritizedSampler(100, 0.6, 0.01), ReferenceSampler(100, 0.6, 0.01)
    ours.insert(np.arange(100), np.ones(100))
    rng = np.random.default_rng(1)
    reference.update(np.arange(100), np.ones(100))
    for seed in range(20):
        changed, new = rng.integers(100, size=30), rng.random(30)
        ours.update(changed, new)
        reference.update(changed, new)
        slots, probabilities = ours.sample(32, np.random.default_rng(seed))
        expected = reference.sample(32, np.random.default_rng(seed))
        assert slots.tolist() == expected[0].tolist()
        assert probabilities == pytest.approx(expected[1])


def test_the_reference_replay_holds_the_same_transitions():
    rng = np.random.default_rng(0)
    ours = Replay(50, replay_items.NUMBERS, 4, PlainSampler(50), seed=0)
    reference = ReferenceReplay(50, (4,))
    for _ in range(4):
        block = replay_items.make_block(replay_items.NUMBERS, 20, rng)
        ours.add(block)
        reference.add(*replay_items.rows_of(block))
    batch = ours.sample(4, 500)
    names = ("obs_tm1", "a_tm1", "r_t", "discount_t", "obs_t")
    fields = [getattr(batch, name).reshape(2_000, -1) for name in names]
    drawn = {tuple(np.concatenate([field[i] for field in fields])) for i in range(2_000)}
    theirs = {
        tuple(np.concatenate([np.ravel(column[i]) for column in row[:5]]))
        for row in reference.sample(4, 500, rng)
        for i in range(500)
    }
    assert reference.size == ours.size == 50 and drawn == theirs and len(drawn) == 50


def test_the_reference_stacks_pictures_oldest_first_with_zeros_before_the_episode():
    frames = np.arange(1, 8)[:, None] * np.ones((7, 2), int)
    stacks = stacked_pictures(frames, np.array([6, 1, 3]), np.array([3, 1, 0]))
    assert stacks[:, :, 0].tolist() == [[4, 5, 6, 7], [0, 0, 1, 2], [0, 0, 0, 4]]


@pytest.mark.parametrize("torso", ["mlp", "nature"])
def test_the_reference_update_is_ours(torso):
    observation = learning_items.NUMBERS if torso == "mlp" else learning_items.PICTURES
    num_actions, size = (2, (6, 16)) if torso == "mlp" else (4, (2, 4))
    torch.manual_seed(0)
    network = make_network(observation, num_actions, torso)
    settings = LearnerConfig(batch_size=size[1], target_period=4, device="cpu", num_threads=1)
    ours = Learner(network, settings, observation, num_actions)
    plain = dense_network() if torso == "mlp" else picture_network()
    for parameter, value in zip(plain.parameters(), network.parameters(), strict=True):
        parameter.data.copy_(value)
    reference = ReferenceLearner(plain, observation.scale, target_period=4)
    batch = learning_items.make_batch(observation, num_actions, size, seed=1)
    columns = (batch.obs_tm1, batch.a_tm1, batch.r_t, batch.discount_t, batch.obs_t)
    got = ours.learn(batch, 1.0, 100_000, 0.4, 1e-3).priorities.reshape(size)
    expected = reference.learn(*columns, batch.probabilities, 100_000, 0.4, 1e-3)
    assert got == pytest.approx(expected, rel=1e-3, abs=1e-4)
    vector = torch.cat([p.detach().ravel() for p in plain.parameters()]).numpy()
    moved = np.abs(vector - torch.cat([p.detach().ravel() for p in network.parameters()]).numpy())
    assert np.abs(ours.online_vector() - vector).mean() < 0.02 * moved.mean()


@pytest.mark.parametrize("make", [dense_network, picture_network])
def test_the_limits_products_are_those_of_an_update(make):
    network = make()
    observation = learning_items.NUMBERS if make is dense_network else learning_items.PICTURES
    batch = learning_items.make_batch(observation, 2, (3, 4), seed=0)
    work = learning_items.products(network, torch.from_numpy(batch.obs_tm1[0]).float(), 3)
    reference = ReferenceLearner(network, observation.scale, target_period=100)
    with FlopCounterMode(display=False) as limit:
        work()
    with FlopCounterMode(display=False) as update:
        columns = (batch.obs_tm1, batch.a_tm1, batch.r_t, batch.discount_t, batch.obs_t)
        reference.learn(*columns, batch.probabilities, 100, 0.4, 1e-3)
    assert limit.get_total_flops() == update.get_total_flops() > 0


class SameStart(CartPoleVectorEnv):
    """CartPole whose episodes are the same whoever resets it."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=7)


def test_the_reference_rollout_gives_our_transitions():
    torch.manual_seed(0)
    stepper = VectorStepper(SameStart(4), "CartPole")
    network = make_network(stepper.observation, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)  # values far enough apart for two ways to round
    reference = ReferenceRollout(SameStart(4), network, 3, 0.9, epsilon=0.0, seed=0)
    expected = reference.collect(300)
    rollout = Rollout(
        stepper, network, RolloutSettings(3, 0.9, 400, seed=1), lambda env_steps: np.zeros(4)
    )
    block = rollout.collect(10**9, math.inf)
    columns = (block.frames[block.tm1], block.a_tm1, block.r_t, block.discount_t)
    ours = rows(*columns, block.frames[block.t])
    theirs = rows(*expected)
    assert sum(theirs.values()) >= 300 and not theirs - ours  # ours went on somewhat longer
    discounts = {row[6] for row in theirs}
    assert {0.0, 0.729} <= discounts  # episodes ended, and windows of all three steps


def rows(*columns):
    """How often each transition occurs."""
    table = np.concatenate([np.reshape(c, (len(c), -1)) for c in columns], 1, dtype=np.float64)
    return Counter(map(tuple, table.round(6).tolist()))


def test_every_item_does_all_three_works(monkeypatch):
    monkeypatch.setattr(replay_items, "ITEMS", 4_000)
    items = replay_items.replay_items()
    assert len({each.name for each in items}) == len(items)
    for each in items:
        assert each.part in {"sampler", "replay"} and each.limit_name
        for work in (each.ours, each.limit, each.reference):
            work()
