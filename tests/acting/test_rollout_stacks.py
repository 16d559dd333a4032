"""What acts and what is stored are the same stacks.

The network notes every observation that it acted on; blocks must give the same ones back.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rollout_parts import FakeStepper, make_rollout, snapshot
from torch import nn

STACK = 3


def stacked(frames, positions, depths, spec):
    return spec.stacked(lambda at: frames[at], positions, depths)


class Noting(nn.Module):
    """`q[a] = w[a] * (newest number + 2 * oldest number)`; keeps what it sees."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, 1.0, -1.0]))
        self.seen = []

    def forward(self, obs):
        self.seen.append(obs.numpy().copy())
        return (obs[:, -1, 1:] + 2 * obs[:, 0, 1:]) * self.w


def naive_q(obs, w):
    return (obs[-1, 1] + 2 * obs[0, 1]) * np.array(w)


def padded(numbers, padding):
    """The last three of an episode's numbers, as a stack of them."""
    numbers = numbers[-STACK:]
    return [0 if padding == "zero" else numbers[0]] * (STACK - len(numbers)) + numbers


def collected(rollout, spec, transitions):
    """Observations `[B, stack, 2]` at source and arrival, and discounts, over blocks."""
    tm1, t, discounts = [], [], []
    while rollout.collected < transitions:
        block = rollout.collect(10**6, math.inf)
        tm1.append(stacked(block.frames, block.tm1, block.tm1_depth, spec))
        t.append(stacked(block.frames, block.t, block.t_depth, spec))
        discounts.append(block.discount_t)
    return np.concatenate(tm1), np.concatenate(t), np.concatenate(discounts)


@pytest.mark.parametrize("padding", ["zero", "repeat"])
@pytest.mark.parametrize("style", ["within", "next step"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_a_block_gives_back_what_was_acted_on(n_step, style, padding):
    stepper = FakeStepper(2, length=7, life=4, style=style, stack=STACK, padding=padding)
    network = Noting()
    rollout = make_rollout(stepper, network, n_step=n_step, block_transitions=9)
    sources, arrivals, discounts = collected(rollout, stepper.observation, 120)
    acted = {tuple(obs.ravel()) for batch in network.seen for obs in batch}
    assert {tuple(obs.ravel()) for obs in sources} <= acted
    going_on = arrivals[discounts > 0]
    assert {tuple(obs.ravel()) for obs in going_on} <= acted


def test_stacks_of_a_game_with_lives_are_those_worked_by_hand():
    # Numbers 1 2 3, a life is lost at 3, 4 5 6 with 6 the end, 7 the reset.
    stepper = FakeStepper(1, length=5, life=2, stack=STACK)
    rollout = make_rollout(stepper, Noting(), block_transitions=6)
    sources, arrivals, discounts = collected(rollout, stepper.observation, 6)
    assert sources[:, :, 1].tolist() == [
        [0, 0, 1],
        [0, 1, 2],
        [0, 0, 3],
        [0, 3, 4],
        [0, 0, 5],
        [0, 0, 7],
    ]
    assert arrivals[:, :, 1].tolist() == [
        [0, 1, 2],
        [1, 2, 3],
        [0, 3, 4],
        [3, 4, 5],
        [0, 5, 6],
        [0, 7, 8],
    ]
    assert (discounts == 0).tolist() == [False, True, False, True, True, False]


def test_a_lost_life_is_no_end_of_the_game():
    stepper = FakeStepper(2, length=6, life=2, stack=STACK)
    rollout = make_rollout(stepper, Noting(), block_transitions=100)
    rollout.collect(2 * 13, math.inf)
    assert [episode.length for episode in rollout.drain_episodes()] == [6] * 4
    assert stepper.resets == []


@pytest.mark.parametrize("style", ["within", "together"])
def test_the_stack_of_a_bad_env_begins_anew(style):
    stepper = FakeStepper(2, style=style, bad={(1, 3): "observation"}, stack=STACK)
    network = Noting()
    rollout = make_rollout(stepper, network, block_transitions=100)
    rollout.collect(2 * 5, math.inf)
    # The bad step's number is 4, the reset's 5; env 0 goes on, or was reset with it.
    numbers = [batch[:, :, 1].tolist() for batch in network.seen]
    first = [0, 0, 5] if style == "together" else [2, 3, 4]
    assert numbers[2:4] == [[[1, 2, 3]] * 2, [first, [0, 0, 5]]]


@pytest.mark.parametrize("piece_bytes", [2**23, 50])
@pytest.mark.parametrize("double", [False, True])
def test_priorities_are_those_of_each_transition_alone(double, piece_bytes, monkeypatch):
    monkeypatch.setattr("distdqn.acting.acting_network.PIECE_BYTES", piece_bytes)
    stepper = FakeStepper(2, length=7, life=3, stack=STACK)
    rollout = make_rollout(
        stepper, Noting(), n_step=2, block_transitions=40, with_priorities=True, double=double
    )
    online, target = [1.0, 2.0, -1.0], [0.5, -2.0, 3.0]
    rollout.set_weights(snapshot(online, target=target))
    block = rollout.collect(10**6, math.inf)
    tm1 = stacked(block.frames, block.tm1, block.tm1_depth, stepper.observation)
    t = stacked(block.frames, block.t, block.t_depth, stepper.observation)
    for i in range(block.num_transitions):
        selector = naive_q(t[i], online if double else target)
        value = naive_q(t[i], target)[selector.argmax()]
        aim = block.r_t[i] + block.discount_t[i] * value
        expected = abs(aim - naive_q(tm1[i], online)[block.a_tm1[i]])
        assert block.priorities[i] == pytest.approx(expected, rel=1e-5)
