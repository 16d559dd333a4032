"""A policy loaded from files acts as the network that was saved."""

from __future__ import annotations

import dataclasses
import json

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from distdqn.config import load_config, to_yaml
from distdqn.errors import CheckpointError, RunError
from distdqn.files.checkpoint import Checkpoint, save_checkpoint, step_folder
from distdqn.files.run_folder import RunFolder
from distdqn.networks.q_network import make_network
from distdqn.policy import Policy, evaluate, load_policy
from distdqn.types import ObservationSpec

CARTPOLE = ObservationSpec((4,), "float32")


def save_run(tmp_path, network, name="run", custom=False, torso="mlp", **values):
    """A run's folder with `network` as its checkpoint at step 1000."""
    values = {"eval.max_episode_steps": 30} | values
    folder = RunFolder.create(tmp_path, name, "CartPole-v1", to_yaml(load_config(values=values)))
    save_checkpoint(step_folder(folder.path, 1000), checkpoint_of(network, 1000, custom, torso))
    return folder


def checkpoint_of(network, env_steps=1000, custom=False, torso="mlp") -> Checkpoint:
    arrays = {key: p.detach().numpy().copy() for key, p in network.named_parameters()}
    return Checkpoint(
        online=arrays,
        target=arrays,
        optimizer={},
        counters={"env_steps": env_steps},
        network={
            "observation": dataclasses.asdict(CARTPOLE),
            "num_actions": 2,
            "action_start": 0,
            "torso": torso,
            "hidden": [8],
            "dueling": False,
            "custom": custom,
        },
        env_id="CartPole-v1",
    )


def network(seed=0):
    torch.manual_seed(seed)
    return make_network(CARTPOLE, 2, hidden=(8,))


@pytest.fixture
def obs():
    return np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def q_of(module, obs) -> np.ndarray:
    return module(torch.from_numpy(obs)).detach().numpy()


def test_the_loaded_policy_is_the_saved_network(tmp_path, obs):
    module = network()
    save_run(tmp_path, module)
    policy = load_policy("run", runs_dir=tmp_path)
    np.testing.assert_array_equal(policy.q_values(obs), q_of(module, obs))
    np.testing.assert_array_equal(policy(obs), q_of(module, obs).argmax(axis=1))


def test_one_observation_gives_one_action_and_a_row_of_values(tmp_path, obs):
    save_run(tmp_path, network())
    policy = load_policy(tmp_path / "run")
    for row in obs:
        assert policy.q_values(row).shape == (2,)
        action = policy(row)
        assert type(action) is int and action == policy.q_values(row).argmax()
    assert policy(obs[0].astype(np.float64).tolist()) == policy(obs[0])


class Fixed(nn.Module):
    """Values that do not depend on the observation."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, obs):
        return self.values.expand(len(obs), -1)


def test_actions_are_numbered_as_the_env_does_and_masks_are_respected():
    policy = Policy(Fixed([1.0, 3.0, 2.0]), CARTPOLE, num_actions=3, action_start=-1)
    assert policy(np.zeros(4)) == 0
    np.testing.assert_array_equal(policy(np.zeros((2, 4))), [0, 0])
    assert policy(np.zeros(4), action_mask=[1, 0, 1]) == 1
    masks = [[True, False, False], [True, True, True]]
    np.testing.assert_array_equal(policy(np.zeros((2, 4)), action_mask=masks), [-1, 0])


def test_an_index_is_an_observation_by_itself():
    spec = ObservationSpec((), "int32", num_categories=5)
    table = make_network(spec, 2, hidden=())
    policy = Policy(table, spec, num_actions=2)
    assert policy.q_values(3).shape == (2,)
    np.testing.assert_array_equal(policy.q_values([1, 3])[1], policy.q_values(3))


def test_an_observation_is_a_stack_where_frames_are_stacked():
    spec = ObservationSpec((5, 6), "uint8", scale=1 / 255, stack=4)
    policy = Policy(make_network(spec, 3, torso="mlp"), spec, num_actions=3)
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 6)).astype(np.uint8)
    values = policy.q_values(batch)
    assert values.shape == (2, 3) and policy(batch[1]) == values[1].argmax()
    np.testing.assert_allclose(policy.q_values(batch[1]), values[1], rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match=r"one observation \[4, 5, 6\] or a batch .* got \[5, 6\]"):
        policy(batch[0, 0])


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((2, 5)), np.zeros((1, 1, 4)), 0.0])
def test_an_observation_of_another_shape_is_refused(bad):
    policy = Policy(network(), CARTPOLE, num_actions=2)
    with pytest.raises(ValueError, match=r"one observation \[4\] or a batch .* got \["):
        policy.q_values(bad)


def test_a_scaled_image_is_refused_where_bytes_are_stored():
    policy = Policy(network(), ObservationSpec((4,), "uint8", scale=1 / 255), num_actions=2)
    with pytest.raises(ValueError, match="must be uint8 as the env gives it, got float64"):
        policy(np.zeros(4))


def test_the_best_checkpoint_is_taken_until_another_is_named(tmp_path, obs):
    newest, best = network(1), network(2)
    folder = save_run(tmp_path, newest)
    save_checkpoint(folder.path / "best", checkpoint_of(best, 500))
    for which, module in (("best", best), ("newest", newest), ("step_1000", newest)):
        policy = load_policy("run", which, runs_dir=tmp_path)
        np.testing.assert_array_equal(policy.q_values(obs), q_of(module, obs))


def test_a_harmed_newest_checkpoint_is_passed_over_with_a_warning(tmp_path, obs):
    module = network()
    folder = save_run(tmp_path, module)
    broken = save_checkpoint(step_folder(folder.path, 2000), checkpoint_of(network(1), 2000))
    (broken / "online.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"step_2000/online.safetensors .*; using step_1000"):
        policy = load_policy("run", runs_dir=tmp_path)
    np.testing.assert_array_equal(policy.q_values(obs), q_of(module, obs))


def test_weights_of_another_network_are_refused(tmp_path):
    save_run(tmp_path, make_network(CARTPOLE, 2, hidden=(9,)))
    with pytest.raises(CheckpointError, match="step_1000 does not fit the network"):
        load_policy("run", runs_dir=tmp_path)


def test_loading_leaves_the_random_numbers_of_the_caller_alone(tmp_path):
    save_run(tmp_path, network())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_policy("run", runs_dir=tmp_path)
    assert torch.rand(1) == expected


# --- networks of the user's own


def own_network(observation_space, num_actions):
    return nn.Sequential(nn.Linear(observation_space.shape[0], num_actions))


def test_a_network_of_the_users_own_must_be_passed_again(tmp_path, obs):
    module = own_network(gymnasium.make("CartPole-v1").observation_space, 2)
    save_run(tmp_path, module, custom=True)
    with pytest.raises(RunError, match="its own make_network: pass the same"):
        load_policy("run", runs_dir=tmp_path)
    policy = load_policy("run", make_network=own_network, runs_dir=tmp_path)
    np.testing.assert_array_equal(policy.q_values(obs), q_of(module, obs))


def test_an_env_that_is_not_the_runs_asks_for_the_observation_space(tmp_path, obs):
    space = gymnasium.spaces.Box(-1, 1, (4,))
    module = own_network(space, 2)
    save_run(tmp_path, module, custom=True, **{"env.id": "MountainCar-v0"})
    with pytest.raises(RunError, match="pass observation_space="):
        load_policy("run", make_network=own_network, runs_dir=tmp_path)
    policy = load_policy(
        "run", make_network=own_network, runs_dir=tmp_path, observation_space=space
    )
    np.testing.assert_array_equal(policy.q_values(obs), q_of(module, obs))


# --- evaluation


def test_evaluating_a_run_gives_its_figures_and_is_repeatable(tmp_path):
    save_run(tmp_path, network())
    result = evaluate("run", episodes=7, seed=3, runs_dir=tmp_path)
    again = evaluate("run", episodes=7, seed=3, runs_dir=tmp_path)
    first = result.to_json()
    assert first == json.loads(json.dumps(again.to_json()))
    assert len(result.returns) == len(result.lengths) == 7
    assert (result.mean, result.std) == (first["return_mean"], first["return_std"])
    assert first["run_name"] == "run" and first["env_id"] == "CartPole-v1"
    assert first["env_steps"] == 1000 and first["checkpoint"].endswith("step_1000")
    assert 1 <= first["return_min"] <= first["return_mean"] <= first["return_max"] <= 30
    assert first["return_mean"] == first["length_mean"]  # CartPole gives 1 a step
    assert first["videos"] == [] and first["warnings"] == []


def test_episodes_that_are_cut_are_counted(tmp_path):
    save_run(tmp_path, network(), **{"eval.max_episode_steps": 3})
    result = evaluate("run", episodes=4, runs_dir=tmp_path)
    assert result.num_cut == 4 and result.mean == 3.0


def test_a_video_is_recorded_into_the_run(tmp_path):
    folder = save_run(tmp_path, network(), **{"eval.max_episode_steps": 5})
    result = evaluate("run", episodes=1, seed=2, video=True, runs_dir=tmp_path)
    (path,) = result.videos
    assert path == str(folder.path / "videos" / "evaluate_step_1000_seed_2.mp4")
    assert (folder.path / "videos" / "evaluate_step_1000_seed_2.mp4").stat().st_size > 1000


def test_a_run_trained_on_the_users_own_env_is_evaluated_on_it(tmp_path):
    made = []

    def make_env():
        made.append(gymnasium.make("CartPole-v1"))
        return made[-1]

    save_run(tmp_path, network(), **{"env.id": "Pendulum-v1"})
    result = evaluate("run", episodes=2, runs_dir=tmp_path, make_env=make_env)
    assert made and result.mean >= 1.0


def test_a_run_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(RunError, match="no run 'nothing'"):
        load_policy("nothing", runs_dir=tmp_path)
