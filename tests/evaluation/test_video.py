"""A video shows one greedy episode whole."""

from __future__ import annotations

import functools
from typing import Any

import imageio.v2
import numpy as np
import pytest
from fake_envs import NUM_ACTIONS, make_scripted

from distdqn import errors
from distdqn.config import EnvConfig
from distdqn.envs.make import make_stepper
from distdqn.evaluation.video import record_video

ENLARGED = 13  # pictures of 32x48 pixels, to 400 or more


def prefer(*values):
    """Action values that are the same everywhere."""
    return lambda obs: np.tile(np.array(values, np.float32), (len(obs), 1))


def recorder(**kwargs):
    make_env = functools.partial(make_scripted, render_mode="rgb_array", **kwargs)
    return lambda: make_stepper(EnvConfig(), 1, make_env, render_mode="rgb_array")


def test_has_a_frame_for_each_observation_acted_on(tmp_path):
    path = tmp_path / "videos" / "episode.mp4"
    recorded = record_video(recorder(lengths=(5,)), prefer(0, 1, 0), path, 0, 100)
    assert recorded.actions.tolist() == [1] * 5
    # The first episode's rewards are 10 step + action.
    assert recorded.returns.tolist() == [0, 11, 32, 63, 104]
    reader: Any = imageio.v2.get_reader(path)
    frames = [np.asarray(frame) for frame in reader]
    assert reader.get_meta_data()["fps"] == 7
    pictures = [frame[:, : 48 * ENLARGED] for frame in frames]
    assert [round(float(picture.mean()) / 40) for picture in pictures] == [0, 1, 2, 3, 4]
    assert pictures[0].shape == (32 * ENLARGED, 48 * ENLARGED, 3)
    assert frames[0].shape[1] > pictures[0].shape[1] and frames[0].shape[1] % 2 == 0
    assert list(path.parent.iterdir()) == [path]


def test_shows_an_env_with_stacked_frames(tmp_path):
    make_env = functools.partial(make_scripted, render_mode="rgb_array", lengths=(3,))
    settings = EnvConfig(frame_stack=2)
    seen = []

    def q_values(obs):
        seen.append(obs[0, :, 1].tolist())  # steps within the episode
        return prefer(0, 1, 0)(obs)

    def make():
        return make_stepper(settings, 1, make_env, render_mode="rgb_array")

    recorded = record_video(make, q_values, tmp_path / "v.mp4", 0, 100)
    assert len(recorded.actions) == 3 and seen == [[0, 0], [0, 1], [1, 2]]


def test_stops_at_the_limit(tmp_path):
    make = recorder(lengths=(50,))
    recorded = record_video(make, prefer(0, 1, 0), tmp_path / "v.mp4", 0, 3)
    assert len(recorded.actions) == 3


def test_leaves_no_file_behind_when_it_fails(tmp_path):
    def q_values(obs):
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        record_video(recorder(), q_values, tmp_path / "v.mp4", 0, 9)
    assert list(tmp_path.iterdir()) == []


def test_of_an_env_without_pictures_is_refused_in_one_line(tmp_path):
    def make():
        return make_stepper(EnvConfig(), 1, make_scripted, render_mode="rgb_array")

    with pytest.raises(errors.EnvError) as caught:
        record_video(make, prefer(*range(NUM_ACTIONS)), tmp_path / "v.mp4", 0, 9)
    assert "cannot be rendered" in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
