"""Ids, extras, native vector envs, rendering; the messages are read."""

import functools
import sys

import gymnasium
import numpy as np
import pytest
from fake_envs import (
    ScriptedEnv,
    ScriptedVectorEnv,
    make_scripted,
    register_scripted,
)
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from distdqn import errors
from distdqn.config import AtariConfig, EnvConfig, load_config
from distdqn.envs.make import describe, make_stepper, make_vector_env
from distdqn.envs.registry import find_spec, time_limit
from distdqn.envs.serial import SerialVectorEnv
from distdqn.envs.tables import transition_table
from distdqn.machine.installation import install_command, pip_install
from distdqn.types import ObservationSpec


@pytest.fixture
def env_id():
    """An id of the test's own; whatever is registered under it goes afterwards."""
    yield "Scripted-v0"
    gymnasium.registry.pop("Scripted-v0", None)


def message_of(error_class, settings, make_env=None, **kwargs):
    with pytest.raises(error_class) as caught:
        make_vector_env(settings, 1, make_env, **kwargs)
    assert type(caught.value) is error_class and "\n" not in str(caught.value)
    return str(caught.value)


def test_describe_says_what_a_run_must_know():
    cartpole = describe(EnvConfig("CartPole-v1"))
    assert cartpole.observation == ObservationSpec((4,), "float32")
    assert (cartpole.num_actions, cartpole.action_start) == (2, 0)
    assert cartpole.observation_space.shape == (4,)
    assert describe(EnvConfig("FrozenLake-v1")).observation.num_categories == 16


def test_the_time_limit_is_the_registered_one_unless_it_is_given():
    spec = find_spec("CartPole-v1")
    assert time_limit(spec, {}) == 500
    assert time_limit(spec, {"max_episode_steps": 9}) == 9
    assert time_limit(spec, {"max_episode_steps": -1}) is None


def test_describe_reads_what_make_env_builds_and_closes_it():
    built = []

    def make_env():
        built.append(ScriptedEnv())
        return gymnasium.wrappers.TimeLimit(built[-1], 6)

    description = describe(EnvConfig("CartPole-v1"), make_env)
    assert description.observation.shape == (3,) and description.num_actions == 3
    assert built[0].closed


@pytest.mark.parametrize(
    "env_id, closest",
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("CartPole", "CartPole-v1"),
        ("LunarLander-v2", "LunarLander-v3"),
    ],
)
def test_an_unknown_id_names_the_closest(env_id, closest):
    message = message_of(errors.UnknownEnvError, EnvConfig(env_id))
    assert message.startswith(f"no environment '{env_id}' is registered; closest: {closest}")


def test_an_id_of_a_module_is_proposed_with_the_module():
    message = message_of(errors.UnknownEnvError, EnvConfig("gymnasium:CartPol-v1"))
    assert "; closest: gymnasium:CartPole-v1, " in message + ", "


def test_an_id_like_no_other_says_how_to_name_a_module():
    message = message_of(errors.UnknownEnvError, EnvConfig("Zzzzzz-v7"))
    assert message.endswith("an id from another package is written module:Id-v0")


def test_a_module_before_the_id_is_imported(tmp_path, monkeypatch, env_id):
    source = f"import fake_envs\nfake_envs.register_scripted({env_id!r}, max_episode_steps=2)\n"
    (tmp_path / "scripted_module.py").write_text(source)
    (tmp_path / "broken_module.py").write_text("import no_such_package_of_theirs")
    (tmp_path / "raising_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    assert describe(EnvConfig(f"scripted_module:{env_id}")).num_actions == 3
    message = message_of(errors.UnknownEnvError, EnvConfig(f"no_such_module:{env_id}"))
    assert "no module 'no_such_module' to import" in message
    message = message_of(errors.MissingExtraError, EnvConfig(f"broken_module:{env_id}"))
    assert message.endswith("-m pip install no_such_package_of_theirs")
    message = message_of(errors.EnvFailure, EnvConfig(f"raising_module:{env_id}"))
    assert "raised in import: ZeroDivisionError" in message


@pytest.mark.parametrize(
    "env_id, package, extra",
    [("ALE/Pong-v5", "ale_py", "atari"), ("MinAtar/Breakout-v0", "minatar", "minatar")],
)
def test_a_namespace_without_its_package_names_the_extra(monkeypatch, env_id, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    message = message_of(errors.MissingExtraError, EnvConfig(env_id))
    assert f"environment '{env_id}' needs the package {package} (extra {extra})" in message
    assert message.endswith(f"is not installed: {install_command(extra)}")


@pytest.mark.parametrize(
    "preset, package, extra",
    [
        ("lunarlander", "Box2D", "box2d"),
        ("minatar", "minatar", "minatar"),
        ("atari-nature", "ale_py", "atari"),
    ],
)
def test_a_preset_without_its_package_names_the_extra(monkeypatch, preset, package, extra):
    for name in [n for n in sys.modules if n.startswith(("gymnasium.envs.box2d", "Box2D"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    message = message_of(errors.MissingExtraError, load_config(preset=preset).env)
    assert f"needs the package {package} (extra {extra})" in message
    assert message.endswith(install_command(extra))


@pytest.mark.parametrize(
    "error, end",
    [
        (
            gymnasium.error.DependencyNotInstalled("Box2D is not installed, you can\ninstall it"),
            "needs the package Box2D (extra box2d), which is not installed: "
            + install_command("box2d"),
        ),
        (ModuleNotFoundError("No module", name="Box2D.b2"), install_command("box2d")),
        (ModuleNotFoundError("No module", name="chess"), pip_install("chess")),
        (
            gymnasium.error.DependencyNotInstalled('Run `pip install "gymnasium[mujoco]"`'),
            pip_install("gymnasium[mujoco]"),
        ),
        (
            gymnasium.error.DependencyNotInstalled("no licence file"),
            "needs a package that is not installed: DependencyNotInstalled: no licence file",
        ),
    ],
)
def test_a_missing_package_of_an_env_becomes_a_pip_line(env_id, error, end):
    def fail(**kwargs):
        raise error

    register_scripted(env_id, entry_point=fail)
    assert message_of(errors.MissingExtraError, EnvConfig(env_id)).endswith(end)


def test_an_argument_that_the_env_refuses_is_named():
    message = message_of(errors.EnvFailure, EnvConfig("FrozenLake-v1", {"colour": 3}))
    assert message.startswith("environment 'FrozenLake-v1' raised in make: TypeError:")
    assert "'colour'" in message


def test_what_make_env_must_do_is_said():
    def fail():
        raise OSError("no licence")

    message = message_of(errors.EnvFailure, EnvConfig(), fail)
    assert message.startswith("environment 'make_env()' raised in make: OSError: no licence at ")
    assert message.endswith(f"{__name__}.py:{fail.__code__.co_firstlineno + 1} in fail")
    assert "must return a gymnasium.Env, returned 3" in message_of(
        errors.EnvError, EnvConfig(), lambda: 3
    )
    env = ScriptedEnv()
    with pytest.raises(errors.EnvError, match="the same environment twice"):
        make_vector_env(EnvConfig(), 2, lambda: env)
    different = iter([gymnasium.make("CartPole-v1"), gymnasium.make("Acrobot-v1")])
    with pytest.raises(errors.EnvError, match="different observation spaces"):
        make_vector_env(EnvConfig(), 2, lambda: next(different))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "gymnasium:CartPole-v1", "FrozenLake-v1"])
def test_settings_of_atari_are_refused_for_other_ids(env_id):
    settings = EnvConfig(env_id, atari=AtariConfig(noop_max=30, fire_on_reset=True))
    message = message_of(errors.ConfigError, settings)
    assert message == (
        f"env.atari.noop_max is 30, must be left at its default 0 with env.id '{env_id}': "
        "env.atari.* is for ids ALE/<Game>-v5 alone and would be ignored"
    )
    for make in (describe, transition_table):
        with pytest.raises(errors.ConfigError, match="env.atari.noop_max is 30"):
            make(settings)


class TestMakeEnvWithAnIdOfAtari:
    @pytest.mark.parametrize("env_id", ["ALE/Breakout-v5", "CartPole-v1"])
    def test_refuses_settings_that_it_would_ignore(self, env_id):
        settings = EnvConfig(env_id, atari=AtariConfig(sticky_actions=0.0))
        message = message_of(errors.ConfigError, settings, make_scripted)
        assert "env.atari.sticky_actions is 0.0, must be left at its default 0.25" in message
        assert "with make_env()" in message and "would be ignored" in message

    def test_stacks_no_frames_unless_told_to(self):
        for frame_stack, stack in ((None, 1), (3, 3)):
            settings = EnvConfig("ALE/Breakout-v5", frame_stack=frame_stack)
            described = describe(settings, make_scripted).observation
            assert described.stack == stack
            assert make_stepper(settings, 1, make_scripted).observation == described


class TestVectorEntryPoint:
    def test_is_used_with_its_arguments_and_time_limit(self):
        settings = EnvConfig("CartPole-v1", {"sutton_barto_reward": True})
        vector_env = make_vector_env(settings, 3)
        assert type(vector_env) is CartPoleVectorEnv and vector_env.num_envs == 3
        assert vector_env.max_episode_steps == 500 and vector_env._sutton_barto_reward

    @pytest.mark.parametrize(
        "limit, env_class",
        [(7, CartPoleVectorEnv), (-1, SerialVectorEnv), (None, SerialVectorEnv)],
    )
    def test_is_left_where_the_time_limit_means_something_to_gymnasium_only(self, limit, env_class):
        settings = EnvConfig("CartPole-v1", {"max_episode_steps": limit})
        assert type(make_vector_env(settings, 1)) is env_class

    def test_is_left_where_it_refuses_the_arguments(self):
        settings = EnvConfig("CartPole-v1", {"disable_env_checker": False})
        assert type(make_vector_env(settings, 1)) is SerialVectorEnv

    @pytest.mark.parametrize(
        "kept, env_class", [(True, ScriptedVectorEnv), (False, SerialVectorEnv)]
    )
    def test_is_left_where_it_does_not_keep_the_time_limit(self, env_id, kept, env_class):
        def vector_entry_point(num_envs, max_episode_steps):
            return ScriptedVectorEnv(num_envs, max_episode_steps=max_episode_steps if kept else 99)

        register_scripted(env_id, vector_entry_point=vector_entry_point, max_episode_steps=4)
        assert type(make_vector_env(EnvConfig(env_id), 2)) is env_class

    def test_is_left_where_it_has_a_time_limit_of_its_own(self, env_id):
        def vector_entry_point(num_envs):
            return ScriptedVectorEnv(num_envs, max_episode_steps=500)

        register_scripted(env_id, vector_entry_point=vector_entry_point)
        assert type(make_vector_env(EnvConfig(env_id), 2)) is SerialVectorEnv

    def test_that_raises_is_a_failure(self, env_id):
        def vector_entry_point(num_envs):
            raise OSError("no device")

        register_scripted(env_id, vector_entry_point=vector_entry_point)
        message = message_of(errors.EnvFailure, EnvConfig(env_id))
        assert "raised in make: OSError: no device at " in message


class TestRendering:
    def test_gives_a_picture_at_the_envs_pace(self):
        make_env = functools.partial(make_scripted, render_mode="rgb_array")
        stepper = make_stepper(EnvConfig(), 2, make_env, render_mode="rgb_array")
        stepper.reset()
        stepper.step(np.ones(2, np.int64))
        assert stepper.frames_per_second == 7
        np.testing.assert_array_equal(stepper.render(), np.full((32, 48, 3), 40, np.uint8))

    def test_is_left_to_single_envs(self):
        stepper = make_stepper(EnvConfig("CartPole-v1"), 1, render_mode="rgb_array")
        stepper.reset(seed=0)
        assert stepper.render().shape == (400, 600, 3) and stepper.frames_per_second == 50
        stepper.close()

    def test_is_refused_where_make_env_did_not_ask_for_it(self):
        message = message_of(errors.EnvError, EnvConfig(), make_scripted, render_mode="rgb_array")
        assert "cannot be rendered: it was made with render_mode=None" in message

    def test_is_refused_where_the_env_has_no_pictures(self, env_id):
        class Blind(ScriptedEnv):
            metadata = {"render_modes": ["ansi"]}

        register_scripted(env_id, entry_point=Blind)
        message = message_of(errors.EnvError, EnvConfig(env_id), render_mode="rgb_array")
        assert "its render modes are ['ansi'], 'rgb_array' is needed" in message

    def test_is_refused_where_the_env_takes_no_render_mode(self, env_id):
        register_scripted(env_id, entry_point=lambda: ScriptedEnv())
        message = message_of(errors.EnvError, EnvConfig(env_id), render_mode="rgb_array")
        assert (
            f"environment '{env_id}' cannot be rendered: its constructor takes no render_mode"
            in message
        )

    def test_says_what_came_instead_of_a_picture(self):
        class Blank(ScriptedEnv):
            def render(self):
                return None

        stepper = make_stepper(EnvConfig(), 1, functools.partial(Blank, render_mode="rgb_array"))
        with pytest.raises(errors.EnvError, match=r"rendered object\[\], an RGB picture"):
            stepper.render()


@pytest.mark.parametrize("name", ["observation_space", "action_space"])
def test_an_env_without_a_space_is_refused_by_name(name):
    class Bare(gymnasium.Env):
        observation_space = gymnasium.spaces.Discrete(3)
        action_space = gymnasium.spaces.Discrete(2)

    setattr(Bare, name, None)
    with pytest.raises(errors.UnsupportedSpaceError, match=rf"'make_env\(\)' has no {name}: "):
        describe(EnvConfig(), Bare)
