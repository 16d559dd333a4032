"""The signal that ends a run: obeyed in time, and a command is ended by force if need be.

Python's handlers wait until the main thread comes back from whatever library it is in. So
a thread hears of each signal the moment it comes: it breaks off what takes too long after
one. Where a command has not ended in time, or gets a second Ctrl-C, it ends the process.
"""

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

BOUNDS_S = {"SIGINT": 10.0, "SIGTERM": 20.0, "SIGHUP": 20.0}
SIGNALS = tuple(BOUNDS_S)
_OBEYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NO_BREAK = 1.0
_BY_FORCE = 0.75  # share of a bound after which the process is ended by force
_LAST_ACTS_S = 1.5
_LOOK_S = 0.1
_SAME_KEY_S = 0.1  # who forwards a terminal's Ctrl-C doubles it
_BREAK = signal.SIGURG  # from the thread to the main one; by default it is ignored
_ENOUGH = b"\0"  # no signal's number
_SHOW_CURSOR = b"\x1b[?25h"


class Interruption:
    """A signal that came, and the time that the run still has.

    name: of the first signal, "" while none has come.
    by_force: the process is a command's, and is ended where it does not end in time, and at a
      second Ctrl-C. Otherwise it is the caller's, and a second one raises KeyboardInterrupt.
    bounds_s: seconds by a signal's name in which the process ends; infinite: the run's own
      time. `until` says which part of the run may take which share of them.
    last_acts: called in turn when the process is ended by force.
    """

    def __init__(self, by_force: bool = False):
        self.name = ""
        self.bounds_s: Mapping[str, float] = BOUNDS_S
        self.last_acts: list[Callable[[], Any]] = []
        self._by_force, self._came_at = by_force, math.inf
        self._share, self._has_broken = NO_BREAK, False
        self._came_again = self._breaks_now = False
        self._next_break = 0.0

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """First of these signals: a clean end within its bound. A second SIGINT: at once.

        KeyboardInterrupt that came of another leaves as SystemExit. `nohup` ignores SIGHUP, and
        so does a run under it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        under_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        heard = [n for n in _OBEYED if n != signal.SIGHUP or not under_nohup]
        before = {n: signal.signal(n, self._handle) for n in (*heard, _BREAK)}
        wakeup_before = signal.set_wakeup_fd(writer)
        watcher = threading.Thread(target=self._watch, args=(reader,), daemon=True)
        watcher.start()
        try:
            yield
        except (KeyboardInterrupt, SystemExit):  # Ray's own handler raises the second
            self.end()
            raise
        finally:
            signal.set_wakeup_fd(wakeup_before)
            os.write(writer, _ENOUGH)
            watcher.join()
            os.close(reader)
            os.close(writer)
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def until(self, share: float) -> Iterator[None]:
        """What may go on until `share` of a signal's bound has passed, 0: until it comes.

        Then KeyboardInterrupt is raised in the main thread, once.
        """
        before = self._share, self._has_broken
        self._share, self._has_broken = share, False
        try:
            yield
        finally:
            self._share, self._has_broken = before

    @contextlib.contextmanager
    def left_out_after(self, share: float) -> Iterator[None]:
        """As `until`, and what is broken off is left out: only a second Ctrl-C raises."""
        try:
            with self.until(share):
                yield
        except KeyboardInterrupt:
            if not self.name or self._came_again:
                raise

    def passed(self, share: float) -> bool:
        """Whether `share` of a signal's bound has passed; False while none has come."""
        return bool(self.name) and (self._came_again or time.monotonic() >= self._when(share))

    def give_up(self) -> None:
        """Raises KeyboardInterrupt where a signal has come: there is nothing more to do."""
        if self.name:
            raise KeyboardInterrupt

    def end(self) -> None:
        """Ends the process where a signal has come, as Python and shells know it."""
        if self.name == "SIGINT":
            raise KeyboardInterrupt
        if self.name:
            raise SystemExit(128 + signal.Signals[self.name])

    def _when(self, share: float) -> float:
        return self._came_at + (share * self.bounds_s[self.name] if share else 0.0)

    def _note(self, number: int) -> None:
        if not self.name:
            self._came_at, self.name = time.monotonic(), signal.Signals(number).name

    def _handle(self, number: int, frame: Any) -> None:
        """In the main thread. Always KeyboardInterrupt: Ray's waits let nothing else out."""
        if number != _BREAK:
            self._note(number)
        if self._must_break and not _would_be_lost(frame):
            self._has_broken, self._breaks_now = True, False
            raise KeyboardInterrupt

    @property
    def _must_break(self) -> bool:
        is_late = self._share < NO_BREAK and self.passed(self._share)
        return self._breaks_now or (is_late and not self._has_broken)

    # The thread beside the main one.

    def _watch(self, reader: int) -> None:
        since = math.inf  # the first signal was seen; on a busy machine later than it came
        while True:
            if select.select([reader], [], [], _LOOK_S if self.name else None)[0]:
                came = os.read(reader, 64)
                if _ENOUGH in came:
                    return
                for number in set(came).intersection(_OBEYED):
                    if number == signal.SIGINT and time.monotonic() > since + _SAME_KEY_S:
                        self._insist()
                    self._note(number)
                    since = min(since, time.monotonic())
            self._obey()

    def _insist(self) -> None:
        """A second Ctrl-C, or a further one."""
        if self._by_force:
            self._end(128 + signal.SIGINT, "ended at once")
        self._came_again = self._breaks_now = True

    def _obey(self) -> None:
        if self._by_force and self.passed(_BY_FORCE):
            number = signal.Signals[self.name]
            self._end(128 + number, f"did not end in time after {self.name}: ended by force")
        if self._must_break and (now := time.monotonic()) >= self._next_break:
            self._next_break = now + _LOOK_S  # _BREAK too ends the wait for signals
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, _BREAK)

    def _end(self, status: int, line: str) -> None:
        """Ends the process, whatever its threads are doing."""
        cursor = _SHOW_CURSOR if os.isatty(2) else b""
        with contextlib.suppress(OSError):
            os.write(2, cursor + f"\ndistdqn: {line}\n".encode())

        acting = threading.Thread(target=self._act_last, daemon=True)
        acting.start()
        acting.join(_LAST_ACTS_S)
        os._exit(status)

    def _act_last(self) -> None:
        for act in self.last_acts:
            with contextlib.suppress(Exception):
                act()


def _would_be_lost(frame: Any) -> bool:
    """Whether Python prints and forgets what is raised in this frame: the thread asks again.

    So it does in code that a fork calls (`os.register_at_fork`), and in destructors.
    """
    while frame is not None:
        if frame.f_code.co_name in ("_execute_child", "__del__"):
            return True
        frame = frame.f_back
    return False
