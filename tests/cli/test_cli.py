"""The command line: its commands, exit statuses, and what loading it costs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import types

import pytest
from command_parts import run

import distdqn
from distdqn.cli import output
from distdqn.cli.main import VERBS, main

# --- the command ---------------------------------------------------------------------


def test_help_lists_the_commands_that_work(capsys):
    assert main(["--help"]) == 0

    shown = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb}" in shown
    assert "scale" not in shown


def test_help_loads_no_heavy_library():
    code = (
        "from distdqn.cli.main import main; main(['--help']); "
        "sys.exit(len({'tyro', 'torch', 'ray', 'numpy', 'yaml', 'rich'} & set(sys.modules)))"
    )

    assert run(code=code).returncode == 0


def test_python_dash_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "distdqn", "--version"], capture_output=True, text=True, timeout=300
    )

    assert (done.returncode, done.stdout) == (0, f"distdqn {distdqn.__version__}\n")


@pytest.mark.parametrize(
    ("is_terminal", "is_slow", "told"), [(True, True, 1), (True, False, 0), (False, True, 0)]
)
def test_a_terminal_gets_a_word_where_loading_lasts(is_terminal, is_slow, told, monkeypatch):
    said, is_said = [], threading.Event()
    monkeypatch.setattr(output, "say", lambda line: (said.append(line), is_said.set()))
    monkeypatch.setattr(output, "_SOON_S", 0.01 if is_slow else 3600.0)
    monkeypatch.setattr(output.sys.stderr, "isatty", lambda: is_terminal)

    with output.told_if_slow("loading"):
        is_said.wait(60 if told else 0.1)

    assert said == ["loading"] * told


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("play", "evaluate")])
def test_an_unknown_command_is_refused_with_what_was_meant(capsys, word, meant):
    assert main([word]) == 2
    assert capsys.readouterr().err == f"distdqn: unknown command {word!r}; did you mean {meant}?\n"


def test_a_flag_before_the_command_is_refused(capsys):
    assert main(["--preset", "cartpole"]) == 2
    assert capsys.readouterr().err.startswith("distdqn: name a command before --preset: train, ")


def test_help_of_a_command_may_come_first(capsys):
    with pytest.raises(SystemExit):
        main(["help", "resume"])
    assert "usage: distdqn resume" in capsys.readouterr().out
    assert main(["help", "trian"]) == 2


def test_help_says_what_the_exit_statuses_mean(capsys):
    main(["help"])

    shown = capsys.readouterr().out
    for status in ("0  ", "1  ", "2  ", "130"):
        assert f"\n  {status}" in shown


def test_no_command_is_wrong_use(capsys):
    assert main([]) == 2
    assert "usage: distdqn COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help(verb):
    done = run(verb, "--help")

    assert done.returncode == 0
    assert f"usage: distdqn {verb}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_with_its_status(number, status):
    code = (
        "import signal, types, time, distdqn.cli.main as m; v = types.ModuleType('v'); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # these tests may run under nohup
        "v.run = lambda a: (print('up', flush=True), time.sleep(30)); "
        "sys.modules['distdqn.cli.doctor'] = v; sys.exit(m.main(['doctor']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; {code}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(timeout=300) == status


def test_a_command_under_nohup_hears_no_hangup():
    code = (
        "import os, signal, sys, types, distdqn.cli.main as m; v = types.ModuleType('v'); "
        "v.run = lambda a: os.kill(os.getpid(), signal.SIGHUP) or 0; "
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "sys.modules['distdqn.cli.doctor'] = v; sys.exit(m.main(['doctor']))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


# --- evaluate ------------------------------------------------------------------------


@pytest.fixture
def evaluated(monkeypatch):
    """Replaces evaluation by a function that keeps its arguments."""
    calls: list[dict] = []

    def evaluate(run, *, checkpoint, episodes, seed, video, runs_dir, epsilon):
        calls.append(dict(locals(), calls=None))
        told = {"return_mean": 487.5, "checkpoint": "best", "warnings": ["[one]", "two"]}
        return types.SimpleNamespace(to_json=lambda: told)

    module = types.ModuleType("distdqn.policy")
    module.evaluate = evaluate
    monkeypatch.setitem(sys.modules, "distdqn.policy", module)
    return calls


def test_evaluate_passes_its_flags_on(evaluated, capsys):
    words = (
        "run1 --checkpoint newest --episodes 5 --seed 3 --video --runs_dir elsewhere --epsilon 0.5"
    )

    assert main(["evaluate", *words.split()]) == 0
    (call,) = evaluated
    assert (call["run"], call["checkpoint"], call["episodes"]) == ("run1", "newest", 5)
    assert (call["seed"], call["video"], call["runs_dir"]) == (3, True, "elsewhere")
    assert call["epsilon"] == 0.5
    output = capsys.readouterr()
    for words in ("return mean", "487.50", "[one]", "two"):
        assert words in output.err
    assert output.out == ""


def test_evaluate_prints_json(evaluated, capfd):
    assert main(["evaluate", "run1", "--json"]) == 0

    output = capfd.readouterr()
    assert json.loads(output.out)["warnings"] == ["[one]", "two"]
    assert output.err == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "distdqn evaluate: RUN is missing; see distdqn evaluate --help"),
        (["-R"], "distdqn evaluate: RUN needs a value"),
        (["run", "--", "--seed"], "unexpected argument '--'"),
        (["r", "--episode", "5"], "unknown option --episode; did you mean --episodes?"),
        (
            ["r", "--episodes", "0"],
            "--episodes is 0, must be at least 1",
        ),
        (["r", "--episodes", "x"], "--episodes is 'x', must be a whole number"),
        (["r", "--seed", "-1"], "--seed is -1, must be at least 0"),
        (["r", "--epsilon", "2"], "--epsilon is 2.0, must be at least 0 and at most 1"),
        (["r", "--epsilon", "x"], "--epsilon is 'x', must be a number"),
        (["r", "s"], "unexpected argument 's'"),
    ],
)
def test_evaluate_refuses_wrong_use_in_one_line(evaluated, capsys, words, line):
    assert main(["evaluate", *words]) == 2

    shown = capsys.readouterr().err
    assert shown.startswith("distdqn evaluate: ")
    assert line in shown
    assert shown.count("\n") == 1
    assert evaluated == []


# --- the package ---------------------------------------------------------------------


def test_importing_the_package_loads_neither_torch_nor_ray():
    code = (
        "import distdqn; distdqn.Config(); distdqn.load_config(preset='cartpole'); "
        "sys.exit(len({'torch', 'ray', 'gymnasium', 'tyro'} & set(sys.modules)))"
    )

    assert run(code=code).returncode == 0


@pytest.mark.parametrize("first", ["pass", "import distdqn.api"])
def test_train_is_a_function_whatever_was_imported_before(first):
    code = f"{first}\nimport sys, distdqn\nsys.exit(not callable(distdqn.train))"

    done = subprocess.run([sys.executable, "-c", code], timeout=300)

    assert done.returncode == 0


def test_a_thread_that_goes_on_does_not_hold_up_the_end():
    code = (
        "import threading, time; from distdqn.cli.main import main_and_exit; "
        "threading.Thread(target=time.sleep, args=(3600,)).start(); main_and_exit()"
    )

    done = run("--version", code=code)

    assert done.returncode == 0 and done.stdout.startswith("distdqn ")


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'distdqn' has no attribute 'trian'"):
        distdqn.trian  # noqa: B018
