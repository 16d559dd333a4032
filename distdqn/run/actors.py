"""Ray's actors: what they ask for, when they are up, what they answer."""

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from distdqn.config import Config
from distdqn.errors import DistDQNError, ResourceError, RunError, own_frame, without_colours
from distdqn.machine.cpu import usable_cores

_NAMED = 4  # actors in a message
_LOOK_S = 0.5
_OUR_ERRORS = "distdqn.errors."  # before the class of an error in a traceback
_DEATHS = {  # in Ray's text on a dead actor; the first that is there counts
    "low on memory": "Ray killed {}: its node ran low on memory",
    "memory pressure": "Ray killed {}: its node ran low on memory",
    "its node has died": "its node died",
    "unexpectedly exits": "{} was killed or crashed",
    "worker process has died": "{} ended",
}


def actor_class(cls: type, num_cpus: float = 0, **options: Any) -> Any:
    """`cls` for Ray, which is to restart nothing."""
    return ray.remote(cls).options(
        num_cpus=num_cpus, max_restarts=0, enable_task_events=False, **options
    )


def actor_name(kind: str, index: int) -> str:
    """As a user reads it; of learner and evaluator there is one."""
    return f"{kind} {index}" if kind in ("worker", "shard") else kind


def asked_for(config: Config) -> dict[str, dict[str, Any]]:
    """What Ray is to find for an actor, by kind; the other kinds ask for nothing."""
    workers, learner = config.workers, config.learner
    return {
        "worker": {
            "num_cpus": workers.num_cpus,
            "resources": dict(workers.resources),
            "scheduling_strategy": "SPREAD",
        },
        "learner": {
            "num_cpus": 1,
            "num_gpus": learner.num_gpus,
            "resources": dict(learner.resources),
        },
    }


def needed_cpus(config: Config) -> float:
    """CPUs that the run's actors ask for: the learner one, each worker its own."""
    return 1 + config.workers.count * config.workers.num_cpus


def embedded_cpus(config: Config) -> int:
    """CPUs for an embedded Ray to declare: one more for each actor that asks for none.

    Ray starts as many processes as it has CPUs while it comes up itself; those that the
    control, weight server, evaluator and shards need are then there half a second sooner.
    """
    return math.ceil(needed_cpus(config)) + 3 + config.replay.shards


def starts_at_once() -> int:
    """Workers that may be coming up at the same time on this machine.

    Each imports PyTorch and makes environments. With many more at a time than cores, all of
    them take as long as the last one, and control is not heard among them.
    """
    return 2 * usable_cores() + 2


def wait_until_ready(names: Mapping[Any, str], config: Config, look: Callable[[], None]) -> None:
    """Returns once every actor has started.

    names: of the actors, by the answer to `__ray_ready__`.
    look: called meanwhile; raises to give up.
    Raises RunError where one failed, ResourceError where one did not start within
    `start_timeout_s`, each in one line.
    """
    missing = without_answer(names, config.start_timeout_s, look)
    for ref, name in names.items():
        if ref not in missing:
            try:
                ray.get(ref)
            except RayError as error:
                raise failed(name, "did not start: {}", error) from error
    if missing:
        raise _not_started([names[ref] for ref in missing], config)


def without_answer(refs: Iterable[Any], timeout_s: float, look: Callable[[], None]) -> list[Any]:
    """Waits for all; those that have no answer after `timeout_s`.

    look: called meanwhile; raises to give up.
    """
    missing, deadline = list(refs), time.monotonic() + timeout_s
    while missing and time.monotonic() < deadline:
        look()
        missing = ray.wait(missing, num_returns=len(missing), timeout=_LOOK_S)[1]
    return missing


def _not_started(names: list[str], config: Config) -> ResourceError:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ResourceError(
        f"after {config.start_timeout_s:g} s still not started: "
        f"{', '.join(names[:_NAMED])}{more}; the run "
        f"needs {needed_cpus(config):g} CPUs and {config.learner.num_gpus:g} GPUs, "
        f"free are {amounts(ray.available_resources())} of "
        f"{amounts(ray.cluster_resources())}; "
        "take fewer workers (--workers.count) or less each (--workers.num-cpus)"
    )


def amounts(resources: dict[str, float]) -> str:
    """CPUs and GPUs as a user reads them."""
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


def answer(
    ref: ray.ObjectRef, name: str, timeout_s: float, if_dead: str = "", if_late: str = ""
) -> Any:
    """Waits for what an actor answers.

    name: of the actor.  if_dead, if_late: the ways out, to end the message with.
    Raises the actor's own DistDQNError, or RunError where it died, failed or is late.
    """
    try:
        return ray.get(ref, timeout=timeout_s)
    except RayTaskError as error:
        if isinstance(error.cause, DistDQNError):
            error.cause.part = name
            raise error.cause from error
        raise failed(name, "failed: {}", error) from error
    except RayActorError as error:
        raise failed(name, f"died ({{}}){if_dead}", error) from error
    except GetTimeoutError as error:
        raise RunError(f"the {name} did not answer within {timeout_s:g} s{if_late}") from error


def failed(name: str, how: str, error: RayError) -> RunError:
    """What to raise for an actor that failed or died; its traceback goes along.

    name: of the actor.  how: with a place for the cause.
    """
    failure, text = RunError(f"the {name} {how.format(cause_line(error))}"), _text(error)
    cause, is_refusal = getattr(error, "cause", None), _OUR_ERRORS in text and not own_frame(text)
    told = cause.details if isinstance(cause, DistDQNError) else ""
    failure.details, failure.part = told or ("" if is_refusal else text), name
    return failure


def _text(error: BaseException) -> str:
    return without_colours(str(error))


def cause_line(error: BaseException) -> str:
    """The cause of a Ray error in one line, without Ray's traceback.

    It ends with the last line of the user's own code, where there is one.
    """
    if isinstance(error, RayTaskError) and isinstance(error.cause, DistDQNError):
        return str(error.cause)
    text = _text(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(error, RayTaskError) and "creation task" not in text:
        return _death(text) or (lines[0] if lines else type(error).__name__)
    last = lines[-1]
    if last.startswith(_OUR_ERRORS):  # they name that line themselves
        return last.partition(": ")[2]
    return last + own_frame(text)


def _death(text: str) -> str:
    """What Ray's text on a dead actor comes to; "" where it tells something else."""
    pid = re.search(r"\bpid: (\d+)", text)
    process = f"its process {pid[1]}" if pid else "its process"
    return next((cause.format(process) for sign, cause in _DEATHS.items() if sign in text), "")
