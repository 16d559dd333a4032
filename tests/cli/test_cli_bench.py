"""`distdqn bench`: its flags, files, exit statuses, and what it compares."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
import types
from typing import Literal

import pytest
from bench_parts import made_up_case, made_up_result

from distdqn.cli import bench as command
from distdqn.cli.main import main


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Made up.

    sizes: things held, in
      many words.
    kinds: of thing.
    fast, warm: as it says, 100 % of it.
    repeats: repetitions.
    """

    sizes: tuple[int, ...] = (10, 20)
    kinds: tuple[Literal["a", "b"], ...] = ("a",)
    fast: bool = True
    warm: bool = False
    threads: int | None = None
    shards: int = 0
    repeats: int = 5
    seconds: float = 0.5
    counts: tuple[int, ...] = dataclasses.field(default=(1, 2), metadata={"least": 0})

    def __post_init__(self):
        if self.repeats > 100:
            raise ValueError("repeats must be at most 100")


@pytest.fixture
def benchmark(monkeypatch):
    """Stands in for the replay's benchmark; keeps what it was called with."""
    asked: dict = {"result": made_up_result(made_up_case())}
    module = types.ModuleType("distdqn.bench.replay", "Made up, to be called.")

    def run(options, say, *config):
        asked.update(options=options, config=config)
        say("measuring")
        if "raises" in asked:
            raise asked["raises"]
        print("a library's greeting")
        return asked["result"]

    module.Options, module.run = Options, run
    module.QUICK = Options(sizes=(1,), repeats=2)
    monkeypatch.setitem(sys.modules, "distdqn.bench.replay", module)
    return asked | {"module": module, "asked": asked}


def bench(tmp_path, *words):
    return main(["bench", "replay", "--runs-dir", str(tmp_path), *words])


def test_a_result_is_written_and_shown(benchmark, tmp_path, capsys):
    assert bench(tmp_path) == 0

    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("bench-replay-")
    assert {path.name for path in folder.iterdir()} == {"result.json", "plot.png"}
    shown = capsys.readouterr().err
    for words in ("measuring", "sample, transitions/s", "50 %", "a note", "plot.png"):
        assert words in shown
    assert benchmark["asked"]["options"] == Options() and benchmark["asked"]["config"] == ()


def test_json_is_alone_on_stdout_and_equals_the_file(benchmark, tmp_path, capfd):
    assert bench(tmp_path, "--json") == 0

    shown = capfd.readouterr()
    (folder,) = tmp_path.iterdir()
    assert json.loads(shown.out) == json.loads((folder / "result.json").read_text())
    assert "a library's greeting" in shown.err


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["--sizes", "5", "6", "7"], {"sizes": (5, 6, 7)}),
        (["--kinds", "b", "a"], {"kinds": ("b", "a")}),
        (["--no-fast", "--warm"], {"fast": False, "warm": True}),
        (["--threads", "3"], {"threads": 3}),
        (["--threads", "none", "--shards", "0"], {}),
        (["--counts", "0", "4"], {"counts": (0, 4)}),
        (["--seconds=0.25"], {"seconds": 0.25}),
        (["--quick"], {"sizes": (1,), "repeats": 2}),
        (["--quick", "--repeats", "9"], {"sizes": (1,), "repeats": 9}),
    ],
)
def test_flags_become_options(benchmark, tmp_path, words, changed):
    assert bench(tmp_path, *words) == 0
    assert benchmark["asked"]["options"] == dataclasses.replace(Options(), **changed)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--size", "5"], "distdqn bench: unknown option --size; did you mean --sizes?"),
        (["--sizes", "4", "0"], "--sizes is 0, must be above 0"),
        (["--sizes"], "--sizes needs a value"),
        (["--shards", "-1"], "--shards is -1, must be at least 0"),
        (["--seconds", "0"], "--seconds is 0.0, must be above 0"),
        (["--seconds", "nan"], "--seconds is 'nan', must be a number, and finite"),
        (["--kinds", "c"], "--kinds is 'c', must be a or b"),
        (["--repeats", "101"], "distdqn bench: repeats must be at most 100"),
        (["more"], "unexpected argument 'more'"),
    ],
)
def test_wrong_use_is_refused_in_a_line_before_anything_is_measured(
    benchmark, tmp_path, capsys, words, line
):
    assert bench(tmp_path, *words) == 2

    shown = capsys.readouterr().err
    assert line in shown and shown.count("\n") == 1
    assert "options" not in benchmark["asked"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["bench", "reply"], "unknown benchmark 'reply'; did you mean replay?"),
        (["bench", "xyzzy"], "the benchmarks are replay, learner, broadcast"),
        (["bench", "--quick"], "name a benchmark before --quick"),
    ],
)
def test_another_name_is_refused_with_those_there_are(capsys, words, line):
    assert main(words) == 2
    assert line in capsys.readouterr().err


def test_without_a_name_the_benchmarks_are_listed(capsys):
    assert main(["bench"]) == 2
    without = capsys.readouterr().err
    assert main(["bench", "--help"]) == 0
    assert capsys.readouterr().out == without
    for name in command.BENCHMARKS:
        assert f"  {name}" in without


def test_help_says_what_each_flag_means_and_its_default(benchmark, capsys):
    assert main(["bench", "replay", "--help"]) == 0

    shown = " ".join(re.sub("[│|] ", "", capsys.readouterr().out).split())
    assert "Made up, to be called." in shown and "--quick" in shown
    assert "--sizes INT [INT ...] things held, in many words. (default: 10 20)" in shown
    assert "--kinds a|b [a|b ...] of thing. (default: a)" in shown
    for name in ("fast", "warm"):  # share their meaning
        assert f"--{name}, --no-{name} as it says, 100 % of it." in shown
    assert "--fast, --no-fast as it says, 100 % of it. (default: True)" in shown


def test_a_benchmark_of_the_whole_takes_every_configuration_key(benchmark, tmp_path, capsys):
    benchmark["module"].DEFAULT_PRESET = "minatar"
    words = ["--preset", "cartpole", "--workers.count", "3", "--learner.no-double", "--warm"]

    assert bench(tmp_path, *words) == 0

    (config,) = benchmark["asked"]["config"]
    assert config.workers.count == 3 and not config.learner.double
    assert benchmark["asked"]["options"].warm and len(list(tmp_path.iterdir())) == 1
    assert bench(tmp_path, "--workers.count", "0") == 2
    assert bench(tmp_path) == 0
    assert benchmark["asked"]["config"][0].env.id.startswith("MinAtar/")
    capsys.readouterr()
    assert main(["bench", "replay", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "default: minatar" in shown and "distdqn train --help" in shown
    assert "--workers.count" not in shown


# --- comparing ------------------------------------------------------------------------


def test_an_older_result_is_compared_by_its_file_or_its_folder(benchmark, tmp_path, capfd):
    bench(tmp_path)
    (old,) = tmp_path.iterdir()
    benchmark["asked"]["result"] = made_up_result(made_up_case(value=(20.0, 24.0, 22.0)))
    for path in (old, old / "result.json"):
        capfd.readouterr()
        assert bench(tmp_path, "--json", "--compare", str(path)) == 0
        shown = capfd.readouterr()
        (ratio,) = json.loads(shown.out)["comparison"]["ratios"]
        assert ratio["times"] == 2.0 and (ratio["old_share"], ratio["new_share"]) == (0.5, 1.0)
        assert "2.00" in shown.err and "50 % -> 100 %" in shown.err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is no JSON"),
        ("[1]", "not a benchmark result"),
        ('{"format": 99}', "measure again"),
    ],
)
def test_what_is_no_result_is_refused_before_anything_is_measured(
    benchmark, tmp_path, capsys, text, line
):
    old = tmp_path / "old.json"
    if text is not None:
        old.write_text(text)

    assert bench(tmp_path / "runs", "--compare", str(old)) == 2

    shown = capsys.readouterr().err
    assert line in shown and shown.count("\n") == 1 and "options" not in benchmark["asked"]


def test_a_result_of_another_benchmark_is_refused(benchmark, tmp_path, capsys):
    old = tmp_path / "old.json"
    old.write_text(json.dumps(made_up_result(benchmark="rollout").to_json()))

    assert bench(tmp_path, "--compare", str(old)) == 2
    assert "is a result of 'rollout'; give one of 'replay'" in capsys.readouterr().err


# --- ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (MemoryError("too little"), 1)]
)
def test_what_was_broken_off_leaves_no_folder(benchmark, tmp_path, capsys, error, status):
    benchmark["asked"]["raises"] = error

    assert bench(tmp_path) == status
    assert not list(tmp_path.iterdir()) and "Traceback" not in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    benchmark, tmp_path, capsys
):
    (tmp_path / "file").write_text("")

    assert bench(tmp_path / "file") == 2
    assert "cannot make a folder" in capsys.readouterr().err
    assert "options" not in benchmark["asked"]


def test_ctrl_c_ends_a_benchmark_with_130(tmp_path):
    words = "bench replay --observations cartpole --sizes 600 --seconds 60 --quick"
    with subprocess.Popen(
        [sys.executable, "-m", "distdqn", *words.split(), "--runs-dir", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("cartpole")
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=300) == 130
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    assert not list(tmp_path.iterdir())
