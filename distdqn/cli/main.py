"""The command `distdqn`: finds the verb, and says in one line what went wrong.

The line is `distdqn VERB: what was wrong; the way out`; the exit status is as in `errors`.
"""

import atexit
import contextlib
import importlib
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn

from distdqn.cli.output import listing, say, told_if_slow
from distdqn.errors import DistDQNError, traceback_of
from distdqn.version import __version__

_THREADS_TIMEOUT_S = 3.0

VERBS = {
    "train": "train a deep Q-network; embedded Ray unless --address is given",
    "evaluate": "play greedy episodes with a run's policy",
    "resume": "go on with a lockstep run that was broken off",
    "verify": "hold learned values against exact solutions",
    "bench": "measure throughput",
    "doctor": "check this machine and say what to do",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    arguments: without the program's name; `sys.argv` where None.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words:
        say(_help())
        return 2
    if words[0] == "help" and words[1:]:
        words = [words[1], "--help"]
    if words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"distdqn {__version__}")
        return 0
    if words[0] not in VERBS:
        say(f"distdqn: {_unknown_verb(words[0])}")
        return 2
    return _run(words[0], words[1:], debug)


def main_and_exit() -> NoReturn:
    """The command `distdqn`: ends the process with the exit status.

    The exit handlers of what was loaded meanwhile are run; the interpreter's own tidying up,
    half a second after a run, is left out, and a thread that goes on is not waited for.
    """
    if os.getcwd() not in sys.path:  # as `python -m` does, for the user's own module:function
        sys.path.insert(0, os.getcwd())
    statuses: list[int] = []
    atexit.register(_end, statuses)  # the first to be registered is run last
    statuses.append(main())
    stuck = threading.Timer(_THREADS_TIMEOUT_S, _end, [statuses])
    stuck.daemon = True
    stuck.start()
    sys.exit(statuses[0])


def _end(statuses: list[int]) -> None:
    """Ends the process at once, with what it has printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that is gone
            stream.flush()
    if statuses:  # else `main` has raised, which the interpreter still has to show
        os._exit(statuses[0])


def _run(verb: str, arguments: list[str], debug: bool) -> int:
    """Runs a verb; whatever it raises becomes one line and an exit status."""
    try:
        with _ended_by_signals():
            with told_if_slow(f"distdqn {verb}: loading"):
                command = importlib.import_module(f"distdqn.cli.{verb}")
            status = command.run(arguments)
            sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        say(f"distdqn {verb}: interrupted")
        return 130
    except SystemExit as ended:
        if isinstance(ended.code, int) and ended.code > 128:
            say(f"distdqn {verb}: ended by {signal.Signals(ended.code - 128).name}")
        raise
    except BrokenPipeError:
        # The reader of our output left; what Python flushes at exit must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
            if details := getattr(error, "details", ""):
                say(details)
        line, status = _explain(error)
        say(f"distdqn {verb}: {line}")
        return status


def _explain(error: Exception) -> tuple[str, int]:
    """The line for an error and its exit status."""
    line = " ".join(str(error).split())
    if isinstance(error, DistDQNError):
        return line, error.exit_status
    log = getattr(error, "log", None) or _log(error)
    return f"internal error: {type(error).__name__}: {line}; the traceback is in {log}", 1


def _log(error: Exception) -> str:
    """Where the traceback of an error outside of any run is written to."""
    file, path = tempfile.mkstemp(prefix="distdqn_", suffix="_internal_error.log", text=True)
    with os.fdopen(file, "w") as log:
        log.write(traceback_of(error))
    return path


def _unknown_verb(word: str) -> str:
    from distdqn.config.suggestions import did_you_mean

    if word.startswith("-"):
        return f"name a command before {word}: {', '.join(VERBS)}"
    hint = did_you_mean(word, VERBS, "the commands are " + ", ".join(VERBS))
    return f"unknown command {word!r}; {hint}"


def _help() -> str:
    return f"""usage: distdqn COMMAND ...

Distributed deep Q-learning on Ray.

commands:
{listing(VERBS, "  ")}

options:
  -h, --help   this help; `distdqn COMMAND --help` for a command's own
  --version    the version
  --debug      with any command: tracebacks instead of one-line errors

exit status:
  0    done
  1    something failed after it had begun, or a check did not hold
  2    what was asked cannot be done as it is written; nothing was begun
  130  after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP"""


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the process through its `finally` clauses; training has its own.

    What is ignored stays so, as SIGHUP is under `nohup`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    obeyed = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in obeyed:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in obeyed:
            signal.signal(number, before[number])
