"""Schedules against the length of the run."""

from __future__ import annotations

import pytest

from distdqn.config import Config, Schedule, from_values, from_yaml, load_config, to_yaml
from distdqn.config.files import preset_names
from distdqn.config.schedules import in_env_steps, outlasting


@pytest.mark.parametrize(
    ("total", "given", "env_steps"),
    [
        (100_000, "1:0:30%", 30_000),
        (8_000, "1:0:30%", 2_400),
        (2_000, "1:0:0.01%", 1),  # at least one
        (2_001, "1:0:50%", 1_000),  # 1000.5, to the even one
        (2_000, "1:0:70", 70),
        (2_000, "1:0:5000", 5_000),
    ],
)
def test_a_fraction_becomes_env_steps_of_the_run(total, given, env_steps):
    config = from_values({"total_env_steps": total, "workers.epsilon.value": given})

    assert in_env_steps(config).workers.epsilon.value == Schedule(1.0, 0.0, env_steps)


def test_every_schedule_may_be_a_fraction():
    fraction = Schedule(1.0, 0.5, fraction=0.25)
    keys = ("workers.epsilon.value", "learner.learning_rate", "replay.importance_sampling_exponent")

    config = in_env_steps(from_values(dict.fromkeys(keys, fraction)))

    assert config.workers.epsilon.value == config.learner.learning_rate
    assert config.replay.importance_sampling_exponent == Schedule(1.0, 0.5, 25_000)


def test_epsilon_follows_the_run_by_default():
    assert in_env_steps(Config()).workers.epsilon.value == Schedule(1.0, 0.05, 50_000)
    short = in_env_steps(from_values({"total_env_steps": 8_000}))
    assert short.workers.epsilon.value == Schedule(1.0, 0.05, 4_000)


def test_what_a_run_records_stays_when_it_is_extended():
    recorded = to_yaml(in_env_steps(from_values({"total_env_steps": 8_000})))

    longer = from_yaml(recorded).with_values({"total_env_steps": 80_000})

    assert in_env_steps(longer).workers.epsilon.value == Schedule(1.0, 0.05, 4_000)


def test_a_schedule_that_outlasts_the_run_is_said():
    config = from_values({"total_env_steps": 8_000, "workers.epsilon.value": "1:0.05:50000"})

    assert outlasting(config) == [
        "workers.epsilon.value reaches 0.05 after 50,000 env steps, the run ends at 8,000 with "
        "0.848; --workers.epsilon.value 1.0:0.05:50% follows the run's length"
    ]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"workers.epsilon.value": "1:0:100%"},
        {"workers.epsilon.value": "1:0:100000"},
        {"workers.epsilon.value": "0.1:0.1:999999"},
        {"workers.epsilon.value": "1:0:999999", "workers.epsilon.kind": "ladder"},
        {"replay.importance_sampling_exponent": "0:1:999999"},  # of uniform replay
    ],
)
def test_a_schedule_that_ends_in_time_or_is_not_used_is_not_said(values):
    assert outlasting(from_values(values)) == []


@pytest.mark.parametrize("name", preset_names())
def test_no_presets_schedule_outlasts_its_run(name):
    assert outlasting(load_config(preset=name)) == []
