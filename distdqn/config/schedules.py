"""Schedules against the length of the run.

A fraction of `total_env_steps` becomes env steps when the run is created, and is recorded
so: a run that goes on, or is given more env steps, keeps its schedules.
"""

import operator
from collections.abc import Iterator

from distdqn.config.keys import key_types
from distdqn.config.tree import Config
from distdqn.config.values import Schedule, plain_type


def in_env_steps(config: Config) -> Config:
    """The configuration with every schedule's length in env steps."""
    total = config.total_env_steps
    return config.with_values({key: given.over(total) for key, given in _schedules(config)})


def outlasting(config: Config) -> list[str]:
    """A line for each schedule in use that the run ends before."""
    unused = {
        "workers.epsilon.value": config.workers.epsilon.kind != "schedule",
        "replay.importance_sampling_exponent": config.replay.kind != "prioritized",
    }
    return [
        _outlasts(key, schedule, config.total_env_steps)
        for key, schedule in _schedules(in_env_steps(config))
        if not unused.get(key) and schedule.at(config.total_env_steps) != schedule.end
    ]


def told(schedule: Schedule) -> str:
    """In words; its length in env steps."""
    if schedule.start == schedule.end:
        return f"{schedule.end:g}"
    return f"from {schedule.start:g} to {schedule.end:g} in {schedule.env_steps:,} env steps"


def _outlasts(key: str, schedule: Schedule, total: int) -> str:
    return (
        f"{key} reaches {schedule.end:g} after {schedule.env_steps:,} env steps, the run ends at "
        f"{total:,} with {schedule.at(total):.3g}; --{key} "
        f"{schedule.start!r}:{schedule.end!r}:50% follows the run's length"
    )


def _schedules(config: Config) -> Iterator[tuple[str, Schedule]]:
    for key, annotation in key_types(Config).items():
        if plain_type(annotation)[0] is Schedule:
            yield key, operator.attrgetter(key)(config)
