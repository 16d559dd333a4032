"""More workers and more shards: what each adds.

A short measurement of the whole system, as `pipeline` makes it, for every number of
workers with every number of shards, all in one Ray.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from distdqn.bench.alone import Alone
from distdqn.bench.live_run import Measured, Say
from distdqn.bench.pipeline import (
    DEFAULT_PRESET,
    TAKES_CONFIG,
    case_of,
    configured,
    measure_systems,
    remarks,
)
from distdqn.bench.result import Case, Result, new_result
from distdqn.config import Config

__all__ = ["DEFAULT_PRESET", "TAKES_CONFIG", "Options", "run"]

Point = tuple[Config, Measured]


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


QUICK = Options((1, 2), (1,), seconds=1.0, repeats=2, warm_up_s=0.5, alone_seconds=0.2)


def run(
    options: Options, say: Say, config: Config, make_env: Callable[[], Any] | None = None
) -> Result:
    """Measures every point, in turn, between two measurements of the parts alone.

    make_env: as for `train`, picklable.
    Raises DistDQNError, one line, where a configuration is refused, before anything is
    started, or where a run fails; no actor is left.
    """
    configs = [with_parts(config, w, s) for s in options.shards for w in options.workers]
    found, alone = measure_systems(options, say, configs, make_env)
    cases = [_case(found[0], point, alone) for point in found]
    notes = [_told(case) for case in cases]
    notes += [note for _, measured in found for note in remarks(measured, alone)]
    more = configured(config, alone[0].device)
    return new_result("scaling", options, cases, list(dict.fromkeys(notes)), **more)


def with_parts(config: Config, workers: int, shards: int) -> Config:
    """The same run with so many workers and shards."""
    return dataclasses.replace(
        config,
        workers=dataclasses.replace(config.workers, count=workers),
        replay=dataclasses.replace(config.replay, shards=shards),
    )


def _case(first: Point, point: Point, alone: list[Alone]) -> Case:
    """One point. `efficiency`: its speed-up over the first one, divided by its workers'."""
    (config, measured), times_workers = point, point[0].workers.count / first[0].workers.count
    speed_up = _rate(measured) / _rate(first[1])
    case = case_of(measured, alone, config)
    details = {"speed_up": speed_up, "efficiency": speed_up / times_workers, **case.details}
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
