"""Greedy play with given weights, as the evaluator and a loaded policy use it."""

import numpy as np
import pytest
import torch

from distdqn.config import EnvConfig
from distdqn.envs.make import make_stepper
from distdqn.evaluation.play import Greedy
from distdqn.networks.q_network import make_network
from distdqn.types import ObservationSpec
from distdqn.weights.flat_parameters import FlatParameters

SETTINGS = EnvConfig("CartPole-v1")


def make_greedy(hidden=(8,), max_episode_steps=50, **options):
    torch.manual_seed(0)
    network = make_network(ObservationSpec((4,), "float32"), 2, hidden=hidden)
    greedy = Greedy(
        network,
        lambda num_envs, mode: make_stepper(SETTINGS, num_envs, render_mode=mode),
        max_episode_steps,
        **options,
    )
    return network, greedy


def test_q_values_are_those_of_the_given_parameters_not_of_the_module():
    network, greedy = make_greedy()
    online = FlatParameters(network).flatten().numpy().copy() * 2
    obs = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
        expected = network(torch.from_numpy(obs)).numpy()
        for parameter in network.parameters():
            parameter.div_(2)
    np.testing.assert_allclose(greedy.q_function(online, 5)(obs), expected, rtol=1e-5)
    assert not any(np.shares_memory(p.detach().numpy(), online) for p in network.parameters())


def test_two_policies_do_not_disturb_each_other():
    network, greedy = make_greedy(hidden=())
    size = FlatParameters(network).size
    first = greedy.q_function(np.zeros(size, np.float32), 1)
    greedy.q_function(np.ones(size, np.float32), 1)
    assert not first(np.ones((1, 4), np.float32)).any()


def test_episodes_are_as_many_as_asked_and_reproducible():
    network, greedy = make_greedy()
    online = FlatParameters(network).flatten().numpy()
    first, second = (greedy.evaluate(online, 7, seed=3) for _ in range(2))
    assert first.returns.shape == (7,)
    np.testing.assert_array_equal(first.returns, second.returns)


def test_returns_are_discounted_as_learning_discounts_them():
    network, greedy = make_greedy(discount=0.5)
    online = FlatParameters(network).flatten().numpy()
    report = greedy.evaluate(online, 5, seed=3, env_steps=7)
    # A reward of 1 in each step: 1 + 1/2 + 1/4 + ...
    np.testing.assert_allclose(report.discounted_returns, 2 - 0.5 ** (report.lengths - 1.0))
    assert (report.env_steps, report.num_cut) == (7, 0)
    assert report.return_start_mean == pytest.approx(np.mean(report.discounted_returns))
    assert report.q_start_mean == pytest.approx(np.mean(report.start_values))


def test_the_layout_names_every_parameter():
    network, greedy = make_greedy()
    report = greedy.evaluate(FlatParameters(network).flatten().numpy(), 1, seed=0)
    assert [name for name, _ in report.layout] == [n for n, _ in network.named_parameters()]


def test_a_video_is_an_mp4_file():
    network, greedy = make_greedy(max_episode_steps=5)
    data = greedy.record(FlatParameters(network).flatten().numpy(), seed=0)
    assert data[4:8] == b"ftyp"
