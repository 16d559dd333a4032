"""`distdqn train`: its flags, what it refuses in one line, and what goes where."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import types

import pytest
from command_parts import run

from distdqn.cli.flags import UsageError, as_words, flag_name, read_flags
from distdqn.cli.main import main
from distdqn.config import Config, Schedule, from_values, to_values
from distdqn.config.keys import key_types
from distdqn.errors import RunError, begun
from distdqn.plain_json import to_json


class FakeSummary:
    exit_status = 0

    def to_json(self):
        return {"run_name": "fake", "eval_return_mean": float("nan")}


@pytest.fixture
def trained(monkeypatch):
    """Replaces training by a function that keeps the configurations it was called with."""
    configs: list[Config] = []

    def train(config, preset=None, by_force=False):
        configs.append(config)
        return FakeSummary()

    module = types.ModuleType("distdqn.api")
    module.train = train
    monkeypatch.setitem(sys.modules, "distdqn.api", module)
    return configs


def values_of(*words: str) -> dict:
    (values,) = read_flags("distdqn train", words, Config)
    return values


# --- flags ---------------------------------------------------------------------------


def test_flags_reach_the_configuration(trained, capsys):
    flags = "--replay.capacity 5000 --workers.envs-per-worker=8 --learner.double --seed 7"

    assert main(["train", *flags.split()]) == 0
    assert trained == [
        from_values(
            {
                "replay.capacity": 5_000,
                "workers.envs_per_worker": 8,
                "learner.double": True,
                "seed": 7,
            }
        )
    ]
    assert capsys.readouterr().out == ""


def test_hyphens_and_underscores_are_the_same(trained):
    main(["train", "--workers.envs_per_worker", "8", "--total_env_steps=50000"])
    main(["train", "--workers.envs-per-worker", "8", "--total-env-steps=50000"])

    assert trained[0] == trained[1]
    assert trained[0].workers.envs_per_worker == 8


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--learner.double"], "learner.double", True),
        (["--learner.double", "true"], "learner.double", True),
        (["--learner.double=False"], "learner.double", False),
        (["--learner.no-double"], "learner.double", False),
        (["--learner.no-compile"], "learner.compile", False),
        (["--no-learner.compile"], "learner.compile", False),
        (["--network.hidden", "256", "128"], "network.hidden", (256, 128)),
        (["--network.hidden", "256,128"], "network.hidden", (256, 128)),
        (["--network.hidden", "[256, 128]"], "network.hidden", (256, 128)),
        (["--network.hidden", "[]"], "network.hidden", ()),
        (["--env.kwargs", '{"is_slippery": false}'], "env.kwargs", {"is_slippery": False}),
        (["--env.kwargs", "{size: 4}"], "env.kwargs", {"size": 4}),
        (["--learner.learning-rate", "1e-3"], "learner.learning_rate", Schedule(1e-3, 1e-3, 1)),
        (["--workers.epsilon.value", "1:0.1:50"], "workers.epsilon.value", Schedule(1, 0.1, 50)),
        (
            ["--learner.learning-rate=1:0:30%"],
            "learner.learning_rate",
            Schedule(1, 0, fraction=0.3),
        ),
        (["--eval.stop-at-return", "-110"], "eval.stop_at_return", -110.0),
        (["--eval.stop-at-return", "none"], "eval.stop_at_return", None),
        (["--learner.max-grad-norm", "null"], "learner.max_grad_norm", None),
        (["--run-name", "010"], "run_name", "010"),
        (["--seed", "010"], "seed", 10),
        (["--seed", "1", "--seed", "2"], "seed", 2),
    ],
)
def test_a_flag_is_read_as_its_field(words, key, value):
    found = to_values(from_values(values_of(*words)))[key]

    assert found == value
    assert type(found) is type(value)


def test_every_default_can_be_given_back_as_its_flag():
    for key, value in to_values(Config()).items():
        assert from_values(values_of(flag_name(key), *as_words(value))) == Config(), key


def test_help_shows_every_key_and_the_presets_value():
    shown = run("train", "--preset", "cartpole-cleanrl", "--help").stdout

    for key in key_types(Config):
        assert f"{flag_name(key)} " in shown or f"{flag_name(key)}," in shown, key
    words = " ".join(shown.replace("│", " ").split())
    assert "(default: 1.0:0.05:50%)" in words
    assert "(default: 120 84)" in words
    for flag in ("--preset", "--config", "--json", "--list-presets", "--debug"):
        assert flag in shown


def test_every_field_of_the_help_has_a_text():
    """tyro puts a flag's text on the line below it, indented further."""
    lines = [line.strip("│").rstrip() for line in run("train", "--help").stdout.splitlines()]
    flags = [index for index, line in enumerate(lines) if line.startswith(" --")]

    assert len(flags) > len(key_types(Config))
    for index in flags:
        text = lines[index + 1]
        assert text.startswith("       ") and not text.strip().startswith("(default"), lines[index]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--worker.count", "5"],
            "distdqn train: unknown option --worker.count; did you mean --workers.count?",
        ),
        (
            ["--batch_size=5"],
            "distdqn train: unknown option --batch-size; did you mean --learner.batch-size?",
        ),
        (["--prest", "x"], "distdqn train: unknown option --prest; did you mean --preset?"),
        (["--zzz"], "distdqn train: unknown option --zzz; see distdqn train --help"),
        (["--learner.lr=1"],
         "distdqn train: unknown option --learner.lr; did you mean --learner.learning-rate?"),
        (["--gamma", "0.9"],
         "distdqn train: unknown option --gamma; did you mean --learner.discount?"),
        (["--no-double"],
         "distdqn train: unknown option --no-double; did you mean --learner.no-double?"),
        (["-x"], "distdqn train: unknown option -x; see distdqn train --help"),
        (["foo"], "distdqn train: unexpected argument 'foo'; see distdqn train --help"),
        (["apex"], "distdqn train: unexpected argument 'apex'; did you mean --preset apex?"),
        (["a.yaml"], "distdqn train: unexpected argument 'a.yaml'; did you mean --config a.yaml?"),
        (["Acrobot-v1"],
         "distdqn train: unexpected argument 'Acrobot-v1'; did you mean --env.id Acrobot-v1?"),
        (["--preset", "apex", "--preset=cartpole"],
         "distdqn train: --preset is given twice, a run has one; join what they set in one "
         "--config file"),
        (["--preset"], "distdqn train: --preset needs a value; see distdqn train --help"),
        (["--learner.batch-size", "--seed", "3"],
         "distdqn train: --learner.batch-size needs a value; see distdqn train --help"),
        (["--learner.double", "maybe"],
         "distdqn train: learner.double is 'maybe', must be true or false"),
        (
            ["--seed"],
            "distdqn train: --seed needs a value; see distdqn train --help",
        ),
        (["--seed", "x"], "distdqn train: seed is 'x', must be a whole number"),
        (
            ["--env.kwargs", "{a"],
            "distdqn train: --env.kwargs is '{a', not JSON or YAML",
        ),
        (
            ["--preset", "cartpol"],
            "distdqn train: unknown preset 'cartpol'; did you mean cartpole?",
        ),
        (
            ["--learner.loss", "hubr"],
            "distdqn train: learner.loss is 'hubr', must be huber or mse; did you mean huber?",
        ),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_one_line_and_status_2(trained, capsys, words, line):
    assert main(["train", *words]) == 2

    output = capsys.readouterr()
    assert output.err == line + "\n"
    assert output.out == ""
    assert trained == []


def test_flags_are_not_matched_by_their_beginning():
    with pytest.raises(UsageError, match="unknown option --see;"):
        values_of("--see", "5")


def test_preset_then_file_then_flags(trained, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("learner: {batch_size: 64, n_step: 2}")

    main(["train", "--preset", "apex", "--config", str(path), "--learner.batch-size", "32"])

    (config,) = trained
    assert (config.learner.batch_size, config.learner.n_step, config.replay.shards) == (32, 2, 3)


def test_a_failure_of_what_has_begun_is_status_1(monkeypatch, capsys):
    def fail(config, preset, by_force):
        with begun():
            raise RunError("the learner died")

    failing(monkeypatch, RunError(""))
    sys.modules["distdqn.api"].train = fail

    assert main(["train"]) == 1
    assert capsys.readouterr().err == "distdqn train: the learner died\n"


def test_what_would_run_is_printed_with_its_origin_and_read_back(trained, tmp_path, capsys):
    path = tmp_path / "own.yaml"
    path.write_text("learner: {n_step: 2}")
    words = ["--preset", "apex", "--config", str(path), "--learner.batch-size", "32"]

    assert main(["train", *words, "--print-config"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and trained == []
    for line in (
        "  shards: 3  # preset apex",
        f"  n_step: 2  # {path}, line 1",
        "  batch_size: 32  # --learner.batch-size",
        "  prefetch: 2  # default",
    ):
        assert line in printed.out.splitlines()
    path.write_text(printed.out)
    main(["train", "--config", str(path)])
    main(["train", *words[:2], "--learner.n-step=2", *words[4:]])
    assert trained[0] == trained[1]


def test_json_has_every_value_with_its_origin(trained, capfd):
    assert main(["train", "--seed=3", "--workers.epsilon.value=1:0:30%", "--print-config",
                 "--json"]) == 0  # fmt: skip

    config = json.loads(capfd.readouterr().out)["config"]
    assert config["seed"] == {"value": 3, "origin": "--seed"}
    assert config["learner.n_step"] == {"value": 1, "origin": "default"}
    assert config["workers.epsilon.value"]["value"] == {"start": 1, "end": 0, "fraction": 0.3}
    assert set(config) == set(key_types(Config)) and trained == []


def test_what_is_refused_is_not_printed(trained, capsys):
    assert main(["train", "--seed", "-1", "--print-config"]) == 2
    assert capsys.readouterr().out == ""


def test_presets_are_listed_with_what_they_are(capsys):
    assert main(["train", "--list-presets"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("apex ")
    assert any(line.startswith("cartpole ") and "solved" in line for line in lines)
    assert main(["train", "--list-presets", "--json"]) == 0
    assert "solved" in json.loads(capsys.readouterr().out)["cartpole"]


def test_the_name_of_the_preset_goes_with_the_configuration(monkeypatch):
    names = []
    module = types.ModuleType("distdqn.api")
    module.train = lambda _, preset, by_force: names.append(preset) or FakeSummary()
    monkeypatch.setitem(sys.modules, "distdqn.api", module)

    main(["train", "--preset", "apex"])
    main(["train"])

    assert names == ["apex", None]


def test_the_runs_exit_status_is_the_commands(trained, monkeypatch):
    monkeypatch.setattr(FakeSummary, "exit_status", 143)

    assert main(["train"]) == 143


# --- errors --------------------------------------------------------------------------


def failing(monkeypatch, error: BaseException) -> None:
    def fail(config, preset=None, by_force=False):
        raise error

    module = types.ModuleType("distdqn.api")
    module.train = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distdqn.api", module)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RunError("run 'a' is in use;\n  choose another"), 2,
         "distdqn train: run 'a' is in use; choose another\n"),
        (KeyboardInterrupt(), 130, "distdqn train: interrupted\n"),
    ],
)  # fmt: skip
def test_what_a_run_raises_is_one_line_and_a_status(monkeypatch, capsys, error, status, line):
    failing(monkeypatch, error)

    assert main(["train"]) == status
    assert capsys.readouterr().err == line


def test_a_bug_of_ours_leaves_its_traceback_in_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    failing(monkeypatch, KeyError("x"))

    assert main(["train"]) == 1
    (log,) = tmp_path.iterdir()
    line = f"distdqn train: internal error: KeyError: 'x'; the traceback is in {log}\n"
    assert capsys.readouterr().err == line
    assert "raise error\n" in log.read_text() and log.read_text().endswith("KeyError: 'x'\n")


def test_debug_shows_the_traceback_too(monkeypatch, capsys):
    failing(monkeypatch, RunError("lost"))

    assert main(["train", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("distdqn train: lost\n")


def test_a_command_leaves_the_signal_handlers_as_they_were(trained):
    before = signal.getsignal(signal.SIGTERM)

    main(["train"])

    assert signal.getsignal(signal.SIGTERM) is before


# --- JSON ----------------------------------------------------------------------------


def test_json_is_all_there_is_on_stdout():
    """Neither Python's prints, nor a C library's, nor a child's get between."""
    code = (
        "import os, types; from distdqn.cli.main import main; "
        "S = type('S', (), {'exit_status': 0, 'to_json': lambda self: {'a': [1]}}); "
        "t = types.ModuleType('distdqn.api'); "
        "t.train = lambda c, **_: (print('print'), os.write(1, b'raw\\n'), os.system('echo child'), S())[-1]; "  # noqa: E501
        "sys.modules['distdqn.api'] = t; sys.exit(main(['train', '--json']))"
    )

    done = run(code=code)

    assert done.returncode == 0
    assert json.loads(done.stdout) == {"a": [1]}
    for word in ("print", "raw", "child"):
        assert word in done.stderr


def test_json_has_null_for_what_is_not_a_number():
    import numpy as np

    text = to_json({"a": float("nan"), "b": np.float64(np.inf), "c": np.arange(2), "d": (1, "x")})

    assert json.loads(text) == {"a": None, "b": None, "c": [0, 1], "d": [1, "x"]}
