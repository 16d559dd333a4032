"""Configuration files: YAML there and back, unknown keys, and the order of the sources."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.config import (
    Config,
    LearnerConfig,
    NetworkConfig,
    ReplayConfig,
    Schedule,
    WorkersConfig,
    from_values,
    from_yaml,
    load_config,
    to_yaml,
)
from distdqn.config.files import key_types
from distdqn.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("worker.count", "workers.count"),
        ("batch_size", "learner.batch_size"),
        ("replay.batch_size", "learner.batch_size"),
        ("replay.capcity", "replay.capacity"),
        ("epsilon.value", "workers.epsilon.value"),
        ("workers.num_envs", "workers.num_cpus"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(key, nearest):
    with pytest.raises(ConfigError, match=f"unknown key '{key}'; did you mean {nearest}"):
        from_values({key: 1})


def test_an_unknown_key_like_no_other_points_to_the_help():
    with pytest.raises(ConfigError, match="`distdqn train --help` lists all keys"):
        from_values({"zzz": 1})


def test_yaml_gives_the_same_configuration_back():
    config = from_values(
        {
            "env.kwargs": {"map_name": "8x8", "desc": None},
            "env.reward_clip": 1,
            "workers.epsilon.value": "1:0.1:500",
            "learner.optimizer_eps": 1.5e-7,
            "network.hidden": [],
            "run_name": "007",
        }
    )

    assert from_yaml(to_yaml(config)) == config


@settings(deadline=None, max_examples=30)
@given(
    rate=st.floats(0, 1),
    steps=st.integers(1, 10**9),
    norm=st.none() | st.floats(1e-9, 1e9),
    hidden=st.lists(st.integers(1, 4096), max_size=4),
    double=st.booleans(),
    runs_dir=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1),
)
def test_yaml_keeps_any_value(rate, steps, norm, hidden, double, runs_dir):
    config = Config(
        learner=LearnerConfig(
            learning_rate=Schedule(rate, 0.0, steps), max_grad_norm=norm, double=double
        ),
        network=NetworkConfig(hidden=tuple(hidden)),
        runs_dir=runs_dir,
    )

    assert from_yaml(to_yaml(config)) == config


def test_yaml_holds_every_key():
    import yaml

    tree = yaml.safe_load(to_yaml(Config()))

    for key in key_types():
        node = tree
        for name in key.split("."):
            assert name in node, key
            node = node[name]


def test_yaml_accepts_nested_and_dotted_keys():
    nested = from_yaml("replay:\n  capacity: 5000\n  shards: 2\nworkers: {epsilon: {base: 0.3}}")
    dotted = from_yaml("replay.capacity: 5000\nreplay.shards: 2\nworkers: {epsilon.base: 0.3}")

    assert nested == dotted
    assert nested.replay == ReplayConfig(capacity=5_000, shards=2)


def test_empty_yaml_is_the_default_configuration():
    assert from_yaml("") == Config()
    assert from_yaml("workers:\nreplay: {}") == Config()


def test_exponents_without_a_dot_are_numbers_in_yaml():
    assert from_yaml("learner: {optimizer_eps: 1e-5}").learner.optimizer_eps == 1e-5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1", "must be a mapping"),
        ("replay: 5", "replay is 5, must be a mapping"),
        ("replay: {capacity: [", "is not YAML"),
        ("replay: {size: 5}", "unknown key 'replay.size'"),
    ],
)
def test_yaml_of_another_shape_is_refused_in_one_line(text, words):
    with pytest.raises(ConfigError) as caught:
        from_yaml(text)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_later_sources_win_key_by_key(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("learner:\n  learning_rate: 0.01\n  batch_size: 64\n")

    config = load_config(path, "cartpole-cleanrl", {"learner.batch_size": "32"})

    assert config.learner.batch_size == 32  # the flag's
    assert config.learner.learning_rate == Schedule.constant(0.01)  # the file's
    assert config.learner.target_period == 50  # the preset's
    assert config.learner.prefetch == LearnerConfig().prefetch  # the default


def test_a_flag_may_complete_a_file_that_could_not_stand_alone(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("replay: {capacity: 600}")

    with pytest.raises(ConfigError, match="never start"):
        load_config(path)
    assert load_config(path, values={"replay.min_size_to_sample": 600}).replay.capacity == 600


def test_a_mapping_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("env: {kwargs: {a: 1, b: 2}}")

    assert load_config(path, values={"env.kwargs": {"c": 3}}).env.kwargs == {"c": 3}


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none.yaml: No such"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("replay: {size: 1}")
    with pytest.raises(ConfigError, match=r"bad.yaml: unknown key 'replay.size'"):
        load_config(tmp_path / "bad.yaml")


def test_the_default_is_cartpole_without_a_stop():
    config = Config()

    assert config.env.id == "CartPole-v1"
    assert config.eval.stop_at_return is None
    assert config.workers == WorkersConfig()
