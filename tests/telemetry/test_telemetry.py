"""Histograms over many powers of ten, and figures that are asked for too often."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.telemetry.histograms import LogHistogram
from distdqn.telemetry.rates import RateMeter, Sparingly
from distdqn.telemetry.status import SCALARS, RunStatus, scalars

VALUES = st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=60)


def test_every_bin_counts_what_lies_between_its_edges():
    values = np.exp(np.random.default_rng(0).normal(0.0, 4.0, 5_000))
    counts, edges = LogHistogram(values).bins()
    expected = [np.sum((values >= a) & (values < b)) for a, b in itertools.pairwise(edges)]
    assert counts.tolist() == expected and counts.sum() == 5_000
    np.testing.assert_allclose(edges[2:-1] / edges[1:-2], 2**0.25)


@given(VALUES, st.sampled_from([0.05, 0.5, 0.95, 1.0]))
@settings(deadline=None, max_examples=60)
def test_a_quantile_is_within_nine_percent_of_the_exact_one(values, q):
    exact = sorted(values)[math.ceil(q * len(values)) - 1]  # the plainest definition
    assert LogHistogram(np.array(values)).quantile(q) == pytest.approx(exact, rel=0.0906)


def test_zeros_and_giants_have_bins_of_their_own():
    histogram = LogHistogram(np.array([0.0, 1e-9, 3e6, 5e7]))
    assert [histogram.quantile(q) for q in (0.25, 0.5)] == [0.0, 0.0]
    assert [histogram.quantile(q) for q in (0.75, 1.0)] == [5e7, 5e7]
    counts, edges = histogram.bins()
    assert (counts[0], counts[-1], edges[0], edges[-1]) == (2, 2, 0.0, 5e7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_counts_as_too_large_and_is_not_lost(bad):
    histogram = LogHistogram(np.array([1.0, bad, 2.0]))
    assert histogram.total == 3 and histogram.largest == math.inf
    assert histogram.quantile(0.95) == math.inf and histogram.quantile(0.3) < 1.1
    assert np.isfinite(histogram.bins()[1]).all()


def test_nothing_seen_has_no_quantile_and_no_bins():
    for histogram in (LogHistogram(), LogHistogram(np.empty(0)), LogHistogram().scaled(5.0)):
        assert math.isnan(histogram.quantile(0.5)) and math.isnan(histogram.largest)
        assert [len(part) for part in histogram.bins()] == [0, 0]


@given(VALUES, VALUES)
@settings(deadline=None, max_examples=30)
def test_two_merged_are_one_of_all_values(a, b):
    merged = LogHistogram(np.array(a)).merged(LogHistogram(np.array(b)))
    both = LogHistogram(np.array(a + b))
    np.testing.assert_array_equal(merged.counts, both.counts)
    assert merged.largest == both.largest == max(a + b)
    assert LogHistogram().merged(both).largest == both.largest


def test_a_sample_scaled_to_its_shard_weighs_as_much_as_the_shard():
    small = LogHistogram(np.full(100, 1.0)).scaled(900)  # 100 of 900 items were looked at
    large = LogHistogram(np.full(100, 8.0))
    merged = small.merged(large)
    assert merged.total == pytest.approx(1_000)
    assert merged.quantile(0.89) == pytest.approx(1.0, rel=0.1)
    assert merged.quantile(0.91) == pytest.approx(8.0, rel=0.1)


def test_a_total_that_falls_begins_a_new_window():
    meter = RateMeter()
    assert math.isnan(meter.rate(0.0, 100))
    assert meter.rate(1.0, 300) == 200.0
    assert math.isnan(meter.rate(2.0, 150)), "a learner went on from its last snapshot"
    assert meter.rate(4.0, 350) == 100.0


def test_sparingly_takes_a_hundredth_of_the_time_and_repeats_the_last_value(monkeypatch):
    clock: list[int] = [0]
    calls: list[int] = []
    monkeypatch.setattr(
        "distdqn.telemetry.rates.time.perf_counter", lambda: clock[0] / 1_024
    )  # exact

    def costly(value):
        calls.append(value)
        clock[0] += 1
        return value

    sparing = Sparingly(costly)
    for step in range(400):
        assert sparing(step) == calls[-1]
        clock[0] += 1
    assert calls == [0, 99, 198, 297, 396]  # each took 1 of the 100 until the next
    sparing.expire()
    assert sparing(7) == calls[-1] == 7


def test_sparingly_repeats_nothing_that_is_older_than_a_second(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("distdqn.telemetry.rates.time.perf_counter", lambda: clock[0])

    def slow(value):
        clock[0] += 60.0
        return value

    sparing = Sparingly(slow)
    sparing(1)
    clock[0] += 0.9
    assert sparing(2) == 1
    clock[0] += 0.2
    assert sparing(3) == 3


def test_every_scalar_is_a_field_and_what_is_not_finite_is_left_out():
    fields = {field.name for field in dataclasses.fields(RunStatus)}
    assert set(SCALARS.values()) <= fields
    status = RunStatus(q_abs_max=math.inf, q_bound=100.0, soft_divergence=True)
    written = scalars(status)
    assert written["values/q_bound"] == 100.0 and written["values/soft_divergence"] == 1.0
    assert "values/q_abs_max" not in written and "values/q_start" not in written
