"""Lost lives end the learner's episodes, games go on; FIRE is pressed and is no transition."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from fake_envs import NUM_ACTIONS, ScriptedEnv, stepper_of
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.acting.rollout import Episode, EpisodeTracker
from distdqn.envs.learner_view import Lives
from distdqn.envs.serial import SerialVectorEnv
from distdqn.envs.stepper import VectorStepper

FIRE = 2


class GamesEnv(gymnasium.Env):
    """Games by script, a letter a step: `.` nothing, L a life lost, Z no life left (yet the
    game goes on), E terminated, T truncated. Three lives; a script that runs out terminates.

    Observation: [game, step within it, last action + 1]; reward: 10 game + step.
    """

    action_space, observation_space = ScriptedEnv.action_space, ScriptedEnv.observation_space

    def __init__(self, scripts: tuple[str, ...]):
        self.scripts, self.game = scripts, -1

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.game, self.time, self.lives = self.game + 1, 0, 3
        return self._observe(-1), {"lives": self.lives}

    def step(self, action: Any) -> Any:
        script = self.scripts[self.game % len(self.scripts)]
        letter = script[self.time]
        self.time += 1
        self.lives = max(self.lives - (letter == "L"), 1) if letter != "Z" else 0
        terminated = letter == "E" or (self.time == len(script) and letter != "T")
        reward = 10.0 * self.game + self.time
        info = {"lives": self.lives}
        return self._observe(int(action)), reward, terminated, letter == "T", info

    def _observe(self, action):
        return np.array([self.game, self.time, action + 1], np.float32)


def serial(envs):
    return SerialVectorEnv(envs, "G")


def sync(mode):
    return lambda envs: SyncVectorEnv([lambda env=env: env for env in envs], autoreset_mode=mode)


VECTOR_ENVS = {"serial": serial} | {f"sync {mode.value}": sync(mode) for mode in AutoresetMode}
RESETS_WITHIN = [name for name in VECTOR_ENVS if "Next" not in name]


def make(name, *scripts, life_loss=True, fire=FIRE):
    envs = [GamesEnv(s if isinstance(s, tuple) else (s,)) for s in scripts]
    return VectorStepper(VECTOR_ENVS[name](envs), "G", lives=Lives(len(envs), life_loss, fire))


def rows(stepper, actions):
    """What each step of the first env said, as letters, and what its env was given."""
    stepper.reset(seed=0)
    for action in actions:
        step = stepper.step(np.full(stepper.num_envs, action))
        names = ("valid", "terminated", "truncated", "ended", "starts")
        letters = "".join(name[0] for name in names if getattr(step, name)[0])
        yield letters, step.obs_t[0].tolist(), step.next_obs[0].tolist()


@pytest.mark.parametrize("name", RESETS_WITHIN)
def test_a_game_with_a_lost_life_by_hand(name):
    assert list(rows(make(name, "..L.E"), [0, 0, 1, 0, 1, 0, 0])) == [
        ("s", [0, 1, 3], [0, 1, 3]),  # FIRE
        ("v", [0, 2, 1], [0, 2, 1]),
        ("vts", [0, 3, 2], [0, 3, 2]),  # the life: the next episode starts at the same frame
        ("s", [0, 4, 3], [0, 4, 3]),  # FIRE
        ("vtes", [0, 5, 2], [1, 0, 0]),
        ("s", [1, 1, 3], [1, 1, 3]),
        ("v", [1, 2, 1], [1, 2, 1]),
    ]


def test_a_game_with_a_lost_life_by_hand_where_the_reset_takes_a_step():
    assert list(rows(make("sync NextStep", ".LE"), [0, 1, 1, 1, 1, 1, 0])) == [
        ("s", [0, 1, 3], [0, 1, 3]),
        ("vts", [0, 2, 2], [0, 2, 2]),
        ("tes", [0, 3, 3], [0, 3, 3]),  # FIRE ends the game: no transition
        ("s", [1, 0, 0], [1, 0, 0]),  # only a reset
        ("s", [1, 1, 3], [1, 1, 3]),
        ("vts", [1, 2, 2], [1, 2, 2]),
        ("tes", [1, 3, 3], [1, 3, 3]),
    ]


@pytest.mark.parametrize("name", VECTOR_ENVS)
def test_without_the_options_lives_mean_nothing(name):
    stepper = make(name, "LL..", life_loss=False, fire=None)
    letters = [row[0] for row in rows(stepper, [1] * 4)]
    assert letters == ["v", "v", "v", "vte" if "Next" in name else "vtes"]


def test_fire_alone_is_pressed_at_a_games_start_only():
    letters = [row[0] for row in rows(make("serial", ".L.", life_loss=False), [1] * 5)]
    assert letters == ["s", "v", "vtes", "s", "v"]


def test_the_last_life_is_no_end_while_the_game_goes_on():
    letters = [row[0] for row in rows(make("serial", "LZ.E", fire=None), [1] * 4)]
    assert letters == ["vts", "v", "v", "vtes"]


def policy(obs):
    return (obs @ np.array([2, 3, 1])).astype(np.int64) % NUM_ACTIONS


def naive_stream(env, life_loss, fire, count):
    """Transitions, each with whether an episode starts with it, and whole games."""
    stream: list[Any] = []
    games: list[Any] = []
    obs, info = env.reset()
    lives, starts, press, total, length = info["lives"], True, fire is not None, 0.0, 0
    while len(stream) < count:
        action = fire if press else int(policy(obs))
        arrived, reward, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
        lost = life_loss and not ended and 0 < info["lives"] < lives
        total, lives = total + reward, info["lives"]
        if not press:
            end = (terminated or lost, truncated)
            stream.append((starts, obs.tolist(), action, reward, *end, arrived.tolist()))
            length += 1
        starts = press or lost or ended
        press, obs = fire is not None and (lost or ended), arrived
        if ended:
            games.append((total, length, truncated))
            obs, info = env.reset()
            lives, total, length = info["lives"], 0.0, 0
    return stream, games


def stepper_streams(stepper, count):
    streams: list[list[Any]] = [[] for _ in range(stepper.num_envs)]
    games: list[list[Any]] = [[] for _ in range(stepper.num_envs)]
    tracker, starts = EpisodeTracker(stepper.num_envs), np.ones(stepper.num_envs, bool)
    obs = stepper.reset(seed=0)
    while min(map(len, streams)) < count:
        actions = policy(obs)
        step = stepper.step(actions)
        for game in tracker.update(step):
            games[game.env].append((game.episode_return, game.length, game.truncated))
        for i in np.flatnonzero(step.valid):
            row = (starts[i], obs[i].tolist(), actions[i], step.raw_reward[i])
            streams[i].append((*row, step.terminated[i], step.truncated[i], step.obs_t[i].tolist()))
        obs, starts = step.next_obs, step.starts
    return [stream[:count] for stream in streams], games


scripts = st.lists(st.text(".LZET", min_size=1, max_size=6), min_size=1, max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    scripts=st.lists(scripts, min_size=1, max_size=3),
    name=st.sampled_from(sorted(VECTOR_ENVS)),
    life_loss=st.booleans(),
    fire=st.sampled_from([None, FIRE]),
)
def test_any_games_give_the_stream_of_the_plainest_loop(scripts, name, life_loss, fire):
    # A last game in which not every step is a press, or there might be no transition at all.
    scripts = [(*game, "....") for game in scripts]
    streams, games = stepper_streams(make(name, *scripts, life_loss=life_loss, fire=fire), 15)
    for i, game in enumerate(scripts):
        stream, whole_games = naive_stream(GamesEnv(game), life_loss, fire, 15)
        assert streams[i] == stream
        shorter = min(len(whole_games), len(games[i]))
        assert games[i][:shorter] == whole_games[:shorter]
        assert len(games[i]) >= len(whole_games)


def test_a_game_that_the_press_ends_counts_with_its_reward():
    stepper, tracker = make("serial", ("E", "..T")), EpisodeTracker(1)
    stepper.reset()
    episodes = [e for _ in range(4) for e in tracker.update(stepper.step(np.array([0])))]
    assert episodes == [
        Episode(env=0, episode_return=1.0, length=0, truncated=False),
        Episode(env=0, episode_return=11.0 + 12 + 13, length=2, truncated=True),
    ]


@pytest.mark.parametrize("name", VECTOR_ENVS)
def test_an_env_that_is_reset_from_outside_fires_and_has_all_its_lives(name):
    stepper = make(name, ".L.....", ".......")
    stepper.reset()
    for _ in range(2):
        stepper.step(np.zeros(2, np.int64))
    mask = np.array([True, False])
    _, was_reset = stepper.reset_envs(mask)
    step = stepper.step(np.zeros(2, np.int64))
    assert step.valid.tolist() == (~was_reset).tolist()
    # The lives lost before: three again, so the first loss counts.
    assert step.obs_t[0].tolist() == [1, 1, 3]
    step = stepper.step(np.zeros(2, np.int64))
    assert step.valid[0] and step.terminated[0] and not step.ended[0]


def test_lives_are_read_where_they_are_given():
    lives = Lives(3, terminal_on_life_loss=True)
    lives.begin({"lives": np.array([3, 3, 3])}, np.ones(3, bool))
    none = np.zeros(3, bool)
    given = {"lives": np.array([2, 0, 0]), "_lives": np.array([True, False, True])}
    assert lives.lost(given, none).tolist() == [True, False, False]
    assert not lives.lost({}, none).any()
    over = np.array([False, True, False])
    assert not lives.lost({"lives": np.array([2, 1, 0])}, over).any()


def test_envs_without_lives_lose_none():
    stepper = stepper_of([ScriptedEnv(lengths=(2,))], lives=Lives(1, terminal_on_life_loss=True))
    stepper.reset()
    ends = [bool(stepper.step(np.array([0])).ended[0]) for _ in range(4)]
    assert ends == [False, True, False, True]
