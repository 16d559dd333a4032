"""The signal that ends a run, obeyed at its next turn."""

from __future__ import annotations

SIGNALS = ("SIGINT", "SIGTERM")


class Interruption:
    """A signal that came and that the run obeys at its next turn.

    name: of the signal, "" while none has come.
    """

    def __init__(self) -> None:
        self.name = ""

    def note(self, name: str) -> None:
        self.name = name

    def give_up(self) -> None:
        """Ends a run in which there is nothing to save yet, where a signal has come."""
        if self.name == "SIGINT":
            raise KeyboardInterrupt
        if self.name:
            raise SystemExit(143)
