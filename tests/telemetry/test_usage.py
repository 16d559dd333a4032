"""Totals, their differences, and the window that a verdict is made of."""

import dataclasses

import pytest

from distdqn.telemetry.usage import Spent, Usage, UsageWindow, sum_of


def usage(at_s, env_steps, gradient_steps, compiled=False):
    return Usage(at_s=at_s, env_steps=env_steps, gradient_steps=gradient_steps, compiled=compiled)


def window_of(*usages, total=1000):
    window = UsageWindow(total)
    for one in usages:
        window.hear(one)
    return window


def test_parts_add_up_with_the_dead_and_without_the_unknown():
    parts = [Spent(1, 3.0, 1.0, 2.0, "a", 4), None, Spent(1, 0.5, 0.25, 1.5, "b", 2)]
    assert sum_of(1, parts) == Spent(1, work_s=3.5, queued_s=1.25, cpu_s=3.5)
    assert sum_of(0, []) == Spent()


def test_work_without_queues_is_never_negative():
    assert Spent(1, 5.0, 2.0, 1.0).running_s == 3.0
    assert Spent(1, 1.0, 2.0, 1.0).running_s == 0.0


def test_a_difference_keeps_what_is_no_total():
    one = Spent(1, 1.0, 2.0, 3.0)
    two = Spent(2, 11.0, 22.0, 33.0)
    earlier = Usage(1.0, 10, 100, 1.5, 1.0, 1.0, 2.0, 0.5, 0.75, one, one, one, 5.0, 2, False)
    later = Usage(4.0, 30, 400, 8.5, 3.0, 5.0, 7.0, 1.5, 2.75, two, two, two, 9.0, 4, True)
    part = Spent(2, 10.0, 20.0, 30.0)

    spent = later.since(earlier)

    assert spent == Usage(
        3.0, 20, 300, 7.0, 2.0, 4.0, 5.0, 1.0, 2.0, part, part, part, 4.0, 4, True
    )
    assert spent.cpu_s == 4.0 + 3 * 30.0


def test_every_total_is_subtracted():
    ones = {f.name: 1 for f in dataclasses.fields(Usage) if f.type in ("int", "float")}
    spent = Usage(**ones).since(Usage(**ones))
    left = {name for name in ones if getattr(spent, name)}
    assert left == {"cores"}


def test_a_window_begins_with_the_first_update_and_ends_before_the_last_step():
    window = window_of(
        usage(0.0, 0, 0),
        usage(1.0, 100, 0),
        usage(2.0, 200, 5),
        usage(9.0, 900, 75),
        usage(10.0, 1000, 80),
        usage(15.0, 1000, 120),
    )
    spent = window.spent
    assert (spent.at_s, spent.env_steps, spent.gradient_steps) == (7.0, 700, 70)


def test_a_window_begins_anew_with_the_compiled_update():
    window = window_of(usage(2.0, 200, 5), usage(3.0, 220, 6, True), usage(5.0, 700, 60, True))
    assert (window.spent.at_s, window.spent.gradient_steps) == (2.0, 54)


def test_a_run_that_ends_soon_after_compiling_is_judged_by_the_time_before():
    window = window_of(usage(2.0, 200, 5), usage(8.0, 800, 60, True), usage(8.5, 900, 70, True))
    assert (window.spent.at_s, window.spent.gradient_steps) == (6.5, 65)


@pytest.mark.parametrize(
    ("heard", "at_s"),
    [
        ([], 0.0),
        ([usage(1.0, 100, 0), usage(9.0, 900, 0)], 8.0),
        ([usage(1.0, 100, 5)], 0.0),
        ([usage(1.0, 100, 5), usage(1.9, 800, 50)], 0.9),
        ([usage(1.0, 100, 5), usage(9.0, 100, 50)], 8.0),
        ([usage(1.0, 100, 5), usage(9.0, 900, 5)], 8.0),
        ([usage(0.5, 0, 0), usage(1.0, 400, 5), usage(9.0, 1000, 50)], 8.5),
    ],
)
def test_without_a_window_all_that_was_heard_is_taken(heard, at_s):
    assert window_of(*heard).spent.at_s == pytest.approx(at_s)
