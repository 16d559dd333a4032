"""Frames on their way into a block: their order, their stacks, and what is left behind."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.acting.frames import FrameBuffer
from distdqn.types import ObservationSpec


def buffer_of(stack: int, num_envs: int = 3) -> FrameBuffer:
    return FrameBuffer(4, num_envs, ObservationSpec((2,), "int32", stack=stack), num_actions=2)


def observe(envs: list[int], time: int) -> np.ndarray:
    return np.array([[env, time] for env in envs], np.int32).reshape(-1, 2)


def test_without_stacks_frames_keep_the_order_of_arrival() -> None:
    buffer, envs = buffer_of(1), np.arange(3)
    for time in range(3):
        assert buffer.append(observe([0, 1, 2], time), envs, None) == 3 * time
    kept, numbers = buffer.renumber((np.array([7, 1, 1]),), (np.zeros(3, np.uint8),))
    assert kept.tolist() == [1, 7]
    assert numbers.take([7, 1]).tolist() == [1, 0]


def test_stacked_frames_leave_env_by_env_with_those_before_them() -> None:
    buffer, envs = buffer_of(3), np.arange(3)
    for time in range(4):
        buffer.append(observe([0, 1, 2], time), envs, None)
    newest, depths = np.array([11, 9, 4]), np.array([1, 2, 0], np.uint8)
    kept, numbers = buffer.renumber((newest,), (depths,))
    frames, masks = buffer.take(kept)
    assert frames.tolist() == [[0, 1], [0, 2], [0, 3], [1, 1], [2, 2], [2, 3]]
    assert numbers.take(newest).tolist() == [5, 2, 3] and masks is None


@settings(deadline=None, max_examples=40)
@given(stack=st.integers(1, 4), seed=st.integers(0, 1_000))
def test_stacks_are_contiguous_after_any_number_of_carries(stack: int, seed: int) -> None:
    """Each env's newest frame and its stack are kept again and again."""
    rng, buffer = np.random.default_rng(seed), buffer_of(stack)
    seen: list[list[int]] = [[], [], []]
    for time in range(1, 40):
        envs = np.flatnonzero(rng.random(3) < 0.7)
        masks = rng.random((len(envs), 2)) < 0.5
        buffer.append(observe(envs.tolist(), time), envs, masks)
        for env in envs.tolist():
            seen[env].append(time)
        if time % 5:
            continue
        frames = buffer.frames[: buffer.size].tolist()
        newest = np.array([frames.index([env, seen[env][-1]]) for env in range(3) if seen[env]])
        depths = np.array([min(len(times), stack) - 1 for times in seen if times], np.uint8)
        kept, numbers = buffer.renumber((newest,), (depths,))
        buffer.keep(kept)
        for number, depth in zip(numbers.take(newest), depths, strict=True):
            env = int(buffer.frames[number, 0])
            expected = [[env, at] for at in seen[env][len(seen[env]) - 1 - depth :]]
            assert buffer.frames[number - depth : number + 1].tolist() == expected
    assert buffer.size <= 3 * (stack + 5)
