"""How long new weights take to the last worker, and what publishing costs the learner.

A publication begins when the training thread starts to copy its vector and ends when the last
worker acts with it: after the copy, a call, shared memory, an answer to each worker, each
worker's env step under way, and its own copy. Workers act and the learner makes updates all
the while, so where cores are fewer than processes the figures are also about waiting for a core.

The limit is one `ray.put` of the same bytes, one call with the reference, and one copy out of
shared memory, between the publications; the pause's is a memcpy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray

from distdqn.bench.broadcast_actors import (
    BroadcastControl,
    BroadcastLearner,
    BroadcastWorker,
    Receiver,
    actor,
)
from distdqn.bench.result import Case, Result, new_result
from distdqn.bench.synthetic import Torso
from distdqn.errors import RunError
from distdqn.machine.process_memory import tree_pss_bytes
from distdqn.run.ray_session import connect
from distdqn.weights.server import WeightServer

_WARM_UP = 3  # publications that are not counted
_TIMEOUT_S = 180.0
_CPUS_BESIDES = 3  # processes that Ray is to have ready: learner, weight server, receiver


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What is broadcast, and to how many.

    networks: "mlp" (CartPole's, 0.04 MB), "minatar" (0.5 MB), "nature" (6.7 MB).
    workers: env workers, one env each; the most of them are started once.
    env_wait_ms: how long a step of their env waits.
    repeats: publications of each case.
    seconds: between two publications.
    """

    networks: tuple[Torso, ...] = ("mlp", "nature")
    workers: tuple[int, ...] = (1, 4, 16)
    env_wait_ms: float = 5.0
    repeats: int = 50
    seconds: float = 0.3


QUICK = Options(networks=("nature",), workers=(2,), repeats=10, seconds=0.2)


@dataclasses.dataclass(frozen=True, slots=True)
class Publication:
    """Seconds of one publication, and of the limits just before it.

    last, first: from its beginning to the last and to the first worker's action.
    pause: of the training thread.  memcpy: of as many bytes there.
    put: `ray.put`, a call and a copy out.
    """

    last: float
    first: float
    pause: float
    memcpy: float
    put: float


def run(options: Options, say: Callable[[str], None]) -> Result:
    """Measures on an embedded Ray, or on the one that this process is connected to.

    Raises RunError where Ray does not start.
    """
    most = max(options.workers)
    cases: list[Case] = []
    with _ray(most + _CPUS_BESIDES):
        say(f"starts {most} workers and a learner")
        with _started(BroadcastWorker, most) as workers, _started(BroadcastLearner) as (learner,):
            for torso in options.networks:
                for count in options.workers:
                    found, cpu_s = _measure(torso, workers[:count], learner, options)
                    cases += _cases(torso, count, found, cpu_s, options)
                    say(f"{cases[-2].label}: {cases[-2].value.median:.1f} ms to the last worker")
    return new_result("broadcast", options, cases, [_NOTE])


_NOTE = (
    "workers look for weights between env steps: of each time, up to one wait of the env is "
    "spent in a step that had begun; the limit has none"
)


@contextlib.contextmanager
def _ray(num_cpus: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        session = connect(None, "bench-broadcast", num_cpus, 0, Path(folder) / "ray_token")
        try:
            yield
        finally:
            session.close()


@contextlib.contextmanager
def _started(cls: type, count: int = 1, *arguments: Any) -> Iterator[list[Any]]:
    """Actors that have started, killed at the end."""
    actors = [actor(cls).remote(*arguments) for _ in range(count)]
    try:
        ray.get([one.__ray_ready__.remote() for one in actors], timeout=_TIMEOUT_S)
        yield actors
    finally:
        for one in actors:
            ray.kill(one)


def _measure(
    torso: Torso, workers: Sequence[Any], learner: Any, options: Options
) -> tuple[list[Publication], float]:
    """One case, on a weight server and a control of its own.

    Returns:
      The publications, and the CPU time of the weight server per publication.
    """
    found: list[Publication] = []
    wait_s = options.env_wait_ms / 1e3
    with contextlib.ExitStack() as stack:
        (server,) = stack.enter_context(_started(WeightServer))
        (control,) = stack.enter_context(_started(BroadcastControl))
        pid = ray.get(server.__ray_call__.remote(_pid), timeout=_TIMEOUT_S)
        nbytes = ray.get(learner.nbytes.remote(torso), timeout=_TIMEOUT_S)
        (receiver,) = stack.enter_context(_started(Receiver, 1, nbytes))
        vector = np.ones(nbytes // 4, np.float32)
        running = [learner.run.remote(torso, server, control)]
        running += [
            worker.run.remote(index, torso, wait_s, server, control)
            for index, worker in enumerate(workers)
        ]
        for repeat in range(_WARM_UP + options.repeats):
            if repeat == _WARM_UP:
                cpu_before = _cpu_s(pid)
            found.append(_publication(workers, learner, _put_s(receiver, vector), options.seconds))
        server_cpu_s = (_cpu_s(pid) - cpu_before) / options.repeats
        ray.get([control.stop.remote(), learner.stop.remote()], timeout=_TIMEOUT_S)
        ray.get(running, timeout=_TIMEOUT_S)
    return found[_WARM_UP:], server_cpu_s


def _publication(workers: Sequence[Any], learner: Any, put_s: float, seconds: float) -> Publication:
    """Publishes, and returns once all workers have acted with that, after `seconds` at least.

    Raises:
      RunError: they did not for minutes.
    """
    counter, began, pause, memcpy = ray.get(learner.publish.remote(), timeout=_TIMEOUT_S)
    deadline = began + _TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(seconds)
        acted = ray.get([worker.acted.remote() for worker in workers], timeout=_TIMEOUT_S)
        if all(newest == counter for newest, _ in acted):
            times = [at - began for _, at in acted]
            return Publication(max(times), min(times), pause, memcpy, put_s)
    raise RunError(f"the workers did not act with new weights within {_TIMEOUT_S:g} s")


def _put_s(receiver: Any, vector: np.ndarray) -> float:
    """Seconds of `ray.put`, a call with the reference, and a copy out."""
    began = time.monotonic()
    return ray.get(receiver.take.remote(ray.put(vector)), timeout=_TIMEOUT_S) - began


def _cases(
    torso: Torso, workers: int, found: Sequence[Publication], cpu_s: float, options: Options
) -> list[Case]:
    settings = {"network": torso, "workers": workers}
    ms = {
        field.name: [1e3 * getattr(one, field.name) for one in found]
        for field in dataclasses.fields(Publication)
    }
    p95 = {name: float(np.percentile(values, 95)) for name, values in ms.items()}
    return [
        Case.of(
            "publish to last action",
            settings,
            "ms",
            ms["last"],
            ms["put"],
            "ray.put, one call, one copy out",
            better="lower",
            cpu_s=cpu_s,
            peak_bytes=tree_pss_bytes(),
            details={
                "p95_ms": p95["last"],
                "first_worker_ms": float(np.median(ms["first"])),
                "env_wait_ms": options.env_wait_ms,
                "cpu_s is of": "the weight server",
            },
        ),
        Case.of(
            "pause of the training thread",
            settings,
            "ms",
            ms["pause"],
            ms["memcpy"],
            "memcpy of the same bytes",
            better="lower",
            details={"p95_ms": p95["pause"]},
        ),
    ]


def _pid(_: Any) -> int:
    return os.getpid()


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
