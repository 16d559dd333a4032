"""The bound, the flag and what is said of it."""

from __future__ import annotations

import math

import pytest

from distdqn.control.value_diagnostics import ValueDiagnostics
from distdqn.telemetry.status import shared


def seen(discount=0.99, reward=1.0, value=50.0):
    values = ValueDiagnostics(discount)
    values.note_rewards(reward)
    values.note_values(value)
    return values


def test_the_bound_is_the_largest_reward_for_ever():
    values = seen(discount=0.9)
    assert values.q_bound == pytest.approx(10.0)  # 1 + 0.9 + 0.81 + ...
    values.note_rewards(3.0)
    values.note_rewards(2.0)  # of another worker
    assert values.q_bound == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("value", "flag"), [(99.9, False), (100.5, False), (101.5, True), (math.inf, True)]
)
def test_only_values_clearly_beyond_the_bound_are_soft_divergence(value, flag):
    assert seen(value=value).soft_divergence is flag


def test_the_largest_value_of_the_run_outlives_the_learner_that_had_it():
    values = seen(value=200.0)
    values.note_values(math.nan)  # a new learner has none yet
    values.note_values(3.0)
    assert values.q_abs_max == 200.0 and values.soft_divergence is True


@pytest.mark.parametrize(
    "values",
    [
        seen(discount=None),
        seen(discount=1.0),
        seen(reward=0.0),  # before the first reward of a sparse task
        seen(value=math.nan),
    ],
)
def test_without_a_bound_or_a_value_nothing_is_flagged(values):
    assert values.soft_divergence is None and values.announcement() == ""


def test_soft_divergence_is_announced_once_with_both_figures():
    values = seen()
    assert values.announcement() == ""
    values.note_values(250.0)
    line = values.announcement()
    assert "|q| has reached 250" in line and "= 100;" in line and "\n" not in line
    values.note_values(1e9)
    assert values.announcement() == ""


def test_the_newest_evaluation_stands_beside_the_rest_in_the_status():
    values = seen()
    values.note_evaluation(40.0, 30.0)
    values.note_evaluation(48.0, 47.0)
    assert shared(values) == {
        "q_start_mean": 48.0,
        "return_start_mean": 47.0,
        "q_abs_max": 50.0,
        "q_bound": pytest.approx(100.0),
        "soft_divergence": False,
    }


def test_a_resumed_run_goes_on_from_the_state_and_announces_nothing_twice():
    values = seen(value=250.0)
    values.note_evaluation(40.0, 30.0)
    assert values.announcement()
    resumed = ValueDiagnostics(0.99)
    resumed.set_state(values.get_state())
    assert shared(resumed) == shared(values) and resumed.announcement() == ""
