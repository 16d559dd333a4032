"""More workers and more shards: what each adds.

A short measurement of the whole system, as `pipeline` makes it, for every number of
workers with every number of shards, all in one Ray.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from distdqn.bench.live_run import Measured, Say
from distdqn.bench.pipeline import case_of, configured, measure_systems, remarks
from distdqn.bench.result import Result, new_result
from distdqn.config import Config

DEFAULT_PRESET = "cartpole-cleanrl"


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

    A point's `efficiency` is its speed-up over the first one, divided by its workers'.
    make_env: as for `train`, picklable.
    Raises DistDQNError, one line, where a configuration is refused, before anything is
    started, or where a run fails; no actor is left.
    """
    configs = [with_parts(config, w, s) for s in options.shards for w in options.workers]
    found, alone = measure_systems(options, say, configs, make_env)
    cases, notes = [], []
    for point, measured in found:
        speed_up = _rate(measured) / _rate(found[0][1])
        efficiency = speed_up * found[0][0].workers.count / point.workers.count
        case = case_of(measured, alone, point)
        details = {"speed_up": speed_up, "efficiency": efficiency, **case.details}
        cases.append(dataclasses.replace(case, details=details))
        notes.append(
            f"workers {point.workers.count}, shards {point.replay.shards}: {speed_up:.2f} times "
            f"the first point, efficiency {efficiency:.2f}, limited by {details['limited_by']}"
        )
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


def _rate(measured: Measured) -> float:
    """Env steps per second over all windows."""
    return measured.whole.env_steps / measured.whole.at_s
