"""Shards that sample at once, each in a process of its own.

No Ray: what is measured is how far the machine's cores and memory serve several replays,
not the way to them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

from distdqn.bench.children import without_ctrl_c
from distdqn.bench.measure import peak_bytes
from distdqn.bench.replay_work import Point, ReplayWork
from distdqn.errors import RunError

_START_TIMEOUT_S = 120.0
_ANSWER_TIMEOUT_S = 60.0  # beyond the time asked for
_PEAK = "peak"


class Shards:
    """Processes with a replay each; to be left by `with`, which ends them.

    pids: of the processes.

    Raises RunError where one does not start or does not answer.
    """

    def __init__(self, point: Point, count: int) -> None:
        context = multiprocessing.get_context("spawn")  # Ray's and torch's threads may be there
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        try:
            with without_ctrl_c():
                for _ in range(count):
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_serve, args=(theirs, point), daemon=True)
                    process.start()
                    theirs.close()
                    self._pipes.append(ours)
                    self._processes.append(process)
            for pipe in self._pipes:
                _receive(pipe, _START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid is not None]

    def run(self, work: str, seconds: float) -> int:
        """All do that work for so long, at once; the sum of their transitions."""
        return sum(self._ask((work, seconds), seconds + _ANSWER_TIMEOUT_S))

    def peak_bytes(self) -> int:
        """Of all the processes together."""
        return sum(self._ask((_PEAK, 0.0), _ANSWER_TIMEOUT_S))

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5.0)
            if process.is_alive():
                process.kill()
                process.join()

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, request: tuple[str, float], timeout_s: float) -> list[int]:
        for pipe in self._pipes:
            pipe.send(request)
        return [_receive(pipe, timeout_s) for pipe in self._pipes]


def _receive(pipe: Connection, timeout_s: float) -> int:
    with contextlib.suppress(EOFError, OSError):
        if pipe.poll(timeout_s):
            return int(pipe.recv())
    raise RunError(
        "a shard of the benchmark ended or did not answer; a smaller --sizes needs less memory"
    )


def _serve(pipe: Connection, point: Point) -> None:
    """A shard's process, until the other end of the pipe is closed."""
    work = ReplayWork(point)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(0)
        while True:
            name, seconds = pipe.recv()
            pipe.send(peak_bytes() if name == _PEAK else _repeat(work, name, seconds))


def _repeat(work: ReplayWork, name: str, seconds: float) -> int:
    call = work.calls()[name]
    ends, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends:
        done += call()
    return done
