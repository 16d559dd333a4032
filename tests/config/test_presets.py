"""Presets: the settings of the sources they cite."""

from __future__ import annotations

import pytest

from distdqn.config import Config, Schedule, load_config
from distdqn.config.files import preset_names, read_preset
from distdqn.config.schedules import in_env_steps
from distdqn.config.tree import resolved_error_band
from distdqn.errors import ConfigError


def preset(name: str) -> Config:
    """With schedules in env steps, as a run has them."""
    return in_env_steps(load_config(preset=name))


def gradient_steps(config: Config) -> int:
    """All updates owed: floor(samples_per_insert (inserts - min_size) / batch_size)."""
    replay = config.replay
    samples = replay.samples_per_insert * (config.total_env_steps - replay.min_size_to_sample)
    return int(samples / config.learner.batch_size)


def test_the_presets_are_these():
    assert preset_names() == [
        "apex",
        "atari-apex",
        "atari-machado",
        "atari-nature",
        "cartpole",
        "cartpole-cleanrl",
        "cartpole-sb3",
        "lunarlander",
        "minatar",
        "mountaincar",
    ]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_cites_its_source(name):
    comments = [line for line in read_preset(name).splitlines() if line.startswith("#")]

    assert any(word in line for line in comments for word in ("github", "arXiv", "doi:"))
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
    with pytest.raises(ConfigError, match="the presets are apex, .*cartpole"):
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


def test_atari_nature_is_the_paper_of_2015():
    config = preset("atari-nature")
    atari, learner, replay = config.env.atari, config.learner, config.replay

    assert (config.env.frame_stack, config.env.stack_padding) == (4, "zero")
    assert (atari.frame_skip, atari.sticky_actions, atari.noop_max) == (4, 0.0, 30)
    assert (atari.terminal_on_life_loss, atari.full_action_space) == (True, False)
    assert (atari.size, atari.grayscale, atari.max_pool) == (84, True, True)
    assert config.env.reward_clip == 1
    assert (learner.optimizer, learner.rmsprop_centered) == ("rmsprop", True)
    assert (learner.rmsprop_decay, learner.learning_rate.at(0)) == (0.95, 2.5e-4)
    # The sum over 32 squared gradients has a minimum of 0.01; the mean's is this.
    assert learner.rmsprop_eps_inside_sqrt and learner.optimizer_eps == 0.01 / 32**2
    assert (learner.batch_size, learner.loss, learner.double) == (32, "huber", False)
    assert learner.target_period * 4 == 10_000
    assert replay.samples_per_insert * 4 == learner.batch_size, "an update per 4 agent steps"
    assert (replay.capacity, replay.min_size_to_sample) == (1_000_000, 50_000)
    assert config.workers.epsilon.value == Schedule(1.0, 0.1, 250_000)
    assert config.eval.epsilon == 0.05
    five_minutes = 5 * 60 * 60  # emulator frames
    assert config.eval.max_episode_steps * atari.frame_skip == five_minutes == 18_000


def test_atari_machado_is_the_protocol_of_2018():
    config = preset("atari-machado")
    atari, learner = config.env.atari, config.learner

    assert (atari.sticky_actions, atari.noop_max) == (0.25, 0)
    assert (atari.terminal_on_life_loss, atari.full_action_space) == (False, True)
    assert atari.max_frames == 108_000
    assert (learner.optimizer, learner.optimizer_eps, learner.loss) == ("adam", 1.5e-4, "mse")
    assert (learner.learning_rate.at(0), learner.target_period * 4) == (6.25e-5, 8_000)
    assert config.replay.min_size_to_sample == 20_000
    assert config.workers.epsilon.value == Schedule(1.0, 0.01, 250_000)
    assert config.eval.epsilon == 0.001
    assert config.eval.max_episode_steps * atari.frame_skip == atari.max_frames


def test_atari_apex_is_the_paper_of_2018():
    config = preset("atari-apex")
    learner, replay = config.learner, config.replay

    assert (learner.batch_size, learner.n_step, learner.double) == (512, 3, True)
    assert (config.network.torso, config.network.dueling) == ("nature", True)
    assert (learner.learning_rate.at(0), learner.optimizer_eps) == (6.25e-5, 1.5e-7)
    assert (learner.rmsprop_centered, learner.rmsprop_decay) == (True, 0.95)
    assert learner.rmsprop_eps_inside_sqrt
    assert (learner.max_grad_norm, learner.target_period) == (40, 2_500)
    assert (replay.kind, replay.priority_exponent, replay.capacity) == (
        "prioritized",
        0.6,
        2_000_000,
    )
    assert replay.importance_sampling_exponent.at(0) == 0.4
    assert abs(replay.samples_per_insert - 19 * 512 / 12_500) < 0.01
    atari, evaluation = config.env.atari, config.eval
    assert (atari.max_frames, evaluation.epsilon) == (50_000, 0.0)
    assert evaluation.max_episode_steps * atari.frame_skip >= atari.max_frames
    assert config.workers.epsilon.kind == "ladder"


def test_minatar_is_young_and_tian():
    config = preset("minatar")
    learner, replay = config.learner, config.replay

    assert config.env.id == "MinAtar/Breakout-v0"
    assert (learner.optimizer, learner.rmsprop_centered) == ("rmsprop", True)
    assert (learner.rmsprop_decay, learner.optimizer_eps) == (0.95, 0.01)
    assert not learner.rmsprop_eps_inside_sqrt
    assert (learner.batch_size, learner.learning_rate.at(0)) == (32, 2.5e-4)
    assert replay.samples_per_insert == learner.batch_size, "one update per frame"
    assert (replay.capacity, replay.min_size_to_sample) == (100_000, 5_000)
    assert learner.target_period == 1_000
    assert config.workers.epsilon.value == Schedule(1.0, 0.1, 100_000)


@pytest.mark.parametrize("name", ["atari-nature", "atari-machado", "atari-apex"])
def test_the_atari_presets_send_64_steps_of_each_env_in_a_block(name):
    workers = preset(name).workers

    assert workers.block_transitions == 64 * workers.envs_per_worker
