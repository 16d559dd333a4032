"""n-step transitions from parallel streams, observations stored once.

A window of up to n steps closes early where its episode ends, where the env was reset
from outside, and before a step that is no transition; each valid step is the first of
exactly one window. Gamma is applied here and nowhere else.

    r_t = sum_{k < m} gamma^k r_{k+1}        m <= n, steps in the window
    discount_t = gamma^m, 0 after termination

(Sutton and Barto 2018, eq. 7.1, with the bootstrap value left to the learner.)

Symbols: `N` envs, `R` rows (vector steps) held, `F` frames, `B` transitions, `A` actions.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from distdqn.types import ObservationSpec

_FIRST_ROWS = 16  # buffers double from here


@dataclasses.dataclass(frozen=True, slots=True)
class BlockPart:
    """Closed windows in the order of their first steps, with the frames they refer to.

    frames: `[F, *obs]`, in order of arrival, each referred to by some transition.
    tm1, t: `[B]` int32 positions of source and arrival in `frames`.
    a_tm1: `[B]` int32.  r_t, discount_t: `[B]` float32.
    action_mask: `[F, A]` bool, or None where none was ever given.
    refused: windows that touched a bad step, and are in no array here.
    first_row: of the rows held before `emit`, the one of the first transition.
    """

    frames: np.ndarray
    tm1: np.ndarray
    t: np.ndarray
    a_tm1: np.ndarray
    r_t: np.ndarray
    discount_t: np.ndarray
    action_mask: np.ndarray | None
    refused: int
    first_row: int


class NStepAccumulator:
    """Takes vector steps, gives closed windows, carries the open ones.

    Life: `begin` with the first observations; `add` once per vector step; `emit` at any
    time. Open windows (at most the last n - 1 steps of each env) stay for the next
    `emit`, with only the frames they need: their sources, and each env's current
    observation. Those few frames are stored in both blocks.

    Memory grows with the rows held, so `emit` bounds it.
    """

    def __init__(
        self,
        num_envs: int,
        n_step: int,
        discount: float,
        observation: ObservationSpec,
        num_actions: int,
    ):
        """Raises ValueError: n_step or num_envs below 1, discount outside [0, 1]."""
        if n_step < 1 or num_envs < 1 or not 0.0 <= discount <= 1.0:
            raise ValueError(
                "n-step windows need n_step >= 1, num_envs >= 1 and discount in [0, 1], got "
                f"n_step {n_step}, num_envs {num_envs}, discount {discount}"
            )
        self._n_step = n_step
        self._discounts = discount ** np.arange(n_step + 1, dtype=np.float64)  # gamma^m
        self._envs = np.arange(num_envs)
        self._buffer = _FrameBuffer(_FIRST_ROWS * num_envs, observation, num_actions)
        self._num_rows = 0
        shape = (_FIRST_ROWS, num_envs)
        # Positions are intp until they leave: indexing with int32 casts each time.
        self._sources = np.zeros((_FIRST_ROWS + 1, num_envs), np.intp)  # last row: current
        self._arrivals = np.zeros(shape, np.intp)
        self._actions = np.zeros(shape, np.int32)
        self._rewards = np.zeros(shape, np.float32)
        self._terminated = np.zeros(shape, bool)
        self._last = np.zeros(shape, bool)  # no window goes on after this step
        self._bad = np.zeros(shape, bool)  # implies last
        self._pending = np.zeros(shape, bool)  # valid, and not emitted yet

    @property
    def num_rows(self) -> int:
        """Vector steps held; the oldest of them are dropped by `emit`."""
        return self._num_rows

    @property
    def num_pending(self) -> int:
        """Valid steps held whose transitions are not emitted yet."""
        return int(np.count_nonzero(self._pending[: self._num_rows]))

    @property
    def num_ready(self) -> int:
        """Pending steps with n - 1 rows after them, whose windows are closed for certain.

        `emit` takes out more where episodes ended within the last n - 1 rows.
        """
        rows = max(self._num_rows - self._n_step + 1, 0)
        return int(np.count_nonzero(self._pending[:rows]))

    def begin(self, obs: np.ndarray, action_mask: np.ndarray | None = None) -> None:
        """Starts the streams at `obs [N, *obs]`, with masks `[N, A]` where there are any.

        Raises:
          RuntimeError: steps are pending, which would lose their arrivals.
        """
        if self.num_pending:
            raise RuntimeError(f"begin needs empty windows, {self.num_pending} steps are pending")
        self._num_rows = 0
        self._buffer.clear()
        self._sources[0] = self._buffer.append(obs, action_mask) + self._envs

    def add(
        self,
        a_tm1: np.ndarray,
        r_t: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        valid: np.ndarray,
        bad: np.ndarray,
        obs_t: np.ndarray,
        next_obs: np.ndarray,
        restarted: np.ndarray,
        action_mask_t: np.ndarray | None = None,
        next_action_mask: np.ndarray | None = None,
    ) -> None:
        """One vector step; everything is copied.

        Args:
          a_tm1: `[N]` integers.  r_t: `[N]` float32.
          terminated, truncated: `[N]` bool ends of episodes.
          valid: `[N]` bool; False where the step is no transition (an autoreset, or
            dropped): it closes the windows before it at their last observation.
          bad: `[N]` bool; windows with this step are refused.
          obs_t, action_mask_t: `[N, *obs]`, `[N, A]` what the actions led to.
          next_obs, next_action_mask: what the next actions start from; read only in
            rows that are `restarted`, the others go on from `obs_t`.
          restarted: `[N]` bool; reset within this step. Bad rows must be.
        """
        row = self._num_rows
        assert a_tm1.shape == r_t.shape == valid.shape == self._envs.shape, a_tm1.shape
        if row == len(self._actions):
            self._grow_rows()
        self._actions[row] = a_tm1
        self._rewards[row] = r_t
        self._terminated[row] = terminated
        self._pending[row] = valid
        self._bad[row] = bad
        np.logical_or(terminated, truncated, out=self._last[row])
        start = self._buffer.append(obs_t, action_mask_t)
        np.add(self._envs, start, out=self._arrivals[row])
        self._sources[row + 1] = self._arrivals[row]
        self._num_rows = row + 1
        if np.count_nonzero(restarted):
            self._restart(row, restarted, next_obs, next_action_mask)
        if np.count_nonzero(bad):
            assert not (bad & ~restarted).any(), "a bad env must be reset: it has no next source"
            # Nobody refers to these; zeros keep NaN out of sums and out of the block.
            self._rewards[row, bad] = 0.0
            self._buffer.frames[self._arrivals[row, bad]] = 0

    def emit(self, flush: bool = False) -> BlockPart:
        """Takes out all closed windows.

        Args:
          flush: closes the open ones too, at each env's last observation, with gamma^m
            like a truncation. The streams may go on afterwards.
        """
        rows = self._num_rows
        pending, last = self._pending[:rows], self._last[:rows]
        last[:-1] |= ~pending[1:]
        if flush:
            last[-1:] = True
        returns, lengths, closed = _windows(
            self._rewards[:rows], pending, last, self._discounts[:-1]
        )
        part = self._part(returns, lengths, closed)
        self._carry(pending & ~closed)
        return part

    def _part(self, returns: np.ndarray, lengths: np.ndarray, closed: np.ndarray) -> BlockPart:
        """The closed windows; arguments `[R, N]` as `_windows` returns them."""
        first = closed.ravel().nonzero()[0]  # [B], positions in [R, N]; rows lie N apart
        length = lengths.take(first)
        end = first + (length - 1) * len(self._envs)
        num_closed = len(first)
        if np.count_nonzero(bad := self._bad.take(end)):
            first, length, end = first[~bad], length[~bad], end[~bad]
        tm1, t = self._sources.take(first), self._arrivals.take(end)
        used, renumbered = _renumber(self._buffer.size, tm1, t)
        frames, action_mask = self._buffer.take(used)
        discount_t = np.where(self._terminated.take(end), 0.0, self._discounts.take(length))
        return BlockPart(
            frames=frames,
            tm1=renumbered.take(tm1),
            t=renumbered.take(t),
            a_tm1=self._actions.take(first),
            r_t=returns.take(first).astype(np.float32),
            discount_t=discount_t.astype(np.float32),
            action_mask=action_mask,
            refused=num_closed - len(first),
            first_row=int(first[0]) // len(self._envs) if len(first) else 0,
        )

    def _carry(self, open_: np.ndarray) -> None:
        """Keeps the rows from the first with an open window `[R, N]`, and their frames."""
        rows = self._num_rows
        positions = open_.ravel().nonzero()[0]
        first = int(positions[0]) // len(self._envs) if len(positions) else rows
        kept = rows - first
        needed, renumbered = _renumber(
            self._buffer.size, self._sources.take(positions), self._sources[rows]
        )
        self._buffer.keep(needed)
        # Where no window is open the numbers become meaningless, and are never used.
        self._sources[: kept + 1] = renumbered.take(self._sources[first : rows + 1])
        self._num_rows = kept
        if kept:
            self._arrivals[:kept] = self._sources[1 : kept + 1]
            for array in (self._actions, self._rewards, self._terminated, self._last, self._bad):
                array[:kept] = array[first:rows]
            self._pending[:kept] = open_[first:]

    def _restart(
        self, row: int, restarted: np.ndarray, next_obs: np.ndarray, masks: np.ndarray | None
    ) -> None:
        self._last[row] |= restarted
        envs = np.flatnonzero(restarted)
        start = self._buffer.append(next_obs[envs], None if masks is None else masks[envs])
        self._sources[row + 1, envs] = start + np.arange(len(envs))

    def _grow_rows(self) -> None:
        names = "_sources _arrivals _actions _rewards _terminated _last _bad _pending"
        for name in names.split():
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros_like(array[: self._num_rows])]))


class _FrameBuffer:
    """Frames in order of arrival, and their action masks once any came; grows by doubling.

    frames: `[capacity, *obs]`, the first `size` of them filled.
    """

    def __init__(self, capacity: int, observation: ObservationSpec, num_actions: int):
        self.frames = np.zeros((capacity, *observation.shape), observation.dtype)
        self.size = 0
        self._num_actions = num_actions
        self._masks: np.ndarray | None = None  # [capacity, A], True where unknown

    def append(self, obs: np.ndarray, masks: np.ndarray | None) -> int:
        """Copies `obs [M, *obs]` in; returns the position of the first."""
        start, end = self.size, self.size + len(obs)
        assert obs.shape[1:] == self.frames.shape[1:], (obs.shape, self.frames.shape)
        if end > len(self.frames):
            self._grow(end)
        self.frames[start:end] = obs
        if masks is not None and self._masks is None:
            self._masks = np.ones((len(self.frames), self._num_actions), bool)
        if self._masks is not None:
            self._masks[start:end] = True if masks is None else masks
        self.size = end
        return start

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Copies of the frames at `positions` and of their masks."""
        masks = None if self._masks is None else self._masks.take(positions, axis=0)
        return self.frames.take(positions, axis=0), masks

    def keep(self, positions: np.ndarray) -> None:
        """Moves the frames at `positions` to the front and forgets the others."""
        self.size = len(positions)
        frames, masks = self.take(positions)
        self.frames[: self.size] = frames
        if self._masks is not None:
            self._masks[: self.size] = masks

    def clear(self) -> None:
        self.size = 0

    def _grow(self, needed: int) -> None:
        extra = max(needed - len(self.frames), len(self.frames))
        new = np.zeros((extra, *self.frames.shape[1:]), self.frames.dtype)
        self.frames = np.concatenate([self.frames, new])
        if self._masks is not None:
            self._masks = np.concatenate([self._masks, np.ones((extra, self._num_actions), bool)])


def _renumber(size: int, *references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the positions below `size` are referred to, and a new number for each.

    Returns:
      `[M]` positions in ascending order, and `[size]` int32, the place in that order of
      a position that is referred to (0 for the others).
    """
    used = np.zeros(size, bool)
    for positions in references:
        used[positions] = True
    positions = used.nonzero()[0]
    renumbered = np.zeros(size, np.int32)
    renumbered[positions] = np.arange(len(positions))
    return positions, renumbered


def _windows(
    rewards: np.ndarray, pending: np.ndarray, last: np.ndarray, discounts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums up the window that starts at each pending step.

    Args:
      rewards: `[R, N]` finite.  pending, last: `[R, N]` bool.
      discounts: `[n]` float64, gamma^k.

    Returns:
      `[R, N]` discounted sums, float64 so that the one rounding is the last cast;
      lengths m, int64; and bool, whether the window is closed.
    """
    returns = np.zeros(rewards.shape)
    lengths = np.zeros(rewards.shape, np.int64)
    open_ = pending.copy()
    for k in range(min(len(discounts), len(rewards))):
        goes_on = open_[: len(rewards) - k]  # a view: windows with a k-th reward
        returns[: len(goes_on)] += goes_on * (discounts[k] * rewards[k:])
        lengths[: len(goes_on)] += goes_on
        goes_on &= ~last[k:]
    return returns, lengths, pending & (~open_ | (lengths == len(discounts)))
