"""The newest frames of envs as stacks.

Frames are stored and sent one by one; a stack exists only where a network is to see it,
and begins anew with each episode. `ObservationSpec.stacked` says how it looks.

Symbols: `N` envs.
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
