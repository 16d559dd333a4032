"""MinAtar's games, bit for bit, and reproducible."""

import subprocess
import sys

import numpy as np
import pytest

from distdqn import errors
from distdqn.config import EnvConfig
from distdqn.envs.make import describe, make_stepper

minatar = pytest.importorskip("minatar", reason="needs distdqn[minatar]")

GAMES = ["asterix", "breakout", "freeway", "seaquest", "space_invaders"]


def env_id(game):
    return f"MinAtar/{game.title().replace('_', '')}-v0"


@pytest.mark.parametrize("game", GAMES)
def test_steps_are_the_packages_own(game):
    stepper, twin = make_stepper(EnvConfig(env_id(game)), 1), minatar.Environment(game)
    obs = stepper.reset(seed=[5])
    twin.seed(5)
    twin.reset()
    rng, ends = np.random.default_rng(0), 0
    for _ in range(3000):
        np.testing.assert_array_equal(obs[0], twin.state())
        action = rng.integers(6)
        step = stepper.step(np.array([action]))
        reward, terminated = twin.act(action)
        assert (step.raw_reward[0], step.terminated[0]) == (reward, terminated)
        np.testing.assert_array_equal(step.obs_t[0], twin.state())
        if terminated:
            ends += 1
            twin.reset()
        obs = step.next_obs
    assert ends >= 1 and obs.dtype == np.uint8


@pytest.mark.parametrize("game", GAMES)
def test_a_seed_gives_the_same_game_also_to_a_used_env(game):
    def play(stepper):
        obs, rng = [stepper.reset(seed=[5, 6])], np.random.default_rng(0)
        for _ in range(200):
            obs.append(stepper.step(rng.integers(6, size=2)).next_obs)
        return np.stack(obs)

    first, second = (make_stepper(EnvConfig(env_id(game)), 2) for _ in range(2))
    once = play(first)
    np.testing.assert_array_equal(once, play(second))
    np.testing.assert_array_equal(once, play(first))
    assert (once[:, 0] != once[:, 1]).any()


def test_the_description_has_six_actions_and_bytes():
    description = describe(EnvConfig("MinAtar/Breakout-v0"))
    spec = description.observation
    assert (spec.shape, spec.dtype, spec.scale, spec.stack) == ((10, 10, 4), "uint8", 1.0, 1)
    assert description.num_actions == 6
    assert describe(EnvConfig("MinAtar/Breakout-v0", frame_stack=2)).observation.stack == 2


@pytest.mark.parametrize("name", ["MinAtar/Breakout-v1", "minatar/breakout-v0"])
def test_an_unknown_id_names_the_closest_game_of_minatar(name):
    with pytest.raises(errors.UnknownEnvError, match="closest: MinAtar/Breakout-v0") as caught:
        describe(EnvConfig(name))
    assert "ALE/" not in str(caught.value)


def test_sticky_actions_and_ramping_can_be_set():
    def right(sticky):
        kwargs = {"sticky_action_prob": sticky, "difficulty_ramping": False}
        stepper = make_stepper(EnvConfig("MinAtar/Breakout-v0", kwargs), 1)
        stepper.reset(seed=1)
        return int(stepper.step(np.array([3])).obs_t[0, 9, :, 0].argmax())

    assert right(0.0) == 5 and right(1.0) == 4  # repeats the no-op before


def test_games_are_drawn_without_seaborn():
    stepper = make_stepper(EnvConfig("MinAtar/Seaquest-v0"), 1, render_mode="rgb_array")
    obs, picture = stepper.reset(seed=1), stepper.render()
    assert picture.shape == (200, 200, 3) and stepper.frames_per_second == 15
    drawn = picture[10::20, 10::20].any(axis=2)
    np.testing.assert_array_equal(drawn, obs[0].any(axis=2))


def test_importing_the_package_says_nothing_and_sets_up_no_logging():
    code = (
        "import logging\n"
        "from distdqn.config import EnvConfig\nfrom distdqn.envs.make import describe\n"
        "describe(EnvConfig('MinAtar/Breakout-v0'))\n"
        "assert not logging.getLogger().handlers and not logging.root.manager.disable"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
