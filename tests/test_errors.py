"""The user's own line is found in a traceback, whoever called it."""

from __future__ import annotations

import pickle
import re

import gymnasium
import pytest

from distdqn.errors import EnvFailure, own_frame, shorten, traceback_of, without_colours


class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def step(self, action):
        self.observation_space.seed("no seed")  # raises in a library's file


def traceback_text():
    try:
        gymnasium.wrappers.TimeLimit(Broken(), 3).step(0)
    except Exception as error:
        return traceback_of(error)
    raise AssertionError("nothing was raised")


def test_the_last_frame_outside_of_libraries_is_the_users():
    line = Broken.step.__code__.co_firstlineno + 1
    assert own_frame(traceback_text()).endswith(f"test_errors.py:{line} in step")


def frames(*files):
    return "".join(f'  File "{file}", line 7, in step\n    code\n' for file in files)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            ("/home/me/env.py", "/usr/lib/python3/site-packages/gymnasium/core.py"),
            "/home/me/env.py",
        ),
        (("/home/me/env.py", "/v/site-packages/minigrid/core.py"), "/home/me/env.py"),
        (("/v/site-packages/torch/x.py", "/v/site-packages/minigrid/core.py"), "minigrid/core.py"),
        (("/v/site-packages/torch/nn/modules.py", "<frozen importlib>"), None),
    ],
)
def test_a_package_counts_only_where_nothing_of_the_users_does(files, found):
    frame = own_frame(frames(*files))
    assert frame.endswith(f"{found}:7 in step") if found else frame == ""


def test_the_traceback_travels_with_the_failure():
    failure = EnvFailure("it raised")
    failure.details = "Traceback ..."
    copy = pickle.loads(pickle.dumps(failure))
    assert (str(copy), copy.details) == ("it raised", "Traceback ...")


def test_foreign_words_are_shortened_and_lose_their_colours():
    assert shorten("a\n  b") == "a b" and len(shorten("x" * 400)) == 300
    assert without_colours("\x1b[36mray::Worker\x1b[39m (pid=3)") == "ray::Worker (pid=3)"
    assert re.search(r"Traceback", traceback_text())
