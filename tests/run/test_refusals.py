"""What can be known before Ray is started is refused then, in one line, and leaves no folder."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading

import gymnasium
import pytest
import torch
from fake_envs import register_scripted
from ray_parts import linear_network, make_cartpole
from run_parts import lockstep, small

import distdqn
from distdqn.cli.main import main
from distdqn.errors import ConfigError, EnvFailure, ResourceError, UnknownEnvError
from distdqn.run.factory import make_factory


@pytest.fixture(autouse=True)
def no_ray(apart, monkeypatch):
    """Fails where Ray is started."""
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))


def refused(config, error=ConfigError, **arguments):
    """The one line that `train` is refused with; no folder is left."""
    with pytest.raises(error) as caught:
        distdqn.train(config, display=False, **arguments)
    assert not os.path.exists(config.runs_dir)
    line = str(caught.value)
    assert "\n" not in line and "distdqn.errors" not in line
    return line


def torso_that_raises(space):
    raise RuntimeError("no torso today")


def torso_of_another_width(space):
    return torch.nn.Linear(4, 8), 9


@pytest.mark.parametrize(
    ("torso", "words"),
    [
        ("nomod:x", "torso 'nomod:x' cannot be imported: there is no module 'nomod' here"),
        ("json:torso", "cannot be imported: json has no function 'torso'; known are auto, mlp"),
        (f"{__name__}:torso_that_raises", "raised RuntimeError: no torso today at "),
        (f"{__name__}:torso_of_another_width", "must give [B, H] = [2, 9] by its own output size"),
        ("json:dumps", "'json:dumps' raised TypeError: "),
    ],
)
def test_a_torso_that_cannot_be_used(tmp_path, torso, words):
    assert words in refused(small(tmp_path, network__torso=torso))


@pytest.mark.parametrize(
    ("make_network", "words"),
    [
        (lambda space, num_actions: 3, "the network must be a torch.nn.Module, is 3"),
        (lambda space, num_actions: torch.nn.Linear(4, 5), "must give [B, A] = [2, 2] floats"),
        (lambda space: None, "raised TypeError: "),
        (lambda space, num_actions: 1 / 0, "raised ZeroDivisionError: division by zero at "),
    ],
)
def test_a_network_that_cannot_be_used(tmp_path, make_network, words):
    assert words in refused(small(tmp_path), make_network=make_network)


def test_a_network_is_tried_without_a_trace(tmp_path):
    torch.manual_seed(3)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(3)
    make_factory(small(tmp_path), make_network=linear_network).check_network(None)
    assert torch.rand(1) == expected and torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network__hidden": [16]}, r"its torso.0.weight is \[32, 4\], here it is \[16, 4\]; set"),
        ({"network__hidden": [32, 8]}, r"its torso.2.weight does not exist, here it is \[8, 32\]"),
        ({"env__id": "MountainCar-v0"}, r"its torso.0.weight is \[32, 4\], here it is \[32, 2\]"),
        ({"network__dueling": True}, r"its head.value.weight does not exist, here it is \[1, 32\]"),
    ],
)
def test_weights_of_another_network(tmp_path, changes, words):
    network = make_factory(small(tmp_path)).network()
    initial = {name: p.detach().numpy() for name, p in network.named_parameters()}
    make_factory(small(tmp_path)).check_network(initial)
    factory = make_factory(small(tmp_path, init_from="old", **changes))
    with pytest.raises(ConfigError, match="init_from 'old' has another network: " + words):
        factory.check_network(initial)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"learner__num_gpus": 1},
            "learner.num_gpus is 1 but PyTorch sees 0 GPUs here with CUDA_V",
        ),
        ({"learner__num_gpus": 0.5}, "learner.num_gpus is 0.5 but PyTorch sees 0 GPUs"),
        ({"learner__device": "cuda"}, "learner.device is cuda but PyTorch sees 0 GPUs here with C"),
        ({"learner__device": "cuda", "mode": "lockstep"}, "learner.device is cuda but PyTorch"),
    ],
)
def test_a_gpu_that_is_not_here(tmp_path, changes, words):
    assert words in refused(small(tmp_path, **changes), ResourceError)


def test_gpus_of_a_cluster_are_not_looked_for_here(tmp_path):
    make_factory(small(tmp_path, learner__num_gpus=1, address="auto"))
    make_factory(lockstep(tmp_path, learner__num_gpus=1))  # reserves nothing


def test_a_function_that_cannot_be_sent(tmp_path):
    lock = threading.Lock()

    def make_env():
        with lock:
            return make_cartpole()

    line = refused(small(tmp_path), make_env=make_env)
    assert "make_env, " in line and "make_env, cannot be sent to other processes" in line
    assert "lock" in line


def test_a_constructor_without_its_arguments_is_said_once(tmp_path):
    register_scripted("Scripted-v0", kwargs={"wheels": 3})
    line = refused(small(tmp_path, env__id="Scripted-v0"), EnvFailure)
    assert line.endswith("unexpected keyword argument 'wheels'; env.kwargs sets its arguments")
    assert "creator" not in line and line.count("wheels") == 1


def test_the_command_says_the_same_in_one_line(tmp_path, capsys):
    words = ["train", "--network.torso", "nomod:x", "--runs-dir", str(tmp_path / "runs")]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("distdqn train: torso 'nomod:x' cannot be")


def test_a_plain_run_loads_no_torch_to_be_checked(tmp_path):
    code = (
        "import sys; from distdqn.config import Config; "
        "from distdqn.run.factory import make_factory; make_factory(Config()).check_network(None); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_an_id_that_the_processes_of_the_parts_do_not_know(tmp_path, monkeypatch):
    spec = copy.copy(gymnasium.spec("CartPole-v1"))
    monkeypatch.setitem(gymnasium.registry, "Mine-v0", spec)
    factory = make_factory(small(tmp_path, env__id="Mine-v0"))
    monkeypatch.delitem(gymnasium.registry, "Mine-v0")
    with pytest.raises(UnknownEnvError, match="set env.id to MODULE:Mine-v0"):
        factory.stepper(1)
