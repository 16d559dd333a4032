"""What compiled functions are known by, kept under, and called through.

A key is a digest of everything that decides the machine code; one that misses something
would load yesterday's update in silence. It is made from the source of an update and a
description of what it closes over, which needs no tracing; where a description could miss
something there is none, and the key is made from the traced graph.
"""

import contextlib
import hashlib
import io
import operator
import os
import pickle
import platform
import tempfile
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distdqn.machine.cpu import cpu_flags

Tensors = Sequence[torch.Tensor]
Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]

# The files that an update is made of: `learning.update`, the networks, all they import.
_FILES = (
    "config.calls config.sections config.suggestions config.values errors learning.optimizers "
    "learning.update networks.pictures networks.q_network types value_learning "
    "weights.flat_parameters"
)
MADE_OF = tuple(f"distdqn.{name}" for name in _FILES.split())
_PLAIN = ("collections", "copyreg", "functools")  # containers, and how pickle makes objects
OPTIONS = {  # of torch's compiler, those that it has; without any it compiles too, more slowly
    # Precompiling torch's headers pays from the third compile on; ours is one.
    "aot_inductor.precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
    # Compiling the update tells as well whether the compiler knows this CPU's instructions.
    "cpp.vec_isa_ok": True,
}
KEPT_FILES = 64
_ROOT = Path(__file__).parents[2]


def cache_key(graph: torch.fx.GraphModule, arguments: Tensors) -> str:
    """Of the graph with its constants, the arguments' layouts, torch, CPU, number of threads."""
    targets = [str(node.target) for node in graph.graph.find_nodes(op="get_attr")]
    constants = [f"{name} {_tensor_text(operator.attrgetter(name)(graph))}" for name in targets]
    return _digest(arguments, graph.code, *constants)


def source_key(description: str, arguments: Tensors) -> str:
    """As `cache_key`, from what `describe` says and the source of `MADE_OF`; no tracing."""
    files = [_ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in MADE_OF]
    return _digest(arguments, description, *(file.read_text() for file in files))


def layouts(arguments: Tensors) -> list[Layout]:
    """Shape, strides and dtype of each."""
    return [(tuple(x.shape), tuple(x.stride()), x.dtype) for x in arguments]


def describe(value: Any) -> str | None:
    """Digest that, with the source of `MADE_OF` and torch, decides what `value` computes.

    Knows what can be pickled, as far as its classes and functions come from there.
    Whatever else occurs anywhere inside, the answer is None: its source could change unseen.
    """
    stream = io.BytesIO()
    describer = _Describer(stream)
    describer.fast = True  # by value: whether two equal strings are one object tells nothing
    try:
        describer.dump(value)
    except Exception:  # objects raise what they like when they are taken apart
        return None
    return hashlib.sha256(stream.getvalue()).hexdigest()


class _Describer(pickle.Pickler):
    """Pickles the names of known code, parameters without their values, buffers with them."""

    def persistent_id(self, value: Any) -> str | None:
        if isinstance(value, nn.Parameter):  # their values are arguments
            return str(layouts([value]))
        if isinstance(value, torch.Tensor):
            return _tensor_text(value)
        if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            return None
        module, name = str(value.__module__), value.__qualname__
        if "<" in name or not (module in MADE_OF or module.split(".")[0] in ("torch", *_PLAIN)):
            raise pickle.PicklingError(f"{module}.{name} could change unseen")
        return f"{module}.{name}"


def _tensor_text(tensor: torch.Tensor) -> str:
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{layouts([tensor])} {hashlib.sha256(values.tobytes()).hexdigest()}"


def _digest(arguments: Tensors, *texts: str) -> str:
    """Of these texts, and of what counts for every function: layouts, torch, the CPU."""
    versions = (torch.__version__, torch.version.git_version, os.environ.get("CXX"), OPTIONS)
    capability = torch.backends.cpu.get_cpu_capability()
    cpu = (platform.machine(), capability, cpu_flags(), torch.get_num_threads())
    always = repr((versions, cpu, layouts(arguments)))
    return hashlib.sha256("\0".join((always, *texts)).encode()).hexdigest()


class CompiledCache:
    """Compiled libraries of one user on one node, by key; the oldest go.

    A file's name ends with the digest of what it holds, because loading a truncated
    library ends the process; what fails the test is removed. Files of another user, or
    in a folder that others may write, are not loaded: they would be somebody's code.

    directory: default `$DISTDQN_CACHE_DIR/compiled`, else `$XDG_CACHE_HOME/distdqn/compiled`,
      else `~/.cache/distdqn/compiled`. It is created when something is published.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        if directory is None:
            own, users = os.environ.get("DISTDQN_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
            directory = Path(own or Path(users or "~/.cache").expanduser() / "distdqn", "compiled")
        self.directory = Path(directory)

    def lookup(self, key: str) -> Path | None:
        """The library under `key`, intact, or None."""
        with contextlib.suppress(OSError):  # a cache that cannot be read is an empty one
            if not _only_mine(self.directory):
                return None
            for path in self.directory.glob(f"{key}.*.so"):
                if _only_mine(path) and path.name == _name(key, path.read_bytes()):
                    os.utime(path)
                    return path
                path.unlink()
        return None

    def publish(self, library: str | Path, key: str) -> Path:
        """Copies a library in under `key`; whoever looks sees all of it or nothing."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = Path(library).read_bytes()
        path = self.directory / _name(key, data)
        descriptor, partial = tempfile.mkstemp(".partial", key, self.directory)  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(partial, path)
        with contextlib.suppress(OSError):  # somebody else removes files too
            by_age = sorted(self.directory.iterdir(), key=lambda path: path.stat().st_mtime)
            for old in by_age[:-KEPT_FILES]:
                old.unlink()
        return path


def _name(key: str, data: bytes) -> str:
    return f"{key}.{hashlib.sha256(data).hexdigest()[:32]}.so"


def _only_mine(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


class CompiledFunction:
    """A loaded library: an in-place function for arguments of one layout.

    A call keeps the interpreter lock, but for moments too short for another thread to wake in: with
    nothing else between calls, a waiting thread was seen to starve for 600 ms.
    """

    def __init__(self, library: str | Path, arguments: Tensors) -> None:
        """Raises RuntimeError where the library does not load."""
        # torch._inductor.aoti_load_package does it too, after two seconds of imports,
        # and unpacks into a temporary folder that a killed process leaves behind.
        self._runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)
        self._required, self._checked = layouts(arguments), False

    def __call__(self, *arguments: torch.Tensor) -> list[torch.Tensor]:
        """The outputs.

        ValueError for other layouts, on the first call only: asking 14 tensors takes 20
        microseconds, a tenth of a small update. Compiled code itself would not notice
        and read past their ends, so a caller must keep to what it began with.
        """
        if not self._checked and (got := layouts(arguments)) != self._required:
            raise ValueError(
                "compiled code must get the layouts it was compiled for: required "
                f"(shape, strides, dtype) {self._required}, got {got}"
            )
        self._checked = True
        return self._runner.run(list(arguments))
