"""Child processes that make something and answer questions about it.

No Ray: what is measured in them is what the machine can do. Ctrl-C is left to the parent: a
terminal sends it to every process, and a child that obeyed would print a traceback.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from distdqn.errors import DistDQNError, RunError


class Child:
    """A process that makes something and keeps it; left by `with`, which ends the process.

    Its first answer is what it has made, unless `keep`, which makes that None: what can be
    asked about, but not sent.
    """

    def __init__(
        self, name: str, make: Callable[..., Any], *arguments: Any, keep: bool = False
    ) -> None:
        """name: of what it does, for errors.  make, arguments: picklable."""
        context = multiprocessing.get_context("spawn")  # Ray's and torch's threads may be there
        self._name = name
        self._pipe, theirs = context.Pipe()
        served = (theirs, name, make, arguments, keep)
        self.process = context.Process(target=_serve, args=served, daemon=True)
        with without_ctrl_c():
            self.process.start()
        theirs.close()  # the child's death then ends a wait

    def ask(self, question: Callable[..., Any], *arguments: Any) -> None:
        """Has the child call `question(what it made, *arguments)`."""
        with contextlib.suppress(OSError):  # it is dead, as `answer` will say
            self._pipe.send((question, arguments))

    def answer(self, timeout_s: float) -> Any:
        """The next one that it has not given yet.

        Raises DistDQNError, one line, that the child raised; RunError for any other error in
        it, for its death, and where nothing came in time.
        """
        try:
            if not self._pipe.poll(timeout_s):
                raise RunError(f"{self._name}: no answer within {timeout_s:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise RunError(f"{self._name}: the process died; had it too little memory?") from None
        if isinstance(answer, DistDQNError):
            raise answer
        return answer

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe.close()
        self.process.kill()
        self.process.join()


def _serve(
    pipe: Connection, name: str, make: Callable[..., Any], arguments: tuple[Any, ...], keep: bool
) -> None:
    """The child, until the other end of the pipe is closed."""
    made = _told(name, make, *arguments)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(None if keep and not isinstance(made, DistDQNError) else made)
        while True:
            question, more = pipe.recv()
            pipe.send(_told(name, question, made, *more))


def _told(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives, or its error, in one line."""
    try:
        return call(*arguments)
    except DistDQNError as error:
        return error
    except Exception as error:  # users' envs and networks raise what they like
        line = (str(error).strip().splitlines() or [""])[0]
        return RunError(f"{name}: {type(error).__name__}: {line}")


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Processes started within it never see Ctrl-C; this one does, at the end at the latest."""
    # The tracker, started with the first child, would take the block away again.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
