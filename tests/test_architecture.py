"""The floors: who may import whom, and how large a file may be.

A room is a folder of the package, or a file beside them. It imports only from lower
floors, and no two files import each other, directly or in a circle. Imports are read from
the syntax tree, those in function bodies and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "distdqn"

FLOORS = [
    "types errors version plain_json value_learning rate_limiter machine",
    "networks weights telemetry config",
    "envs acting replay learning control reporting",
    "evaluation files",
    "run",
    "lockstep policy",
    "api",
    "tabular bench",
    "cli",
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS, 1) for name in names.split()}
ENTRIES = {"distdqn", "distdqn.__main__"}  # above all floors
MOST_FILES_AT_THE_TOP = 12
MOST_DEPTH = 12

RAY_ROOMS = {"run", "cli"}
RAY_FILES = {  # the Ray shells, and what speaks for them
    "distdqn.acting.env_worker",
    "distdqn.acting.push_window",
    "distdqn.evaluation.evaluator",
    "distdqn.learning.learner_actor",
    "distdqn.learning.prefetch",
    "distdqn.learning.publish",
    "distdqn.lockstep.remote",
    "distdqn.weights.server",
    "distdqn.bench.broadcast",
}
TORCH_ROOMS = {"networks", "weights", "acting", "learning", "evaluation", "value_learning"} | {
    "machine", "run", "lockstep", "policy", "api", "tabular", "bench", "cli",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module, and where the statement stands."""

    module: str
    line: int
    in_function: bool
    for_types: bool


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
INSIDE = [name for name in MODULES if name not in ENTRIES]


@functools.cache
def imports(name: str) -> tuple[Import, ...]:
    return tuple(_imports(ast.parse(MODULES[name].read_text()), False, False))


def _imports(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, in_function, for_types)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are written out in full"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            module = full if full in MODULES else str(node.module)
            yield Import(module, node.lineno, in_function, for_types)
    in_function |= isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for_types |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, in_function, for_types)


def room(module: str) -> str:
    """`envs` for `distdqn.envs.stepper`; "" for the package itself and other libraries."""
    parts = module.split(".")
    return parts[1] if parts[0] == "distdqn" and len(parts) > 1 else ""


def library(module: str) -> str:
    return module.partition(".")[0]


def loaded_with(name: str) -> set[str]:
    """Libraries that importing a module loads, through other modules of the package too."""
    seen, queue, libraries = {name}, [name], set()
    while queue:
        current = queue.pop()
        for found in imports(current):
            if found.in_function or found.for_types:
                continue
            if library(found.module) != "distdqn":
                libraries.add(library(found.module))
            elif found.module not in seen:
                seen.add(found.module)
                queue.append(found.module)
    return libraries


def test_the_reader_sees_imports_wherever_they_stand():
    code = (
        "import os.path\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def f():\n    def g():\n        from ray import get\n"
        "class C:\n    async def h(self):\n        import yaml\n"
    )

    found = {
        (i.module, i.in_function, i.for_types) for i in _imports(ast.parse(code), False, False)
    }

    assert found == {
        ("os.path", False, False),
        ("torch", False, True),
        ("ray", True, False),
        ("yaml", True, False),
    }


def test_every_room_has_a_floor():
    assert {room(name) for name in INSIDE} == set(FLOOR_OF)


@pytest.mark.parametrize("name", INSIDE)
def test_a_room_imports_only_from_lower_floors(name):
    for found in imports(name):
        assert found.module not in ENTRIES, f"{name}:{found.line} imports {found.module}"
        other = room(found.module)
        if other and other != room(name):
            floors = FLOOR_OF[other], FLOOR_OF[room(name)]
            assert floors[0] < floors[1], f"{name}:{found.line} imports {found.module}"


def imported_files(name: str) -> set[str]:
    return {found.module for found in imports(name) if found.module in MODULES} - {name}


def chain_lengths() -> dict[str, int]:
    """By file, the longest chain of imports down from it, itself counted.

    Raises graphlib.CycleError, which names the circle.
    """
    lengths: dict[str, int] = {}
    for name in graphlib.TopologicalSorter({n: imported_files(n) for n in MODULES}).static_order():
        lengths[name] = 1 + max((lengths[other] for other in imported_files(name)), default=0)
    return lengths


def test_no_files_import_each_other_in_a_circle():
    chain_lengths()


def test_the_longest_chain_of_imports_is_short():
    lengths = chain_lengths()
    chain = [max(lengths, key=lambda name: lengths[name])]
    while below := imported_files(chain[-1]):
        chain.append(max(below, key=lambda name: lengths[name]))

    assert len(chain) <= MOST_DEPTH, " -> ".join(chain)


def test_few_files_stand_beside_the_rooms():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FILES_AT_THE_TOP


def test_an_unused_room_loads_nothing():
    names = {
        found.module
        for room in PACKAGE.glob("*/__init__.py")
        for found in _imports(ast.parse(room.read_text()), False, False)
        if room.parent.name != "config"
    }
    assert names <= {"__future__"}


@pytest.mark.parametrize("name", INSIDE)
def test_ray_stays_in_its_rooms(name):
    if room(name) not in RAY_ROOMS and name not in RAY_FILES:
        assert "ray" not in {library(found.module) for found in imports(name)}


@pytest.mark.parametrize("name", INSIDE)
def test_torch_stays_out_of_acting_and_remembering(name):
    if room(name) not in TORCH_ROOMS:
        assert "torch" not in {library(found.module) for found in imports(name)}
        assert "torch" not in loaded_with(name)


def test_torch_is_not_loaded_in_a_replay_shard():
    assert "torch" not in loaded_with("distdqn.replay.shard")
    code = "import sys, distdqn.replay.shard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_the_driver_of_an_asynchronous_run_loads_neither_torch_nor_the_kernels():
    assert not {"torch", "numba"} & loaded_with("distdqn.run.async_run")


@pytest.mark.parametrize("name", INSIDE)
def test_gymnasium_stays_in_envs(name):
    if room(name) != "envs":
        assert "gymnasium" not in {library(found.module) for found in imports(name)}


@pytest.mark.parametrize("name", INSIDE)
def test_yaml_is_loaded_only_where_yaml_is_read(name):
    for found in imports(name):
        assert library(found.module) != "yaml" or found.in_function, f"{name}:{found.line}"


def test_the_learner_can_be_measured_where_little_is_installed():
    wanted = {"torch", "numpy", "numba", "llvmlite", "msgpack"}  # numba brings llvmlite
    outside = loaded_with("distdqn.bench.learner") - set(sys.stdlib_module_names)

    assert outside <= wanted
    absent = ["ray", "gymnasium", "yaml", "tyro", "rich", "psutil", "lz4"]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import distdqn.bench.learner"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_config_needs_only_the_standard_library():
    outside = {
        name for name in loaded_with("distdqn.config") if name not in sys.stdlib_module_names
    }

    assert not outside


def test_no_file_sees_the_whole_configuration_below_the_wiring():
    """A room may take its own section of it, from where the sections are."""
    for name in INSIDE:
        if FLOOR_OF[room(name)] < FLOOR_OF["run"] and room(name) != "config":
            taken = {found.module for found in imports(name) if room(found.module) == "config"}
            assert taken <= {"distdqn.config.sections"}, name


@pytest.mark.parametrize("name", ["utils", "base", "common", "helpers", "misc"])
def test_no_file_is_named_after_nothing(name):
    assert not [module for module in MODULES if module.split(".")[-1] == name]


@pytest.mark.parametrize("name", list(MODULES))
def test_a_file_is_at_most_400_lines(name):
    assert len(MODULES[name].read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", list(MODULES))
def test_a_file_says_what_it_is(name):
    text = ast.get_docstring(ast.parse(MODULES[name].read_text()))

    assert text
    assert text.splitlines()[0].endswith((".", ":", "?"))
