"""A run made with functions of the caller's says so, and is used with them alone."""

from __future__ import annotations

import functools
import json

import pytest
from ray_parts import linear_network, make_cartpole
from run_parts import lockstep

import distdqn
from distdqn.cli.main import main
from distdqn.config import load_config
from distdqn.config.sections import function_id, is_function, short_name
from distdqn.errors import ConfigError, EnvError, RunError, UnknownEnvError
from distdqn.files.checkpoint import newest

RUN = {
    "total_env_steps": 600,
    "workers__count": 1,
    "checkpoint__period_rounds": 1,
    "eval__period_env_steps": 500,
    "run_name": None,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with an env and a network of the caller's: its folder and its summary."""
    config = lockstep(tmp_path_factory.mktemp("own"), **RUN)
    summary = distdqn.train(config, make_cartpole, linear_network, display=False)
    folder = next((tmp_path_factory.getbasetemp()).glob("own*/runs/*"))
    return folder, summary


def test_the_function_is_recorded_wherever_the_id_would_be(made):
    folder, summary = made
    recorded = "function ray_parts.make_cartpole"
    assert summary.env_id == json.loads((folder / "run.json").read_text())["env_id"] == recorded
    assert load_config(folder / "config.yaml").env.id == recorded
    assert newest(folder)[1].env_id == recorded
    assert folder.name.startswith("make_cartpole-2")
    written = json.loads((folder / "summary.json").read_text())
    assert written["made_with"] == summary.made_with == ["make_env", "make_network"]


def test_evaluate_plays_the_functions_env(made):
    folder, _ = made
    result = distdqn.evaluate(folder, make_cartpole, linear_network, episodes=3)
    assert len(result.returns) == result.episodes == 3 and result.return_mean >= 1.0
    assert result.env_id == "function ray_parts.make_cartpole"


def test_evaluate_without_the_function_is_refused(made, capsys):
    folder, _ = made
    line = (
        "the run was made with the function ray_parts.make_cartpole, and its files "
        f"hold no environment: from Python, call distdqn.evaluate('{folder}', make_env=...)"
    )
    with pytest.raises(RunError) as caught:
        distdqn.evaluate(folder, make_network=linear_network)
    assert str(caught.value) == line
    assert main(["evaluate", str(folder)]) == 2
    assert capsys.readouterr().err == f"distdqn evaluate: {line}\n"


def test_evaluate_without_the_network_is_refused(made):
    folder, _ = made
    with pytest.raises(RunError, match=r"Python, distdqn.evaluate\('/.*', make_network=...\)"):
        distdqn.evaluate(folder, make_cartpole)


def test_resume_without_the_function_is_refused(made):
    folder, _ = made
    with pytest.raises(RunError, match=r"make_cartpole, .* distdqn.resume\('/.*', make_env=...\)"):
        distdqn.resume(folder, display=False)
    assert main(["resume", str(folder)]) == 2


def test_a_recorded_configuration_does_not_train_without_the_function(made, tmp_path):
    folder, _ = made
    config = load_config(folder / "config.yaml", values={"runs_dir": str(tmp_path)})
    with pytest.raises(UnknownEnvError, match=r"'function ray_parts.make_cartpole', which stands"):
        distdqn.train(config, make_network=linear_network, display=False)


def test_a_policy_is_loaded_without_the_function(made):
    folder, _ = made
    policy = distdqn.load_policy(folder, make_network=linear_network)
    assert policy(make_cartpole().observation_space.sample()) in (0, 1)


def test_functions_are_named_as_they_are_found():
    assert function_id(make_cartpole) == "function ray_parts.make_cartpole"
    assert function_id(functools.partial(make_cartpole)) == "function ray_parts.make_cartpole"
    inner = function_id(lambda: make_cartpole())
    assert is_function(inner) and not is_function("CartPole-v1")
    assert short_name(inner) == "<lambda>" and short_name("CartPole-v1") == "CartPole-v1"


class Maker:
    def __call__(self):
        return make_cartpole()


def test_an_object_that_is_called_has_the_name_of_its_class():
    assert function_id(Maker()) == f"function {__name__}.Maker"


@pytest.mark.parametrize(
    ("config", "way_out"),
    [
        ("cartpole", "'cartpole', .* pass distdqn.load_config.preset='cartpole'.$"),
        ("mine.yaml", "'mine.yaml', .* pass distdqn.load_config.'FILE.yaml'.$"),
        ({"seed": 2}, "pass distdqn.load_config.values={'seed': 2}.$"),
        (None, "is None, must be a distdqn.Config"),
    ],
)
def test_what_is_no_configuration_is_refused_with_what_to_pass(config, way_out):
    with pytest.raises(ConfigError, match=way_out):
        distdqn.train(config)


def test_what_is_no_function_is_refused(tmp_path):
    config = lockstep(tmp_path)
    with pytest.raises(ConfigError, match="make_env is 'CartPole-v1', .* set env.id to 'CartPole"):
        distdqn.train(config, make_env="CartPole-v1")
    with pytest.raises(ConfigError, match="make_network is 3, must be a function"):
        distdqn.train(config, make_network=3)
    with pytest.raises(EnvError, match="must return a gymnasium.Env, returned 3"):
        distdqn.train(config, make_env=lambda: 3)
    assert not (tmp_path / "runs").exists()
