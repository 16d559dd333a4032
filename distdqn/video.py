"""One greedy episode as an mp4 file.

Frames go to the encoder one by one, and the file gets its name when it is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.exploration import epsilon_greedy

if TYPE_CHECKING:
    from distdqn.envs import VectorStepper

_EVEN = 2  # the video codec halves both sides of the picture for its colours


@dataclasses.dataclass(frozen=True)
class RecordedEpisode:
    """What the video shows.

    path: of the mp4 file.
    episode_return: undiscounted sum of raw rewards, as far as recorded.
    length: steps; the video has one frame for each observation acted on.
    ended: the episode ended within `max_steps`.
    """

    path: Path
    episode_return: float
    length: int
    ended: bool


def record_video(
    make_stepper: Callable[[], VectorStepper],
    q_values: Callable[[np.ndarray], np.ndarray],
    path: str | Path,
    seed: int,
    max_steps: int,
) -> RecordedEpisode:
    """Plays one greedy episode, masks respected, and records its first env.

    Args:
      make_stepper: builds envs with `render_mode="rgb_array"`; one is enough.
      q_values: observations `[N, *shape]` to action values `[N, A]`.
      path: of the mp4 file; its folder is created, an older file replaced.
      max_steps: steps after which the recording stops.

    Raises:
      EnvError: the environment renders no RGB picture, in one line.
    """
    path = Path(path)
    stepper = make_stepper()
    try:
        obs = stepper.reset(seed=seed)
        first = stepper.render()  # fails before a file is there
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.stem}.partial.mp4")
        try:
            recorded = _record(stepper, q_values, obs, first, partial, max_steps)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return dataclasses.replace(recorded, path=path)
    finally:
        stepper.close()


def _record(
    stepper: VectorStepper,
    q_values: Callable[[np.ndarray], np.ndarray],
    obs: np.ndarray,
    frame: np.ndarray,
    path: Path,
    max_steps: int,
) -> RecordedEpisode:
    import imageio.v2  # only here: nothing else in a run needs it

    rng, epsilons = np.random.default_rng(0), np.zeros(stepper.num_envs)
    episode_return, length, ended = 0.0, 0, False
    fps = stepper.frames_per_second
    writer: Any = imageio.v2.get_writer(path, fps=fps, macro_block_size=_EVEN, codec="libx264")
    with contextlib.closing(writer):  # its own `with` does not close it after an error
        while not ended and length < max_steps:
            writer.append_data(frame if length == 0 else stepper.render())
            actions = epsilon_greedy(q_values(obs), epsilons, rng, stepper.action_mask)
            step = stepper.step(actions)
            obs = step.next_obs
            episode_return += float(step.raw_reward[0])
            length += 1
            ended = bool(step.terminated[0] or step.truncated[0])
    return RecordedEpisode(path, episode_return, length, ended)
