"""n-step transitions from parallel streams, frames stored once.

A window of up to n steps closes early where its episode ends, where the env was reset
from outside, and before a step that is no transition; each valid step is the first of
exactly one window. Gamma is applied here and nowhere else.

    r_t = sum_{k < m} gamma^k r_{k+1}        m <= n, steps in the window
    discount_t = gamma^m, 0 after termination

(Sutton and Barto 2018, eq. 7.1, with the bootstrap value left to the learner.)

Where frames are stacked, a source or an arrival is a frame and a depth: how many of the
env's frames right before it are of its episode and within the stack.

    source depth = 0 at the start of an episode, else min(depth before + 1, stack - 1)
    arrival depth = min(source depth + 1, stack - 1)

So the one frame at which an episode of learning ends and the next begins (a lost life)
is an arrival with its whole stack, and a source without.

Symbols: `N` envs, `R` rows (vector steps) held, `F` frames, `B` transitions, `A` actions.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from distdqn.acting.frame_buffer import FrameBuffer
from distdqn.types import ObservationSpec

_FIRST_ROWS = 16  # buffers double from here


@dataclasses.dataclass(frozen=True, slots=True)
class BlockPart:
    """Closed windows in the order of their first steps, with the frames they refer to.

    frames: `[F, *shape]`, each in the stack of some source or arrival; those of each env
      together and in the order of arrival (without stacks: all in that order).
    tm1, t: `[B]` int32 positions of source and arrival in `frames`.
    tm1_depth, t_depth: `[B]` uint8, how many of the frames before belong to each.
    a_tm1: `[B]` int32.  r_t, discount_t: `[B]` float32.
    action_mask: `[F, A]` bool, or None where none was ever given.
    refused: windows that touched a bad step, and are in no array here.
    first_row: of the rows held before `emit`, the one of the first transition.
    """

    frames: np.ndarray
    tm1: np.ndarray
    t: np.ndarray
    tm1_depth: np.ndarray
    t_depth: np.ndarray
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
    `emit`, with only the frames they need: their sources, each env's current frame, and
    the stacks of these. Those few frames are stored in both blocks.

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
        self._stack = observation.stack
        self._buffer = FrameBuffer(_FIRST_ROWS * num_envs, num_envs, observation, num_actions)
        self._num_rows = 0
        shape = (_FIRST_ROWS, num_envs)
        # Positions are intp until they leave: indexing with int32 casts each time.
        self._sources = np.zeros((_FIRST_ROWS + 1, num_envs), np.intp)  # last row: current
        self._depths = np.zeros((_FIRST_ROWS + 1, num_envs), np.uint8)  # of the sources
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
        """Starts the streams at frames `obs [N, *shape]`, with masks `[N, A]` where there are any.

        Raises:
          RuntimeError: steps are pending, which would lose their arrivals.
        """
        if self.num_pending:
            raise RuntimeError(f"begin needs empty windows, {self.num_pending} steps are pending")
        self._num_rows = 0
        self._buffer.clear()
        self._sources[0] = self._buffer.append(obs, self._envs, action_mask) + self._envs
        self._depths[0] = 0

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
        starts: np.ndarray,
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
          obs_t, action_mask_t: `[N, *shape]`, `[N, A]` what the actions led to.
          next_obs, next_action_mask: what the next actions start from; read only in
            rows that are `restarted`, the others go on from `obs_t`.
          restarted: `[N]` bool; reset within this step. Bad rows must be.
          starts: `[N]` bool; the next action is the first of an episode, whose stack
            begins anew: rows that are `restarted`, and those that go on from the frame
            `obs_t` alone (a lost life, or a step that only reset the env).
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
        start = self._buffer.append(obs_t, self._envs, action_mask_t)
        np.add(self._envs, start, out=self._arrivals[row])
        self._sources[row + 1] = self._arrivals[row]
        self._num_rows = row + 1
        if self._stack > 1:
            np.minimum(self._depths[row] + 1, self._stack - 1, out=self._depths[row + 1])
            self._depths[row + 1, starts] = 0
        if np.count_nonzero(restarted):
            assert not np.count_nonzero(restarted > starts), "frames before a reset are not stacked"
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
        tm1_depth, t_depth = self._depths.take(first), self._depths.take(end)
        if self._stack > 1:
            t_depth = np.minimum(t_depth + 1, self._stack - 1).astype(np.uint8)
        used, renumbered = self._buffer.renumber((tm1, t), (tm1_depth, t_depth))
        frames, action_mask = self._buffer.take(used)
        discount_t = np.where(self._terminated.take(end), 0.0, self._discounts.take(length))
        return BlockPart(
            frames=frames,
            tm1=renumbered.take(tm1),
            t=renumbered.take(t),
            tm1_depth=tm1_depth,
            t_depth=t_depth,
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
        needed, renumbered = self._buffer.renumber(
            (self._sources.take(positions), self._sources[rows]),
            (self._depths.take(positions), self._depths[rows]),
        )
        self._buffer.keep(needed)
        # Where no window is open the numbers become meaningless, and are never used.
        self._sources[: kept + 1] = renumbered.take(self._sources[first : rows + 1])
        self._depths[: kept + 1] = self._depths[first : rows + 1]
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
        masks = None if masks is None else masks[envs]
        start = self._buffer.append(next_obs[envs], envs, masks)
        self._sources[row + 1, envs] = start + np.arange(len(envs))

    def _grow_rows(self) -> None:
        names = "_sources _depths _arrivals _actions _rewards _terminated _last _bad _pending"
        for name in names.split():
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros_like(array[: self._num_rows])]))


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
