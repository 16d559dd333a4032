"""A policy loaded from files acts as the network that was saved."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from fake_envs import NESTED_SPACE, ScriptedEnv, SpaceEnv, make_space_env
from gymnasium.vector.utils import concatenate, create_empty_array
from run_parts import lockstep
from torch import nn

import distdqn
from distdqn.config import load_config, to_yaml
from distdqn.envs.observations import ObservationEncoder
from distdqn.errors import CheckpointError, EnvError, RunError
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
    with pytest.raises(ValueError, match=r"shape must be \(4, 5, 6\), got \(5, 6\)"):
        policy(batch[0, 0])


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((2, 5)), np.zeros((1, 1, 4)), 0.0])
def test_an_observation_of_another_shape_is_refused(bad):
    policy = Policy(network(), CARTPOLE, num_actions=2)
    with pytest.raises(ValueError, match=r"or a batch of them: shape must be \(4,\), got \("):
        policy.q_values(bad)


def test_a_scaled_image_is_refused_where_bytes_are_stored():
    policy = Policy(network(), ObservationSpec((4,), "uint8", scale=1 / 255), num_actions=2)
    with pytest.raises(ValueError, match="dtype must be uint8, got float64"):
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


# --- observations as environments give them

spaces: Any = gymnasium.spaces
SPACES = [
    NESTED_SPACE,
    spaces.Tuple((spaces.Discrete(3, start=2), NESTED_SPACE["speed"])),
    spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.MultiBinary((2, 3)),
    spaces.Discrete(5, start=-2),
    spaces.Box(0, 255, (3, 4, 3), np.uint8),
    spaces.Box(-1, 1, (2,), np.float64),
    spaces.Box(0, 1, (2, 2), np.bool_),
    spaces.Box(0, 1, (), np.float32),
]


def policy_for(space, num_actions=3):
    """A policy of arbitrary weights, and its encoder of what a vector env gives."""
    encoder = ObservationEncoder(space, "S")
    torch.manual_seed(0)
    module = make_network(encoder.spec, num_actions, torso="mlp", hidden=(8,))
    return Policy(module, encoder.spec, num_actions, observation_space=space), encoder


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_one_observation_or_a_batch_as_a_vector_env_gives_it(space):
    policy, encoder = policy_for(space)
    space.seed(1)
    rows = [space.sample() for _ in range(4)]
    batch = concatenate(space, rows, create_empty_array(space, 4))
    expected = q_of(policy.network, encoder.encode(batch, 4))
    np.testing.assert_array_equal(policy.q_values(batch), expected)
    assert policy(batch).tolist() == expected.argmax(axis=1).tolist()
    masks = ~np.eye(3, dtype=bool)[expected.argmax(axis=1)]
    for row, mask, values, masked in zip(rows, masks, expected, policy(batch, masks), strict=True):
        np.testing.assert_allclose(policy.q_values(row), values, rtol=1e-5, atol=1e-6)
        assert policy(row) == values.argmax()
        second = np.where(mask, values, -np.inf).argmax()
        assert policy(row, action_mask=mask.astype(np.int8)) == second == masked


def without(key):
    return {name: value for name, value in NESTED_SPACE.sample().items() if name != key}


@pytest.mark.parametrize(
    ("space", "obs", "wrong"),
    [
        (NESTED_SPACE, without("gear"), r"its structure at \['gear'\] is another"),
        (NESTED_SPACE, np.zeros(30), r"its structure at \['gear'\] is another"),
        (
            NESTED_SPACE,
            without("speed") | {"speed": np.zeros((2, 3))},
            r"shape at \['speed'\] must be \(2, 2\), got \(2, 3\)",
        ),
        (
            NESTED_SPACE,
            without("lights") | {"lights": np.zeros((3, 2, 3), np.int8)},
            r"shape at \['lights'\] must be \(2, 3\), got \(3, 2, 3\)",
        ),
        (
            NESTED_SPACE,
            without("lights") | {"lights": np.full((2, 3), 0.5)},
            r"dtype at \['lights'\] must be int8, got float64",
        ),
        (
            NESTED_SPACE,
            without("gear") | {"gear": 3},
            r"value at \['gear'\] must be Discrete\(4, start=-1\), got 3",
        ),
        (NESTED_SPACE, 1.0, r"structure at \[.*\] is another \(a float is there\)"),
        (gymnasium.spaces.Discrete(5), [1, 5], r"value must be Discrete\(5\), got 5"),
        (gymnasium.spaces.Discrete(5), "left", "must be int64, got <U4"),
        (gymnasium.spaces.Box(-1, 1, (2,)), None, "got object|shape must be"),
    ],
)
def test_what_is_no_observation_says_where(space, obs, wrong):
    policy, _ = policy_for(space)
    with pytest.raises(ValueError, match=f"^obs must be one of .* or a batch of them: .*{wrong}"):
        policy(obs)


@pytest.mark.parametrize(
    ("mask", "wrong"),
    [
        ([1, 0, 1], r"action_mask must be \[2, 2\], got \[3\]"),
        (np.ones((3, 2)), r"action_mask must be \[2, 2\], got \[3, 2\]"),
        ([[1, 0], [0, 0]], "allows no action: one of its rows is all false"),
        ([[1], [0, 1]], r"action_mask must be \[2, 2\], got \[\]"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, wrong):
    policy = Policy(network(), CARTPOLE, num_actions=2)
    with pytest.raises(ValueError, match=wrong):
        policy(np.zeros((2, 4)), action_mask=mask)


def test_an_observation_space_that_is_not_the_runs_is_refused(tmp_path):
    save_run(tmp_path, network())
    space = gymnasium.spaces.Box(-1, 1, (5,))
    policy = load_policy("run", runs_dir=tmp_path, observation_space=space)
    with pytest.raises(RunError, match=r"observations of the run were float32\[4\]: pass the"):
        policy(np.zeros(5))


# --- the env that a policy plays in


def test_the_policys_env_is_the_runs(tmp_path):
    save_run(tmp_path, network(), **{"env.wrappers": ["TimeLimit(max_episode_steps=5)"]})
    policy = load_policy("run", runs_dir=tmp_path)
    env = policy.make_env(render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    for step in range(5):
        obs, _, terminated, truncated, _ = env.step(policy(obs))
        assert not terminated and truncated == (step == 4)
    assert env.render().dtype == np.uint8
    env.close()


def test_a_function_that_makes_another_env_is_refused(tmp_path):
    save_run(tmp_path, network(), **{"env.id": "Pendulum-v1"})
    policy = load_policy("run", runs_dir=tmp_path)
    policy.make_env(lambda: gymnasium.make("CartPole-v1")).close()
    with pytest.raises(RunError, match=r"are \(3,\), the run's were \(4,\): .* pass make_env="):
        policy.make_env(ScriptedEnv)


def test_a_policy_of_no_run_has_no_env():
    with pytest.raises(RunError, match="the policy is of no run"):
        Policy(network(), CARTPOLE, num_actions=2).make_env()


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
    assert (result.return_mean, result.return_std) == (first["return_mean"], first["return_std"])
    assert first["run_name"] == "run" and first["env_id"] == "CartPole-v1"
    assert first["env_steps"] == 1000 and first["checkpoint"].endswith("step_1000")
    assert 1 <= first["return_min"] <= first["return_mean"] <= first["return_max"] <= 30
    assert first["return_mean"] == first["length_mean"]  # CartPole gives 1 a step
    assert first["videos"] == [] and first["warnings"] == []
    assert f"return_mean={result.return_mean}" in repr(result) and "array" not in repr(result)


def test_episodes_that_are_cut_are_counted(tmp_path):
    save_run(tmp_path, network(), **{"eval.max_episode_steps": 3})
    result = evaluate("run", episodes=4, runs_dir=tmp_path)
    assert result.num_cut == 4 and result.return_mean == 3.0


def test_a_video_is_recorded_into_the_run(tmp_path):
    folder = save_run(tmp_path, network(), **{"eval.max_episode_steps": 5})
    result = evaluate("run", episodes=1, seed=2, video=True, runs_dir=tmp_path)
    (path,) = result.videos
    assert path == str(folder.path / "videos" / "evaluate_step_1000_seed_2.mp4")
    assert (folder.path / "videos" / "evaluate_step_1000_seed_2.mp4").stat().st_size > 1000


def test_a_video_of_what_cannot_be_rendered_is_refused_before_playing(tmp_path, monkeypatch):
    save_run(tmp_path, network())
    monkeypatch.setattr("distdqn.policy.play_episodes", lambda *args, **kwargs: 1 / 0)
    cartpole = SpaceEnv(gymnasium.spaces.Box(-1, 1, (4,)), gymnasium.spaces.Discrete(2))
    with pytest.raises(EnvError, match=r"cannot be rendered: its render modes are \[\]") as caught:
        evaluate("run", video=True, runs_dir=tmp_path, make_env=lambda: cartpole)
    assert "\n" not in str(caught.value)


def test_a_run_trained_on_the_users_own_env_is_evaluated_on_it(tmp_path):
    made = []

    def make_env():
        made.append(gymnasium.make("CartPole-v1"))
        return made[-1]

    save_run(tmp_path, network(), **{"env.id": "Pendulum-v1"})
    result = evaluate("run", episodes=2, runs_dir=tmp_path, make_env=make_env)
    assert made and result.return_mean >= 1.0


def test_a_run_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(RunError, match="no run 'nothing'"):
        load_policy("nothing", runs_dir=tmp_path)


# --- a run from its start to its policy


class Shouting(gymnasium.ObservationWrapper):
    """Adds an entry to a Dict observation, and a mask that forbids the last action."""

    def __init__(self, env, loudness):
        super().__init__(env)
        self.loudness = loudness
        said = gymnasium.spaces.Box(0, loudness, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({**env.observation_space, "said": said})

    def observation(self, observation):
        return observation | {"said": np.full(1, self.loudness, np.float32)}

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return obs, info | {"action_mask": np.array([1, 1, 0], np.int8)}

    def step(self, action):
        assert action < 2
        *step, info = super().step(action)
        return *step, info | {"action_mask": np.array([1, 1, 0], np.int8)}


def test_a_run_keeps_its_wrappers_and_a_dict_goes_through_all_of_it(tmp_path):
    make_env = functools.partial(make_space_env, NESTED_SPACE)
    wrappers = ["test_policy:Shouting(loudness=3)", {"TimeLimit": {"max_episode_steps": 4}}]
    config = lockstep(
        tmp_path, env__wrappers=wrappers, total_env_steps=700, workers__count=1, replay__shards=1
    )
    summary = distdqn.train(config, make_env=make_env, display=False)
    assert summary.eval_return_mean == 4.0, "evaluation is cut by the wrapper too"
    runs_dir = tmp_path / "runs"
    kept = load_config(runs_dir / "run" / "config.yaml")
    assert kept.env.wrappers == (
        "test_policy:Shouting(loudness=3)",
        "TimeLimit(max_episode_steps=4)",
    )
    policy = load_policy("run", runs_dir=runs_dir)
    with pytest.raises(RunError, match="function fake_envs.make_space_env.* call policy.make_env"):
        policy.make_env()
    env = policy.make_env(make_env)
    obs, info = env.reset(seed=0)
    action, ended, steps = policy(obs, info["action_mask"]), False, 0
    while not ended:
        obs, _, terminated, truncated, info = env.step(action)
        action, ended, steps = policy(obs, info["action_mask"]), terminated or truncated, steps + 1
    assert steps == 4 and obs["said"] == 3
    result = evaluate("run", episodes=2, runs_dir=runs_dir, make_env=make_env)
    assert result.return_mean == 4.0
