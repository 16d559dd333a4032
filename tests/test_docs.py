"""Every command and every piece of code in the documentation, in a short form."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import distdqn
from distdqn.cli.flags import as_words, flag_name
from distdqn.cli.main import main
from distdqn.config import load_config
from distdqn.config.keys import key_types

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy" / "README.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:distdqn|make|python) [^`]+)`")
ENDS_WITH_ITS_ENV = "ALE/", "atari"
NEEDS = {"atari": "ale_py", "ALE/": "ale_py", "Lunar": "Box2D", "inatar": "minatar", "lz4": "lz4"}

SHORT = {
    "mode": "lockstep",
    "total_env_steps": 600,
    "workers.count": 1,
    "workers.envs_per_worker": 2,
    "workers.block_transitions": 16,
    "replay.shards": 1,
    "replay.capacity": 2_000,
    "replay.min_size_to_sample": 64,
    "replay.samples_per_insert": 1.0,
    "learner.batch_size": 16,
    "learner.superbatch": 2,
    "learner.compile": False,
    "eval.period_env_steps": 400,
    "eval.episodes": 1,
    "eval.final_episodes": 1,
    "eval.max_episode_steps": 100,
    "eval.video_episodes": 0,
}


def code(language):
    """Of the blocks in one language, each with the page it stands in."""
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text()))
        if kind == language
    ]


def commands():
    """Of shell blocks, texts and tables, without comments, each once."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for kind, block in BLOCK.findall(text):
            found += [] if kind else block.splitlines()
        found += INLINE.findall(BLOCK.sub("", text))
    lines = [line.partition("  #")[0].strip() for line in found]
    return [line for line in dict.fromkeys(lines) if not {"NAME", "COMMAND"} & set(line.split())]


def commands_like(pattern):
    return [line for line in commands() if re.match(pattern, line)]


def flags(values):
    return [f"{flag_name(key)}={' '.join(as_words(value))}" for key, value in values.items()]


def require(text):
    for word, package in NEEDS.items():
        if word in text and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with what the documentation names as the reader's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {page: BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text()) for page in OWN_MODULES}
    for page, (module, name, more) in OWN_MODULES.items():
        (text,) = (block for kind, block in own[page] if kind == "python" and name in block)
        (tmp_path / f"{module}.py").write_text(text + more)
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    yield tmp_path
    for module, _, _ in OWN_MODULES.values():
        sys.modules.pop(module, None)


OWN_MODULES = {  # by page: the module that it speaks of, a word of its code, and what is not shown
    "environments": (
        "my_envs",
        "class Corridor",
        "\ngymnasium.register('Corridor-v0', Corridor, max_episode_steps=50)\n",
    ),
    "networks": ("my_networks", "def torso(", ""),
}


@pytest.mark.parametrize("line", commands_like("distdqn train "))
def test_a_training_command_runs(line, folder, request):
    require(line)
    words, short = shlex.split(line)[1:], dict(SHORT)
    if "--address" in words:
        cluster = request.getfixturevalue("ray_cluster")
        words[words.index("auto")] = cluster.address
        del short["mode"]
    if any(word in line for word in ENDS_WITH_ITS_ENV):
        short["total_env_steps"] = 120
    assert main([*words, *flags(short)]) == 0


@pytest.fixture
def run(folder, monkeypatch):
    """A small run that was broken off after its first checkpoint."""
    from distdqn.lockstep.run import LockstepRun

    save = LockstepRun._save

    def save_and_interrupt(self, *arguments):
        save(self, *arguments)
        self.interruption.name = "SIGINT"

    short = SHORT | {"run_name": "RUN", "checkpoint.period_rounds": 10}
    with monkeypatch.context() as patch:
        patch.setattr(LockstepRun, "_save", save_and_interrupt)
        distdqn.train(load_config(values=short), display=False)


@pytest.mark.parametrize("line", commands_like("distdqn (?!train |bench|verify)"))
def test_a_command_runs_on_what_is_there(line, run):
    words = [word for word in shlex.split(line)[1:] if word != "--start-ray"]  # that takes 10 s
    assert main(words + ["--episodes=1"] * (words[0] == "evaluate")) in (0, None)


class Reached(Exception):
    """The command has read its flags."""


def reach(*arguments, **more):
    raise Reached


@pytest.mark.parametrize("line", commands_like("distdqn (bench|verify)"))
def test_a_command_that_takes_minutes_reads_its_flags(line, folder, monkeypatch):
    words = shlex.split(line)[1:]
    monkeypatch.setattr("distdqn.tabular.verification.verify", reach)
    monkeypatch.setattr("distdqn.cli.verify.one_ray", lambda *given: contextlib.nullcontext())
    if words[0] == "bench":
        monkeypatch.setattr(f"distdqn.bench.{words[1]}.run", reach)
    verb = importlib.import_module(f"distdqn.cli.{words[0]}")
    with pytest.raises(Reached):
        verb.run(words[1:])


@pytest.mark.parametrize("line", commands_like("python (?!-m)"))
def test_a_script_knows_its_flags(line, monkeypatch, capsys):
    words = shlex.split(line)[1:]
    path = ROOT / words.pop(0)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(str(path.parent))
    with contextlib.suppress(SystemExit):
        runpy.run_path(str(path), run_name="__main__")
    known = capsys.readouterr().out + path.read_text()
    for flag in re.findall(r"--[\w.-]+", " ".join(words)):
        assert flag in known or flag[2:].replace("-", "_") in key_types(), flag


@pytest.mark.parametrize("line", commands_like("python -m "))
def test_a_module_knows_its_flags(line):
    words = shlex.split(line)[2:]
    help_text = subprocess.run(
        [sys.executable, "-m", words[0], "--help"], capture_output=True, text=True, timeout=300
    ).stdout
    for flag in re.findall(r"--[\w.-]+", line):
        assert flag in help_text


@pytest.mark.parametrize("line", commands_like("make "))
def test_a_target_is_in_the_makefile(line):
    target = shlex.split(line)[1]
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("text", code("python"))
def test_code_runs(text, folder, monkeypatch):
    monkeypatch.setattr(distdqn, "load_config", short_config)
    exec(compile(text, "documentation", "exec"), {"__name__": "__main__"})


def short_config(config=None, preset=None, values=None):
    return load_config(config, preset, {**(values or {}), **SHORT})


@pytest.mark.parametrize("text", code("yaml"))
def test_a_configuration_is_valid(text, folder):
    (folder / "own.yaml").write_text(text)
    load_config(folder / "own.yaml")


def test_the_tables_are_current():
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    for page in PAGES:
        assert tables["current"](page.read_text()) == page.read_text(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_readme_can_be_read():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
