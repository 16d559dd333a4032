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
import json
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
from typing import Any, Literal

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from distdqn.learning.compiled_cache import (
    CompiledCache,
    CompiledFunction,
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

_CHILD = (sys.executable, "-m", "distdqn.learning.compilation")
_OPTIONS = {
    # Precompiling torch's headers pays from the third compile on; ours is one.
    "aot_inductor.precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
}

# AOTInductor's runtime matches a device name against a regular expression, once; to
# instantiate std::regex for it is two of the five seconds that g++ takes for the wrapper.
_REGEX_FOR_CPU = """#pragma once
#include <functional>
#include <map>
#include <sstream>
#include <string>
namespace std {
struct regex { explicit regex(const char*) {} };
struct cpu_match {
  bool matched = false;
  string str() const { return "cpu"; }
  operator string() const { return str(); }
};
struct smatch {
  cpu_match device, index;
  const cpu_match& operator[](size_t i) const { return i < 2 ? device : index; }
};
inline bool regex_match(const string& text, smatch& match, const regex&) {
  return match.device.matched = text == "cpu";
}
}
"""


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
    function: InPlace,
    arguments: Tensors,
    cache: CompiledCache | None = None,
    nice: int = 19,
    build: Build | None = None,
    command: Sequence[str] = _CHILD,
) -> BackgroundCompile:
    """Starts to compile `function` for arguments like these; never raises.

    function: in place and positional. Without `build` it is traced here, before this
      returns, which takes two seconds.
    arguments: CPU tensors; their layouts count, their values do not.
    nice: of the child process. At 19 it takes only what training leaves.
    build: makes the same function; picklable. Then nothing is traced here, and if
      `describe` knows it (`partial(f, module, settings)`) a cached result costs
      milliseconds.
    command: starts the child; another one in tests.
    """
    compiling = BackgroundCompile(arguments, cache or CompiledCache(), nice, command)
    compiling.start(function, build)
    return compiling


class BackgroundCompile:
    """A compile on its way; any failure is a state and one line, never an exception.

    Life: "cached" at once where an earlier run has built it; else "compiling", then
    "ready" or "failed". It has no thread: it looks after the child when it is asked.
    The child ends with this process, however that ends.

    reason: one line where it failed, else empty.
    """

    def __init__(
        self, arguments: Tensors, cache: CompiledCache, nice: int, command: Sequence[str]
    ) -> None:
        self._arguments, self._cache = arguments, cache
        self._nice, self._command = nice, command
        self._state: State = "compiling"
        self._began, self._ended = time.monotonic(), 0.0
        self._function: CompiledFunction | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._job: Any = None
        self._takes_shortcuts = True
        self.reason = ""

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

    def start(self, function: InPlace, build: Build | None) -> None:
        """Loads what is cached, else starts the child."""
        try:
            self._start(function, build)
        except Exception as error:
            self._fail(_one_line(error))

    def _start(self, function: InPlace, build: Build | None) -> None:
        if any(argument.device.type != "cpu" for argument in self._arguments):
            return self._fail("CUDA uses graphs")
        key, build = self._plan(function, build)
        if key is not None and (library := self._cache.lookup(key)) is not None:
            return self._load(library, "cached")
        if shutil.which(compiler := os.environ.get("CXX", "g++")) is None:
            return self._fail(f"no C++ compiler, {compiler} is not on the PATH")
        self._write_job(key, build)
        self._launch()

    def _plan(self, function: InPlace, build: Build | None) -> tuple[str | None, Build]:
        """The key under which it may be cached, and what the child is to trace."""
        if build is not None and _can_be_pickled(build):
            description = describe(build)
            key = None if description is None else source_key(description, self._arguments)
            return key, build
        graph = trace(function, self._arguments)
        return cache_key(graph, self._arguments), functools.partial(_identity, graph)

    def _write_job(self, key: str | None, build: Build) -> None:
        """In a file without a name: nobody else can put something to unpickle there."""
        self._job = tempfile.TemporaryFile()  # noqa: SIM115  open for as long as a child may read
        job = {
            "build": build,
            "layouts": layouts(self._arguments),
            "num_threads": torch.get_num_threads(),
            "cache": str(self._cache.directory),
            "key": key,
        }
        pickle.dump(job, self._job)

    def _launch(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="distdqn-compile-"))  # mode 0700
        self._job.seek(0)
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [*self._command, str(self._folder), str(self._job.fileno())],
                stdin=subprocess.PIPE,  # its closing tells the child that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_child_environment(self._folder, self._takes_shortcuts),
                pass_fds=[self._job.fileno()],
                start_new_session=True,  # a group of its own, to be killed as one
            )
        with contextlib.suppress(OSError):  # over already
            os.setpriority(os.PRIO_PROCESS, self._process.pid, self._nice)

    def _refresh(self) -> None:
        if self._state != "compiling" or self._process is None or self._process.poll() is None:
            return
        try:
            result = self._result()
            if "library" in result:
                self._load(Path(result["library"]), "ready")
            elif self._takes_shortcuts:
                self._takes_shortcuts = False
                self._clean_up()
                self._launch()
            else:
                self._fail(result["error"])
        except Exception as error:
            self._fail(_one_line(error))

    def _result(self) -> dict[str, str]:
        assert self._process is not None and self._folder is not None
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self._folder / "result.json").read_text())
        log = (self._folder / "log").read_text(errors="replace").strip().splitlines()
        last = log[-1][:200] if log else "it said nothing"
        return {"error": f"compiler process ended with {self._process.returncode}: {last}"}

    def _load(self, library: Path, state: State) -> None:
        self._function = CompiledFunction(library, self._arguments)
        self._end(state)

    def _fail(self, reason: str) -> None:
        self.reason = f"update not compiled, training goes on eagerly: {reason}"
        self._end("failed")

    def _end(self, state: State) -> None:
        self._state, self._ended = state, time.monotonic()
        self._clean_up()
        if self._job is not None:
            self._job.close()

    def _clean_up(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._folder = None


def _child_environment(folder: Path, takes_shortcuts: bool) -> dict[str, str]:
    """Everything that the compile writes lies in `folder`."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "TMPDIR": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    if takes_shortcuts:
        include = folder / "include"
        include.mkdir()
        (include / "regex").write_text(_REGEX_FOR_CPU)
        own = [path for path in (os.environ.get("CPLUS_INCLUDE_PATH"),) if path]
        environment["CPLUS_INCLUDE_PATH"] = os.pathsep.join([str(include), *own])
    return environment


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
    """The child, `python -m distdqn.learning.compilation FOLDER FD`: compiles the job in file FD.

    Writes `FOLDER/result.json`, {"library": path} or {"error": line}.
    """
    folder, descriptor = Path(arguments[0]), int(arguments[1])
    threading.Thread(target=_die_with_parent, args=[folder], daemon=True).start()
    gc.disable()  # a sixth of the Python time, in a process that ends soon
    try:
        with os.fdopen(descriptor, "rb") as file:
            result = {"library": str(_compile(pickle.load(file), folder))}
    except Exception as error:
        result = {"error": _one_line(error)}
    partial = folder / "result.partial"
    partial.write_text(json.dumps(result))
    os.replace(partial, folder / "result.json")


def _compile(job: dict[str, Any], folder: Path) -> Path:
    torch.set_num_threads(job["num_threads"])
    arguments = [
        torch.empty_strided(shape, strides, dtype=dtype).zero_()
        for shape, strides, dtype in job["layouts"]
    ]
    cache = CompiledCache(job["cache"])
    graph = trace(job["build"](), arguments)
    key = cache_key(graph, arguments)
    library = cache.lookup(key)  # another source may have led to the same graph
    if library is None:
        library = _compile_graph(graph, arguments, (folder / "include").exists())
    CompiledFunction(library, arguments)  # what does not load does no harm here
    with contextlib.suppress(OSError):  # without a cache it is loaded from where it lies
        for each in filter(None, (key, job["key"])):
            library = cache.publish(library, each)
    return library


def _compile_graph(graph: torch.fx.GraphModule, arguments: Tensors, takes_shortcuts: bool) -> Path:
    import torch._inductor
    from torch._inductor.cpu_vec_isa import VecISA

    if takes_shortcuts:
        # Up to six test programs, five seconds, ask whether the compiler knows the
        # instructions that this CPU has. Compiling the real thing answers that too; if
        # it fails, a second child takes no shortcuts.
        VecISA.check_build = lambda self, code: True  # type: ignore[method-assign]
    with torch.no_grad():
        program = torch.export.export(graph, tuple(arguments), strict=False)
        module = program.module(check_guards=False)
        library = torch._inductor.aot_compile(module, tuple(arguments), options=dict(_OPTIONS))
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
