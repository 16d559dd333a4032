"""Wrappers stand around every env of a run, and what cannot stand there is refused in a line."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
import pytest
from fake_envs import ScriptedEnv, SpaceEnv, make_scripted

from distdqn import errors
from distdqn.config import AtariConfig, EnvConfig
from distdqn.envs.make import describe, make_playing_env, make_stepper
from distdqn.envs.tables import transition_table

MODULE = """
import gymnasium

class Doubled(gymnasium.RewardWrapper):
    def __init__(self, env, by=2):
        super().__init__(env)
        self.by = by
    def reward(self, reward):
        return self.by * reward

class Raising(gymnasium.Wrapper):
    def step(self, action):
        raise ValueError("the wheel\\nfell off")

class Vector(gymnasium.vector.VectorWrapper):
    pass

def nothing(env): return None
def raising(env): raise KeyError("glass")
def continuous(env):
    space = gymnasium.spaces.Box(-1, 1, (2,))
    return gymnasium.wrappers.TransformAction(env, lambda action: 0, space)

def in_steps(env, steps):
    space = gymnasium.spaces.Discrete(steps)
    low, high = env.action_space.low, env.action_space.high
    def spread(action):
        return low + (high - low) * action / (steps - 1)
    return gymnasium.wrappers.TransformAction(env, spread, space)

number = 3
"""


@pytest.fixture(autouse=True)
def _own_module(tmp_path, monkeypatch):
    (tmp_path / "own_wrappers.py").write_text(MODULE)
    (tmp_path / "broken_wrappers.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)


def env_of(*wrappers: Any, **values: Any) -> EnvConfig:
    return EnvConfig(**values, wrappers=wrappers)


def first_step(settings, num_envs=1, make_env=None):
    stepper = make_stepper(settings, num_envs, make_env)
    obs = stepper.reset(seed=1)
    return obs, stepper.step(np.zeros(num_envs, np.int64))


def test_wrappers_apply_in_order_the_first_innermost():
    doubled_then_clipped = env_of("own_wrappers:Doubled(by=7)", "ClipReward(max_reward=3)")
    clipped_then_doubled = env_of("ClipReward(max_reward=3)", "own_wrappers:Doubled(by=7)")
    assert first_step(doubled_then_clipped, 2)[1].r_t.tolist() == [3, 3]
    assert first_step(clipped_then_doubled, 2)[1].r_t.tolist() == [7, 7]


def test_an_env_with_a_vector_env_of_its_own_is_wrapped_one_by_one():
    plain = first_step(EnvConfig("CartPole-v1"), 3)[0]
    obs, step = first_step(env_of("TimeAwareObservation", id="CartPole-v1"), 3)
    assert plain.shape == (3, 4) and obs.shape == (3, 5)
    assert step.obs_t[:, 4].tolist() == [1, 1, 1]


def test_envs_of_a_function_are_wrapped():
    settings = env_of({"TimeLimit": {"max_episode_steps": 2}})
    make_env = functools.partial(make_scripted, lengths=(9,))
    stepper = make_stepper(settings, 1, make_env)
    stepper.reset()
    ends = [stepper.step(np.zeros(1, np.int64)).truncated[0] for _ in range(4)]
    assert ends == [False, True, False, True]


def test_a_continuous_env_can_be_made_discrete():
    settings = env_of("own_wrappers:in_steps(steps=5)", id="Pendulum-v1")
    assert describe(settings).num_actions == 5
    assert np.isfinite(first_step(settings)[1].raw_reward).all()


def test_frames_are_stacked_outside_of_wrappers():
    settings = env_of("TimeAwareObservation", id="CartPole-v1", frame_stack=3)
    assert describe(settings).observation_space.shape == (3, 5)


def test_a_rendered_env_is_wrapped_too():
    settings = env_of("TimeAwareObservation", id="CartPole-v1")
    stepper = make_stepper(settings, 1, render_mode="rgb_array")
    assert stepper.reset(seed=0).shape == (1, 5) and stepper.render().dtype == np.uint8
    stepper.close()


@pytest.mark.parametrize(
    ("wrapper", "error", "message"),
    [
        ("TimeAware", errors.ConfigError, "has TimeAware, no wrapper of Gymnasium"),
        ("timeawareobservation", errors.ConfigError, "did you mean TimeAwareObservation? One of"),
        ("gymnasium.wrappers.TimeLimit", errors.ConfigError, "did you mean TimeLimit? One of your"),
        ("Qqqqq", errors.ConfigError, "; one of your own is written module:function"),
        ("vector", errors.ConfigError, "has vector, no wrapper of Gymnasium"),
        ("no_such_wrappers:f", errors.ConfigError, "no module 'no_such_wrappers' to import"),
        ("own_wrappers:f.g", errors.ConfigError, "'own_wrappers' has no 'f.g'"),
        ("own_wrappers:number", errors.ConfigError, "a int: required is a class or function"),
        ("own_wrappers:Vector", errors.ConfigError, "which wraps vector environments: take one"),
        (
            "gymnasium.wrappers.vector:ClipReward",
            errors.ConfigError,
            "which wraps vector environments",
        ),
        ("NormalizeObservation", errors.ConfigError, "different ones; use RescaleObservation"),
        ("NormalizeReward", errors.ConfigError, "different ones; use env.reward_scale"),
        (
            "ClipReward(low=1)",
            errors.ConfigError,
            "env.wrappers ClipReward: got an unexpected keyword argument 'low'; its arguments: "
            "min_reward, max_reward",
        ),
        ("TimeLimit", errors.ConfigError, "missing a required argument: 'max_episode_steps'"),
        ("ClipReward", errors.EnvFailure, "raised in wrapper ClipReward: "),
        ("own_wrappers:raising", errors.EnvFailure, "in wrapper own_wrappers:raising: KeyError"),
        ("broken_wrappers:f", errors.EnvFailure, "import of wrapper broken_wrappers:f: ZeroDiv"),
        ("own_wrappers:nothing", errors.EnvError, "must give a gymnasium.Env, gave None"),
        (
            "own_wrappers:continuous",
            errors.UnsupportedSpaceError,
            "'make_env() in wrapper own_wrappers:continuous' has the action space Box",
        ),
        ("RecordVideo(video_folder='v')", errors.EnvFailure, "raised in wrapper RecordVideo: "),
        ("AddRenderObservation", errors.EnvFailure, "raised in wrapper AddRenderObservation: "),
    ],
)
def test_what_cannot_be_a_wrapper_is_refused_in_one_line(wrapper, error, message):
    with pytest.raises(error) as caught:
        describe(env_of(wrapper), ScriptedEnv)
    assert type(caught.value) is error
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrapper_whose_package_is_missing_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    settings = env_of("ResizeObservation(shape=(8, 8))")
    space = gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    with pytest.raises(errors.MissingExtraError, match=r"pip install .*gymnasium\[other\]"):
        describe(settings, lambda: SpaceEnv(space))


def test_a_wrapper_that_raises_in_a_step_is_said_as_the_env_would_be():
    with pytest.raises(errors.EnvFailure, match="raised in step: ValueError: the wheel fell off"):
        first_step(env_of("own_wrappers:Raising"))


def test_one_env_behind_two_wrappers_is_the_same_env():
    env = ScriptedEnv()
    with pytest.raises(errors.EnvError, match="returned the same environment twice"):
        make_stepper(env_of("own_wrappers:Doubled"), 2, lambda: env)


def test_wrappers_need_single_atari_games():
    pytest.importorskip("ale_py")
    settings = env_of("TimeAwareObservation(flatten=False)", id="ALE/Pong-v5")
    with pytest.raises(errors.ConfigError, match=r"set env.atari.backend gymnasium"):
        describe(settings)
    clipped = "ClipReward(min_reward=-1, max_reward=1)"
    single = env_of(clipped, id="ALE/Pong-v5", atari=AtariConfig(backend="gymnasium"))
    assert describe(single).observation.obs_shape == (4, 84, 84)


def test_exact_values_are_of_the_env_without_wrappers():
    with pytest.raises(errors.ConfigError, match="must be empty where exact values"):
        transition_table(env_of("TimeLimit(max_episode_steps=3)", id="FrozenLake-v1"))


# --- the env that a policy plays in


def test_the_env_to_play_in_gives_what_the_policy_was_trained_on():
    settings = env_of("TimeAwareObservation", id="CartPole-v1", frame_stack=2)
    for padding, padded in (("zero", 0.0), ("repeat", None)):
        env = make_playing_env(EnvConfig(**{**vars(settings), "stack_padding": padding}))
        obs, _ = env.reset(seed=3)
        assert env.observation_space.shape == obs.shape == (2, 5)
        assert (obs[0] == (obs[1] if padded is None else padded)).all()


def test_the_env_to_play_in_can_be_rendered_as_asked():
    env = make_playing_env(EnvConfig("CartPole-v1"), render_mode="rgb_array")
    env.reset()
    assert env.render().shape[2] == 3
    env.close()
    with pytest.raises(errors.EnvError, match="cannot be rendered: its render modes are"):
        make_playing_env(EnvConfig("CartPole-v1"), render_mode="film")


def test_fire_is_pressed_where_the_run_presses_it():
    pytest.importorskip("ale_py")
    atari = AtariConfig(fire_on_reset=True, terminal_on_life_loss=True, sticky_actions=0.0)
    env = make_playing_env(EnvConfig("ALE/Breakout-v5", atari=atari))
    _, info = env.reset(seed=0)
    assert info["lives"] == 5 and env.observation_space.shape == (4, 84, 84)
    pressed: list[int] = []
    game = env.unwrapped
    step = game.step
    game.step = lambda action: pressed.append(int(action)) or step(action)
    names = game.get_action_meanings()
    while info["lives"] == 5:
        info = env.step(names.index("NOOP"))[4]
    assert set(pressed) == {names.index("NOOP")}
    pressed.clear()
    env.step(names.index("NOOP"))
    assert set(pressed) == {names.index("FIRE")}
