"""What a newcomer may get wrong, and the one line that is the answer.

Each case is a command line, or a call, with words that the line must have. The line is all
there is: no traceback, no "internal error", and no folder of a run that never began.
"""

from __future__ import annotations

import shutil
import sys

import pytest

import distdqn
from distdqn.cli.main import main
from distdqn.config import load_config
from distdqn.errors import DistDQNError

USAGE, FAILED = 2, 1

MODULE = """
import gymnasium
import numpy as np
from torch import nn


class Odd(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, colour="red"):
        if colour != "red":
            raise TypeError(f"no {colour} paint")

    def reset(self, *, seed=None, options=None):
        return self.look(), {}

    def step(self, action):
        return self.look(), 1.0, False, False, {}

    def look(self):
        return np.zeros(3, np.float32)


class Fails(Odd):
    def step(self, action):
        raise KeyError("door")


class Grows(Odd):
    def look(self):
        return np.zeros(4, np.float32)


class Continuous(Odd):
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)


for kind in (Odd, Fails, Grows, Continuous):
    gymnasium.registry.pop(f"{kind.__name__}-v0", None)
    gymnasium.register(f"{kind.__name__}-v0", kind, max_episode_steps=20)


def narrow(space):
    return nn.Linear(3, 8), 16


def lone(space):
    return nn.Linear(3, 8)


def fails(space):
    raise RuntimeError("no torso today")


def no_wrapper(env):
    return 7
"""

FLAGS = {
    "--nonsense 3": "unknown option --nonsense",
    "--learner.bach-size 3": "did you mean --learner.batch-size?",
    "--gamma 0.9": "learner.discount",
    "--tau 0.9 --gama 1": "did you mean --learner.target-tau?; unknown option --gama; did you mean",
    "--learner.lr 1e-3": "learner.learning-rate",
    "--buffer-size 5": "replay.capacity",
    "--num-envs 8": "workers.envs-per-worker",
    "--learner.batch-size": "--learner.batch-size needs a value",
    "--learner.batch-size many": "learner.batch_size is 'many', must be a whole number",
    "--learner.batch-size -3": "must be at least 1",
    "--learner.learning-rate nan": "learner.learning_rate is 'nan'",
    "--learner.double perhaps": "true or false",
    "--workers.epsilon.value 1.0:0.05": "START:END",
    "--workers.epsilon.value 1.0:0.05:-3%": "workers.epsilon.value",
    "--mode fast": "async or lockstep",
    "--preset cartpol": "did you mean cartpole?",
    "cartpole": "unexpected argument 'cartpole'",
    "--run-name a/b": "run_name is 'a/b'",
    "--replay.capacity 10": "replay.capacity is 10, must be at least",
    "--env.kwargs {bad": "--env.kwargs is '{bad'",
    "--seed -1": "seed is",
    "--total-env-steps 100": "nothing would be learned",
}

YAML = {
    "seed: 1\nseed: 2\n": "seed is given twice",
    "learner: {batch_size: 4}\nlearner.batch_size: 5\n": "learner.batch_size is given twice",
    "- seed\n": "must be a mapping",
    "seed: [1\n": "line 2: not YAML",
    "learner:\n\tlr: 3\n": "a tab",
    "lr: 3\n": "learner.learning_rate",
    "lr: 3\nseed: 1\ngama: 1\n": "learning_rate?; own.yaml, line 3: unknown key 'gama'; did",
    "seed: 1\nworkers:\n  count: two\n": "own.yaml, line 3: workers.count is 'two', must be",
    "preset: cartpole\n": "--preset",
    "learner: 5\n": "learner is 5, must be a mapping",
}

ENVIRONMENTS = {
    "CartPol-v1": "closest: CartPole-v1",
    "nomod:Env-v0": "there is no module 'nomod'",
    "Pendulum-v1": "Discrete",
    "Breakout-v4": "Atari",
    "odd_module:Nothing-v0": "Nothing-v0",
    "odd_module:Continuous-v0": "Discrete",
    "odd_module:Odd": "odd_module has Odd: pass it from Python, distdqn.train(config, make_env=",
}

FAILURES = {  # of what has begun
    "--env.id odd_module:Fails-v0": "raised in step: KeyError: 'door' (env 0) at odd_module.py:",
    "--env.id odd_module:Grows-v0": "changed its observation shape from (3,) to (4,) in reset",
}

OTHERS = {
    '--env.id odd_module:Odd-v0 --env.kwargs {"colour":"blue"}': "no blue paint",
    "--env.wrappers FlattenObservatio": "did you mean FlattenObservation?",
    "--env.wrappers odd_module:no_wrapper": "must give a gymnasium.Env, gave 7",
    "--env.wrappers odd_module:none": "'odd_module' has no 'none'",
    "--env.wrappers TimeLimit(max_episode_steps=": "'(' was never closed",
    "--network.torso resnet": "unknown torso 'resnet'",
    "--network.torso nomod:x": "there is no module 'nomod'",
    "--network.torso odd_module:x": "odd_module has no function 'x'",
    "--network.torso odd_module:narrow --env.id odd_module:Odd-v0": "[2, 16]",
    "--network.torso odd_module:lone --env.id odd_module:Odd-v0": "must return a module and",
    "--network.torso odd_module:fails --env.id odd_module:Odd-v0": "no torso today",
    "--network.torso nature": "are no pictures: required",
    "--init-from nothing": "no run 'nothing'",
    "--address nonsense": "HOST:PORT",
    "--address 127.0.0.1:1": "no Ray cluster at 127.0.0.1:1",
    "--address http://127.0.0.1:8265": "ray job submit",
    "--workers.count 100000": "lower --workers.count to about",
    "--replay.capacity 1000000000000": "lower --replay.capacity to about",
    "--learner.device cuda": "learner.device is cuda but PyTorch sees 0 GPUs",
    "--learner.num-gpus 1": "learner.num_gpus is 1 but PyTorch sees 0 GPUs",
    "--runs-dir mine.yaml": "cannot make a folder in mine.yaml",
    "--config nothing.yaml": "nothing.yaml: No such file",
    "--config .": "cannot read the configuration .: Is a directory",
    "--config bytes.yaml": "bytes.yaml: it is not UTF-8 text",
}

VERBS = {
    "": "usage: distdqn",
    "trian": "did you mean train?",
    "evaluate": "RUN is missing",
    "evaluate nothing": "no run 'nothing'",
    "resume nothing": "no run 'nothing'",
    "evaluate run --checkpoint step_5": "no checkpoint at step_5",
    "evaluate run --episodes 0": "--episodes is 0, must be at least 1",
    "evaluate run --video yes": "unexpected argument 'yes'",
    "resume run": "run 'run' has finished",
    "train --run-name run": "run name 'run' is taken",
    "bench": "usage: distdqn bench NAME",
    "bench replya": "did you mean replay?",
    "bench pipeline --mode lockstep": "mode is lockstep, the benchmark needs async",
    "verify --env.id CartPole-v1": "has no transition table",
    "doctor --fast": "unknown option --fast",
}


@pytest.fixture
def folder(tmp_path, apart, monkeypatch):
    """The reader's own: a module, and files that are no configurations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "odd_module.py").write_text(MODULE)
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    yield tmp_path
    sys.modules.pop("odd_module", None)


def answer(words, capfd):
    """The exit status, and the line that says what was wrong."""
    status = main(words)
    said = capfd.readouterr().err
    assert "Traceback" not in said and "internal error" not in said
    lines = [line for line in said.splitlines() if line.startswith(("distdqn", "usage: distdqn"))]
    assert len(lines) == 1, said
    return status, lines[0]


def assert_left_nothing(folder):
    assert not list((folder / "runs").glob("*")), "a run that never began has a folder"


@pytest.mark.parametrize("words", FLAGS)
def test_flags(words, folder, capfd):
    status, line = answer(["train", *words.split(" ")], capfd)
    assert (status, FLAGS[words] in line) == (USAGE, True), line
    assert_left_nothing(folder)


@pytest.mark.parametrize("text", YAML)
def test_yaml(text, folder, capfd):
    (folder / "own.yaml").write_text(text)
    status, line = answer(["train", "--config", "own.yaml"], capfd)
    assert (status, YAML[text] in line) == (USAGE, True), line
    assert "own.yaml" in line
    assert_left_nothing(folder)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments(name, folder, capfd):
    status, line = answer(["train", "--env.id", name], capfd)
    assert (status, ENVIRONMENTS[name] in line) == (USAGE, True), line
    assert_left_nothing(folder)


@pytest.mark.parametrize("words", OTHERS)
def test_paths_networks_addresses_and_resources(words, folder, capfd):
    status, line = answer(["train", *words.split(" ")], capfd)
    assert (status, OTHERS[words] in line) == (USAGE, True), line
    assert_left_nothing(folder)


@pytest.mark.parametrize("words", FAILURES)
def test_what_fails_after_it_has_begun(words, folder, capfd):
    lockstep = ["--mode", "lockstep", "--workers.max-env-failures", "0"]
    status, line = answer(["train", *words.split(" "), *lockstep], capfd)
    assert (status, FAILURES[words] in line) == (FAILED, True), line


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of a second."""
    values = {
        "mode": "lockstep",
        "runs_dir": str(tmp_path_factory.mktemp("finished")),
        "run_name": "run",
        "total_env_steps": 300,
        "workers.envs_per_worker": 2,
        "workers.block_transitions": 16,
        "replay.min_size_to_sample": 64,
        "replay.samples_per_insert": 1.0,
        "learner.batch_size": 16,
        "learner.superbatch": 2,
        "eval.period_env_steps": None,
        "eval.final_episodes": 1,
        "eval.video_episodes": 0,
    }
    return distdqn.train(load_config(values=values), display=False).run_folder


@pytest.fixture
def run(folder, finished):
    """Its copy, which the reader calls by its name."""
    return shutil.copytree(finished, folder / "runs" / "run")


@pytest.mark.parametrize("words", VERBS)
def test_verbs(words, run, capfd):
    status, line = answer(words.split(), capfd)
    assert (status, VERBS[words] in line) == (USAGE, True), line


def test_a_run_name_that_is_taken_keeps_its_files(run, capfd):
    before = sorted(run.rglob("*"))
    answer(["train", "--run-name", "run"], capfd)
    assert sorted(run.rglob("*")) == before


def test_a_truncated_checkpoint_is_named(run, capfd):
    (weights,) = run.glob("checkpoints/*/online.safetensors")
    weights.write_bytes(weights.read_bytes()[:-10])
    status, line = answer(["evaluate", "run", "--checkpoint", "newest"], capfd)
    assert status == USAGE
    assert "online.safetensors is truncated" in line


def test_weights_of_another_network_are_refused_before_the_start(run, folder, capfd):
    words = ["train", "--init-from", "run", "--network.hidden", "7", "--run-name", "other"]
    status, line = answer(words, capfd)
    assert status == USAGE
    assert "init_from 'run' has another network" in line
    assert not (folder / "runs" / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cartpole",), "load_config(preset="),
        (({"seed": 3},), "load_config(values="),
        ((None, "CartPole-v1"), "env.id"),
        ((None, lambda: 7), "must return a gymnasium.Env"),
    ],
)
def test_calls_from_python(arguments, words, folder):
    config, *others = arguments
    config = load_config() if config is None else config
    with pytest.raises(DistDQNError) as refused:
        distdqn.train(config, *others, display=False)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert_left_nothing(folder)
