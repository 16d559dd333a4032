"""Blocks whose stacks would reach where they must not are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from replay_parts import NUM_ACTIONS, Worker, make_replay

from distdqn.replay.blocks import check_block
from distdqn.types import ObservationSpec, TransitionBlock

STACKED = ObservationSpec((4,), "float32", stack=3)


def with_depth(name: str, position: int, depth: int, dtype: Any = np.uint8) -> TransitionBlock:
    """A block of five whose third transition has its newest frame and its depth changed."""
    block = Worker(STACKED).block(5)
    positions, depths = getattr(block, name).copy(), np.zeros(5, dtype)
    positions[2], depths[2] = position, depth
    return dataclasses.replace(block, **{name: positions, f"{name}_depth": depths})


@pytest.mark.parametrize("name", ["tm1", "t"])
def test_a_stack_ends_where_its_block_begins(name: str) -> None:
    check_block(with_depth(name, 1, 1), STACKED, NUM_ACTIONS)
    with pytest.raises(ValueError, match=f"{name}_depth .* at most {name}, got 2 at position 1"):
        check_block(with_depth(name, 1, 2), STACKED, NUM_ACTIONS)


@pytest.mark.parametrize("name", ["tm1", "t"])
def test_a_stack_is_no_deeper_than_observations_are(name: str) -> None:
    check_block(with_depth(name, 4, 2), STACKED, NUM_ACTIONS)
    with pytest.raises(ValueError, match=rf"{name}_depth .* in \[0, 3\), got 3"):
        check_block(with_depth(name, 4, 3), STACKED, NUM_ACTIONS)
    with pytest.raises(ValueError, match=rf"{name}_depth .* in \[0, 3\), got -1"):
        check_block(with_depth(name, 4, -1, np.int8), STACKED, NUM_ACTIONS)


def test_depths_must_be_as_many_as_transitions() -> None:
    block = dataclasses.replace(Worker(STACKED).block(5), t_depth=np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match=r"t_depth .* shape \(5,\), got \(4,\)"):
        check_block(block, STACKED, NUM_ACTIONS)


def test_a_replay_of_stacks_takes_a_good_block_and_says_what_was_corrupted() -> None:
    replay = make_replay(20, STACKED)
    replay.add(Worker(STACKED).block(20))
    assert replay.check_valid() == (True, "")
    replay.items["t_depth"][3] = 3
    replay.items["t"][3] = 10
    assert replay.check_valid() == (False, "an item's t has more frames than are stacked")
    replay.items["t_depth"][3] = 11
    assert replay.check_valid() == (False, "an item's t is not among the frames")


def test_a_state_with_larger_stacks_is_refused() -> None:
    replay = make_replay(20, STACKED)
    replay.add(Worker(STACKED).block(20))
    other = make_replay(20, dataclasses.replace(STACKED, stack=2))
    with pytest.raises(ValueError, match="below the stack of 2, got 2: more frames were stacked"):
        other.set_state(replay.get_state())
    assert other.size == 0
