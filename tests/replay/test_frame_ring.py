"""The ring of frames: wraps, growth, stacks and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distdqn.replay.frame_ring import FrameRing
from distdqn.types import ObservationSpec

INDEX = ObservationSpec((), "int64")
NUM_ACTIONS = 3


def test_the_frame_ring_moves_needed_frames_when_it_grows_while_wrapped() -> None:
    ring = FrameRing(4, INDEX, NUM_ACTIONS)
    assert ring.append(np.arange(3), None, oldest=0) == 0
    assert ring.append(np.arange(3, 6), None, oldest=2) == 3  # wraps: holds 2 to 5
    assert (ring.capacity, ring.gather(np.array([2, 5, 4])).tolist()) == (4, [2, 5, 4])
    assert ring.append(np.arange(6, 8), None, oldest=3) == 6  # 3 to 7: one too many
    assert ring.capacity == 5
    assert ring.gather(np.arange(3, 8)).tolist() == [3, 4, 5, 6, 7]
    assert ring.check_valid(oldest=3) == (True, "")
    assert ring.check_valid(oldest=2) == (False, "frame 2 is not among the last 5 frames")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (8,), (5, 7)])
def test_frames_of_every_size_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    ring = FrameRing(7, ObservationSpec(shape, dtype), NUM_ACTIONS)
    frames = np.random.default_rng(0).integers(0, 250, (11, *shape)).astype(dtype)
    ring.append(frames[:5], None, oldest=0)
    ring.append(frames[5:], None, oldest=4)
    numbers = np.array([10, 4, 7, 7, 5])
    gathered = ring.gather(numbers)
    assert (gathered.shape, gathered.dtype) == ((5, *shape), np.dtype(dtype))
    np.testing.assert_array_equal(gathered, frames[numbers])


def test_masks_move_with_their_frames() -> None:
    ring = FrameRing(3, INDEX, NUM_ACTIONS)
    ring.append(np.arange(2), None, oldest=0)
    assert ring.gather_masks(np.array([0, 1])) is None
    mask = np.array([[True, False, False], [False, True, False]])
    ring.append(np.arange(2, 4), mask, oldest=0)  # grows to 4, and the masks begin
    ring.append(np.arange(4, 6), None, oldest=1)  # grows to 5
    masks = ring.gather_masks(np.arange(1, 6))
    assert masks is not None
    expected = [[True] * 3, *mask.tolist(), [True] * 3, [True] * 3]
    assert (ring.capacity, masks.tolist()) == (5, expected)


def test_a_restored_ring_holds_the_same_frames_at_any_capacity() -> None:
    ring = FrameRing(6, INDEX, NUM_ACTIONS)
    ring.append(np.arange(5), None, oldest=0)
    early = ring.get_state(first=3)
    ring.append(np.arange(5, 7), np.eye(2, 3, dtype=bool), oldest=3)
    ring.append(np.arange(7, 9), None, oldest=3)
    late = ring.get_state(first=5)
    assert (early["first_frame"], late["first_frame"]) == (3, 5)
    assert "action_mask" not in early
    pieces = [(early["frames"], None), (late["frames"], late["action_mask"])]
    numbers = np.arange(3, 9)
    for capacity in (2, 6, 100):
        restored = FrameRing(capacity, INDEX, NUM_ACTIONS)
        restored.append(np.arange(2), None, oldest=0)  # replaced
        restored.set_state(3, pieces)
        assert (restored.next_number, restored.capacity) == (9, max(capacity, 6))
        assert restored.gather(numbers).tolist() == numbers.tolist()
        np.testing.assert_array_equal(restored.gather_masks(numbers), ring.gather_masks(numbers))


def test_a_ring_for_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="capacity of 0"):
        FrameRing(0, INDEX, NUM_ACTIONS)


@pytest.mark.parametrize("padding", ["zero", "repeat"])
def test_stacks_stay_right_while_the_ring_wraps_and_grows(padding: Any) -> None:
    ring = FrameRing(7, ObservationSpec((), "int64", stack=3, padding=padding), NUM_ACTIONS)
    rng, oldest = np.random.default_rng(0), 0
    for _ in range(60):
        count = int(rng.integers(1, 6))
        first = ring.append(np.arange(ring.next_number, ring.next_number + count), None, oldest)
        assert ring.check_valid(oldest) == (True, "")
        numbers = np.arange(oldest, first + count)
        depths = np.minimum(numbers - oldest, rng.integers(0, 3, len(numbers))).astype(np.uint8)
        expected = []
        for number, depth in zip(numbers, depths, strict=True):
            held = list(range(number - depth, number + 1))
            expected.append([held[0] if padding == "repeat" else 0] * (2 - depth) + held)
        assert ring.gather(numbers, depths).tolist() == expected
        assert ring.gather(numbers).tolist() == numbers.tolist()  # the frames themselves
        oldest = max(oldest, first - int(rng.integers(4, 15)))
    assert 7 < ring.capacity <= 21


def test_an_observation_without_stack_is_its_frame() -> None:
    ring = FrameRing(5, INDEX, NUM_ACTIONS)
    ring.append(np.arange(5), None, oldest=0)
    numbers = np.array([[1, 4], [2, 2]])
    assert ring.gather(numbers, np.zeros((2, 2), np.uint8)).tolist() == numbers.tolist()
