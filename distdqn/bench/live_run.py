"""A whole run that is there to be measured.

Ray's actors as in training, but without an end, an evaluator and checkpoints. What the
parts have spent is read at the borders of windows; nothing but polls happens between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import psutil

from distdqn.config import Config, to_yaml
from distdqn.config.schedules import in_env_steps
from distdqn.errors import ConfigError, RunError
from distdqn.files.run_folder import RunFolder
from distdqn.machine.memory import tree_pss_bytes
from distdqn.run.factory import Factory
from distdqn.run.placement import Placement
from distdqn.run.ray_session import open_session
from distdqn.run.supervisor import System
from distdqn.telemetry.reports import Poll
from distdqn.telemetry.usage import Usage

_ENDLESS = 2**53  # env steps
_POLL_S = 0.2
_QUICK_POLL_S = 0.05
NEWS_TIMEOUT_S = 1.0
_SAY_PERIOD_S = 5.0
_COMPILE_TIMEOUT_S = 300.0

Say = Callable[[str], None]


def without_end(config: Config) -> Config:
    """The run's configuration for a measurement.

    It does not end, evaluates nothing, starts from fresh weights, and fails with the first
    failure of an env, since a restart would be measured along.
    Raises ConfigError for a run in lockstep, whose parts wait for each other by design.
    """
    if config.mode != "async":
        raise ConfigError(
            f"mode is {config.mode}, the benchmark needs async: in lockstep one part works "
            "while the others wait"
        )
    config = in_env_steps(config)  # those of the run that is meant
    return dataclasses.replace(
        config,
        total_env_steps=_ENDLESS,
        run_name=None,
        init_from=None,
        workers=dataclasses.replace(config.workers, max_env_failures=0),
        eval=dataclasses.replace(config.eval, period_env_steps=None, stop_at_return=None),
    )


@contextlib.contextmanager
def opened_ray(factory: Factory, say: Say) -> Iterator[str]:
    """Ray with room for such a run, the caller's where there is one; gives a run name."""
    name, config = f"bench-{secrets.token_hex(4)}", factory.config
    with tempfile.TemporaryDirectory(prefix="distdqn-bench-") as place:
        folder = RunFolder.create(place, name, config.env.id, to_yaml(config))
        with contextlib.closing(folder), contextlib.closing(open_session(config, folder, say)):
            yield name


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """Windows of a live run, each beginning where the one before ended.

    borders: `[R + 1]` what had been spent at the start and at the end of each.
    cpu_s: `[R]` seconds on a CPU of the whole run in each: parts, driver and, where Ray is
      this process's own, Ray.
    peak_bytes: memory of this process and its children, Ray's among them, after the last.
    """

    borders: tuple[Usage, ...]
    cpu_s: tuple[float, ...]
    peak_bytes: int

    @property
    def windows(self) -> list[Usage]:
        """What was spent in each."""
        return [b.since(a) for a, b in itertools.pairwise(self.borders)]

    @property
    def whole(self) -> Usage:
        """What was spent in all of them."""
        return self.borders[-1].since(self.borders[0])

    @property
    def other_cores(self) -> float:
        """That other programs kept busy meanwhile; 0 where nobody knows."""
        return max(0.0, self.whole.cpu_s - sum(self.cpu_s)) / self.whole.at_s


class LiveRun:
    """A system that trains while the `with` block lasts.

    Life: entering starts every actor; `settle`, then `measure`. Leaving stops them, and
    after an error, Ctrl-C among them, ends them at once.
    """

    def __init__(self, factory: Factory, run_name: str, say: Say) -> None:
        """run_name: not in use on the cluster.  say: takes lines for a person."""
        self._factory, self._say = factory, say
        self._system = System(factory.config, Placement(factory, run_name), say)

    def __enter__(self) -> LiveRun:
        try:
            self._system.start()
            return self
        except BaseException:
            self._system.close()
            raise

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:  # every part flushes and returns, as at the end of a run
                self._system.wind_down(self._heard)
        finally:
            self._system.close()

    def settle(self, warm_up_s: float, compiled: bool) -> None:
        """Returns once it goes as it will go on.

        warm_up_s: that it runs on for after the first updates.
        compiled: whether a compiled update can be expected, which is then waited for.
        """
        needed = self._factory.config.replay.min_size_to_sample
        updates = attrgetter("usage.gradient_steps")
        while not (usage := self._poll_for(_SAY_PERIOD_S, updates).usage).gradient_steps:
            self._say(f"{usage.env_steps:,} of {needed:,} transitions before the first update")
        if compiled and not self._poll_for(_COMPILE_TIMEOUT_S, _is_settled).usage.compiled:
            self._say("the run's update is not compiled; measuring the eager one")
        self._poll_for(warm_up_s)

    def measure(self, seconds: float, repeats: int) -> Measured:
        """`repeats` windows of about `seconds` each.

        Raises RunError where a window saw no env step or no update.
        """
        borders, cpu_s = [self._border()], [run_cpu_s()]
        for _ in range(repeats):
            self._poll_for(seconds)
            borders.append(self._border())
            cpu_s.append(run_cpu_s())
            window = borders[-1].since(borders[-2])
            if not window.env_steps or not window.gradient_steps:
                raise RunError(
                    f"a window of {window.at_s:.1f} s saw {window.env_steps:,} env steps and "
                    f"{window.gradient_steps:,} updates, both must be above 0; give it more "
                    "--seconds"
                )
        peak_bytes = tree_pss_bytes()  # reads every process's pages: not within a window
        spent = [b - a for a, b in itertools.pairwise(cpu_s)]
        if math.isnan(cpu_s[0]):  # Ray is a cluster's, and so are the parts
            spent = [b.since(a).cpu_s for a, b in itertools.pairwise(borders)]
        return Measured(tuple(borders), tuple(spent), peak_bytes)

    def _border(self) -> Usage:
        """What was spent until now, just after the learner has told of its updates."""
        known = self._poll(0.0).usage.gradient_steps
        return self._poll_for(
            NEWS_TIMEOUT_S, lambda poll: poll.usage.gradient_steps != known, _QUICK_POLL_S
        ).usage

    def _poll_for(
        self,
        seconds: float,
        until: Callable[[Poll], Any] = lambda poll: False,
        period_s: float = _POLL_S,
    ) -> Poll:
        """Polls for so long, or until a poll is as wished; the last one."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            poll = self._poll(min(max(left, 0.0), period_s))
            if until(poll) or left <= 0:
                return poll

    def _poll(self, timeout_s: float) -> Poll:
        return self._heard(self._system.poll(timeout_s))

    def _heard(self, poll: Poll) -> Poll:
        for line in poll.notes:
            self._say(line)
        return poll


def _is_settled(poll: Poll) -> bool:
    return poll.usage.compiled or not poll.usage.compiling


def run_cpu_s() -> float:
    """Seconds on a CPU so far of this process and its children, where Ray is among them.

    What others have taken on the machine is not in it. NaN where Ray is not its child.
    """
    this = psutil.Process()
    total, has_ray = 0.0, False
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # one that has ended meanwhile
            times = process.cpu_times()
            total += times.user + times.system
            has_ray |= process.name() == "raylet"
    return total if has_ray else math.nan
