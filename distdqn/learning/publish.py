"""Publishes weights, reports and snapshots beside the training thread.

The training thread only leaves a copied vector here; this thread does every call, so
a slow receiver costs staleness and never an update. A vector that is not yet sent
when the next one comes is replaced: only the newest matters.
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import ray

from distdqn.telemetry.reports import LearnerReport
from distdqn.types import LearnerDirective, WeightSnapshot

_LAST_WORDS_S = 10.0
_LOOK_S = 0.05  # between looks at answers; what is left here wakes the thread at once


class Publisher:
    """The learner's outgoing calls.

    report: makes the current `LearnerReport`, with the generation of the learner's shard map.
    """

    def __init__(
        self,
        weight_server: Any,
        control: Any,
        report: Callable[[], tuple[LearnerReport, int]],
        report_period_s: float,
    ):
        self._weight_server, self._control = weight_server, control
        self._report, self._report_period_s = report, report_period_s
        self._lock = threading.Lock()  # around what the training thread leaves here
        self._left: dict[str, Any] = {}  # newest of a kind: "publish" and "save_state"
        self._directive: LearnerDirective | None = None
        self._under_way: dict[str, ray.ObjectRef] = {}
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, daemon=True, name="publish")

    def start(self) -> None:
        self._thread.start()

    def publish(self, snapshot: WeightSnapshot) -> None:
        """Leaves a snapshot to send; one with a target is not lost to a later one without."""
        with self._lock:
            waiting = self._left.get("publish")
            if waiting is not None and waiting.target is not None and snapshot.target is None:
                snapshot = dataclasses.replace(snapshot, target=waiting.target)
            self._left["publish"] = snapshot
        self._wake.set()

    def keep(self, state: dict[str, Any]) -> None:
        """Leaves a whole learner state for the weight server to keep."""
        with self._lock:
            self._left["save_state"] = state
        self._wake.set()

    def take_directive(self) -> LearnerDirective | None:
        """The newest directive not yet taken."""
        if self._error is not None:
            raise self._error
        directive, self._directive = self._directive, None
        return directive

    def stop(self) -> None:
        """Sends what is left, then a last report."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout=30)

    def _loop(self) -> None:
        try:
            next_report = 0.0
            while not self._stopped.is_set():
                self._send_left()
                if time.monotonic() >= next_report and self._free("report"):
                    next_report = time.monotonic() + self._report_period_s
                    self._under_way["report"] = self._control.report_learner.remote(*self._report())
                self._wake.wait(_LOOK_S)
                self._wake.clear()
            self._last_words()
        except BaseException as error:  # handed to the training thread
            self._error = error

    def _send_left(self) -> None:
        for what in ("publish", "save_state"):
            if what in self._left and self._free(what):
                with self._lock:
                    value = self._left.pop(what)
                self._under_way[what] = getattr(self._weight_server, what).remote(value)

    def _free(self, what: str) -> bool:
        """Whether the last call of its kind was answered; a report's answer is kept."""
        ref = self._under_way.get(what)
        if ref is None:
            return True
        if not ray.wait([ref], timeout=0)[0]:
            return False
        answer = ray.get(self._under_way.pop(what))
        if what == "report":
            self._directive = answer
        return True

    def _last_words(self) -> None:
        if self._under_way:
            refs = list(self._under_way.values())
            ray.wait(refs, num_returns=len(refs), timeout=_LAST_WORDS_S)
        self._send_left()
        report = self._control.report_learner.remote(*self._report())
        ray.get([report, *(r for k, r in self._under_way.items() if k != "report")], timeout=20)
