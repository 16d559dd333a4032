"""Rows in slots: every shape, dtype and place; growth in place."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.replay.frame_ring import Rows


def filled(capacity: int, dtype: str, shape: tuple[int, ...]) -> Rows:
    rows = Rows(capacity, dtype, shape)
    drawn = np.random.default_rng(0).integers(1, 250, (capacity, *shape))
    rows.write(0, drawn.astype(dtype))
    return rows


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from([(), (3,), (4,), (4, 4), (5, 7)]),
    dtype=st.sampled_from(["uint8", "bool", "int32", "float32", "float64"]),
    origin=st.integers(0, 30),
    lead=st.sampled_from([(0,), (6,), (2, 6), (2, 3, 4)]),
    seed=st.integers(0, 1_000),
)
def test_gathered_rows_are_those_of_a_plain_index(
    shape: Any, dtype: str, origin: int, lead: Any, seed: int
) -> None:
    rows, rng = filled(11, dtype, shape), np.random.default_rng(seed)
    slots = rng.integers(0, 11, lead)
    lap = np.where(rng.random(lead) < 0.5, 11, 0)  # of the lap before, or of this one
    gathered = rows.gather(slots + origin - lap, origin)
    assert gathered.shape == (*lead, *shape) and gathered.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(gathered, rows.array[slots])


@pytest.mark.parametrize(("added", "num_tail"), [(1, 0), (1, 7), (3, 5), (20, 10)])
def test_rows_grow_in_place_and_the_last_stay_last(added: int, num_tail: int) -> None:
    rows = filled(10, "int32", (2,))
    before = rows.array.copy()
    rows.resize(10 + added, num_tail)
    assert len(rows.array) == 10 + added and rows.nbytes == 8 * (10 + added)
    np.testing.assert_array_equal(rows.array[: 10 - num_tail], before[: 10 - num_tail])
    np.testing.assert_array_equal(rows.array[len(rows.array) - num_tail :], before[10 - num_tail :])


def test_growing_holds_old_and_new_rows_at_no_time_together() -> None:
    rows = filled(1_000, "uint8", (100, 100))
    tracemalloc.start()
    try:
        rows.resize(1_050, 900)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What was allocated before does not count here, but for its new size; 50 rows of the
    # rest move at a time.
    assert peak <= (1_050 + 2 * 50) * 10_000
