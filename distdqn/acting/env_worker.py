"""An env worker: acts, seals blocks, pushes them.

It drives itself: one `run` per incarnation, which ends when the steps allowed are
taken, when it is told to stop, or when an environment fails.
"""

import contextlib
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import ray

from distdqn.acting.push_window import PushWindow
from distdqn.errors import EnvFailure, own_frame
from distdqn.machine.cpu import give_most_way, give_way
from distdqn.telemetry.usage import Meter
from distdqn.types import ShardMap, WorkerDirective
from distdqn.weights.server import WeightClient

_SLICE_S = 0.005  # between looks at weights and directives
_FLUSH_TIMEOUT_S = 10.0
_REPORT_TIMEOUT_S = 300.0
_HUNG_EXIT_STATUS = 70


class EnvWorker:
    """Runs a `Rollout` and feeds the shards.

    build: makes the `Rollout` inside this process.
    stream: (worker, incarnation): its index, and how many of this index died before.
    control, weight_server: handles.
    max_in_flight: unacknowledged blocks at most.
    env: its name, for the user.
    construct_limit: seconds that making the envs may take, and what to say if it took longer.
    env_timeout_s: a vector step may take this long before it counts as hung.
    gives_most_way: whether the learner computes on several cores (see `give_most_way`).
    """

    def __init__(
        self,
        build: Callable[[], Any],
        stream: tuple[int, int],
        control: Any,
        weight_server: Any,
        max_in_flight: int,
        env: str,
        construct_limit: tuple[float, str],
        env_timeout_s: float,
        report_period_s: float,
        gives_most_way: bool = False,
    ):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        give_most_way() if gives_most_way else give_way()
        self._build, self._stream, self._control = build, stream, control
        self._weights = WeightClient(weight_server)
        self._window = PushWindow(max_in_flight, first_shard=stream[0])
        self._env, self._report_period_s = env, report_period_s
        self._construct_limit, self._env_timeout_s = construct_limit, env_timeout_s
        self._rollout: Any  # the driver, which places workers, loads no torch for its type
        self._watched: tuple[float, float, str] | None = None  # since, limit, how it was missed
        self._asked: ray.ObjectRef | None = None
        self._next_report = 0.0

    def run(self, shards: ShardMap) -> EnvFailure | None:
        """Acts until done. Returns how an environment failed, if one did."""
        self._window.set_shards(shards)
        self._thread = threading.get_ident()
        threading.Thread(target=self._watch, daemon=True).start()
        self._started, self._meter = time.monotonic(), Meter()
        try:
            with self._in_env(*self._construct_limit):
                self._rollout = self._build()
        except EnvFailure as failure:
            return failure
        directive = ray.get(self._report(), timeout=_REPORT_TIMEOUT_S)
        failed = None
        try:
            self._act(directive)
        except EnvFailure as failure:
            failed = failure
        self._finish(finished=failed is None)
        return failed

    def _act(self, directive: WorkerDirective) -> None:
        rollout, window = self._rollout, self._window
        missed = f"did not return within {self._env_timeout_s:g} s (workers.env_timeout_s)"
        while not directive.stop:
            left = directive.allowance - rollout.stepped
            if left <= 0 and directive.finish:
                break
            with self._meter.waiting() if left <= 0 else contextlib.nullcontext():
                directive = self._directive(directive, wait=left <= 0)
            if snapshot := self._weights.poll():
                rollout.set_weights(snapshot)
            if left <= 0:
                continue
            if window.full:
                with self._meter.waiting():
                    window.collect(timeout_s=0.05)
                continue
            with self._in_env(self._env_timeout_s, missed):
                block = rollout.collect(left, time.monotonic() + _SLICE_S)
            if block is not None:
                window.push(block)
                window.collect()

    def _directive(self, last: WorkerDirective, wait: bool) -> WorkerDirective:
        """The newest directive; reports once per period, or waits where nothing is left."""
        now = time.monotonic()
        if self._asked is None and (now >= self._next_report or wait):
            self._asked = self._report()
            self._next_report = now + self._report_period_s
        timeout = self._report_period_s if wait else 0
        if self._asked is None or not ray.wait([self._asked], timeout=timeout)[0]:
            return last
        directive, self._asked = ray.get(self._asked), None
        if directive.shards is not None:
            self._window.set_shards(directive.shards)
        self._rollout.set_clock(directive.env_steps)
        if wait and directive.allowance <= self._rollout.stepped and not directive.finish:
            time.sleep(self._report_period_s / 4)
        return directive

    def _finish(self, finished: bool) -> None:
        """Flushes the unfinished windows and waits until every block is acknowledged."""
        block, deadline = self._rollout.flush(), math.inf
        while (block is not None or self._window.in_flight) and time.monotonic() < deadline:
            if block is not None and not self._window.full:
                self._window.push(block)
                block = None
            with self._meter.waiting():
                self._window.collect(timeout_s=0.05)
            reply = ray.get(self._report(), timeout=_REPORT_TIMEOUT_S)
            if reply.shards is not None:
                self._window.set_shards(reply.shards)
            if reply.stop:
                deadline = min(deadline, time.monotonic() + _FLUSH_TIMEOUT_S)
        ray.get(self._report(finished), timeout=_REPORT_TIMEOUT_S)

    def _report(self, finished: bool = False) -> ray.ObjectRef:
        window = self._window
        report = self._rollout.report(
            accepted=window.accepted,
            refused=self._rollout.refused + window.refused,
            refused_at_end=window.refused,
            in_flight=window.in_flight,
            wait_s=self._meter.wait_s,
            elapsed_s=time.monotonic() - self._started,
            finished=finished,
            spent=self._meter.spent(),
        )
        return self._control.report_worker.remote(report, window.generation)

    @contextlib.contextmanager
    def _in_env(self, limit_s: float, missed: str) -> Iterator[None]:
        """Marks the time inside environment code for the watchdog."""
        self._watched = time.monotonic(), limit_s, missed
        try:
            yield
        finally:
            self._watched = None

    def _watch(self) -> None:
        """Ends the process when an environment does not return in time."""
        while True:
            time.sleep(min(1.0, self._env_timeout_s / 4))
            since, limit_s, missed = self._watched or (math.inf, 0.0, "")
            if time.monotonic() - since > limit_s:
                failure = self._hung(missed)
                told = self._control.report_failure.remote(*self._stream, failure)
                ray.wait([told], timeout=5)
                os._exit(_HUNG_EXIT_STATUS)

    def _hung(self, missed: str) -> EnvFailure:
        """The failure of an env that has not returned, with where it stands now."""
        details = "".join(traceback.format_stack(sys._current_frames()[self._thread]))
        failure = EnvFailure(f"environment {self._env!r} {missed}{own_frame(details)}")
        failure.details = details
        return failure
