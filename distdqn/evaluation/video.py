"""One greedy episode as an mp4 file, its action values beside the picture.

The episode is played first, its pictures going compressed into a temporary file, and is
drawn when it is over: only then is the scale of its values known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from distdqn.acting.exploration import epsilon_greedy
from distdqn.acting.frames import FrameStack
from distdqn.evaluation.value_panel import PlayedEpisode, ValuePanel

_CODEC_BLOCK = 2  # pixels; imageio would else enlarge pictures to multiples of 16


@dataclasses.dataclass(frozen=True)
class RecordedEpisode:
    """What the video shows.

    path: of the mp4 file.
    episode_return: undiscounted sum of raw rewards, as far as recorded.
    length: steps; the video has one frame for each observation acted on.
    ended: the episode (the whole game) ended within `max_steps`.
    """

    path: Path
    episode_return: float
    length: int
    ended: bool


def record_video(
    make_stepper: Callable[[], Any],
    q_values: Callable[[np.ndarray], np.ndarray],
    path: str | Path,
    seed: int,
    max_steps: int,
    epsilon: float = 0.0,
) -> RecordedEpisode:
    """Plays one greedy episode, masks respected, and records its first env.

    Args:
      make_stepper: builds a `VectorStepper` with `render_mode="rgb_array"`; one is enough.
      q_values: observations `[N, *obs_shape]` to action values `[N, A]`.
      path: of the mp4 file; its folder is created, an older file replaced.
      max_steps: steps after which the recording stops.
      epsilon: probability of a random action.

    Raises:
      EnvError: the environment renders no RGB picture, in one line.
    """
    path = Path(path)
    with contextlib.closing(make_stepper()) as stepper, tempfile.TemporaryFile() as file:
        pictures = _Pictures(file)
        episode, recorded = _play(stepper, q_values, pictures, path, seed, max_steps, epsilon)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.stem}.partial.mp4")
        try:
            _encode(episode, pictures, partial, stepper.frames_per_second)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return recorded


class _Pictures:
    """Pictures of one shape on disk: 27,000 of an Atari game would fill 2.7 GB of memory.

    Life: `append` each, then iterate once.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self._sizes = file, list[int]()
        self.shape: tuple[int, ...] = ()

    def append(self, picture: np.ndarray) -> None:
        """picture: `[H, W, 3]` uint8."""
        self.shape = picture.shape
        self._sizes.append(self._file.write(zlib.compress(picture.tobytes(), level=1)))

    def __iter__(self) -> Iterator[np.ndarray]:
        self._file.seek(0)
        for size in self._sizes:
            data = zlib.decompress(self._file.read(size))
            yield np.frombuffer(data, np.uint8).reshape(self.shape)


def _play(
    stepper: Any,
    q_values: Callable[[np.ndarray], np.ndarray],
    pictures: _Pictures,
    path: Path,
    seed: int,
    max_steps: int,
    epsilon: float,
) -> tuple[PlayedEpisode, RecordedEpisode]:
    """The first episode of the first env, as it is drawn and as it is reported."""
    rng, epsilons = np.random.default_rng(seed), np.full(stepper.num_envs, epsilon)
    stack = FrameStack(stepper.num_envs, stepper.observation)
    obs = stack.begin(stepper.reset(seed=seed))
    values: list[np.ndarray] = []
    allowed: list[np.ndarray] = []
    actions: list[int] = []
    returns = [0.0]
    length, ended = 0, False
    while not ended and len(actions) < max_steps:
        pictures.append(stepper.render())
        q, mask = q_values(obs), stepper.action_mask
        chosen = epsilon_greedy(q, epsilons, rng, mask)
        values.append(q[0].copy())
        actions.append(int(chosen[0]))
        allowed.append(np.ones(len(q[0]), bool) if mask is None else mask[0].copy())
        step = stepper.step(chosen)
        obs = stack.push(step.next_obs, step.starts)
        returns.append(returns[-1] + float(step.raw_reward[0]))
        length += int(step.valid[0])
        ended = bool(step.ended[0])
    episode = PlayedEpisode(
        values=np.stack(values),
        actions=np.array(actions),
        returns=np.array(returns[:-1]),
        allowed=np.stack(allowed),
        names=stepper.action_names,
    )
    return episode, RecordedEpisode(path, returns[-1], length, ended)


def _encode(episode: PlayedEpisode, pictures: _Pictures, path: Path, fps: int) -> None:
    import imageio.v2  # only here: nothing else in a run needs it

    panel = ValuePanel(episode, pictures.shape)
    writer: Any = imageio.v2.get_writer(
        path, fps=fps, macro_block_size=_CODEC_BLOCK, codec="libx264"
    )
    with contextlib.closing(writer):  # its own `with` does not close it after an error
        for step, picture in enumerate(pictures):
            writer.append_data(panel.draw(picture, step))
