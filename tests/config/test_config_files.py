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
from distdqn.config.files import gather
from distdqn.config.keys import key_types
from distdqn.config.yaml_text import annotated_yaml
from distdqn.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("worker.count", "workers.count"),
        ("batch_size", "learner.batch_size"),
        ("replay.batch_size", "learner.batch_size"),
        ("replay.capcity", "replay.capacity"),
        ("epsilon.value", "workers.epsilon.value"),
        ("workers.num_envs", "workers.envs_per_worker"),
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

    for key in key_types(Config):
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
        (
            "env: CartPole-v1",
            "line 1: env is 'CartPole-v1', must be a mapping from names to "
            "values; did you mean env.id?",
        ),
        ("workers: {epsilon: 0.1}", "did you mean workers.epsilon.value?"),
        (
            "workers: {epsilon: {start: 1.0, end: 0.1}}",
            "unknown key 'workers.epsilon.start'; did you mean workers.epsilon.value?",
        ),
        ("learner: {device: gpu}", "must be auto or cpu or cuda; did you mean cuda?"),
        ("mode: sync", "did you mean lockstep?"),
        ("lerner: {batch_size: 8}", "unknown key 'lerner'; did you mean learner?"),
        ("workers: {epsilom: {value: 0.1}}", "did you mean workers.epsilon?"),
        ("? [1, 2]\n: 3", "line 1: unknown key '[1, 2]'"),
        ("on: 1", "line 1: unknown key 'on'"),
        ("env.kwargs: {? [1, 2] : 3}", "line 1: not YAML: found unhashable key"),
        ("env.kwargs: &a {b: *a}", "line 1: not YAML: found unconstructable recursive node"),
        ("replay: {capacity: [", "line 1: not YAML: "),
        ("seed: 1\nreplay: {size: 5}", "line 2: unknown key 'replay.size'"),
        ("replay:\n\tcapacity: 5", "line 2: not YAML: a tab; indent with spaces"),
        ("seed: \x00", "not YAML: unacceptable character"),
        ("seed: 1\n---\nseed: 2", "line 2: not YAML: "),
        ("runs_dir: !!python/name:os.system ''", "line 1: not YAML: "),
        ("preset: cartpole", "line 1: unknown key 'preset'; a preset is chosen by --preset NAME"),
    ],
)
def test_yaml_of_another_shape_is_refused_in_one_line(text, words):
    with pytest.raises(ConfigError) as caught:
        from_yaml(text)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("seed: 1\nseed: 2", "line 2: seed is given twice, first in line 1: remove one"),
        ("replay:\n  shards: 1\n  capacity: 5000\n  shards: 2",
         "line 4: shards is given twice, first in line 2"),
        ("replay: {shards: 1}\nreplay: {capacity: 5000}",
         "line 2: replay is given twice, first in line 1"),
        ("learner: {batch_size: 64}\n\nlearner.batch_size: 32",
         "line 3: learner.batch_size is given twice, first in line 1"),
        ("env.kwargs:\n  a: 1\n  b: {c: 1,\n      c: 2}",
         "line 4: c is given twice, first in line 3"),
    ],
)  # fmt: skip
def test_a_key_that_is_given_twice_is_refused_with_both_lines(text, refusal):
    with pytest.raises(ConfigError) as caught:
        from_yaml(text)

    assert refusal in str(caught.value)


def test_keys_of_a_yaml_merge_may_be_replaced():
    config = from_yaml("replay: &a {shards: 2}\nreplay.capacity: 9_000\nworkers: {count: 2}")
    merged = from_yaml("env.kwargs: {base: &b {x: 1, y: 1}, own: {<<: *b, y: 2}}")

    assert (config.replay.shards, config.replay.capacity) == (2, 9_000)
    assert merged.env.kwargs == {"base": {"x": 1, "y": 1}, "own": {"x": 1, "y": 2}}


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


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (None, "cannot read the configuration FILE: No such file or directory"),
        ("folder", "cannot read the configuration FILE: Is a directory"),
        (b"\x89PNG\r\n\xff", "cannot read the configuration FILE: it is not UTF-8 text"),
        (b"", "the configuration FILE is empty: set a key in it, or leave it out"),
        (b"# seed: 1\n\n", "the configuration FILE is empty"),
        (b"CartPole-v1", "FILE, line 1: a configuration is 'CartPole-v1', must be a mapping"),
        (b"replay: {size: 1}", "FILE, line 1: unknown key 'replay.size'"),
    ],
)
def test_a_file_that_is_no_configuration_is_named_in_one_line(tmp_path, content, refusal):
    path = tmp_path / "own.yaml"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert str(caught.value).startswith(refusal.replace("FILE", str(path)))
    assert "\n" not in str(caught.value)


# --- values in Python ---------------------------------------------------------------


def test_values_in_python_are_dotted_or_nested():
    dotted = load_config(preset="cartpole", values={"learner.batch_size": 64, "seed": 3})
    nested = load_config(preset="cartpole", values={"learner": {"batch_size": 64}, "seed": 3})

    assert (
        dotted
        == nested
        == load_config(preset="cartpole").with_values({"learner": {"batch_size": 64}, "seed": 3})
    )
    assert (nested.learner.batch_size, nested.learner.target_period) == (64, 100)


def test_a_copy_with_values_leaves_the_rest_as_it_was():
    config = from_values({"env.kwargs": {"a": 1}, "workers.epsilon.value": "1:0.1:20%"})

    assert config.with_values({}) == config
    assert config.with_values({"seed": 7}).with_values({"seed": 1}) == config
    assert config.seed == 1


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"lr": 1e-3}, "unknown key 'lr'; did you mean learner.learning_rate?"),
        ({"learner": {"gamma": 0.9}}, "unknown key 'learner.gamma'; did you mean learner.discount"),
        ({"learner": 5}, "learner is 5, must be a mapping from names to values"),
        ({"learner.batch_size": 1, "learner": {"batch_size": 2}},
         "learner.batch_size is given twice: remove one"),
        ({"learner": {"batch_size": "many"}}, "learner.batch_size is 'many', must be a whole"),
        ({5: 1}, "unknown key '5'"),
        ([("seed", 1)], "a configuration is [('seed', 1)], must be a mapping"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "take", [from_values, Config().with_values, lambda given: load_config(values=given)]
)
def test_wrong_values_in_python_are_refused_in_the_same_words(take, values, refusal):
    with pytest.raises(ConfigError) as caught:
        take(values)

    assert str(caught.value).startswith(refusal)


# --- where values come from ---------------------------------------------------------


def test_every_value_is_shown_with_its_origin_and_read_back(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("learner: {n_step: 2}\nenv.kwargs: {text: 'a # b', lines: \"a\\nb\"}")
    values, origins = gather(path, "cartpole", {"learner.batch_size": 64})
    config = from_values(values)

    text = annotated_yaml(config, origins)

    assert from_yaml(text) == config
    for line in (
        "total_env_steps: 150000  # preset cartpole",
        "  batch_size: 64  # values",
        f"  n_step: 2  # {path}, line 1",
        "  shards: 1  # default",
        "    value: {start: 1.0, end: 0.05, env_steps: 10000}  # preset cartpole",
    ):
        assert line in text.splitlines()
    values = [line for line in text.splitlines() if not line.rstrip().endswith(":")]
    assert len(values) == len(key_types(Config)) and all("  # " in line for line in values)


def test_a_fraction_is_shown_with_the_env_steps_that_it_means():
    config = from_values({"total_env_steps": 8_000})

    text = annotated_yaml(config, {})

    line = "    value: {start: 1.0, end: 0.05, fraction: 0.5}  # default, 4,000 env steps"
    assert line in text.splitlines()
    assert from_yaml(text) == config


def test_the_default_is_cartpole_without_a_stop():
    config = Config()

    assert config.env.id == "CartPole-v1"
    assert config.eval.stop_at_return is None
    assert config.workers == WorkersConfig()
