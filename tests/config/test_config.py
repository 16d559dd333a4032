"""Configuration: schedules, what a value may be, and what is refused in which words."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.config import (
    Config,
    EnvConfig,
    EvalConfig,
    LearnerConfig,
    NetworkConfig,
    Schedule,
    construct_limit,
    from_values,
    to_values,
)
from distdqn.config.tree import resolved_error_band
from distdqn.errors import ConfigError


def refusal(**values: object) -> str:
    """The message with which values by dotted key (`__` for `.`) are refused."""
    with pytest.raises(ConfigError) as caught:
        from_values({key.replace("__", "."): value for key, value in values.items()})
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- schedules ----------------------------------------------------------------------


def test_a_schedule_is_linear_and_then_constant():
    schedule = Schedule(1.0, 0.05, 250_000)

    assert schedule.at(0) == 1.0
    assert schedule.at(125_000) == pytest.approx(0.525)
    assert schedule.at(200_000) == pytest.approx(1.0 - 0.95 * 0.8)
    assert schedule.at(250_000) == 0.05
    assert schedule.at(10**9) == 0.05


def test_a_schedule_may_rise():
    assert Schedule(0.4, 1.0, 10).at(5) == pytest.approx(0.7)


@settings(deadline=None, max_examples=50)
@given(
    start=st.floats(-10, 10),
    end=st.floats(-10, 10),
    length=st.integers(1, 10**6),
    step=st.integers(0, 2 * 10**6),
)
def test_a_schedule_never_leaves_its_two_ends(start, end, length, step):
    value = Schedule(start, end, length).at(step)

    assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (0.1, Schedule(0.1, 0.1, 1)),
        ("0.1", Schedule(0.1, 0.1, 1)),
        ("1.0:0.05:250000", Schedule(1.0, 0.05, 250_000)),
        ({"start": 1, "end": 0.05, "env_steps": 250_000}, Schedule(1.0, 0.05, 250_000)),
        ({"start": 1, "end": 0.05, "env_steps": "1e5"}, Schedule(1.0, 0.05, 100_000)),
        (Schedule(0.5, 0.1, 7), Schedule(0.5, 0.1, 7)),
        ("1.0:0.05:30%", Schedule(1.0, 0.05, fraction=0.3)),
        ("1:0:12.5 %", Schedule(1.0, 0.0, fraction=0.125)),
        ({"start": 1, "end": 0.05, "fraction": 0.3}, Schedule(1.0, 0.05, fraction=0.3)),
    ],
)
def test_a_schedule_comes_as_number_text_or_mapping(given, meant):
    assert from_values({"workers.epsilon.value": given}).workers.epsilon.value == meant


@pytest.mark.parametrize(
    "given",
    ["1:0", "1:0:5:6", "a:b:c", "1:0:x%", "1:0:%", "1:0:0%", "1:0:101%", {"start": 1, "end": 0},
     {"start": 1, "end": 0, "env_steps": 5, "fraction": 0.5}, [1, 0, 5], None],
)  # fmt: skip
def test_a_malformed_schedule_is_refused_with_its_forms(given):
    message = refusal(learner__learning_rate=given)

    assert "learner.learning_rate is" in message
    assert "START:END:ENV_STEPS or START:END:30%" in message


def test_a_schedule_without_length_is_refused():
    with pytest.raises(ConfigError, match=r"schedule.env_steps is 0, must be at least 1"):
        Schedule(1.0, 0.0, 0)


def test_a_schedule_has_one_length():
    with pytest.raises(ConfigError, match="has neither of env_steps and fraction"):
        Schedule(1.0, 0.0)
    with pytest.raises(ConfigError, match="has both of env_steps and fraction"):
        Schedule(1.0, 0.0, 5, 0.5)


@pytest.mark.parametrize("text", ["1.0:0.05:30%", "1.0:0.05:0.1%", "1.0:0.05:100%", "1.0:0.0:7"])
def test_a_schedule_is_written_as_it_is_given(text):
    assert str(from_values({"workers.epsilon.value": text}).workers.epsilon.value) == text


def test_both_ends_of_a_schedule_are_held_to_the_range():
    message = refusal(workers__epsilon__value="1.0:-0.1:50")

    assert "workers.epsilon.value is 1.0:-0.1:50, must be at least 0 and at most 1" in message


# --- single values ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("workers.count", 0, ["workers.count is 0", "at least 1", "nothing is collected"]),
        ("learner.discount", 1.5, ["1.5", "at least 0 and at most 1", "not converge"]),
        ("learner.target_tau", 0, ["above 0 and at most 1"]),
        ("replay.samples_per_insert", 0, ["at least 1e-06", "hardly a sample"]),
        ("learner.max_grad_norm", 0, ["above 0", "no gradient would pass"]),
        ("network.hidden", [64, 0], ["network.hidden is (64, 0)", "at least 1"]),
        ("workers.resources", {"a": -1}, ["{'a': -1.0}", "at least 0"]),
        ("seed", 2**32, ["4294967296", "at most 4294967295"]),
    ],
)
def test_a_value_out_of_range_is_refused_with_bound_and_consequence(key, value, words):
    message = refusal(**{key.replace(".", "__"): value})

    assert message.startswith(f"{key} is ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("learner.batch_size", "many", "a whole number"),
        ("learner.batch_size", 1.5, "a whole number"),
        ("learner.batch_size", True, "a whole number"),
        ("learner.batch_size", None, "a whole number"),
        ("learner.discount", float("nan"), "finite"),
        ("learner.discount", "inf", "finite"),
        ("learner.discount", [0.9], "a number"),
        ("learner.double", 1, "true or false"),
        ("learner.double", "true", "true or false"),
        ("env.id", 5, "text"),
        ("env.id", "", "text"),
        ("network.hidden", 64, "a list"),
        ("network.hidden", [64, "x"], "a whole number"),
        ("env.kwargs", [1], "a mapping"),
        ("env.kwargs", {1: 2}, "a mapping"),
        ("workers.resources", {"gpu": "one"}, "a number"),
        ("learner.max_grad_norm", "no", "none is allowed too"),
    ],
)
def test_a_value_of_another_type_is_refused(key, value, must):
    message = refusal(**{key.replace(".", "__"): value})

    assert message.startswith(key)
    assert must in message


def test_a_choice_is_refused_with_the_nearest_one():
    message = refusal(replay__kind="prioritised")

    assert message == (
        "replay.kind is 'prioritised', must be uniform or prioritized or fifo; "
        "did you mean prioritized?"
    )


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("learner.learning_rate", "1e-4", Schedule(1e-4, 1e-4, 1)),
        ("total_env_steps", "1e6", 1_000_000),
        ("total_env_steps", 1e5, 100_000),
        ("learner.discount", 1, 1.0),
        ("network.hidden", [256, 256], (256, 256)),
        ("learner.max_grad_norm", None, None),
    ],
)
def test_a_value_takes_the_type_of_its_field(key, value, meant):
    found = to_values(from_values({key: value}))[key]

    assert found == meant
    assert type(found) is type(meant)


def test_parts_are_checked_when_they_are_built_in_python():
    with pytest.raises(ConfigError, match=r"learner.n_step is 0"):
        LearnerConfig(n_step=0)
    with pytest.raises(ConfigError, match=r"network.hidden"):
        NetworkConfig(hidden="big")
    with pytest.raises(ConfigError, match=r"replay is 5, must be a ReplayConfig"):
        Config(replay=5)


def test_a_number_stands_for_a_constant_schedule_in_python():
    assert LearnerConfig(learning_rate=0.001).learning_rate.at(99) == 0.001


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 2


def test_a_callers_mapping_is_copied():
    kwargs = {"is_slippery": False}
    env = EnvConfig(kwargs=kwargs)
    kwargs["is_slippery"] = True

    assert env.kwargs == {"is_slippery": False}


def test_a_configuration_travels_between_processes():
    config = from_values({"env.kwargs": {"a": [1]}, "workers.epsilon.value": "1:0.1:5"})

    assert pickle.loads(pickle.dumps(config)) == config


# --- between values -----------------------------------------------------------------


def test_a_first_batch_that_cannot_be_filled_is_refused():
    message = refusal(replay__min_size_to_sample=100, learner__batch_size=128)

    assert "replay.min_size_to_sample is 100" in message
    assert "learner.batch_size 128" in message


def test_a_minimum_above_the_capacity_is_refused():
    message = refusal(replay__capacity=2_000, replay__min_size_to_sample=2_001)

    assert "replay.capacity is 2000" in message
    assert "replay.min_size_to_sample 2001" in message
    assert "never start" in message


def test_sizes_may_meet_at_their_bounds():
    from_values(
        {
            "learner.batch_size": 512,
            "replay.min_size_to_sample": 512,
            "replay.capacity": 512,
            "workers.block_transitions": 512,
        }
    )


def test_a_run_too_short_for_one_update_is_refused():
    enough = 1_000 + 10  # 12.8 samples per insert: ten inserts owe one batch of 128

    assert "nothing would be learned" in refusal(total_env_steps=enough - 1)
    from_values({"total_env_steps": enough})


def test_a_block_smaller_than_one_step_of_all_envs_is_refused():
    message = refusal(workers__block_transitions=15)

    assert "workers.block_transitions is 15" in message
    assert "workers.envs_per_worker 16" in message


def test_a_block_larger_than_its_shard_is_refused():
    message = refusal(replay__capacity=1_000, replay__shards=2)

    assert "replay.capacity is 1000" in message
    assert "workers.block_transitions 512" in message


def test_the_automatic_band_is_the_smallest_that_cannot_deadlock():
    blocks = from_values(
        {"replay.shards": 3, "workers.block_transitions": 64, "learner.superbatch": 4}
    )
    samples = from_values({"replay.shards": 1, "workers.block_transitions": 64})

    assert resolved_error_band(blocks) == 4_916  # 2 x 3 x 64 x 12.8 = 4915.2
    assert resolved_error_band(samples) == 2 * 2 * 32 * 128


def test_a_band_that_would_deadlock_is_refused_naming_every_value():
    message = refusal(replay__error_band=16_383)

    for words in (
        "replay.error_band is 16383",
        "at least 16384",
        "replay.shards 1",
        "workers.block_transitions 512",
        "replay.samples_per_insert 12.8",
        "learner.prefetch 2",
        "learner.superbatch 32",
        "learner.batch_size 128",
    ):
        assert words in message


def test_the_smallest_band_itself_is_allowed():
    """3 x 64 x 12.8 is above 2457.6 in binary arithmetic."""
    values = {"replay.shards": 3, "workers.block_transitions": 64, "learner.superbatch": 4}

    assert from_values({**values, "replay.error_band": 4915.2}).replay.error_band == 4915.2
    with pytest.raises(ConfigError, match="at least 4915.2"):
        from_values({**values, "replay.error_band": 4915})


def test_a_wider_band_is_kept():
    config = from_values({"replay.error_band": 20_000})

    assert resolved_error_band(config) == 20_000


def test_stopping_at_a_return_needs_evaluation():
    message = refusal(eval__stop_at_return=475, eval__period_env_steps=None)

    assert "eval.stop_at_return is 475" in message
    assert "eval.period_env_steps is none" in message
    assert EvalConfig(period_env_steps=None).period_env_steps is None


def test_momentum_that_adam_would_ignore_is_refused():
    assert "only rmsprop has it" in refusal(learner__optimizer_momentum=0.9)
    from_values({"learner.optimizer_momentum": 0.9, "learner.optimizer": "rmsprop"})


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "-flag", "with space"])
def test_a_run_name_that_is_no_plain_folder_is_refused(name):
    assert "run_name is" in refusal(run_name=name)


def test_plain_run_names_are_kept():
    assert from_values({"run_name": "cartpole-2.seed_3"}).run_name == "cartpole-2.seed_3"


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({}, (120.0, "workers.construct_timeout_s")),
        ({"start_timeout_s": 60}, (60.0, "start_timeout_s")),  # as runs of earlier versions have
        ({"workers.construct_timeout_s": 200}, (120.0, "start_timeout_s")),
        ({"workers.construct_timeout_s": 5}, (5.0, "workers.construct_timeout_s")),
    ],
)
def test_envs_may_be_made_within_the_lower_of_two_limits(values, limit):
    seconds, key = limit
    missed = f"was not constructed within {seconds:g} s ({key})"
    assert construct_limit(from_values(values)) == (seconds, missed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers__resources": {"CPU": 1}}, "workers.resources has CPU 1, must name custom"),
        ({"learner__resources": {"memory": 9}}, "learner.resources has memory 9, must name"),
        ({"workers__resources": {"x": 0.00001}}, "has x 1e-05, must have at most four digits"),
        ({"learner__num_gpus": 1.5}, "learner.num_gpus is 1.5, must be whole above 1"),
    ],
)
def test_resources_that_ray_would_refuse_are_refused_before(changes, words):
    assert words in refusal(**changes)


def test_too_few_pending_calls_are_refused_before_a_shard_refuses_them():
    assert "must be at least 20" in refusal(max_pending_calls=19)
    from_values({"max_pending_calls": 20})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replay.kind": "fifo"}, "mode async: only in lockstep"),
        (
            {"replay.kind": "fifo", "mode": "lockstep"},
            "must be 1 with replay.kind fifo, they are 1 and 12.8",
        ),
        (
            {
                "replay.kind": "fifo",
                "mode": "lockstep",
                "replay.samples_per_insert": 1.0,
                "replay.capacity": 1_639,
            },
            "must be at least 1640",
        ),
        (  # 1,000 + 512 + 4 x 16 of open windows + 128
            {
                "replay.kind": "fifo",
                "mode": "lockstep",
                "replay.samples_per_insert": 1.0,
                "replay.capacity": 1_703,
                "learner.n_step": 5,
            },
            "must be at least 1704",
        ),
        ({"learner.gradient": "residual", "learner.double": True}, "must be false with"),
        ({"learner.precision": "float64", "learner.device": "cuda"}, "must be cpu or auto"),
        ({"mode": "lockstep", "address": "auto"}, "mode lockstep_ray has the same schedule"),
    ],
)
def test_what_lockstep_and_verification_rule_out_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        from_values(changes)


def test_fifo_keeps_all_that_waits_to_be_used():
    config = from_values(
        {
            "replay.kind": "fifo",
            "mode": "lockstep",
            "replay.samples_per_insert": 1.0,
            "replay.capacity": 1_640,
        }
    )

    assert config.replay.kind == "fifo"


@pytest.mark.parametrize("frames", [0, 17])
def test_a_stack_that_is_out_of_bounds_says_what_either_bound_is_for(frames):
    with pytest.raises(ConfigError, match="at least 1 and at most 16: none would .*, many would"):
        from_values({"env.frame_stack": frames})
