"""One greedy episode as an mp4 file, its action values beside the picture.

The episode is played first, its pictures going compressed into a temporary file, and is
drawn when it is over: one scale serves all its pictures, and the curve of the largest value
is there as a whole from the start, brighter up to the present step.

Symbols: `T` steps, `A` actions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from distdqn.acting.exploration import epsilon_greedy
from distdqn.acting.frames import FrameStack

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

_CODEC_BLOCK = 2  # pixels; otherwise imageio enlarges pictures to multiples of 16
MIN_HEIGHT = 400  # pixels of the whole picture
MAX_ROWS = 20  # of more actions only the best are drawn
_WIDTH, _MARGIN = 320, 16
_HEADER, _AXIS, _CURVE = 52, 20, 100  # heights in pixels, the rows after the header
_MAX_CURVE = 180
_ROW, _MIN_ROW = 30, 17
_NAME, _NUMBER = 112, 58  # pixels left and right of a bar

_BACKGROUND, _TEXT, _FAINT, _TRACK = "#16181d", "#e6e8ec", "#7d8592", "#262a32"
BAR, CHOSEN, _FORBIDDEN = "#4b6a94", "#f2a63b", "#3a3f49"


@dataclasses.dataclass(frozen=True)
class PlayedEpisode:
    """What an agent saw in its actions at each step of an episode.

    values: `[T, A]` float action values.
    actions: `[T]` int, the chosen ones.
    returns: `[T]` float64 undiscounted sum of raw rewards before each step.
    allowed: `[T, A]` bool.
    names: of the actions, A of them.
    """

    values: np.ndarray
    actions: np.ndarray
    returns: np.ndarray
    allowed: np.ndarray
    names: Sequence[str]


def record_video(
    make_stepper: Callable[[], Any],
    q_values: Callable[[np.ndarray], np.ndarray],
    path: Path,
    seed: int,
    max_steps: int,
    epsilon: float = 0.0,
) -> PlayedEpisode:
    """Plays one greedy episode, masks respected, and records its first env.

    make_stepper: builds a `VectorStepper` with `render_mode="rgb_array"`; one is enough.
    q_values: observations `[N, *obs_shape]` to action values `[N, A]`.
    path: of the mp4 file; its folder is created, an older file replaced. It has a frame for
      each observation acted on.
    max_steps: steps after which the recording stops.
    epsilon: probability of a random action.
    Raises EnvError where the environment renders no RGB picture.
    """
    with contextlib.closing(make_stepper()) as stepper, tempfile.TemporaryFile() as file:
        pictures = _Pictures(file)
        episode = _play(stepper, q_values, pictures, seed, max_steps, epsilon)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.stem}.partial.mp4")
        try:
            _encode(episode, pictures, partial, stepper.frames_per_second)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return episode


def require_pictures(make_stepper: Callable[[], Any]) -> None:
    """Raises EnvError where what `record_video` would film renders no RGB picture."""
    with contextlib.closing(make_stepper()) as stepper:
        stepper.reset(seed=0)
        stepper.render()


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
    seed: int,
    max_steps: int,
    epsilon: float,
) -> PlayedEpisode:
    """The first episode of the first env."""
    rng, epsilons = np.random.default_rng(seed), np.full(stepper.num_envs, epsilon)
    stack = FrameStack(stepper.num_envs, stepper.observation)
    obs = stack.begin(stepper.reset(seed=seed))
    steps, returned, ended = list[Any](), 0.0, False
    while not ended and len(steps) < max_steps:
        pictures.append(stepper.render())
        q, mask = q_values(obs), stepper.action_mask
        chosen = epsilon_greedy(q, epsilons, rng, mask)
        allowed = np.ones(len(q[0]), bool) if mask is None else mask[0].copy()
        steps.append((q[0].copy(), int(chosen[0]), returned, allowed))
        step = stepper.step(chosen)
        obs = stack.push(step.next_obs, step.starts)
        returned += float(step.raw_reward[0])
        ended = bool(step.ended[0])
    values, actions, returns, allowed = map(np.array, zip(*steps, strict=True))
    return PlayedEpisode(values, actions, returns, allowed, stepper.action_names)


def _encode(episode: PlayedEpisode, pictures: _Pictures, path: Path, fps: int) -> None:
    import imageio.v2  # only here: nothing else in a run needs it

    panel = ValuePanel(episode, pictures.shape)
    options: dict[str, Any] = {"fps": fps, "macro_block_size": _CODEC_BLOCK, "codec": "libx264"}
    writer: Any = imageio.v2.get_writer(path, **options)
    with contextlib.closing(writer):  # its own `with` does not close it after an error
        for step, picture in enumerate(pictures):
            writer.append_data(panel.draw(picture, step))


class ValuePanel:
    """Draws the steps of one episode, each beside its picture.

    A bar per action from the smallest value of the episode to the action's, the chosen
    one in another colour, and the value as a number; the largest value of an allowed
    action over time; step and return so far. Where there are more than 20 actions: the
    chosen one, then the best of those allowed.
    """

    def __init__(self, episode: PlayedEpisode, picture_shape: tuple[int, ...]):
        """picture_shape: `(H, W, 3)` of the pictures to come; small ones are enlarged."""
        from PIL import Image, ImageFont  # only here: nothing else in a run draws

        self._episode = episode
        num_rows = min(episode.values.shape[1], MAX_ROWS)
        height, width = picture_shape[:2]
        self._scale = max(-(-MIN_HEIGHT // height), 1)
        needed = _HEADER + _MIN_ROW * num_rows + _AXIS + _CURVE
        full_height = max(height * self._scale, needed)
        self._size = _even(width * self._scale + _WIDTH), _even(full_height)
        self._left, self._right = self._size[0] - _WIDTH, self._size[0] - _MARGIN
        self._corner = (0, (self._size[1] - height * self._scale) // 2)
        space, self._num_rows = self._size[1] - _HEADER - _AXIS, num_rows
        self._row = min((space - _CURVE) // num_rows, _ROW)
        self._font = ImageFont.load_default(min(self._row - 4, 14))
        self._small, self._large = ImageFont.load_default(11), ImageFont.load_default(18)
        self._curve_top = self._size[1] - min(space - self._row * num_rows, _MAX_CURVE)
        self._low, self._high = _range(episode.values)
        self._digits = _digits(episode.values)
        best = np.where(episode.allowed, episode.values, -np.inf).max(axis=1)
        self._curve_range = _range(best)
        self._curve = self._curve_points(best)
        self._blank = Image.new("RGB", self._size, _BACKGROUND)
        self._draw_constant()

    def draw(self, picture: np.ndarray, step: int) -> np.ndarray:
        """`[H', W', 3]` uint8, both sides even: `picture [H, W, 3]` with the values of `step`."""
        from PIL import Image, ImageDraw

        canvas = self._blank.copy()
        image = Image.fromarray(picture)
        size = image.width * self._scale, image.height * self._scale
        canvas.paste(image.resize(size, Image.Resampling.NEAREST), self._corner)
        pen = ImageDraw.Draw(canvas)
        total = f"return {self._episode.returns[step]:,.6g}"
        pen.text((self._left + _MARGIN, 15), total, _TEXT, self._large)
        pen.text((self._right, 15), f"step {step:,}", _TEXT, self._large, anchor="ra")
        self._draw_bars(pen, step)
        self._draw_curve(pen, step)
        return np.asarray(canvas)

    def _draw_constant(self) -> None:
        """What is the same in every picture: the bars' scale and the whole curve."""
        from PIL import ImageDraw

        pen = ImageDraw.Draw(self._blank)
        y = _HEADER + self._row * self._num_rows + 2
        first, last = self._bar_x(self._low), self._bar_x(self._high)
        pen.text((first, y), self._number(self._low), _FAINT, self._small)
        pen.text((last, y), self._number(self._high), _FAINT, self._small, anchor="ra")
        low, high = self._curve_range
        ends = f"{self._number(low)}  to  {self._number(high)}"
        pen.text((self._left + _MARGIN, self._curve_top), "max Q", _FAINT, self._small)
        pen.text((self._right, self._curve_top), ends, _FAINT, self._small, anchor="ra")
        pen.line(self._curve, _FORBIDDEN, 2)

    def _draw_bars(self, pen: ImageDraw.ImageDraw, step: int) -> None:
        values, allowed = self._episode.values[step], self._episode.allowed[step]
        order = np.arange(len(values))
        if len(values) > self._num_rows:
            chosen = np.arange(len(values)) == self._episode.actions[step]
            order = np.lexsort((-values, ~allowed, ~chosen))[: self._num_rows]
        left, right = self._bar_x(self._low), self._bar_x(self._high)
        for row, action in enumerate(order.tolist()):
            top, value = _HEADER + row * self._row, float(values[action])
            bar, text = BAR, _FAINT
            if action == self._episode.actions[step]:
                bar, text = CHOSEN, _TEXT
            elif not allowed[action]:
                bar, text = _FORBIDDEN, _FORBIDDEN
            middle, inset = top + self._row // 2, 2 + self._row // 8
            upper, lower = top + inset, top + self._row - inset
            pen.rectangle((left, upper, right, lower), _TRACK)
            pen.rectangle((left, upper, self._bar_x(value), lower), bar)
            name = _shortened(self._episode.names[action], self._font, _NAME - 8)
            pen.text((self._left + _MARGIN, middle), name, text, self._font, anchor="lm")
            pen.text((self._right, middle), self._number(value), text, self._font, anchor="rm")

    def _draw_curve(self, pen: ImageDraw.ImageDraw, step: int) -> None:
        num_steps = len(self._episode.values)
        reached = 1 + step * (len(self._curve) - 1) // max(num_steps - 1, 1)
        if reached > 1:
            pen.line(self._curve[:reached], CHOSEN, 2)
        x, y = self._curve[reached - 1]
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), CHOSEN)

    def _curve_points(self, best: np.ndarray) -> list[tuple[float, float]]:
        """`best [T]` over time, a point per step but at most one per pixel."""
        width = _WIDTH - 2 * _MARGIN
        steps = np.linspace(0, len(best) - 1, min(len(best), width)).astype(int)
        share = _share(best[steps], *self._curve_range)
        top, bottom = self._curve_top + 20, self._size[1] - _MARGIN
        x = self._left + _MARGIN + width * steps / max(len(best) - 1, 1)
        y = bottom - (bottom - top) * share
        return list(zip(x.tolist(), y.tolist(), strict=True))

    def _bar_x(self, value: float) -> float:
        first, last = self._left + _MARGIN + _NAME, self._right - _NUMBER
        return first + (last - first) * float(_share(value, self._low, self._high))

    def _number(self, value: float) -> str:
        return f"{value:.{self._digits}f}" if abs(value) < 1e4 else f"{value:.5g}"


def _range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value, apart from one another."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = max(0.05 * (high - low), 1e-3 * max(abs(low), abs(high)), 1e-6)
    return low - margin, high + margin


def _share(values: np.ndarray | float, low: float, high: float) -> np.ndarray:
    """Where between `low` (0) and `high` (1) finite values lie; others at an end, NaN at 0."""
    clipped = np.clip(np.asarray(values, np.float64), low, high)
    return np.nan_to_num((clipped - low) / (high - low), nan=0.0)


def _digits(values: np.ndarray) -> int:
    """Decimals that tell a twentieth of how far the actions of a step lie apart."""
    finite = np.where(np.isfinite(values), values, 0.0)
    apart = float(np.median(np.ptp(finite, axis=1))) or 1.0
    return min(max(1 - math.floor(math.log10(apart)), 0), 4)


def _even(pixels: int) -> int:
    """The video codec halves both sides of the picture for its colours."""
    return pixels + pixels % 2


def _shortened(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    while len(name) > 1 and font.getlength(name) > width:
        name = name[:-2] + "." if name.endswith(".") else name[:-1] + "."
    return name
