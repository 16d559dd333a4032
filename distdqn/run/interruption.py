"""The signal that ends a run, obeyed at its next turn."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM")


class Interruption:
    """A signal that came and that the run obeys at its next turn.

    name: of the signal, "" while none has come.
    last_acts: called in turn when the process is ended by force.
    """

    def __init__(self) -> None:
        self.name = ""
        self.last_acts: list[Callable[[], Any]] = []

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """First SIGINT or SIGTERM: a clean end. A second SIGINT: out at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {name: signal.signal(getattr(signal, name), self._note) for name in SIGNALS}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.name and number == signal.SIGINT:
            os.write(2, b"\ndistdqn: ended at once\n")
            for act in self.last_acts:
                act()
            os._exit(130)
        self.name = signal.Signals(number).name

    def give_up(self) -> None:
        """Ends a run in which there is nothing to save yet, where a signal has come."""
        if self.name == "SIGINT":
            raise KeyboardInterrupt
        if self.name:
            raise SystemExit(143)
