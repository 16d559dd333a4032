"""More workers and more shards: what each adds.

A short measurement of the whole system, as `pipeline` makes it, for every number of
workers with every number of shards, all in one Ray.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from distdqn.bench.alone import Alone
from distdqn.bench.host import new_result
from distdqn.bench.live_run import Measured, Say, make_factory, opened_ray
from distdqn.bench.pipeline import (
    DEFAULT_PRESET,
    TAKES_CONFIG,
    case_of,
    configured,
    limits_of,
    measure_parts,
    measure_system,
    remarks,
)
from distdqn.bench.result import Case, Result
from distdqn.config import Config
from distdqn.reporting.verdict import judge
from distdqn.run.async_run import setup_of

__all__ = ["DEFAULT_PRESET", "TAKES_CONFIG", "Options", "run"]

Point = tuple[int, int]
"""(workers, shards)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How many parts, and how long to measure; the rest is the run's own configuration.

    workers: numbers of env workers; `workers.count` is not used.
    shards: numbers of replay shards; `replay.shards` is not used.
    seconds: of one window of the whole system.
    repeats: windows at each point, and repetitions of each part alone.
    warm_up_s: seconds that each system runs on for after its first compiled updates.
    alone_seconds: of one repetition of the learner, and of a worker, alone.
    """

    workers: tuple[int, ...] = (1, 2, 4)
    shards: tuple[int, ...] = (1, 2)
    seconds: float = 2.0
    repeats: int = 3
    warm_up_s: float = 2.0
    alone_seconds: float = 1.0

    @classmethod
    def quick(cls) -> Options:
        return cls((1, 2), (1,), seconds=1.0, repeats=2, warm_up_s=0.5, alone_seconds=0.2)


def run(
    options: Options, say: Say, config: Config, make_env: Callable[[], Any] | None = None
) -> Result:
    """Measures every point, in turn, between two measurements of the parts alone.

    make_env: as for `train`, picklable.
    Raises DistDQNError, one line, where a configuration is refused, before anything is
    started, or where a run fails; no actor is left.
    """
    points = [(workers, shards) for shards in options.shards for workers in options.workers]
    factories = {point: make_factory(with_parts(config, *point), make_env) for point in points}
    largest = make_factory(with_parts(config, max(options.workers), max(options.shards)), make_env)
    alone = [measure_parts(largest, options, say)]
    measured: dict[Point, Measured] = {}
    with opened_ray(largest, say) as name:
        for number, (point, factory) in enumerate(factories.items()):
            say("workers {}, shards {}".format(*point))
            measured[point] = measure_system(
                factory, f"{name}-{number}", options, alone[0].compiled, say
            )
    alone.append(measure_parts(largest, options, say))
    cases = [_case(measured, point, alone, factories[point].config) for point in points]
    notes = [_told(case) for case in cases]
    notes += [note for each in measured.values() for note in remarks(each, alone)]
    more = configured(config, alone[0].device)
    return new_result("scaling", options, cases, list(dict.fromkeys(notes)), more)


def with_parts(config: Config, workers: int, shards: int) -> Config:
    """The same run with so many workers and shards."""
    return dataclasses.replace(
        config,
        workers=dataclasses.replace(config.workers, count=workers),
        replay=dataclasses.replace(config.replay, shards=shards),
    )


def _case(
    measured: Mapping[Point, Measured], point: Point, alone: list[Alone], config: Config
) -> Case:
    """One point. `efficiency`: its speed-up over the first one, divided by its workers'."""
    here, (first_point, first) = measured[point], next(iter(measured.items()))
    verdict = judge(here.whole, setup_of(config))
    case = case_of(here, limits_of(here, alone, config), verdict, config)
    speed_up = _rate(here) / _rate(first)
    details = {
        "speed_up": speed_up,
        "efficiency": speed_up * first_point[0] / point[0],
        **case.details,
    }
    return dataclasses.replace(case, details=details)


def _told(case: Case) -> str:
    """What a point adds, in a line."""
    told: dict[str, Any] = {**case.settings, **case.details}
    return (
        "workers {workers}, shards {shards}: {speed_up:.2f} times the first point, efficiency "
        "{efficiency:.2f}, limited by {limited_by}".format(**told)
    )


def _rate(measured: Measured) -> float:
    """Env steps per second over all windows."""
    return measured.whole.env_steps / measured.whole.at_s
