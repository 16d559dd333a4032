"""The sum tree against plain sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.replay.layout import tree_bytes
from distdqn.replay.sum_tree import SumTree


def tree_of(values: list[float]) -> SumTree:
    tree = SumTree(len(values))
    tree.set(np.arange(len(values)), np.array(values))
    return tree


def naive_find(values: np.ndarray, target: float) -> int:
    """The first slot whose prefix sum, itself included, exceeds the target."""
    return int(np.flatnonzero(np.cumsum(values) > target)[0])


def test_targets_find_the_slot_whose_range_holds_them() -> None:
    tree = tree_of([1.0, 0.0, 2.0, 0.5])
    assert tree.total == 3.5
    targets = np.array([0.0, 0.99, 1.0, 2.99, 3.0, 3.49])
    assert tree.find(targets).tolist() == [0, 0, 2, 2, 3, 3]


def test_the_total_itself_finds_the_last_slot_above_zero() -> None:
    tree = tree_of([1.0] * 9 + [2.0] + [0.0] * 30)
    assert tree.find(np.array([11.0])).tolist() == [9]


def test_of_equal_slots_the_last_value_wins() -> None:
    tree = tree_of([1.0, 1.0, 1.0])
    tree.set(np.array([1, 2, 1]), np.array([5.0, 3.0, 7.0]))
    assert tree.values[[0, 1, 2]].tolist() == [1.0, 7.0, 3.0]
    assert tree.total == 11.0


def test_other_integer_and_float_types_are_taken() -> None:
    tree = SumTree(4)
    tree.set(np.array([3, 1], np.int32), np.array([1.5, 2.5], np.float32))
    assert tree.find(np.array([0.0, 2.5], np.float32)).tolist() == [1, 3]
    tree.set(np.array([], np.int64), np.array([]))
    assert tree.total == 4.0


@settings(deadline=None, max_examples=60)
@given(
    capacity=st.integers(1, 70),
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 69), st.integers(0, 1_000)), max_size=20), max_size=8
    ),
)
def test_the_tree_agrees_with_a_plain_array(
    capacity: int, batches: list[list[tuple[int, int]]]
) -> None:
    tree, values = SumTree(capacity), np.zeros(capacity)
    for batch in batches:
        slots = np.array([slot % capacity for slot, _ in batch], np.int64)
        new = np.array([value for _, value in batch], np.float64)  # whole: sums are exact
        tree.set(slots, new)
        for slot, value in zip(slots, new, strict=True):
            values[slot] = value
        assert tree.check_valid() == (True, "")
        assert tree.total == values.sum()
        assert tree.values[:capacity].tolist() == values.tolist()
        if tree.total:
            targets = np.linspace(0.0, tree.total, 50, endpoint=False)
            assert tree.find(targets).tolist() == [naive_find(values, t) for t in targets]


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.just(0.0) | st.floats(1e-12, 1e12), min_size=1, max_size=70),
    fractions=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40),
)
def test_rounding_never_finds_a_slot_of_value_zero(
    values: list[float], fractions: list[float]
) -> None:
    tree = tree_of(values)
    if tree.total:
        slots = tree.find(np.minimum(np.array(fractions) * tree.total, tree.total))
        assert np.all(tree.values[slots] > 0.0)


def test_a_million_updates_leave_no_rounding_error_behind() -> None:
    rng = np.random.default_rng(0)
    tree = SumTree(100)
    for _ in range(1_000):
        slots = rng.integers(0, 100, 1_000)
        tree.set(slots, 10.0 ** rng.uniform(-12, 12, 1_000))
    tree.set(np.arange(100), np.full(100, 0.25))
    assert tree.total == 25.0  # a tree adjusted by differences is off by about 1e-3


def test_slots_are_found_in_proportion_to_their_values() -> None:
    tree = tree_of([1.0, 2.0, 3.0, 0.0, 4.0])
    targets = np.random.default_rng(0).random(100_000) * tree.total
    counts = np.bincount(tree.find(targets), minlength=5)
    expected = 100_000 * np.array([0.1, 0.2, 0.3, 0.0, 0.4])
    deviations = (counts - expected) ** 2 / np.maximum(expected, 1)
    assert deviations.sum() < 16.3  # chi-square, 3 degrees of freedom, p = 0.001
    assert counts[3] == 0


@pytest.mark.parametrize(
    ("slot", "value"),
    [(-1, 1.0), (5, 1.0), (0, -0.5), (0, float("nan")), (0, float("inf"))],
)
def test_a_wrong_slot_or_value_is_refused_and_changes_nothing(slot: int, value: float) -> None:
    tree = tree_of([1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(ValueError, match=rf"\[0, 5\).* got slot {slot} and value {value}"):
        tree.set(np.array([1, slot]), np.array([9.0, value]))
    assert tree.total == 15.0 and tree.check_valid() == (True, "")


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(AssertionError, match=r"\(2,\), \(1,\)"):
        SumTree(4).set(np.array([0, 1]), np.array([1.0]))
    with pytest.raises(AssertionError, match=r"\(1, 1\)"):
        tree_of([1.0]).find(np.zeros((1, 1)))


@pytest.mark.parametrize("target", [-0.1, 6.1, float("nan")])
def test_a_target_outside_the_total_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=rf"\[0, 6.0\].*got {target}"):
        tree_of([1.0, 2.0, 3.0]).find(np.array([0.5, target]))


def test_nothing_can_be_found_in_an_empty_tree() -> None:
    with pytest.raises(RuntimeError, match="every value is 0"):
        SumTree(3).find(np.array([0.0]))
    with pytest.raises(AssertionError, match="capacity of 0"):
        SumTree(0)


def test_check_valid_names_what_is_corrupt() -> None:
    tree = tree_of([1.0] * 20)
    tree.nodes[1] += 1.0
    assert tree.check_valid() == (False, "node 1 holds 21.0, what is below it 20.0")
    tree = tree_of([1.0] * 20)
    tree.values[3] = 2.0
    valid, why = tree.check_valid()
    assert not valid and why.startswith("node 4 holds 8.0")
    tree.values[3] = float("nan")
    assert tree.check_valid() == (False, "slot 3 holds nan, not a finite value >= 0")
    tree = tree_of([1.0] * 20)
    tree.values[20] = 1.0
    assert tree.check_valid() == (False, "a value beyond the capacity of 20 is not 0")


def test_a_restored_tree_has_bit_identical_nodes() -> None:
    rng = np.random.default_rng(0)
    tree = SumTree(100)
    for _ in range(20):
        tree.set(rng.integers(0, 100, 30), rng.random(30))
    restored = SumTree(100)
    restored.set_state(tree.get_state())
    assert restored.nodes.tobytes() == tree.nodes.tobytes()
    with pytest.raises(ValueError, match=r"\(99,\), got \(100,\)"):
        SumTree(99).set_state(tree.get_state())


def test_the_bytes_needed_are_those_allocated() -> None:
    for capacity in (1, 8, 9, 1_000, 1_000_000):
        assert tree_bytes(capacity) == SumTree(capacity).nbytes
    assert tree_bytes(1_000_000) < 11e6
