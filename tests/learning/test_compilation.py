"""The cache's keys and files, the child's life, and one real compile."""

from __future__ import annotations

import ast
import copy
import functools
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from learner_parts import make_settings, needs_compiler
from torch import nn

from distdqn.learning import compiled_cache
from distdqn.learning.compilation import BackgroundCompile, _compile_graph, trace
from distdqn.learning.compiled_cache import (
    MADE_OF,
    OPTIONS,
    CompiledCache,
    cache_key,
    describe,
    source_key,
)
from distdqn.learning.update import build_update
from distdqn.networks.q_network import make_network
from distdqn.types import ObservationSpec

ARGUMENTS = (torch.arange(6.0).reshape(2, 3), torch.ones(3))


def accumulate(total: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor]:
    """total <- total + x^2, by way of a gradient; returns the sum of the new total."""
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((y**3 / 3).sum(), y)
    total.add_(gradient)
    return (total.sum(),)


def build_accumulate():
    return accumulate


def fake_child(tmp_path: Path, body: str) -> list[str]:
    """A command in place of the compiler process; argv[1] is its folder."""
    script = tmp_path / "child.py"
    script.write_text(f"import json, os, sys, time\nfolder = sys.argv[1]\n{body}\n")
    return [sys.executable, str(script)]


def start(tmp_path: Path, command: list[str], **options) -> BackgroundCompile:
    cache = CompiledCache(tmp_path / "cache")
    return BackgroundCompile(build_accumulate, ARGUMENTS, cache, command=command, **options)


def wait(compiling: BackgroundCompile, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while compiling.state == "compiling":
        assert time.monotonic() < deadline, "still compiling"
        time.sleep(0.01)


def wait_until(condition, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- keys


def test_the_traced_graph_computes_the_function_and_leaves_the_arguments_alone():
    total, x = ARGUMENTS[0].clone(), ARGUMENTS[1] * 2
    graph = trace(accumulate, (total, x))
    assert torch.equal(total, ARGUMENTS[0])
    (out,) = graph(total, x)
    assert torch.equal(total, ARGUMENTS[0] + 4.0)
    assert out == 15.0 + 6 * 4.0


def test_the_key_changes_with_operations_constants_layouts_and_threads():
    def scaled(total, x, factor=2.0):
        return (total.add_(x * factor),)

    def key(function, arguments=ARGUMENTS):
        return cache_key(trace(function, arguments), arguments)

    two, three = torch.tensor([2.0]), torch.tensor([3.0])
    constants = [lambda total, x, c=c: (total.add_(x * c),) for c in (two, three)]
    keys = [
        key(scaled),
        key(functools.partial(scaled, factor=3.0)),
        key(accumulate),
        *map(key, constants),
        key(scaled, (torch.zeros(4, 3), torch.ones(3))),
        key(scaled, (torch.zeros(3, 2).T, torch.ones(3))),
        key(scaled, (torch.zeros(2, 3), torch.ones(3, dtype=torch.float64))),
    ]
    assert len(set(keys)) == len(keys)
    assert key(scaled) == keys[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert key(scaled) != keys[0]
    finally:
        torch.set_num_threads(threads)


def network(hidden=(8,), dueling=False, scale=1.0):
    spec = ObservationSpec((4,), "float32", scale=scale)
    return make_network(spec, 2, hidden=hidden, dueling=dueling)


def test_a_description_tells_networks_and_settings_apart_but_not_their_weights():
    cases = [
        functools.partial(make_network, network(), {"loss": "mse"}),
        functools.partial(make_network, network(), {"loss": "huber"}),
        functools.partial(make_network, network(hidden=(9,)), {"loss": "mse"}),
        functools.partial(make_network, network(dueling=True), {"loss": "mse"}),
        functools.partial(make_network, network(scale=0.5), {"loss": "mse"}),
    ]
    texts = [describe(case) for case in cases]
    assert None not in texts and len(set(texts)) == len(texts)
    assert describe(functools.partial(make_network, network(), {"loss": "mse"})) == texts[0]


def test_buffers_count_by_value():
    def with_buffer(value):
        module = nn.Linear(2, 2)
        module.register_buffer("offset", torch.tensor([value]))
        return describe(module)

    assert with_buffer(1.0) == with_buffer(1.0) != with_buffer(2.0)


def test_what_could_change_unseen_has_no_description():
    class Own(nn.Module):
        pass

    hooked = network()
    hooked.register_forward_hook(lambda *_: None)
    patched = network()
    patched.forward = lambda obs: obs
    nested = nn.Sequential(nn.Linear(2, 2), Own())
    for value in (lambda: 0, Own(), hooked, patched, nested, build_accumulate, object()):
        assert describe(value) is None
        assert describe(functools.partial(make_network, [value])) is None


def test_the_source_key_covers_description_and_layouts():
    keys = {
        source_key("a", ARGUMENTS),
        source_key("b", ARGUMENTS),
        source_key("a", ARGUMENTS[:1]),
    }
    assert len(keys) == 3
    assert source_key("a", ARGUMENTS) in keys


def test_the_source_key_covers_every_file_that_an_update_is_made_of():
    """Imports as they are written, from the update and the networks down."""
    found, queue = set(), ["distdqn.learning.update", "distdqn.networks.q_network"]
    while queue:
        name = queue.pop()
        found.add(name)
        tree = ast.parse(Path(importlib.util.find_spec(name).origin).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("distdqn"):
                files = [f"{node.module}.{alias.name}" for alias in node.names]
                files = [x if node.module == "distdqn" else node.module for x in files]
                queue += [file for file in files if file not in found]
    assert found == set(MADE_OF)


def test_the_source_key_changes_with_a_file_that_an_update_is_made_of(monkeypatch):
    before = source_key("a", ARGUMENTS)
    monkeypatch.setattr(compiled_cache, "MADE_OF", (*MADE_OF[:-1], "distdqn.plain_json"))
    assert source_key("a", ARGUMENTS) != before


def test_the_updates_own_builder_is_described():
    build = functools.partial(build_update, network(), make_settings())
    assert describe(build) == describe(copy.deepcopy(build)) is not None
    other = functools.partial(build_update, network(), make_settings(loss="mse"))
    assert describe(build) != describe(other)


# --- the cache


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "library"
    path.write_bytes(os.urandom(5000))
    return path


def test_a_published_library_is_found_under_its_key_only(tmp_path, library):
    cache = CompiledCache(tmp_path / "cache")
    assert cache.lookup("k") is None
    path = cache.publish(library, "k")
    assert cache.lookup("k") == path and path.read_bytes() == library.read_bytes()
    assert cache.lookup("other") is None
    assert not list(cache.directory.glob("*.partial"))


@pytest.mark.parametrize("harm", [lambda data: data[:100], lambda data: b"x" + data[1:]])
def test_a_truncated_or_altered_library_is_removed(tmp_path, library, harm):
    cache = CompiledCache(tmp_path / "cache")
    path = cache.publish(library, "k")
    path.write_bytes(harm(path.read_bytes()))
    assert cache.lookup("k") is None
    assert not path.exists()


def test_nothing_is_loaded_from_where_others_may_write(tmp_path, library):
    cache = CompiledCache(tmp_path / "cache")
    path = cache.publish(library, "k")
    cache.directory.chmod(0o777)
    assert cache.lookup("k") is None
    cache.directory.chmod(0o700)
    path.chmod(0o666)
    assert cache.lookup("k") is None


def test_a_cache_that_cannot_be_read_is_empty(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert CompiledCache(tmp_path / "file").lookup("k") is None


def test_whoever_looks_while_others_publish_sees_an_intact_library(tmp_path, library):
    cache = CompiledCache(tmp_path / "cache")
    threads = [threading.Thread(target=cache.publish, args=(library, "k")) for _ in range(8)]
    for thread in threads:
        thread.start()
    found = [cache.lookup("k") for _ in range(50)]
    for thread in threads:
        thread.join(timeout=300)
    for path in {cache.lookup("k"), *filter(None, found)}:
        assert path.read_bytes() == library.read_bytes()
    assert len(list(cache.directory.iterdir())) == 1


def test_the_libraries_unused_for_longest_go(tmp_path, library, monkeypatch):
    monkeypatch.setattr(compiled_cache, "KEPT_FILES", 3)
    cache = CompiledCache(tmp_path / "cache")
    for age, key in enumerate("abc"):
        path = cache.publish(library, key)
        os.utime(path, (1000.0 + age, 1000.0 + age))
    assert cache.lookup("a") is not None  # used: now the newest
    cache.publish(library, "d")
    assert [key for key in "abcd" if cache.lookup(key)] == ["a", "c", "d"]


def test_the_cache_lies_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("DISTDQN_CACHE_DIR", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert CompiledCache().directory == Path("/one/compiled")
    monkeypatch.delenv("DISTDQN_CACHE_DIR")
    assert CompiledCache().directory == Path("/two/distdqn/compiled")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert CompiledCache().directory == Path.home() / ".cache/distdqn/compiled"


# --- the child


def test_a_child_that_dies_is_reported_with_its_last_words(tmp_path):
    compiling = start(tmp_path, fake_child(tmp_path, "sys.exit('first\\nout of memory')"))
    wait(compiling, 300)
    assert compiling.state == "failed" and compiling.poll() is None
    assert "\n" not in compiling.reason
    assert compiling.reason.startswith("update not compiled, training goes on eagerly: ")
    assert compiling.reason.endswith("compiler process ended with 1: out of memory")


def test_a_child_that_crashed_is_followed_by_one_without_shortcuts(tmp_path):
    body = "import signal\nif sys.argv[3:] != ['plain']: os.kill(os.getpid(), signal.SIGSEGV)"
    compiling = start(tmp_path, fake_child(tmp_path, body + "\nsys.exit('plain, ' + sys.argv[3])"))
    wait(compiling, 300)
    assert compiling.reason.endswith("compiler process ended with 1: plain, plain")


def test_two_crashes_are_reported_with_their_place(tmp_path):
    body = "import ctypes, faulthandler\nfaulthandler.enable()\nctypes.string_at(0)"
    compiling = start(tmp_path, fake_child(tmp_path, body))
    wait(compiling, 300)
    assert "compiler process ended by SIGSEGV: File " in compiling.reason
    assert compiling.reason.endswith("in string_at")


def test_options_that_this_torch_does_not_have_are_left_out(monkeypatch):
    known, asked = [name for name in OPTIONS if "line_tables" not in name], []
    monkeypatch.setattr("torch._inductor.list_options", lambda: known)
    monkeypatch.setattr(
        "torch._inductor.aot_compile", lambda *_, options: asked.append(options) or "library"
    )
    _compile_graph(trace(accumulate, ARGUMENTS), ARGUMENTS, OPTIONS)
    assert asked == [{name: OPTIONS[name] for name in known}] and len(known) == len(OPTIONS) - 1


def test_cancelling_ends_the_child_and_its_compiler_and_removes_their_files(tmp_path):
    body = f"""
import subprocess
compiler = subprocess.Popen(["sleep", "3600"])
with open({str(tmp_path / "pids.partial")!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{compiler.pid}} {{folder}}")
os.rename({str(tmp_path / "pids.partial")!r}, {str(tmp_path / "pids")!r})
time.sleep(3600)
"""
    compiling = start(tmp_path, fake_child(tmp_path, body), nice=7)
    wait_until((tmp_path / "pids").exists)
    child, compiler, folder = (tmp_path / "pids").read_text().split()
    assert compiling.state == "compiling" and compiling.poll() is None
    assert os.getpriority(os.PRIO_PROCESS, int(child)) == 7
    compiling.cancel()
    assert compiling.state == "failed" and compiling.reason.endswith("cancelled")
    for pid in (child, compiler):
        wait_until(lambda pid=pid: not is_running(int(pid)))
    assert not os.path.exists(folder)
    compiling.cancel()  # again: nothing happens


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_child_ends_with_its_parent_and_leaves_no_files(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    build = functools.partial(time.sleep, 3600)
    job = (build, [], 1, str(tmp_path), None)
    with tempfile.TemporaryFile() as file:
        pickle.dump(job, file)
        file.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", "distdqn.learning.compilation", str(folder), str(file.fileno())],
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[file.fileno()],
        )
    child.stdin.close()  # what the kernel does when the parent is gone
    assert child.wait(timeout=300) == -signal.SIGKILL
    assert not folder.exists()


def test_without_a_compiler_nothing_is_started(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiling = start(tmp_path, ["false"])
    assert compiling.state == "failed"
    assert compiling.reason.endswith("no C++ compiler, no-such-compiler is not on the PATH")


def test_tensors_on_another_device_are_left_to_graphs(tmp_path):
    arguments = [torch.empty(2, device="meta")]
    compiling = BackgroundCompile(build_accumulate, arguments, CompiledCache(tmp_path))
    assert compiling.state == "failed" and "CUDA uses graphs" in compiling.reason


def test_a_function_that_cannot_be_traced_fails_in_one_line(tmp_path):
    def reads_a_value(total, x):
        return (x * 2 if bool(total.sum() > 0) else x,)

    cache = CompiledCache(tmp_path)
    compiling = BackgroundCompile(lambda: reads_a_value, ARGUMENTS, cache)
    assert compiling.state == "failed"
    assert "\n" not in compiling.reason and "eagerly: " in compiling.reason


# --- one real compile


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A function compiled cold, by a child that was sent what builds it."""
    cache = CompiledCache(tmp_path_factory.mktemp("cache") / "compiled")
    compiling = BackgroundCompile(build_accumulate, ARGUMENTS, cache, nice=0)
    assert compiling.state == "compiling", compiling.reason
    wait(compiling, 300)
    assert compiling.state == "ready", compiling.reason
    return compiling, cache


@needs_compiler
def test_compiled_code_writes_the_state_in_place_and_returns_the_outputs(compiled):
    function = compiled[0].poll()
    total, x = ARGUMENTS[0].clone(), torch.tensor([1.0, 2.0, 3.0])
    for step in (1, 2):
        (out,) = function(total, x)
        assert torch.equal(total, ARGUMENTS[0] + step * x**2)
        assert out == total.sum()


@needs_compiler
def test_compiled_code_refuses_other_layouts(compiled):
    function = compiled_cache.CompiledFunction(compiled[1].lookup(graph_key()), ARGUMENTS)
    with pytest.raises(ValueError, match="required"):
        function(torch.zeros(3, 2).T, torch.ones(3))
    assert function(torch.zeros(2, 3), torch.ones(3))[0] == 6.0


@needs_compiler
def test_the_next_run_finds_it_by_its_graph_without_a_child(compiled):
    compiling = BackgroundCompile(
        lambda: accumulate, ARGUMENTS, compiled[1], command=["false"]
    )  # without a name it cannot be sent, and is traced here
    assert compiling.state == "cached" and compiling.reason == ""
    total = torch.zeros(2, 3)
    assert compiling.poll()(total, torch.ones(3))[0] == 6.0


@needs_compiler
def test_what_can_be_sent_is_traced_and_found_by_a_child(compiled, monkeypatch):
    monkeypatch.setattr("distdqn.learning.compilation.trace", None)
    compiling = BackgroundCompile(build_accumulate, ARGUMENTS, compiled[1], nice=0)
    before = sorted(compiled[1].directory.iterdir())
    wait(compiling, 300)
    assert compiling.state == "ready", compiling.reason
    assert sorted(compiled[1].directory.iterdir()) == before
    assert compiling.poll()(torch.zeros(2, 3), torch.ones(3))[0] == 6.0


@needs_compiler
def test_a_described_build_is_found_without_tracing(compiled, monkeypatch):
    build = functools.partial(make_network, network())
    key = source_key(describe(build), ARGUMENTS)
    compiled[1].publish(compiled[1].lookup(graph_key()), key)
    monkeypatch.setattr("distdqn.learning.compilation.trace", None)
    compiling = BackgroundCompile(build, ARGUMENTS, compiled[1], command=["false"])
    assert compiling.state == "cached"


def graph_key() -> str:
    return cache_key(trace(accumulate, ARGUMENTS), ARGUMENTS)


@pytest.mark.long
@needs_compiler
def test_a_compiler_that_does_not_know_this_cpu_is_asked_again_without_shortcuts(
    tmp_path, monkeypatch
):
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-mavx512*) exit 1;; esac\nexec g++ "$@"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    compiling = BackgroundCompile(build_accumulate, ARGUMENTS, CompiledCache(tmp_path / "c"))
    wait(compiling, 600)
    assert compiling.state == "ready", compiling.reason
