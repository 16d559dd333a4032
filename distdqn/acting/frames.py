"""Frames of envs that step together: stacked for the network, kept for a block.

They are stored and sent one by one; a stack exists only where a network is to see it, and
begins anew with each episode. `ObservationSpec.stacked` says how it looks.

Symbols: `N` envs, `F` frames, `M` some of them, `B` references to them, `A` actions.
"""

from collections.abc import Sequence

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


class FrameBuffer:
    """Frames in order of arrival, and their action masks once any came; grows by doubling.

    They arrive env by env in turn and leave with those of each env side by side, so that a
    stack of frames is a contiguous run wherever the block goes.

    frames: `[capacity, *shape]`, the first `size` of them filled.
    """

    def __init__(
        self, capacity: int, num_envs: int, observation: ObservationSpec, num_actions: int
    ):
        self.frames = np.zeros((capacity, *observation.shape), observation.dtype)
        self.size = 0
        self._stack = observation.stack
        # Of the smallest type: up to 16 bits numpy sorts by radix.
        self._owners = np.zeros(capacity, np.min_scalar_type(num_envs))
        self._num_actions = num_actions
        self._masks: np.ndarray | None = None  # [capacity, A], True where unknown

    def append(self, obs: np.ndarray, envs: np.ndarray, masks: np.ndarray | None) -> int:
        """Copies `obs [M, *shape]` of `envs [M]` in; returns the position of the first."""
        start, end = self.size, self.size + len(obs)
        assert obs.shape[1:] == self.frames.shape[1:], (obs.shape, self.frames.shape)
        if end > len(self.frames):
            self._grow(end)
        self.frames[start:end] = obs
        if self._stack > 1:
            self._owners[start:end] = envs
        if masks is not None and self._masks is None:
            self._masks = np.ones((len(self.frames), self._num_actions), bool)
        if self._masks is not None:
            self._masks[start:end] = True if masks is None else masks
        self.size = end
        return start

    def renumber(
        self, positions: Sequence[np.ndarray], depths: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which frames are referred to, and a new number for each.

        positions: of the newest frames of stacks, in arrays `[B]`.
        depths: how many of the env's frames before belong to each, likewise.

        Returns `[M]` positions in the order of their new numbers (by env where frames are stacked,
        then by arrival), and `[size]` int32, the number of a position that is referred to (0 for
        the others).
        """
        used = np.zeros(self.size, bool)
        if self._stack == 1:
            for newest in positions:
                used[newest] = True
            kept = used.nonzero()[0]
        else:
            order = self._owners[: self.size].argsort(kind="stable")
            rank = np.empty_like(order)  # the inverse: where a position comes in that order
            rank[order] = np.arange(self.size)
            for newest, depth in zip(positions, depths, strict=True):
                for k in range(self._stack):  # by rank a stack's frames lie side by side
                    used[rank.take(newest) - np.minimum(depth, k)] = True
            kept = order[used]
        renumbered = np.zeros(self.size, np.int32)
        renumbered[kept] = np.arange(len(kept))
        return kept, renumbered

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Copies of the frames at `positions` and of their masks."""
        masks = None if self._masks is None else self._masks.take(positions, axis=0)
        return self.frames.take(positions, axis=0), masks

    def keep(self, positions: np.ndarray) -> None:
        """Moves the frames at `positions` to the front and forgets the others."""
        self.size = len(positions)
        frames, masks = self.take(positions)
        self.frames[: self.size] = frames
        self._owners[: self.size] = self._owners.take(positions)
        if self._masks is not None:
            self._masks[: self.size] = masks

    def _grow(self, needed: int) -> None:
        extra = max(needed - len(self.frames), len(self.frames))

        def longer(array: np.ndarray, value: int = 0) -> np.ndarray:
            new = np.full((extra, *array.shape[1:]), value, array.dtype)
            return np.concatenate([array, new])

        self.frames, self._owners = longer(self.frames), longer(self._owners)
        self._masks = None if self._masks is None else longer(self._masks, 1)
