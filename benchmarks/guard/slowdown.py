"""A deliberate slowdown, to see that the guard notices.

    distdqn's own functions --replaced by--> call, then spin for 0.3 times as long

References and limits call none of these functions, so only one side of each ratio slows down.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from distdqn.acting.rollout import Rollout
from distdqn.learning.learner import Learner
from distdqn.replay.replay import Replay
from distdqn.replay.sampling import PlainSampler, PrioritizedSampler
from guard.record import Verdict

SLOWDOWN = 0.3

Methods = Sequence[tuple[type, str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What is slowed down, and whom that touches.

    part: its items, all of which must fail.
    touched: parts that use it, whose items may fail too.
    """

    part: str
    methods: Methods
    touched: tuple[str, ...] = ()


TARGETS = (
    Target(
        "sampler",
        (
            (PrioritizedSampler, "sample"),
            (PrioritizedSampler, "update"),
            (PlainSampler, "sample"),
        ),
        touched=("replay",),
    ),
    Target("replay", ((Replay, "sample"), (Replay, "update_priorities"), (Replay, "add"))),
    Target("update", ((Learner, "learn"),)),
    Target("rollout", ((Rollout, "collect"),)),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One check of the self-test.

    slowed: the part, empty for none.  failed: names of the items that failed.
    ok: whether they are those that had to.
    """

    slowed: str
    failed: tuple[str, ...]
    ok: bool


def slowed(
    function: Callable[..., Any], share: float, clock: Callable[[], float] = time.perf_counter
) -> Callable[..., Any]:
    """The same function, which takes 1 + `share` times as long by `clock`."""

    @functools.wraps(function)
    def slow(*args: Any, **kwargs: Any) -> Any:
        started = clock()
        result = function(*args, **kwargs)
        until = clock() + share * (clock() - started)
        while clock() < until:
            pass
        return result

    return slow


@contextlib.contextmanager
def slow_down(methods: Methods, share: float = SLOWDOWN) -> Iterator[None]:
    """Within it the methods of these classes, for all their objects, are `slowed`."""
    originals = [(owner, name, getattr(owner, name)) for owner, name in methods]
    try:
        for owner, name, function in originals:
            setattr(owner, name, slowed(function, share))
        yield
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)


def self_test(
    check: Callable[[], Sequence[Verdict]],
    parts: Mapping[str, str],
    targets: Sequence[Target] = TARGETS,
) -> Iterator[Trial]:
    """Checks without a slowdown, which must pass, then with each of them, which must fail.

    check: measures and compares anew.  parts: of each item, by its name.
    """
    failed = _failed(check())
    yield Trial("", failed, not failed)
    for target in targets:
        with slow_down(target.methods):
            failed = _failed(check())
        wanted = {name for name, part in parts.items() if part == target.part}
        may_fail = {name for name, part in parts.items() if part in target.touched}
        ok = bool(wanted) and wanted <= set(failed) <= wanted | may_fail
        yield Trial(target.part, failed, ok)


def _failed(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    return tuple(verdict.name for verdict in verdicts if not verdict.ok)
