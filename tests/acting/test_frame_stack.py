"""Stacks under random starts, held against lists of frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.acting.frames import FrameStack
from distdqn.types import ObservationSpec

PADDINGS = ("zero", "repeat")


def stacked(frames, positions, depths, spec):
    return spec.stacked(lambda at: frames[at], positions, depths)


def naive_stack(episode, stack, padding):
    """The last `stack` frames of the list `episode`, padded in front."""
    newest = episode[-stack:]
    first = np.zeros_like(newest[0]) if padding == "zero" else newest[0]
    return np.stack([first] * (stack - len(newest)) + newest)


def test_stacks_worked_by_hand():
    frames = np.array([[1], [2], [3], [4]], np.uint8)
    zero = ObservationSpec((1,), "uint8", stack=3)
    positions, depths = np.array([0, 1, 3, 3]), np.array([0, 1, 2, 0])
    seen = stacked(frames, positions, depths, zero)[..., 0]
    assert seen.tolist() == [[0, 0, 1], [0, 1, 2], [2, 3, 4], [0, 0, 4]]
    repeat = dataclasses.replace(zero, padding="repeat")
    seen = stacked(frames, positions, depths, repeat)[..., 0]
    assert seen.tolist() == [[1, 1, 1], [1, 1, 2], [2, 3, 4], [4, 4, 4]]


def test_without_a_stack_the_frame_is_the_observation():
    spec = ObservationSpec((2,), "float32")
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    stack = FrameStack(3, spec)
    assert stack.begin(frames) is frames and stack.push(frames, np.ones(3, bool)) is frames
    assert stacked(frames, np.array([2, 0]), np.zeros(2, np.uint8), spec).tolist() == [
        [4, 5],
        [0, 1],
    ]


@pytest.mark.parametrize("shape", [(), (2, 3)])
@pytest.mark.parametrize("padding", PADDINGS)
@settings(deadline=None, max_examples=30)
@given(stack=st.integers(2, 5), num_envs=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_every_observation_is_that_of_a_list_of_frames(shape, padding, stack, num_envs, seed):
    rng = np.random.default_rng(seed)
    spec = ObservationSpec(shape, "uint8", stack=stack, padding=padding)
    tested = FrameStack(num_envs, spec)
    streams: list[list[np.ndarray]] = [[] for _ in range(num_envs)]  # all frames of an env
    begins = np.zeros(num_envs, int)  # of its episode, in its stream
    for step in range(40):
        frames = rng.integers(1, 256, (num_envs, *shape)).astype(np.uint8)
        starts = rng.random(num_envs) < 0.2
        is_anew = step == 0 or rng.random() < 0.05
        seen = tested.begin(frames) if is_anew else tested.push(frames, starts)
        assert seen.shape == (num_envs, *spec.obs_shape) and seen.dtype == np.uint8
        for env, stream in enumerate(streams):
            if starts[env] or is_anew:
                begins[env] = len(stream)
            stream.append(frames[env])
            expected = naive_stack(stream[begins[env] :], stack, padding)
            np.testing.assert_array_equal(seen[env], expected)
            depth = min(len(stream) - 1 - begins[env], stack - 1)
            gathered = stacked(
                np.stack(stream), np.array([len(stream) - 1]), np.array([depth], np.uint8), spec
            )
            np.testing.assert_array_equal(gathered[0], expected)


def test_frames_of_the_caller_may_change_afterwards():
    stack = FrameStack(1, ObservationSpec((), "uint8", stack=2))
    frames = np.array([7], np.uint8)
    stack.begin(frames)
    frames[:] = 8
    seen = stack.push(frames, np.array([False]))
    frames[:] = 9
    assert seen.tolist() == [[7, 8]]
