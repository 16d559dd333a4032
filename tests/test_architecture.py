"""The floors: who may import whom, and how large a file may be.

Imports are read from the syntax tree, those in function bodies and under TYPE_CHECKING
too. A new file needs a place in ROWS; a file imports only from rows above its own, or
from its own package.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "distdqn"

ROWS = [
    # floor 0: what travels, what is refused, settings, counters
    "types errors",
    "config metrics memory replay_memory usage thread_times",
    # floor 1: one concept each
    "pictures",
    "torsos cpu_threads streaming frame_buffer",
    "frame_rows",
    "compressed_rows",
    "envs exploration n_step sum_tree frame_ring rate_limiter value_learning optimizers networks",
    "accounting step_budget compiled_cache codec durable block_versions replay_state frame_stack",
    "staging",
    "block_check",
    # floor 2
    "sampling weights update compilation",
    # floor 3: the parts, testable without Ray
    "acting_network value_diagnostics value_panel",
    "rollout replay learner evaluate replay_files run_folder plots html_page video",
    "greedy checkpoint",
    # floor 4: thin Ray shells, and the schedule
    "actors",
    "lockstep",
    "lockstep_parts",
    # floor 5: wiring
    "parts stage_costs",
    "verdict",
    "summary",
    "placement",
    "system session lockstep_system",
    # floor 6: a run, and a policy
    "checkpointing progress policy",
    "run_record",
    "async_run lockstep_run",
    "train",
    # floor 7
    "tabular bench",
    # floor 8
    "cli",
    "__main__",
]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names.split()}

RAY_ROOMS = {"actors", "placement", "system", "cli"}
RAY_BENCHES = {"distdqn.bench.broadcast", "distdqn.bench.broadcast_actors"}
TORCH_FREE = {"types", "errors", "config", "metrics", "envs", "exploration", "n_step"} | {
    "sum_tree", "replay_memory", "pictures", "frame_ring", "frame_rows",
    "compressed_rows", "frame_stack",
    "frame_buffer", "streaming", "block_check",
    "rate_limiter", "sampling", "replay", "accounting", "step_budget",
    "codec", "durable", "block_versions", "replay_state", "replay_files",
    "usage", "thread_times",
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
INSIDE = [name for name in MODULES if name != "distdqn"]


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


def test_every_file_has_a_floor():
    assert {room(name) for name in INSIDE} <= set(ROW_OF)


@pytest.mark.parametrize("name", INSIDE)
def test_a_file_imports_only_from_lower_floors(name):
    own = ROW_OF[room(name)]
    for found in imports(name):
        other = room(found.module)
        if other and other != room(name):
            assert ROW_OF[other] < own, f"{name}:{found.line} imports {found.module}"


@pytest.mark.parametrize("package", sorted({room(n) for n in INSIDE if n.count(".") > 1}))
def test_a_package_has_no_import_cycle(package):
    edges = {
        name: {
            found.module
            for found in imports(name)
            if room(found.module) == package and not found.for_types
        }
        for name in INSIDE
        if room(name) == package
    }
    while ready := [name for name, needs in edges.items() if not needs & set(edges)]:
        for name in ready:
            del edges[name]

    assert not edges, f"a cycle among {sorted(edges)}"


@pytest.mark.parametrize("name", INSIDE)
def test_ray_stays_in_its_rooms(name):
    if room(name) not in RAY_ROOMS and name not in RAY_BENCHES:
        assert "ray" not in {library(found.module) for found in imports(name)}


@pytest.mark.parametrize("name", INSIDE)
def test_torch_stays_out_of_acting_and_remembering(name):
    if room(name) in TORCH_FREE:
        assert "torch" not in {library(found.module) for found in imports(name)}
        assert "torch" not in loaded_with(name)


def test_torch_is_not_loaded_in_a_replay_shard():
    assert "torch" not in loaded_with("distdqn.actors.shard")
    code = "import sys, distdqn.actors.shard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


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
    for name in INSIDE:
        if ROW_OF[room(name)] < ROW_OF["parts"] and room(name) != "config":
            assert "config" not in {room(found.module) for found in imports(name)}, name


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
