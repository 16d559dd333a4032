"""What both modes train with, and what it tells of itself."""

import numpy as np
import pytest
from learner_parts import B, K, make_batch, make_learner, same_state

from distdqn.learning.training import Training
from distdqn.types import WeightsVersion

VERSION = WeightsVersion(1, 3)


def make_training(with_target=True, **settings):
    return Training(
        make_learner(target_period=2, **settings),
        learning_rate=lambda env_steps: 1e-3 if env_steps < 100 else 1e-4,
        importance_sampling_exponent=lambda env_steps: 0.5,
        with_target=with_target,
    )


def test_the_learning_rate_is_that_of_the_env_step_clock():
    training = make_training()
    rates = []
    for env_steps in (0, 100):
        training.update(make_batch(0), 1.0, 100, env_steps)
        rates.append(training.report(VERSION, 1.0, 5.0).learning_rate)

    assert rates == [1e-3, 1e-4]


def test_a_snapshot_leaves_out_the_target_that_its_receivers_have():
    training = make_training()
    training.update(make_batch(0), 1.0, 100, 0)  # K updates, a copy after every second
    copies = K // 2

    fresh = training.snapshot(VERSION, 7)
    known = training.snapshot(VERSION, 7, known_target=copies)

    assert fresh.target_version == known.target_version == (1, copies)
    np.testing.assert_array_equal(fresh.target, training.learner.target_vector())
    assert known.target is None and known.env_steps == 7
    assert make_training(with_target=False).snapshot(VERSION, 0).target is None


def test_what_was_no_update_counts_as_waiting():
    training = make_training()
    training.update(make_batch(0), 1.0, 100, 0)

    report = training.report(VERSION, 2.0, elapsed_s=1_000.0, is_last=True)

    busy_s = training.get_state()["busy_s"]
    assert report.wait_s == pytest.approx(1_000.0 - busy_s) and busy_s > 0
    assert (report.gradient_steps, report.samples_per_insert) == (K, 2.0)
    assert report.td_errors.total == B


def test_a_restored_training_goes_on_as_the_one_before():
    first, second = make_training(), make_training()
    first.update(make_batch(0), 1.0, 100, 0)
    state = first.get_state()
    second.set_state(state["learner"], state["busy_s"])

    updates = [each.update(make_batch(1), 0.5, 100, 50) for each in (first, second)]

    np.testing.assert_array_equal(updates[0].priorities, updates[1].priorities)
    assert same_state(first.learner, second.learner)
