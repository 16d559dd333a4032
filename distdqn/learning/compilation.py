"""Ahead-of-time compilation of the learner's update, beside training.

A compile takes ten seconds of a core and loading its result one millisecond, so a
child process compiles at low priority, what it built is kept for later runs, and
training goes on eagerly meanwhile.

    describe(build) --source_key--> cache -----------------------------> load
                                      | miss                              ^
                                      v                                   |
                    child: trace --cache_key--> cache --miss--> compile --+

The function is in place and positional: tensors in, a list of tensors out, state
written where it lies. Only the CPU is served; on a GPU the update is a CUDA graph.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from distdqn.learning.compiled_cache import (
    OPTIONS,
    CompiledCache,
    CompiledFunction,
    Layout,
    Tensors,
    cache_key,
    describe,
    layouts,
    source_key,
)

__all__ = ["BackgroundCompile", "CompiledCache", "compile_in_background", "trace"]

InPlace = Callable[..., Sequence[torch.Tensor]]
Build = Callable[[], InPlace]
State = Literal["cached", "compiling", "ready", "failed"]

_CHILD = (sys.executable, "-m", __name__)


def trace(function: InPlace, arguments: Tensors) -> torch.fx.GraphModule:
    """The operations that `function(*arguments)` makes, gradients included, as a graph.

    It runs on copies, since `function` writes into its arguments. The first call of a
    process takes two seconds, for torch's own imports. Meanwhile no other thread may use
    a network that `function` closes over.
    """
    copies = [argument.clone() for argument in arguments]
    # The lambda's arguments have no names of their own, which would enter the key.
    return make_fx(lambda *tensors: function(*tensors))(*copies)


def compile_in_background(
    build: Build,
    arguments: Tensors,
    cache: CompiledCache | None = None,
    nice: int = 19,
    command: Sequence[str] = _CHILD,
) -> BackgroundCompile:
    """Starts to compile the function that `build` makes, for arguments like these; never raises.

    build: makes a function that is in place and positional. If `describe` knows it
      (`partial(f, module, settings)`) a cached result costs milliseconds; if it cannot be
      pickled, the function is traced here, before this returns, which takes two seconds.
    arguments: CPU tensors; their layouts count, their values do not.
    nice: of the child process. At 19 it takes only what training leaves.
    command: starts the child; another one in tests.
    """
    return BackgroundCompile(build, arguments, cache or CompiledCache(), nice, command)


class BackgroundCompile:
    """A compile on its way; any failure is a state and one line, never an exception.

    Life: "cached" at once where an earlier run has built it; else "compiling", then
    "ready" or "failed". It has no thread: it looks after the child when it is asked.
    The child ends with this process, however that ends.

    reason: one line where it failed, else empty.
    """

    def __init__(
        self,
        build: Build,
        arguments: Tensors,
        cache: CompiledCache,
        nice: int,
        command: Sequence[str],
    ) -> None:
        self._arguments, self._cache = arguments, cache
        self._state: State = "compiling"
        self._began, self._ended = time.monotonic(), 0.0
        self._function: CompiledFunction | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.reason = ""
        try:
            self._start(build, nice, command)
        except Exception as error:
            self._fail(_one_line(error))

    @property
    def state(self) -> State:
        self._refresh()
        return self._state

    @property
    def seconds(self) -> float:
        """Until the function was there or the compile failed; so far, while it goes on."""
        return (self._ended or time.monotonic()) - self._began

    def poll(self) -> CompiledFunction | None:
        """The compiled function when it is there; else None, at once."""
        self._refresh()
        return self._function

    def cancel(self) -> None:
        """Ends the child and its compiler, if they still run, and removes their files."""
        if self._state == "compiling":
            self._fail("cancelled")

    def _start(self, build: Build, nice: int, command: Sequence[str]) -> None:
        if any(argument.device.type != "cpu" for argument in self._arguments):
            return self._fail("CUDA uses graphs")
        key: str | None
        if _can_be_pickled(build):
            description = describe(build)
            key = None if description is None else source_key(description, self._arguments)
        else:
            graph = trace(build(), self._arguments)
            key, build = cache_key(graph, self._arguments), functools.partial(_identity, graph)
        if key is not None and (library := self._cache.lookup(key)) is not None:
            return self._load(library, "cached")
        if shutil.which(compiler := os.environ.get("CXX", "g++")) is None:
            return self._fail(f"no C++ compiler, {compiler} is not on the PATH")
        # In a file without a name: nobody else can put something to unpickle there.
        with tempfile.TemporaryFile() as job:
            threads, directory = torch.get_num_threads(), str(self._cache.directory)
            pickle.dump((build, layouts(self._arguments), threads, directory, key), job)
            job.seek(0)
            self._launch(job.fileno(), nice, command)

    def _launch(self, job: int, nice: int, command: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="distdqn-compile-"))  # mode 0700
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [*command, str(self._folder), str(job)],
                stdin=subprocess.PIPE,  # its closing tells the child that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_child_environment(self._folder),
                pass_fds=[job],
                start_new_session=True,  # a group of its own, to be killed as one
            )
        with contextlib.suppress(OSError):  # over already
            os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)

    def _refresh(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        try:
            self._load(self._library(self._process.returncode), "ready")
        except Exception as error:
            self._fail(_one_line(error))

    def _library(self, returncode: int) -> Path:
        """What the child left behind; RuntimeError with its last words if it failed."""
        assert self._folder is not None
        if returncode == 0:
            return Path((self._folder / "library").read_text())
        log = (self._folder / "log").read_text(errors="replace").strip().splitlines()
        last = log[-1] if log else "it said nothing"
        raise RuntimeError(f"compiler process ended with {returncode}: {last}")

    def _load(self, library: Path, state: State) -> None:
        self._function = CompiledFunction(library, self._arguments)
        self._end(state)

    def _fail(self, reason: str) -> None:
        self.reason = f"update not compiled, training goes on eagerly: {reason}"
        self._end("failed")

    def _end(self, state: State) -> None:
        self._state, self._ended = state, time.monotonic()
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._folder = None


def _child_environment(folder: Path) -> dict[str, str]:
    """Everything that the compile writes lies in `folder`."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "TMPDIR": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _can_be_pickled(build: Build) -> bool:
    try:
        pickle.dumps(build)
    except Exception:  # pickle raises what it likes
        return False
    return True


def _identity(graph: torch.fx.GraphModule) -> InPlace:
    return graph


def _one_line(error: Exception) -> str:
    """The compiler's first complaint where there is one, else the error's first line."""
    lines = str(error).strip().splitlines() or [""]
    line = next((line for line in lines if " error: " in line), lines[0])
    return f"{type(error).__name__}: {line.strip()}"[:300]


def main(arguments: Sequence[str]) -> None:
    """The child, `python -m <this module> FOLDER FD`: compiles the job in file FD.

    Writes the library's path to `FOLDER/library`; or ends with 1, its last line the reason.
    """
    folder, descriptor = Path(arguments[0]), int(arguments[1])
    threading.Thread(target=_die_with_parent, args=[folder], daemon=True).start()
    gc.disable()  # a sixth of the Python time, in a process that ends soon
    status = 1
    try:
        with os.fdopen(descriptor, "rb") as file:
            (folder / "library").write_text(str(_compile(*pickle.load(file))))
        status = 0
    except Exception as error:
        print(_one_line(error), flush=True)
    os._exit(status)  # to take all of torch apart would take another second


def _compile(
    build: Build, layouts_: list[Layout], num_threads: int, directory: str, key: str | None
) -> Path:
    torch.set_num_threads(num_threads)
    arguments = [
        torch.empty_strided(shape, strides, dtype=dtype).zero_()
        for shape, strides, dtype in layouts_
    ]
    cache = CompiledCache(directory)
    graph = trace(build(), arguments)
    graph_key = cache_key(graph, arguments)
    library = cache.lookup(graph_key)  # another source may have led to the same graph
    if library is None:
        library = _compile_graph(graph, arguments)
    CompiledFunction(library, arguments)  # what does not load does no harm here
    with contextlib.suppress(OSError):  # without a cache it is loaded from where it lies
        for each in filter(None, (graph_key, key)):
            library = cache.publish(library, each)
    return library


def _compile_graph(graph: torch.fx.GraphModule, arguments: Tensors) -> Path:
    import torch._inductor

    known = torch._inductor.list_options()
    options = {name: value for name, value in OPTIONS.items() if name in known}
    with torch.no_grad():
        program = torch.export.export(graph, tuple(arguments), strict=False)
        module = program.module(check_guards=False)
        try:
            library = torch._inductor.aot_compile(module, tuple(arguments), options=options)
        except Exception:  # a compiler that does not know what this CPU has
            library = torch._inductor.aot_compile(module, tuple(arguments))
    return Path(str(library))


def _die_with_parent(folder: Path) -> None:
    """Waits for the parent's end of the pipe to close, and takes the compiler along.

    The kernel's parent-death signal would come when the thread that started this process
    ends, which may be soon, and would not reach the compiler.
    """
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
