"""Rows in slots: stacks of every size and place, written around the cache or through it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.replay.frame_rows import Rows
from distdqn.replay.streaming import STREAMED_FROM_BYTES, finish_streaming, store_streaming


def filled(capacity: int, dtype: str, shape: tuple[int, ...]) -> Rows:
    rows = Rows(capacity, dtype, shape)
    drawn = np.random.default_rng(0).integers(1, 250, (capacity, *shape))
    rows.write(0, drawn.astype(dtype))
    return rows


def naive_stack(rows: Rows, slot: int, depth: int, stack: int, repeats: bool) -> np.ndarray:
    """Frame by frame, with the slots taken round."""
    held = [rows.array[(slot - k) % len(rows.array)] for k in range(depth, -1, -1)]
    padding = held[0] if repeats else np.zeros_like(held[0])
    return np.array([padding] * (stack - len(held)) + held)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from([(), (3,), (4,), (4, 4), (5, 7)]),
    dtype=st.sampled_from(["uint8", "bool", "int32", "float32", "float64"]),
    stack=st.integers(2, 5),
    repeats=st.booleans(),
    origin=st.integers(0, 30),
    seed=st.integers(0, 1_000),
)
def test_stacks_are_those_of_a_plain_loop(
    shape: Any, dtype: str, stack: int, repeats: bool, origin: int, seed: int
) -> None:
    rows, rng = filled(11, dtype, shape), np.random.default_rng(seed)
    slots, depths = rng.integers(0, 11, (2, 6)), rng.integers(0, stack, (2, 6)).astype(np.uint8)
    before = np.where(rng.random((2, 6)) < 0.5, 11, 0)  # of the lap before, or of this one
    before[slots < depths] = 0  # its stack begins in the lap before
    gathered = rows.gather(slots + origin - before, origin, depths, stack, repeats)
    assert gathered.shape == (2, 6, stack, *shape) and gathered.dtype == np.dtype(dtype)
    for part in range(2):
        for i in range(6):
            naive = naive_stack(rows, slots[part, i], depths[part, i], stack, repeats)
            np.testing.assert_array_equal(gathered[part, i], naive)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("offset", [0, 8])
def test_large_outputs_are_written_around_the_cache_with_the_same_result(
    repeats: bool, offset: int
) -> None:
    rows, rng = filled(50, "uint8", (16, 16)), np.random.default_rng(1)
    count = STREAMED_FROM_BYTES // (2 * 4 * 256) + 1
    numbers = rng.integers(0, 50, (2, count))
    depths = rng.integers(0, 4, (2, count)).astype(np.uint8)
    memory = np.zeros(2 * count * 4 * 256 + 64, np.uint8)
    start = -memory.ctypes.data % 16 + offset  # 8: no such store is possible there
    out = memory[start : start + 2 * count * 1024].reshape(2, count, 4, 16, 16)
    assert rows.gather(numbers, 0, depths, 4, repeats, out) is out
    assert not memory[:start].any() and not memory[start + out.nbytes :].any()
    for part, i in zip(rng.integers(0, 2, 300), rng.integers(0, count, 300), strict=True):
        naive = naive_stack(rows, numbers[part, i], depths[part, i], 4, repeats)
        np.testing.assert_array_equal(out[part, i], naive)


def test_a_store_around_the_cache_writes_sixteen_bytes_and_no_more() -> None:
    @numba.njit
    def copy(target: np.ndarray, source: np.ndarray) -> None:
        store_streaming(target, 2, source, 3)  # type: ignore[call-arg]
        finish_streaming()

    memory = np.zeros(8, np.uint64)
    target = memory[1:] if memory.ctypes.data % 16 else memory[:-1]
    copy(target, np.arange(1, 8, dtype=np.uint64))
    assert target.tolist() == [0, 0, 4, 5, 0, 0, 0]


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
    with pytest.raises(AssertionError, match="stack would begin"):
        rows.gather(np.array([[5]]), 0, np.array([[4]], np.uint8), 4)
