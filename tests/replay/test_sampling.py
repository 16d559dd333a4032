"""Uniform, prioritized and first-in-first-out draws against their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.replay.sampling import PlainSampler, PrioritizedSampler, Sampler

PRIORITIES = np.array([0.5, 0.0, 2.0, 8.0, 1.0, 1.0, 0.1, 4.0], np.float32)
MAKERS: list[Callable[[], Sampler]] = [
    lambda: PlainSampler(8),
    lambda: PrioritizedSampler(8, 0.6, 0.01),
]


def prioritized(exponent: float = 0.6, epsilon: float = 0.01) -> PrioritizedSampler:
    sampler = PrioritizedSampler(8, exponent, epsilon)
    sampler.insert(np.arange(8), PRIORITIES)
    return sampler


def formula(priorities: np.ndarray, exponent: float, epsilon: float) -> np.ndarray:
    powers = [(float(p) + epsilon) ** exponent for p in priorities]
    return np.array(powers) / math.fsum(powers)


@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_prioritized_draws_have_the_probabilities_of_the_formula(exponent: float) -> None:
    expected = formula(PRIORITIES, exponent, 0.01)
    rng = np.random.default_rng(1)
    slots, probabilities = prioritized(exponent).sample(1_000, rng, num_batches=40)
    np.testing.assert_allclose(probabilities, expected[slots], rtol=1e-12)
    # Stratified draws scatter less than independent ones, for which the bound is p = 0.001.
    counts = np.bincount(slots, minlength=8)
    assert ((counts - 40_000 * expected) ** 2 / (40_000 * expected)).sum() < 24.3


def test_single_draws_have_the_frequencies_of_the_formula() -> None:
    sampler, rng = prioritized(), np.random.default_rng(2)
    slots, _ = sampler.sample(1, rng, num_batches=20_000)  # one stratum: independent draws
    expected = 20_000 * formula(PRIORITIES, 0.6, 0.01)
    counts = np.bincount(slots, minlength=8)
    assert ((counts - expected) ** 2 / expected).sum() < 24.3


def test_each_minibatch_is_stratified_by_itself() -> None:
    sampler, rng = prioritized(), np.random.default_rng(3)
    expected = formula(PRIORITIES, 0.6, 0.01)
    slots, _ = sampler.sample(64, rng, num_batches=10)
    for minibatch in slots.reshape(10, 64):
        assert np.all(np.diff(minibatch) >= 0)
        counts = np.bincount(minibatch, minlength=8)
        # A slot covers floor(64 P) strata wholly, but for the one cut at either end.
        assert np.all(np.abs(counts - 64 * expected) < 2.0)


def test_uniform_draws_are_independent_and_have_equal_frequencies() -> None:
    sampler = PlainSampler(8)
    sampler.insert(np.arange(5))
    slots, probabilities = sampler.sample(10, np.random.default_rng(4), num_batches=4_000)
    assert np.all(probabilities == 0.2) and slots.dtype == np.int64
    counts = np.bincount(slots, minlength=8)
    assert ((counts[:5] - 8_000) ** 2 / 8_000).sum() < 18.5  # 4 degrees of freedom
    assert counts[5:].sum() == 0
    equal_neighbours = np.mean(slots[1:] == slots[:-1])
    assert abs(equal_neighbours - 0.2) < 0.01  # with replacement


def test_uniform_draws_stay_on_the_live_arc() -> None:
    sampler, rng = PlainSampler(8), np.random.default_rng(5)
    sampler.insert(np.arange(8))
    sampler.remove(np.arange(6))
    sampler.insert(np.arange(2))
    assert sampler.mass == 4.0 and sampler.check_valid() == (True, "")
    slots, probabilities = sampler.sample(1_000, rng)
    assert set(slots.tolist()) == {6, 7, 0, 1} and set(probabilities.tolist()) == {0.25}


def test_uniform_sampling_refuses_slots_out_of_order() -> None:
    sampler = PlainSampler(8)
    sampler.insert(np.array([6, 7, 0]))  # an empty arc starts anywhere
    with pytest.raises(AssertionError, match="next slot"):
        sampler.insert(np.array([2]))
    sampler.insert(np.array([1, 2, 3, 4, 5]))
    with pytest.raises(AssertionError, match="oldest"):
        sampler.remove(np.array([3]))
    with pytest.raises(AssertionError, match="more slots than the ring has"):
        sampler.insert(np.array([6]))


def test_uniform_sampling_has_no_priorities() -> None:
    sampler = PlainSampler(8)
    assert sampler.insert(np.arange(2), np.array([1.0, np.nan])) == 0
    assert sampler.update(np.arange(2), np.array([1.0, np.nan])) == 0
    assert math.isnan(sampler.priority_max) and sampler.nbytes == 0


def test_an_item_without_priority_gets_the_largest_seen() -> None:
    sampler = PrioritizedSampler(8, 1.0, 0.01)
    sampler.insert(np.array([0]))
    assert sampler.mass == 1.01
    sampler.insert(np.array([1]), np.array([5.0]))
    sampler.update(np.array([1]), np.array([2.0]))
    sampler.insert(np.array([2]))
    np.testing.assert_allclose(sampler.mass, 1.01 + 2.01 + 5.01, rtol=1e-15)
    assert sampler.priority_max == 5.0


def test_removed_slots_are_not_drawn() -> None:
    sampler = prioritized()
    sampler.remove(np.array([3, 7]))
    slots, _ = sampler.sample(1_000, np.random.default_rng(6))
    assert not {3, 7} & set(slots.tolist())
    assert sampler.size == 6 and sampler.check_valid() == (True, "")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_a_refused_priority_is_counted_and_changes_nothing(wrong: float) -> None:
    sampler = prioritized(1.0)
    assert sampler.update(np.array([2, 3, 0]), np.array([wrong, 7.0, wrong])) == 2
    expected = PRIORITIES.copy()
    expected[3] = 7.0
    _, probabilities = sampler.sample(1, np.random.default_rng(7))
    assert np.isclose(probabilities, formula(expected, 1.0, 0.01), rtol=1e-12).any()
    np.testing.assert_allclose(sampler.mass, np.sum(expected, dtype=float) + 0.08, rtol=1e-7)
    assert sampler.priority_max == 8.0


def test_a_new_item_whose_priority_is_refused_gets_the_largest() -> None:
    sampler = PrioritizedSampler(8, 1.0, 0.01)
    assert sampler.insert(np.arange(3), np.array([np.nan, 3.0, np.inf])) == 2
    np.testing.assert_allclose(sampler.mass, 3 * 3.01, rtol=1e-15)
    assert sampler.insert(np.arange(3, 4), np.array([np.nan])) == 1
    np.testing.assert_allclose(sampler.mass, 4 * 3.01, rtol=1e-15)


@pytest.mark.parametrize("make", MAKERS)
def test_an_empty_sampler_refuses_to_draw(
    make: Callable[[], Sampler],
) -> None:
    with pytest.raises(RuntimeError, match="no slot is live|every value is 0"):
        make().sample(1, np.random.default_rng(0))


@pytest.mark.parametrize("make", MAKERS)
def test_a_restored_sampler_draws_the_same(
    make: Callable[[], Sampler],
) -> None:
    sampler, restored = make(), make()
    sampler.insert(np.arange(8), PRIORITIES)
    sampler.remove(np.arange(3))
    restored.set_state(sampler.get_state())
    draws = [s.sample(32, np.random.default_rng(8), 3) for s in (sampler, restored)]
    for drawn, again in zip(*draws, strict=True):
        assert drawn.tobytes() == again.tobytes()
    assert restored.mass == sampler.mass and restored.size == 5


def test_priorities_are_those_given_or_updated() -> None:
    for exponent in (0.3, 1.0):
        sampler = prioritized(exponent)
        sampler.update(np.array([3]), np.array([2.5]))
        np.testing.assert_allclose(
            sampler.priorities(np.array([0, 3, 1])), [0.5, 2.5, 0.0], rtol=1e-12, atol=1e-12
        )
    assert prioritized(0.0).priorities(np.arange(8)).shape == (0,)  # v_i = 1 tells nothing
    assert PlainSampler(8).priorities(np.arange(0)).shape == (0,)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_fifo_draws_each_slot_once_in_order_unless_evicted_before(
    capacity: int, steps: list[tuple[int, int]]
) -> None:
    sampler, rng = PlainSampler(capacity, in_order=True), np.random.default_rng(0)
    live: list[int] = []  # plain numbers of items, oldest first
    waiting: list[int] = []
    inserted = 0
    for num_new, num_drawn in steps:
        num_new = min(num_new, capacity)
        evicted, live = live[: max(0, len(live) + num_new - capacity)], live[:]
        sampler.remove(np.array(evicted, np.int64) % capacity)
        waiting = [item for item in waiting if item not in evicted]
        new = list(range(inserted, inserted + num_new))
        assert sampler.insert(np.array(new, np.int64) % capacity, np.ones(num_new)) == 0
        inserted += num_new
        live, waiting = live[len(evicted) :] + new, waiting + new
        assert (sampler.size, sampler.mass) == (len(live), float(len(waiting)))
        assert sampler.check_valid() == (True, "")
        if num_drawn > len(waiting):
            with pytest.raises(RuntimeError, match=f"{num_drawn} slots .* {len(waiting)} are left"):
                sampler.sample(num_drawn, rng)
            continue
        slots, probabilities = sampler.sample(num_drawn, rng)
        assert slots.tolist() == [item % capacity for item in waiting[:num_drawn]]
        assert len(set(probabilities.tolist())) <= 1 and np.all(probabilities > 0)
        waiting = waiting[num_drawn:]
        restored = PlainSampler(capacity, in_order=True)
        restored.set_state(sampler.get_state())
        sampler = restored


def test_fifo_has_neither_priorities_nor_random_numbers() -> None:
    sampler, rng = PlainSampler(8, in_order=True), np.random.default_rng(0)
    sampler.insert(np.arange(6), np.array([np.nan] * 6))
    assert sampler.update(np.arange(2), np.array([np.nan, 5.0])) == 0
    assert math.isnan(sampler.priority_max) and sampler.nbytes == 0
    before = rng.bit_generator.state
    slots, probabilities = sampler.sample(2, rng, num_batches=3)
    assert rng.bit_generator.state == before
    assert slots.tolist() == list(range(6)) and probabilities.tolist() == [1 / 6] * 6
    assert sampler.priorities(slots).shape == (0,)
    sampler.drawn = 7
    assert sampler.check_valid() == (False, "7 of 6 live slots are drawn")


def test_exponent_and_epsilon_out_of_range_are_refused() -> None:
    with pytest.raises(AssertionError, match="1.5"):
        PrioritizedSampler(8, 1.5, 0.01)
    with pytest.raises(AssertionError, match="0.0"):
        PrioritizedSampler(8, 0.5, 0.0)
    with pytest.raises(AssertionError, match="capacity of 0"):
        PlainSampler(0)


def test_check_valid_finds_a_count_that_is_off() -> None:
    sampler = prioritized()
    sampler.size = 7
    assert sampler.check_valid() == (False, "7 slots are live, 8 have a value above 0")
    uniform = PlainSampler(8)
    uniform.size = 9
    assert uniform.check_valid() == (False, "arc of 9 from 0 in 8 slots")
