"""The two counterexamples against hand-worked sweeps, formulas and a file."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from distdqn.tabular.counterexamples import (
    BAIRD_DISCOUNT,
    baird_features,
    baird_initial_weights,
    baird_sweeps,
    tsitsiklis_van_roy_sweeps,
)

FILE = Path(__file__).parents[3] / "shared" / "data" / "divergence_counterexamples.csv"


def sweep_state_by_state(weights, gradient):
    """One expected update as the textbook writes it: a sum over the seven states."""
    x, total = baird_features(), np.zeros(8)
    for state in range(7):
        td_error = 0.99 * np.dot(x[6], weights) - np.dot(x[state], weights)
        residual = -0.99 * x[6] if gradient == "residual" else 0.0
        total += td_error * (x[state] + residual)
    return weights + 0.01 / 7 * total


def test_the_features_give_the_values_of_the_figure():
    w = np.arange(1.0, 9.0)

    assert (baird_features() @ w).tolist() == [10, 12, 14, 16, 18, 20, 23]  # 2 w_i + w_8


def test_the_first_sweep_of_baird_is_as_worked_by_hand():
    # v(1..6) = 3, v(7) = 12: errors 0.99 * 12 - 3 = 8.88 and 0.99 * 12 - 12 = -0.12.
    step = 0.01 / 7
    expected = [1 + step * 2 * 8.88] * 6 + [10 - step * 0.12, 1 + step * (6 * 8.88 - 2 * 0.12)]

    np.testing.assert_allclose(baird_sweeps(1)[1], expected, rtol=1e-14)


@pytest.mark.parametrize("gradient", ["semi", "residual"])
def test_sweeps_agree_with_the_sum_over_states(gradient):
    history = baird_sweeps(50, gradient)

    assert history.shape == (51, 8)
    np.testing.assert_array_equal(history[0], baird_initial_weights())
    for before, after in itertools.pairwise(history):
        np.testing.assert_allclose(after, sweep_state_by_state(before, gradient), rtol=1e-12)


def test_the_semi_gradient_diverges_by_its_spectral_radius_and_the_residual_converges():
    # weights <- (I + 0.01 / 7 X^T (0.99 X' - X)) weights, with X' the features of state 7.
    x = baird_features()
    matrix = np.eye(8) + 0.01 / 7 * x.T @ (BAIRD_DISCOUNT * np.tile(x[6], (7, 1)) - x)
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    semi = np.abs(baird_sweeps(6_000)).max(axis=1)
    residual = np.abs(baird_sweeps(6_000, "residual") @ x.T).max(axis=1)

    assert radius == pytest.approx(1.0023925, abs=1e-7)
    assert (semi[-1] / semi[-1_001]) ** (1 / 1_000) == pytest.approx(radius, rel=1e-5)
    assert residual[-1] < residual[0] / 4 and (np.diff(residual[100:]) < 0).all()


def test_a_target_network_holds_baird_if_it_is_held_long_enough():
    """Seven states and eight weights: values can be fitted exactly, so a target that is held
    until they are is exact value iteration, which contracts."""
    held = np.abs(baird_sweeps(20_000, target_period=1_000) @ baird_features().T).max(axis=1)
    brief = np.abs(baird_sweeps(20_000, target_period=10) @ baird_features().T).max(axis=1)

    assert held.max() < 1.5 * held[0] and held[-1] < held[0]
    assert brief[-1] > 1e6


def test_a_target_network_keeps_its_weights_for_a_period():
    history = baird_sweeps(4, target_period=2)
    x = baird_features()
    for sweep, copied in enumerate([0, 0, 2, 2]):
        td_errors = 0.99 * (x[6] @ history[copied]) - x @ history[sweep]
        expected = history[sweep] + 0.01 / 7 * td_errors @ x
        np.testing.assert_allclose(history[sweep + 1], expected, rtol=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("discount", [0.5, 0.8, 0.99])
def test_tsitsiklis_van_roy_grows_by_the_factor_of_the_book(discount, epsilon):
    factor = discount * (6 - 4 * epsilon) / 5

    weights = tsitsiklis_van_roy_sweeps(30, discount, epsilon, 2.0)

    np.testing.assert_allclose(weights, 2.0 * factor ** np.arange(31), rtol=1e-12)


def test_tsitsiklis_van_roy_diverges_above_five_sixths():
    assert tsitsiklis_van_roy_sweeps(500, 5 / 6 + 0.01)[-1] > 100
    assert tsitsiklis_van_roy_sweeps(500, 5 / 6 - 0.01)[-1] < 0.01


def test_the_residual_gradient_has_no_target_network():
    with pytest.raises(AssertionError):
        baird_sweeps(1, "residual", target_period=10)


@pytest.mark.skipif(not FILE.is_file(), reason=f"no {FILE} beside the checkout")
def test_every_sweep_of_the_file_is_reproduced():
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    history = baird_sweeps(1_000)
    sweeps = []
    # The first column is a name with a comma-free text; the last, max |w|, is rounded.
    for row in csv.DictReader(lines):
        sweeps.append(int(row["sweep"]))
        weights = [float(row[f"w{i}"]) for i in range(1, 9)]
        np.testing.assert_allclose(history[sweeps[-1]], weights, atol=1e-6)
        assert np.abs(history[sweeps[-1]]).max() == pytest.approx(float(row["max_abs"]), abs=1e-4)

    assert sweeps == [0, 1, 10, 100, 500, 1_000]
