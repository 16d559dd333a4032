"""Env steps are dealt so that the total is exact."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.control.step_budget import StepBudget


def test_allowances_and_pool_sum_to_the_total():
    budget = StepBudget(total_env_steps=100, min_grant=30)
    assert budget.grant((0, 0), stepped=0, ahead=10) == 30
    assert budget.grant((1, 0), stepped=0, ahead=50) == 50
    assert budget.pool == 20


def test_the_last_grant_is_cut_to_the_pool():
    budget = StepBudget(total_env_steps=40, min_grant=30)
    assert budget.grant((0, 0), 0, 0) == 30
    assert budget.grant((0, 0), 30, 0) == 40
    assert budget.pool == 0


def test_a_worker_that_took_nothing_yet_is_granted_no_more():
    budget = StepBudget(total_env_steps=1000, min_grant=30)
    assert budget.grant((0, 0), 0, 0) == 30
    assert budget.grant((0, 0), 0, 0) == 30


def test_what_a_dead_worker_left_returns_to_the_pool():
    budget = StepBudget(total_env_steps=100, min_grant=60)
    budget.grant((0, 0), 0, 0)
    budget.release((0, 0), stepped=25)
    assert budget.pool == 75


def test_a_total_below_one_is_refused():
    with pytest.raises(ValueError, match="total_env_steps 0"):
        StepBudget(0, 1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.booleans()), max_size=60))
def test_workers_together_take_exactly_the_total(moves):
    budget = StepBudget(total_env_steps=300, min_grant=16)
    stepped: dict[tuple[int, int], int] = {}
    incarnation = [0, 0, 0, 0]
    finished = [(0, n, False) for n in [300] * 40]
    for worker, steps, dies in [*moves, *finished]:
        stream = (worker, incarnation[worker])
        taken = stepped.get(stream, 0)
        allowance = budget.grant(stream, taken, ahead=steps)
        stepped[stream] = min(taken + steps, allowance)
        if dies:
            budget.release(stream, stepped[stream])
            incarnation[worker] += 1
        assert sum(stepped.values()) <= 300
        assert budget.pool >= 0
    held_by_others = sum(
        budget.allowance((w, incarnation[w])) - stepped.get((w, incarnation[w]), 0)
        for w in (1, 2, 3)
    )
    assert sum(stepped.values()) + held_by_others == 300
