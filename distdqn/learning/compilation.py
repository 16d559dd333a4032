"""Ahead-of-time compilation of the learner's update, beside training.

A compile takes ten seconds of a core and loading its result one millisecond, so a
child process compiles at low priority, what it built is kept for later runs, and
training goes on eagerly meanwhile.

    describe(build) --key--> cache ------------------------------> load
                               | miss                               ^
                               v                                    |
                             child: trace --> compile --> publish --+

The function is in place and positional: tensors in, a list of tensors out, state
written where it lies. Only the CPU is served; on a GPU the update is a CUDA graph.
"""

import contextlib
import faulthandler
import functools
import gc
import importlib
import inspect
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from distdqn.machine.cpu_threads import cpu_threads

InPlace = Callable[..., Sequence[torch.Tensor]]
Build = Callable[[], InPlace]

_CHILD = (sys.executable, "-m", __name__)
_CRASHES = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)


def trace(function: InPlace, arguments: Tensors) -> torch.fx.GraphModule:
    """The operations that `function(*arguments)` makes, gradients included, as a graph.

    It runs on copies, since `function` writes into its arguments. The first call of a
    process takes two seconds, for torch's own imports. Meanwhile no other thread may use
    a network that `function` closes over.
    """
    copies = [argument.clone() for argument in arguments]
    # The lambda's arguments have no names of their own, which would enter the key.
    return make_fx(lambda *tensors: function(*tensors))(*copies)


class BackgroundCompile:
    """A compile on its way; any failure is a state and one line, never an exception.

    Life: "cached" at once where an earlier run has built it; else "compiling", then
    "ready" or "failed". It has no thread: it looks after the child when it is asked.
    The child ends with this process, however that ends.

    build: makes a function that is in place and positional. If `describe` knows it
      (`partial(f, module, settings)`) a cached result costs milliseconds. What a user's own
      network makes is traced by the child, which then looks for a cached result; only what
      cannot be sent is traced here, before this returns, which takes two seconds.
    arguments: CPU tensors; their layouts count, their values do not.
    nice: of the child process. At 19 it takes only what training leaves.
    command: starts the child; another one in tests.
    reason: one line where it failed, else empty.
    """

    def __init__(
        self,
        build: Build,
        arguments: Tensors,
        cache: CompiledCache | None = None,
        nice: int = 19,
        command: Sequence[str] = _CHILD,
    ) -> None:
        self._arguments, self._cache = arguments, cache or CompiledCache()
        self._state = "compiling"
        self._function: CompiledFunction | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._again: Callable[[], None] | None = None  # as the child does itself where it can
        self._folder = ""
        self.reason = ""
        self._attempt(functools.partial(self._start, build, nice, command))

    @property
    def state(self) -> str:
        self.poll()
        return self._state

    def poll(self) -> CompiledFunction | None:
        """The compiled function when it is there; else None, at once."""
        if self._process is not None and self._process.poll() is not None:
            self._attempt(self._finish)
        return self._function

    def cancel(self) -> None:
        """Ends the child and its compiler, if they still run, and removes their files."""
        if self._state == "compiling":
            self._fail("cancelled")

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._fail(_one_line(error))

    def _start(self, build: Build, nice: int, command: Sequence[str]) -> None:
        if any(argument.device.type != "cpu" for argument in self._arguments):
            return self._fail("CUDA uses graphs")
        source: Build | torch.fx.GraphModule = build
        key = ""
        if (description := describe(build)) is not None:
            key = source_key(description, self._arguments)
        elif not _can_be_sent(build):
            source = trace(build(), self._arguments)
            key = cache_key(source, self._arguments)
        if key and (library := self._cache.lookup(key)) is not None:
            self._function = CompiledFunction(library, self._arguments)
            return self._end("cached")
        if shutil.which(compiler := os.environ.get("CXX", "g++")) is None:
            return self._fail(f"no C++ compiler, {compiler} is not on the PATH")
        threads, directory = torch.get_num_threads(), str(self._cache.directory)
        job = pickle.dumps((source, layouts(self._arguments), threads, directory, key))
        self._folder = tempfile.mkdtemp(prefix="distdqn-compile-")  # mode 0700
        self._again = functools.partial(self._launch, job, nice, command, "plain")
        self._launch(job, nice, command)

    def _launch(self, job: bytes, nice: int, command: Sequence[str], *plain: str) -> None:
        own = {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "TMPDIR": self._folder,  # everything that the compile writes
            "TORCHINDUCTOR_CACHE_DIR": f"{self._folder}/inductor",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        # In a file without a name: nobody else can put something to unpickle there.
        with tempfile.TemporaryFile() as file, open(Path(self._folder, "log"), "wb") as log:
            file.write(job)
            file.seek(0)
            self._process = subprocess.Popen(
                [*command, self._folder, str(file.fileno()), *plain],
                stdin=subprocess.PIPE,  # its closing tells the child that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | own,
                pass_fds=[file.fileno()],
                start_new_session=True,  # a group of its own, to be killed as one
            )
        with contextlib.suppress(OSError):  # over already
            os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)

    def _finish(self) -> None:
        """Loads what the child left behind; RuntimeError with its last words if it failed.

        A child that crashed is followed by one without `OPTIONS`.
        """
        assert self._process is not None
        status = self._process.returncode
        if -status in _CRASHES and (again := self._again) is not None:
            self._again = None
            self._process.communicate()
            return again()
        if status:
            log = Path(self._folder, "log").read_text(errors="replace").strip().splitlines()
            ended = f"by {signal.Signals(-status).name}" if status < 0 else f"with {status}"
            raise RuntimeError(f"compiler process ended {ended}: {_last_words(log)}")
        library = Path(self._folder, "library").read_text()
        self._function = CompiledFunction(library, self._arguments)
        self._end("ready")

    def _fail(self, reason: str) -> None:
        self.reason = f"update not compiled, training goes on eagerly: {reason}"
        self._end("failed")

    def _end(self, state: str) -> None:
        self._state, self._again = state, None
        if (process := self._process) is not None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self._process = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def compile_update(learner: Any, with_action_mask: bool, nice: int) -> BackgroundCompile:
    """Starts to compile a `Learner`'s update, for as many threads as the learner has.

    nice: see `BackgroundCompile`.
    """
    with cpu_threads(learner.num_threads):
        arguments = learner.example_arguments(with_action_mask)
        return BackgroundCompile(learner.build_update, arguments, nice=nice)


def _can_be_sent(build: Build) -> bool:
    """Whether another program can unpickle it, which knows nothing of this one's `__main__`."""
    try:
        return b"__main__" not in pickle.dumps(build)
    except Exception:  # pickle fails in many ways
        return False


def _one_line(error: Exception) -> str:
    """The compiler's first complaint where there is one, else the error's first line."""
    lines = str(error).strip().splitlines() or [""]
    line = next((line for line in lines if " error: " in line), lines[0])
    return f"{type(error).__name__}: {line.strip()}"[:300]


def _last_words(log: Sequence[str]) -> str:
    """The last line; of a crash, the innermost frame that faulthandler names."""
    frames = [line.strip() for line in log if line.startswith("  File ")]
    return frames[0] if frames else log[-1] if log else "it said nothing"


def main(folder: str, descriptor: str, plain: str = "") -> None:
    """The child, `python -m <this module> FOLDER FD`: compiles the job in file FD.

    Writes the library's path to `FOLDER/library`; or ends with 1, its last line the reason.
    plain: without `OPTIONS`, which vouch for the compiler; the second try, in a new program,
      as torch remembers what it was told of the compiler.
    """
    faulthandler.enable(all_threads=False)
    threading.Thread(target=_die_with_parent, args=[folder], daemon=True).start()
    gc.disable()  # a sixth of the Python time, in a process that ends soon
    status = 1
    try:
        importlib.import_module("torch._dynamo")  # without it no graph can be unpickled
        with os.fdopen(int(descriptor), "rb", closefd=False) as file:
            library = _compile(*pickle.load(file), options={} if plain else OPTIONS)
        Path(folder, "library").write_text(str(library))
        status = 0
    except Exception as error:
        print(_one_line(error), flush=True)
        if not plain:
            os.lseek(int(descriptor), 0, os.SEEK_SET)
            os.execv(sys.executable, [*sys.orig_argv, "plain"])
    os._exit(status)  # to take all of torch apart would take another second


def _compile(
    source: Build | torch.fx.GraphModule,
    layouts_: Sequence[Layout],
    num_threads: int,
    directory: str,
    key: str,
    *,
    options: Mapping[str, Any],
) -> Path:
    torch.set_num_threads(num_threads)
    arguments = tuple(
        torch.empty_strided(shape, strides, dtype=dtype).zero_()
        for shape, strides, dtype in layouts_
    )
    graph = source
    if not isinstance(graph, torch.fx.GraphModule):
        graph = trace(graph(), arguments)
    key, cache = key or cache_key(graph, arguments), CompiledCache(directory)
    if (library := cache.lookup(key)) is not None:
        return library
    library = _compile_graph(graph, arguments, options)
    CompiledFunction(library, arguments)  # what does not load does no harm here
    with contextlib.suppress(OSError):  # without a cache it is loaded from where it lies
        library = cache.publish(library, key)
    return library


def _compile_graph(
    graph: torch.fx.GraphModule, arguments: tuple[torch.Tensor, ...], options: Mapping[str, Any]
) -> Path:
    """options: of torch's compiler; those that this torch does not have are left out."""
    import torch._inductor

    known = torch._inductor.list_options()
    wanted = {name: value for name, value in options.items() if name in known}
    with torch.no_grad():
        program = torch.export.export(graph, arguments, strict=False)
        # Guards came with torch 2.9 or so, and the way to leave them out.
        checks = inspect.signature(program.module).parameters.keys() & {"check_guards"}
        module = program.module(**dict.fromkeys(checks, False))
        return Path(str(torch._inductor.aot_compile(module, arguments, options=wanted)))


def _die_with_parent(folder: str) -> None:
    """Waits for the parent's end of the pipe to close, and takes the compiler along.

    The kernel's parent-death signal would come when the thread that started this process
    ends, which may be soon, and would not reach the compiler.
    """
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
