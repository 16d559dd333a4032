"""Both backends play the same games, by env.atari.* alone; envpool agrees."""

import dataclasses
import re
import sys

import gymnasium
import numpy as np
import pytest

from distdqn import errors
from distdqn.acting.rollout import EpisodeTracker
from distdqn.config import AtariConfig, EnvConfig
from distdqn.envs.make import describe, make_stepper, make_vector_env

pytest.importorskip("ale_py", reason="needs distdqn[atari]")
pytest.importorskip("cv2", reason="needs distdqn[atari]")

BREAKOUT, INVADERS, PONG = "ALE/Breakout-v5", "ALE/SpaceInvaders-v5", "ALE/Pong-v5"


def game(env_id=BREAKOUT, num_envs=1, **atari):
    atari = {"sticky_actions": 0.0, **atari}
    return make_stepper(EnvConfig(env_id, atari=AtariConfig(**atari)), num_envs)


def assert_alike(a, b, num_steps, seed=0):
    """Steps both with the same random actions; returns the number of games and lost lives."""
    np.testing.assert_array_equal(a.reset(seed=1), b.reset(seed=1))
    rng, games, starts = np.random.default_rng(seed), 0, 0
    for _ in range(num_steps):
        actions = rng.integers(a.num_actions, size=a.num_envs)
        step, other = a.step(actions), b.step(actions)
        for field in dataclasses.fields(step):
            np.testing.assert_array_equal(
                getattr(step, field.name), getattr(other, field.name), err_msg=field.name
            )
        games, starts = games + step.ended.sum(), starts + step.starts.sum()
    return games, starts


@pytest.mark.parametrize(
    "env_id, num_steps, atari",
    [
        (BREAKOUT, 500, {"terminal_on_life_loss": True, "fire_on_reset": True}),
        (INVADERS, 700, {"terminal_on_life_loss": True}),
        (PONG, 1000, {}),
        (BREAKOUT, 250, {"grayscale": False, "max_pool": False, "full_action_space": True}),
        (INVADERS, 250, {"frame_skip": 3, "size": 60, "max_pool": False, "max_frames": 200}),
        (INVADERS, 100, {"frame_skip": 1, "max_frames": 50}),
    ],
)
def test_both_backends_give_the_same_steps(env_id, num_steps, atari):
    games, starts = assert_alike(
        game(env_id, **atari), game(env_id, backend="gymnasium", **atari), num_steps
    )
    assert games >= 1 and starts >= games


@pytest.mark.parametrize("env_id", [BREAKOUT, INVADERS, PONG])
def test_envpool_gives_the_same_frames(env_id):
    try:
        import envpool
    except (ImportError, FileNotFoundError) as error:  # the latter: without its assets
        pytest.skip(f"needs envpool: {error}")
    pool = envpool.make_gymnasium(
        env_id[4:],
        num_envs=1,
        stack_num=1,
        noop_max=1,  # which is always one, as here
        use_fire_reset=False,
        reward_clip=False,
    )
    stepper = game(env_id, noop_max=1)
    np.testing.assert_array_equal(stepper.reset(seed=1), pool.reset()[0][:, 0])
    rng, games = np.random.default_rng(0), 0
    for _ in range(1000):
        actions = rng.integers(stepper.num_actions, size=1)
        step = stepper.step(actions)
        frame, reward, terminated, truncated, _ = pool.step(actions.astype(np.int32))
        assert (step.raw_reward, step.terminated, step.truncated) == (reward, terminated, truncated)
        if not step.ended[0]:
            np.testing.assert_array_equal(step.obs_t, frame[:, 0])
            continue
        # Only of the frame in which a game ends does envpool take the last screens.
        games += 1
        np.testing.assert_array_equal(step.next_obs, pool.step(actions.astype(np.int32))[0][:, 0])
    assert games >= 1


@pytest.mark.parametrize("backend", ["ale", "gymnasium"])
def test_a_game_is_truncated_after_its_frames(backend):
    stepper, tracker = game(backend=backend, max_frames=10, noop_max=30), EpisodeTracker(1)
    stepper.reset(seed=3)
    steps = [stepper.step(np.array([0])) for _ in range(6)]
    assert [bool(step.truncated[0]) for step in steps] == [False, False, True] * 2
    assert not any(step.terminated[0] for step in steps)
    episodes = [episode for step in steps for episode in tracker.update(step)]
    assert [(e.length, e.truncated) for e in episodes] == [(3, True)] * 2


@pytest.mark.parametrize("backend, games", [("ale", 240), ("gymnasium", 120)])
def test_no_ops_are_uniform_from_one(backend, games):
    atari = AtariConfig(backend=backend, noop_max=4)
    vector_env = make_vector_env(EnvConfig(BREAKOUT, atari=atari), 1)
    if backend == "gymnasium":
        vector_env = vector_env.envs[0]
    first = vector_env.reset(seed=[1] if backend == "ale" else 1)
    drawn = [vector_env.reset()[1]["episode_frame_number"] for _ in range(games - 1)]
    counts = np.bincount(np.ravel([first[1]["episode_frame_number"], *drawn]), minlength=5)
    assert counts[0] == 0 and counts.sum() == games
    assert np.abs(counts[1:] - games / 4).max() < 4.5 * np.sqrt(games * 3 / 16)


def test_games_reset_from_outside_leave_the_others_alone():
    stepper = game(num_envs=3)
    stepper.reset(seed=1)
    for _ in range(20):
        before = stepper.step(np.array([1, 2, 3])).next_obs
    obs, was_reset = stepper.reset_envs(np.array([False, True, False]))
    assert was_reset.tolist() == [False, True, False]
    np.testing.assert_array_equal(obs[[0, 2]], before[[0, 2]])
    assert (obs[1] != before[1]).any()
    twin = game(num_envs=3)
    np.testing.assert_array_equal(obs[1], twin.reset(seed=1)[1])


@pytest.mark.parametrize("backend", ["ale", "gymnasium"])
def test_a_seed_gives_the_same_games_and_each_env_its_own(backend):
    def frames(seed):
        stepper = game(num_envs=2, backend=backend, sticky_actions=0.25, noop_max=30)
        first, actions = stepper.reset(seed=seed), np.array([2, 2])
        return np.stack([first, *[stepper.step(actions).next_obs for _ in range(30)]])

    once = frames(7)
    np.testing.assert_array_equal(once, frames(7))
    assert (once[:, 0] != once[:, 1]).any() and (once != frames(8)).any()


def test_fire_starts_the_ball_and_games_without_it_ignore_the_flag():
    idle = np.zeros(1, np.int64)
    plain, fired = game(), game(fire_on_reset=True)
    assert [stepper.reset(seed=1).shape for stepper in (plain, fired)] == [(1, 84, 84)] * 2
    step = fired.step(idle)
    assert step.starts[0] and not step.valid[0]
    np.testing.assert_array_equal(step.obs_t, plain.step(np.array([1])).obs_t)
    freeway = game("ALE/Freeway-v5", fire_on_reset=True)
    freeway.reset(seed=1)
    assert freeway.step(idle).valid[0]


def test_returns_are_of_whole_games_whatever_the_learner_sees():
    def play(**atari):
        stepper, tracker, rng = (
            game(num_envs=2, **atari),
            EpisodeTracker(2),
            np.random.default_rng(0),
        )
        stepper.reset(seed=1)
        steps = [stepper.step(rng.integers(4, size=2)) for _ in range(400)]
        return [e for step in steps for e in tracker.update(step)], steps

    whole, _ = play()
    by_lives, steps = play(terminal_on_life_loss=True)
    assert whole == by_lives and len(whole) >= 2
    assert sum(step.terminated.sum() for step in steps) >= 5 * len(whole)


@pytest.mark.parametrize("backend", ["ale", "gymnasium"])
def test_the_description_is_of_the_settings(backend):
    def description(env_id=BREAKOUT, frame_stack=None, **atari):
        atari = AtariConfig(backend=backend, **atari)
        return describe(EnvConfig(env_id, frame_stack=frame_stack, atari=atari))

    breakout = description()
    assert breakout.num_actions == 4
    assert breakout.observation.shape == (84, 84) and breakout.observation.stack == 4
    assert breakout.observation.scale == 1 / 255
    assert breakout.observation_space == gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    other = description(frame_stack=1, full_action_space=True, grayscale=False)
    assert other.num_actions == 18
    assert other.observation_space.shape == other.observation.shape == (84, 84, 3)


def test_games_are_drawn_as_the_console_shows_them():
    settings = EnvConfig(BREAKOUT)
    stepper = make_stepper(settings, 1, render_mode="rgb_array")
    assert stepper.reset(seed=1).shape == (1, 84, 84) and stepper.observation.stack == 4
    assert stepper.render().shape == (210, 160, 3) and stepper.frames_per_second == 15


@pytest.mark.parametrize(
    "env_id, hint",
    [
        ("BreakoutNoFrameskip-v4", "use ALE/Breakout-v5"),
        ("SpaceInvaders-v0", "use ALE/SpaceInvaders-v5"),
        ("PongDeterministic-v4", "use ALE/Pong-v5"),
        ("ALE/Breakout-ram-v5", "use ALE/Breakout-v5"),
        ("Breakout-ramNoFrameskip-v4", "use ALE/Breakout-v5"),
        ("ALE/Breakout-v4", "use ALE/Breakout-v5"),
        ("BreakOutsNoFrameskip-v4", "closest: ALE/Breakout-v5"),
        ("XyzzyqqNoFrameskip-v4", "ALE/Xyzzyqq-v5"),
    ],
)
def test_ids_of_the_old_style_are_refused_with_the_right_one(env_id, hint):
    with pytest.raises(errors.UnknownEnvError, match="old style") as caught:
        describe(EnvConfig(env_id))
    assert hint in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("env_id", ["BreakoutNoFrameskip-v4", "ale_py:ALE/Breakout-v4"])
def test_old_ids_are_refused_before_settings_that_do_not_fit_them(env_id):
    with pytest.raises(errors.UnknownEnvError, match="old style; use ALE/Breakout-v5"):
        describe(EnvConfig(env_id, atari=AtariConfig(noop_max=30)))


def test_games_that_a_module_registers_under_old_names_are_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "users_games.py").write_text(
        "import fake_envs\nfake_envs.register_scripted('Pong-v1', max_episode_steps=2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert describe(EnvConfig("users_games:Pong-v1")).num_actions == 3
        with pytest.raises(errors.UnknownEnvError, match="old style; use ALE/Pong-v5"):
            describe(EnvConfig("users_games:Pong-v2"))
    finally:
        gymnasium.registry.pop("Pong-v1", None)
    with pytest.raises(errors.UnknownEnvError, match="old style; use ALE/Pong-v5"):
        describe(EnvConfig("ale_py:Pong-v4"))


@pytest.mark.parametrize("env_id", ["ALE/Breakouts-v5", "ALE/breakout-v5", "ale/Breakout-v5"])
def test_unknown_games_name_the_closest(env_id):
    with pytest.raises(errors.UnknownEnvError, match="closest: ALE/Breakout-v5") as caught:
        describe(EnvConfig(env_id))
    assert all(close.startswith("ALE/") for close in str(caught.value).split(": ")[1].split(", "))


def test_no_old_id_is_suggested():
    with pytest.raises(errors.UnknownEnvError) as caught:
        describe(EnvConfig("Breakot-v4"))
    assert not re.search(r"(?<!/)Breakout-v[04]", str(caught.value))


def test_a_module_before_the_id_leaves_it_an_atari_game():
    description = describe(EnvConfig("ale_py:" + BREAKOUT))
    assert description.num_actions == 4 and description.observation.stack == 4


@pytest.mark.parametrize(
    "kwargs, hint",
    [
        ({"frameskip": 2}, "frameskip = 2 .* env.atari.frame_skip"),
        ({"repeat_action_probability": 0.0}, "env.atari.sticky_actions"),
        ({"obs_type": "ram"}, "env.atari.grayscale"),
        ({"max_num_frames_per_episode": 9}, "env.atari.max_frames"),
        ({"stack_num": 2}, "env.frame_stack"),
        ({"mode": 4}, "set env.atari.backend gymnasium"),
    ],
)
def test_arguments_that_the_settings_replace_are_refused(kwargs, hint):
    with pytest.raises(errors.ConfigError, match=hint):
        describe(EnvConfig(BREAKOUT, kwargs))


def test_modes_of_a_game_are_for_the_gymnasium_backend():
    atari = AtariConfig(backend="gymnasium")
    assert describe(EnvConfig(BREAKOUT, {"mode": 4}, atari=atari)).num_actions == 4
    with pytest.raises(errors.EnvFailure, match="Breakout-v5' raised in make"):
        describe(EnvConfig(BREAKOUT, {"colour": 4}, atari=atari))


def test_opencv_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(errors.MissingExtraError, match=r"cv2 \(extra atari\).* pip install "):
        describe(EnvConfig(BREAKOUT, atari=AtariConfig(backend="gymnasium")))
