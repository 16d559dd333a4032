"""Works measured in turn, as ratios of neighbours in time.

A machine that others use too has bad moments, but a slot and the one right after it have
the same ones: their ratio is steadier than either, and the median of many ratios steadier
still. Time in which another process had the core is not counted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from distdqn.bench.result import Figure
from distdqn.machine.cpu import ThreadClock

SLOT_S = 0.008
ROUNDS = 12  # of one item in a pass
PASSES = 5  # over all items, so that each sees several moments of the machine

Work = Callable[[], object]
Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One thing that is guarded: three works, each call of which does the same amount.

    part: what it belongs to: "sampler", "replay", "update" or "rollout".
    ours: distdqn's way.
    limit: what no way can do without; `limit_name` says what that is.
    reference: a plain way that never changes.
    """

    name: str
    part: str
    ours: Work
    limit: Work
    limit_name: str
    reference: Work


@dataclasses.dataclass(frozen=True, slots=True)
class Ratios:
    """Speeds of one item; the median is over all rounds, min and max over the passes' medians.

    limit: share of the limit that ours reaches.
    reference: how many times as fast as the reference ours is.
    """

    limit: Figure
    reference: Figure


class OwnTime:
    """Seconds passed, less those that this thread waited for a core that another one had.

    Computing and sleeping both count. Where the system does not say how long a thread
    waited, nothing is taken off. Called from the thread that made it.
    """

    def __init__(self) -> None:
        self._thread = ThreadClock()

    def __call__(self) -> float:
        return time.perf_counter() - self._thread.read().queued_s


def measure(
    items: Sequence[Item],
    clock: Clock,
    passes: int = PASSES,
    rounds: int = ROUNDS,
    slot_s: float = SLOT_S,
) -> dict[str, Ratios]:
    """The ratios of every item by name, after a warm-up.

    clock: seconds; `OwnTime` or a test's.  slot_s: length of one work's slot in a round.
    """
    slots = {item.name: _slots(item, clock, slot_s) for item in items}
    taken: dict[str, list[np.ndarray]] = {item.name: [] for item in items}
    for _ in range(passes):
        for item in items:
            taken[item.name].append(_rounds(slots[item.name], clock, rounds))
    return {name: _ratios(np.stack(seconds)) for name, seconds in taken.items()}


def _slots(item: Item, clock: Clock, slot_s: float) -> list[tuple[Work, int]]:
    """Each work with the number of calls that take about `slot_s`, at least one."""
    slots = []
    for work in (item.ours, item.limit, item.reference):
        work()  # compiles, allocates
        calls = 1
        while (seconds := _seconds(work, calls, clock)) < slot_s / 2:
            calls = min(2 * calls, max(calls + 1, int(calls * slot_s / max(seconds, 1e-9))))
        slots.append((work, calls))
    return slots


def _rounds(slots: Sequence[tuple[Work, int]], clock: Clock, rounds: int) -> np.ndarray:
    """Seconds per call `[rounds, 3]`; every second round goes the other way round."""
    seconds = np.empty((rounds, len(slots)))
    for work, _ in slots:
        work()  # another item has had the caches
    for number in range(rounds):
        order = range(len(slots)) if number % 2 == 0 else reversed(range(len(slots)))
        for column in order:
            work, calls = slots[column]
            seconds[number, column] = _seconds(work, calls, clock) / calls
    return seconds


def _seconds(work: Work, calls: int, clock: Clock) -> float:
    started = clock()
    for _ in range(calls):
        work()
    return clock() - started


def _ratios(seconds: np.ndarray) -> Ratios:
    """seconds: `[passes, rounds, 3]` of ours, limit, reference."""
    speeds = seconds[:, :, 1:] / seconds[:, :, :1]
    medians = np.median(speeds, axis=1)  # [passes, 2]
    figures = [
        Figure(float(np.median(speeds[:, :, k])), float(each.min()), float(each.max()))
        for k, each in enumerate(medians.T)
    ]
    return Ratios(*figures)
