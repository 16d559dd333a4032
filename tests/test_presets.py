"""Presets: the settings of the sources they cite."""

from __future__ import annotations

import pytest

from distdqn.config import (
    Config,
    Schedule,
    load_config,
    preset_names,
    read_preset,
    resolved_error_band,
)
from distdqn.errors import ConfigError


def preset(name: str) -> Config:
    return load_config(preset=name)


def gradient_steps(config: Config) -> int:
    """All updates owed: floor(samples_per_insert (inserts - min_size) / batch_size)."""
    replay = config.replay
    samples = replay.samples_per_insert * (config.total_env_steps - replay.min_size_to_sample)
    return int(samples / config.learner.batch_size)


def test_the_presets_are_these():
    assert preset_names() == [
        "apex",
        "cartpole",
        "cartpole-cleanrl",
        "cartpole-sb3",
        "lunarlander",
        "mountaincar",
    ]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_cites_its_source(name):
    comments = [line for line in read_preset(name).splitlines() if line.startswith("#")]

    assert any("github" in line or "arXiv" in line for line in comments)
    assert len(comments[0]) <= 90, "the first line is the preset's line in --list-presets"


@pytest.mark.parametrize("name", preset_names())
def test_acting_never_runs_far_ahead_of_learning(name):
    """The band, in inserts, is small against what is collected before the first update."""
    config = preset(name)
    ahead = resolved_error_band(config) / config.replay.samples_per_insert

    assert ahead <= config.replay.min_size_to_sample / 2


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown preset 'cartpol'; did you mean cartpole\?"):
        preset("cartpol")
    with pytest.raises(ConfigError, match="the presets are apex, cartpole"):
        preset("zzz")


def test_cartpole_stops_when_it_is_solved():
    config = preset("cartpole")

    assert config.env.id == "CartPole-v1"
    assert config.eval.stop_at_return == 475


def test_cartpole_cleanrl_is_cleanrls_experiment():
    config = preset("cartpole-cleanrl")
    learner, replay = config.learner, config.replay

    assert config.total_env_steps == 500_000
    assert gradient_steps(config) == 49_000
    assert (learner.batch_size, learner.discount, learner.loss) == (128, 0.99, "mse")
    assert (learner.optimizer, learner.learning_rate.at(0)) == ("adam", 2.5e-4)
    assert (learner.target_period, learner.target_tau, learner.max_grad_norm) == (50, 1.0, None)
    assert (learner.double, learner.n_step, replay.kind) == (False, 1, "uniform")
    assert (replay.capacity, replay.min_size_to_sample, replay.shards) == (10_000, 10_000, 1)
    assert replay.samples_per_insert == 12.8
    assert config.workers.epsilon.value == Schedule(1.0, 0.05, 250_000)
    assert (config.workers.count, config.workers.envs_per_worker) == (1, 32)
    assert (config.network.torso, config.network.hidden) == ("mlp", (120, 84))
    assert config.eval.stop_at_return is None


def test_cartpole_sb3_is_the_zoos_row():
    config = preset("cartpole-sb3")
    learner, replay = config.learner, config.replay

    assert config.total_env_steps == 50_000
    assert gradient_steps(config) == 24_500  # 49,000 steps, 128 updates per 256
    assert (learner.batch_size, learner.discount, learner.loss) == (64, 0.99, "huber")
    assert (learner.learning_rate.at(0), learner.optimizer_eps) == (2.3e-3, 1e-8)
    assert (learner.target_period, learner.max_grad_norm) == (128, 10)
    assert (replay.capacity, replay.min_size_to_sample) == (100_000, 1_000)
    assert config.workers.epsilon.value == Schedule(1.0, 0.04, 8_000)
    assert config.network.hidden == (256, 256)


def test_mountaincar_is_the_zoos_row():
    config = preset("mountaincar")
    learner, replay = config.learner, config.replay

    assert config.env.id == "MountainCar-v0"
    assert config.total_env_steps == 120_000
    assert gradient_steps(config) == 59_500  # 119,000 steps, 8 updates per 16
    assert (learner.batch_size, learner.discount) == (128, 0.98)
    assert (learner.learning_rate.at(0), learner.target_period) == (4e-3, 300)
    assert (replay.capacity, replay.min_size_to_sample) == (10_000, 1_000)
    assert config.workers.epsilon.value == Schedule(1.0, 0.07, 24_000)


def test_lunarlander_stays_within_its_budget():
    config = preset("lunarlander")

    assert config.env.id == "LunarLander-v3"
    assert config.total_env_steps <= 400_000


def test_apex_has_every_part_of_apex():
    config = preset("apex")
    workers, replay, learner = config.workers, config.replay, config.learner

    assert (workers.count, replay.shards) == (4, 3)
    assert (workers.epsilon.kind, workers.epsilon.base, workers.epsilon.alpha) == ("ladder", 0.4, 7)
    assert (replay.kind, replay.priority_exponent) == ("prioritized", 0.6)
    assert replay.importance_sampling_exponent.at(0) == 0.4
    assert (learner.n_step, learner.double, config.network.dueling) == (3, True, True)
    assert config.total_env_steps <= 200_000
