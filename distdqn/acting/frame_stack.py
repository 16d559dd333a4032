"""Observations as stacks of single frames.

Frames are stored and sent one by one; a stack exists only where a network is to see it,
and begins anew with each episode.

The frame at position p whose depth is d (how many of the frames right before it belong
to the same observation) is seen as

    [padding, ..., padding, frame p - d, ..., frame p]      `stack` places

with zeros for padding, or with frame p - d again (`ObservationSpec.padding`).

Symbols: `N` envs, `F` frames, `B` observations.
"""

from __future__ import annotations

import numpy as np

from distdqn.types import ObservationSpec


class FrameStack:
    """The newest `stack` frames of N envs that step together.

    Mechanism: every env has a row of twice as many places. A new frame goes to the next
    place of all rows, and the observations are a view of the last `stack` places; at a
    row's end its last frames move to its front.

    Life: `begin`, then `push` once per vector step.
    """

    def __init__(self, num_envs: int, observation: ObservationSpec):
        self._stack, self._is_zero = observation.stack, observation.padding == "zero"
        shape = (num_envs, 2 * self._stack, *observation.shape)
        self._rows = np.zeros(shape if self._stack > 1 else (num_envs, 0), observation.dtype)
        self._end = 0  # places of a row that are filled

    def begin(self, frames: np.ndarray) -> np.ndarray:
        """Starts all stacks anew with `frames [N, *shape]`; returns as `push`."""
        if self._stack == 1:
            return frames
        self._end = self._stack - 1
        return self.push(frames, np.ones(len(frames), bool))

    def push(self, frames: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Adds one frame per env.

        frames: `[N, *shape]`, copied where anything is stacked.
        starts: `[N]` bool; this frame is the first of an episode.

        Returns `[N, *obs_shape]`, a view that the next call changes; with stack 1 `frames`
        themselves.
        """
        if self._stack == 1:
            return frames
        rows, past = self._rows, self._stack - 1
        assert frames.shape == (len(rows), *rows.shape[2:]), (frames.shape, rows.shape)
        if self._end == rows.shape[1]:
            rows[:, :past] = rows[:, -past:]
            self._end = past
        end = self._end
        rows[:, end] = frames
        for env in starts.nonzero()[0]:
            rows[env, end - past : end] = 0 if self._is_zero else frames[env]
        self._end = end + 1
        return rows[:, end - past : end + 1]


def stacked(
    frames: np.ndarray, positions: np.ndarray, depths: np.ndarray, observation: ObservationSpec
) -> np.ndarray:
    """The observations at `positions`.

    frames: `[F, *shape]`, those of an env next to one another.
    positions: `[B]` integers, of the newest frames.  depths: `[B]` integers.

    Returns `[B, *obs_shape]`, new memory.
    """
    if observation.stack == 1:
        return frames.take(positions, axis=0)
    age = np.arange(observation.stack)[::-1]  # of each place, 0 the newest
    depth = depths.astype(np.intp)[:, None]
    out = frames.take(positions.astype(np.intp)[:, None] - np.minimum(age, depth), axis=0)
    if observation.padding == "zero":
        out[age > depth] = 0
    return out
