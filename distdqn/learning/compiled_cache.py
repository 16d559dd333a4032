"""What compiled functions are known by, kept under, and called through.

A key is a digest of everything that decides the machine code; one that misses
something would load yesterday's update in silence. There are two: of the traced graph,
which is exact, and of distdqn's own source with a description of what is closed over,
which needs no tracing and is refused (None) where it could miss something.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

Tensors = Sequence[torch.Tensor]
Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]

_KEPT_FILES = 64
_STAND_ASIDE_S = 0.005  # the interpreter's own switch interval
_PLAIN_MODULE = nn.Module()


def cache_key(graph: torch.fx.GraphModule, arguments: Tensors) -> str:
    """Hex digest of all that decides the machine code for a traced function.

    That is the graph with its constants, the arguments' layouts, torch, the CPU and the
    number of threads.
    """
    constants = [
        f"{node.target} {_tensor_text(_attribute(graph, str(node.target)))}"
        for node in graph.graph.find_nodes(op="get_attr")
    ]
    return _digest(_toolchain(), str(layouts(arguments)), graph.code, *constants)


def source_key(description: str, arguments: Tensors) -> str:
    """As `cache_key`, from what `describe` says and distdqn's own source; no tracing."""
    sources = [
        f"{path.name} {path.read_text()}"
        for path in sorted(Path(__file__).parents[1].rglob("*.py"))
    ]
    return _digest(_toolchain(), str(layouts(arguments)), description, *sources)


def layouts(arguments: Tensors) -> list[Layout]:
    """Shape, strides and dtype of each."""
    return [(tuple(x.shape), tuple(x.stride()), x.dtype) for x in arguments]


def describe(value: Any) -> str | None:
    """Text that, with the source of distdqn and torch, decides what `value` computes.

    Knows plain values, dataclasses, functions, `functools.partial` and modules, as far
    as their classes and functions are distdqn's or torch's own. Whatever else occurs
    anywhere inside, the answer is None: its source could change unseen.
    """
    if isinstance(value, nn.Module):
        return _describe_module(value)
    if isinstance(value, functools.partial):
        return _describe_parts("partial", [value.func, value.args, value.keywords])
    if isinstance(value, list | tuple):
        return _describe_parts(type(value).__name__, value)
    if isinstance(value, Mapping):
        return _describe_parts("mapping", [part for item in value.items() for part in item])
    if isinstance(value, type(None) | bool | int | float | str | torch.dtype | torch.device):
        return repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return _describe_parts(_own_name(type(value)), fields)
    if callable(value) and getattr(value, "__closure__", True) is None:
        return _own_name(value)
    return None


def _describe_module(module: nn.Module) -> str | None:
    parts: list[str | None] = []
    for path, part in module.named_modules():
        parts += [path, _own_name(type(part))]
        for name, value in vars(part).items():
            parts += [name, _describe_attribute(name, value)]
    return _joined(parts)


def _describe_attribute(name: str, value: Any) -> str | None:
    if name == "_parameters":  # their values are arguments
        return str(
            [(key, layouts([tensor])) for key, tensor in value.items() if tensor is not None]
        )
    if name == "_buffers":  # constants
        return str([(key, _tensor_text(tensor)) for key, tensor in value.items()])
    if name == "_modules":
        return str(list(value))
    if name in vars(_PLAIN_MODULE) and not value:
        return "no hooks"
    return describe(value)


def _describe_parts(name: str | None, parts: Any) -> str | None:
    return _joined([name, *map(describe, parts)])


def _joined(parts: Sequence[str | None]) -> str | None:
    texts = [part for part in parts if part is not None]
    return f"[{', '.join(texts)}]" if len(texts) == len(parts) else None


def _own_name(value: Any) -> str | None:
    module, name = str(getattr(value, "__module__", "")), getattr(value, "__qualname__", "")
    own = module.partition(".")[0] in ("distdqn", "torch") and "<" not in name
    return f"{module}.{name}" if own and name else None


def _toolchain() -> str:
    versions = (torch.__version__, torch.version.git_version, os.environ.get("CXX"))
    capability = torch.backends.cpu.get_cpu_capability()
    cpu = (platform.machine(), capability, cpu_flags(), torch.get_num_threads())
    return repr((versions, cpu))


@functools.cache
def cpu_flags() -> str:
    """The CPU's instruction sets in one line, any of which a compiler may use."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return line
    return platform.processor()


def _tensor_text(tensor: torch.Tensor | None) -> str:
    if tensor is None:
        return "None"
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{layouts([tensor])} {hashlib.sha256(values.tobytes()).hexdigest()}"


def _attribute(graph: torch.fx.GraphModule, target: str) -> Any:
    return functools.reduce(getattr, target.split("."), graph)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


class CompiledCache:
    """Compiled libraries of one user on one node, by key; the oldest go.

    A file's name ends with the digest of what it holds, because loading a truncated
    library ends the process; what fails the test is removed. Files of another user, or
    in a folder that others may write, are not loaded: they would be somebody's code.

    directory: default `$DISTDQN_CACHE_DIR/compiled`, else `$XDG_CACHE_HOME/distdqn/compiled`,
      else `~/.cache/distdqn/compiled`. It is created when something is published.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = _default_directory() if directory is None else Path(directory)

    def lookup(self, key: str) -> Path | None:
        """The library under `key`, intact, or None."""
        with contextlib.suppress(OSError):  # a cache that cannot be read is an empty one
            found = sorted(self.directory.glob(f"{key}.*.so"))
            if not found or not _only_mine(self.directory):
                return None
            for path in found:
                if _only_mine(path) and path.name == _name(key, path):
                    os.utime(path)
                    return path
                path.unlink()
        return None

    def publish(self, library: str | Path, key: str) -> Path:
        """Copies a library in under `key`; whoever looks sees all of it or nothing."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".partial", key, self.directory)  # mode 0600
        partial = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Path(library).read_bytes())
        path = self.directory / _name(key, partial)
        os.replace(partial, path)
        self._prune()
        return path

    def _prune(self) -> None:
        with contextlib.suppress(OSError):  # somebody else prunes
            by_age = sorted(self.directory.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in by_age[:-_KEPT_FILES]:
                path.unlink()


def _default_directory() -> Path:
    if own := os.environ.get("DISTDQN_CACHE_DIR"):
        return Path(own) / "compiled"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "distdqn/compiled"


def _name(key: str, path: Path) -> str:
    return f"{key}.{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.so"


def _only_mine(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


class CompiledFunction:
    """A loaded library: an in-place function for arguments of one layout.

    A call keeps the interpreter lock, but for moments too short for another thread to
    wake in: with nothing else between calls, a waiting thread was seen to starve for
    600 ms.
    """

    def __init__(self, library: str | Path, arguments: Tensors) -> None:
        """Raises RuntimeError where the library does not load."""
        # torch._inductor.aoti_load_package does it too, after two seconds of imports,
        # and unpacks into a temporary folder that a killed process leaves behind.
        self._runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)
        self._layouts = layouts(arguments)
        self._checked = False

    def __call__(self, *arguments: torch.Tensor) -> list[torch.Tensor]:
        """The outputs.

        ValueError for other layouts, on the first call only: asking 14 tensors takes 20
        microseconds, a tenth of a small update. Compiled code itself would not notice
        and read past their ends, so a caller must keep to what it began with.
        """
        if not self._checked:
            self._check(arguments)
        return self._runner.run(list(arguments))

    def _check(self, arguments: Tensors) -> None:
        if layouts(arguments) != self._layouts:
            raise ValueError(
                "compiled code must get the layouts it was compiled for: required "
                f"(shape, strides, dtype) {self._layouts}, got {layouts(arguments)}"
            )
        self._checked = True
