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

import collections
from collections.abc import Sequence

import numpy as np

from distdqn.acting.frames import FrameBuffer
from distdqn.types import BEFORE_ANY, ObservationSpec, Step, TransitionBlock, WeightsVersion

CAUSES = ("", "reward not finite", "observation not finite")
"""Why a step is bad: `Step.bad_what` with what is the matter."""

_FIRST_ROWS = 16  # buffers double from here


# One step of one env.
_ROW = np.dtype(
    [
        ("source", np.intp),  # position in the buffer of the frame acted from
        ("arrival", np.intp),  # of the frame that the action led to
        ("action", np.int32),
        ("reward", np.float32),
        ("depth", np.uint8),  # of the source
        ("terminated", bool),
        ("last", bool),  # no window goes on after this step
        ("bad", np.uint8),  # 0, or why: a position in `CAUSES`; implies last
        ("pending", bool),  # valid, and not emitted yet
    ],
    align=True,
)


class NStepAccumulator:
    """Takes vector steps, gives closed windows, carries the open ones.

    Life: `begin` with the first observations; `add` once per vector step; `emit` at any
    time. Open windows (at most the last n - 1 steps of each env) stay for the next
    `emit`, with only the frames they need: their sources, each env's current frame, and
    the stacks of these. Those few frames are stored in both blocks.

    Memory grows with the rows held, so `emit` bounds it.

    num_rows: vector steps held; the oldest of them are dropped by `emit`.
    refused_by: windows refused so far, by cause.
    """

    def __init__(
        self,
        num_envs: int,
        n_step: int,
        discount: float,
        observation: ObservationSpec,
        num_actions: int,
    ):
        assert n_step >= 1 and num_envs >= 1 and 0 <= discount <= 1, (n_step, num_envs, discount)
        self.num_rows = 0
        self.refused_by: collections.Counter[str] = collections.Counter()
        self._n_step = n_step
        self._discounts = discount ** np.arange(n_step + 1, dtype=np.float64)  # gamma^m
        self._envs = np.arange(num_envs)
        self._stack = observation.stack
        self._buffer = FrameBuffer(_FIRST_ROWS * num_envs, num_envs, observation, num_actions)
        # Of the row after the last only the source is known: each env's current frame.
        self._rows = np.zeros((_FIRST_ROWS, num_envs), _ROW)

    @property
    def num_pending(self) -> int:
        """Valid steps held whose transitions are not emitted yet."""
        return int(np.count_nonzero(self._rows["pending"][: self.num_rows]))

    @property
    def num_ready(self) -> int:
        """Pending steps with n - 1 rows after them, whose windows are closed for certain.

        `emit` takes out more where episodes ended within the last n - 1 rows.
        """
        rows = max(self.num_rows - self._n_step + 1, 0)
        return int(np.count_nonzero(self._rows["pending"][:rows]))

    def begin(self, obs: np.ndarray, action_mask: np.ndarray | None = None) -> None:
        """Starts the streams at frames `obs [N, *shape]`, with masks `[N, A]` where there are any.
        Raises RuntimeError: steps are pending, which would lose their arrivals."""
        if self.num_pending:
            raise RuntimeError(f"begin needs empty windows, {self.num_pending} steps are pending")
        self.num_rows = 0
        self._buffer.size = 0
        self._rows["source"][0] = self._buffer.append(obs, self._envs, action_mask) + self._envs
        self._rows["depth"][0] = 0

    def add(self, a_tm1: np.ndarray, step: Step) -> None:
        """One vector step with the actions `a_tm1 [N]`; everything is copied.

        Bad rows must be `restarted`, and rows that are not go on from `obs_t`, whatever
        `next_obs` says. One that is not `valid` closes the windows before it at their last
        observation; windows with a bad one are refused.
        """
        assert a_tm1.shape == step.r_t.shape == step.valid.shape == self._envs.shape, a_tm1.shape
        if self.num_rows + 1 == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        row, after = self._rows[self.num_rows : self.num_rows + 2]
        self.num_rows += 1
        row["action"], row["reward"] = a_tm1, step.r_t
        row["pending"], row["terminated"] = step.valid, step.terminated
        row["bad"] = step.bad * CAUSES.index(f"{step.bad_what} not finite") if step.bad_what else 0
        row["last"] = step.terminated | step.truncated
        start = self._buffer.append(step.obs_t, self._envs, step.action_mask_t)
        row["arrival"] = after["source"] = start + self._envs
        if self._stack > 1:
            depth = np.minimum(row["depth"] + 1, self._stack - 1)
            after["depth"] = np.where(step.starts, 0, depth)
        if np.count_nonzero(step.restarted):
            assert not (step.restarted > step.starts).any(), "frames before a reset are not stacked"
            envs = step.restarted.nonzero()[0]
            masks = None if step.next_action_mask is None else step.next_action_mask[envs]
            start = self._buffer.append(step.next_obs[envs], envs, masks)
            after["source"][envs] = start + np.arange(len(envs))
            row["last"][envs] = True
        if np.count_nonzero(step.bad):
            assert not (step.bad & ~step.restarted).any(), "a bad env must be reset: no next source"
            # Nobody refers to these; zeros keep NaN out of sums and out of the block.
            row["reward"][step.bad] = 0.0
            self._buffer.frames[row["arrival"][step.bad]] = 0

    def emit(
        self, flush: bool = False, versions: Sequence[WeightsVersion] | None = None
    ) -> TransitionBlock:
        """Takes out all closed windows, in the order of their first steps.

        flush: closes the open ones too, at each env's last observation, with gamma^m
          like a truncation. The streams may go on afterwards.
        versions: of the weights that acted in each row held.

        Returns an unsigned block, empty where no window has closed; its `refused` are the windows
        that touched a bad step, and are in no array of it.
        """
        rows = self._rows[: self.num_rows]
        pending, last = rows["pending"], rows["last"]
        last[:-1] |= ~pending[1:]
        if flush:
            last[-1:] = True
        returns, lengths, closed = _windows(rows["reward"], pending, last, self._discounts[:-1])
        block = self._block(returns, lengths, closed, versions)
        self._carry(pending & ~closed)
        return block

    def _block(
        self,
        returns: np.ndarray,
        lengths: np.ndarray,
        closed: np.ndarray,
        versions: Sequence[WeightsVersion] | None,
    ) -> TransitionBlock:
        """The closed windows; arrays `[R, N]` as `_windows` returns them."""
        first, length, begins, ends, refused = self._without_bad(lengths, closed)
        t_depth = np.minimum(ends["depth"] + 1, self._stack - 1).astype(np.uint8)
        used, renumbered = self._buffer.renumber(
            (begins["source"], ends["arrival"]), (begins["depth"], t_depth)
        )
        frames, action_mask = self._buffer.take(used)
        discount_t = np.where(ends["terminated"], 0.0, self._discounts.take(length))
        acted = versions[first[0] // len(self._envs)] if versions and len(first) else BEFORE_ANY
        return TransitionBlock(
            worker=0,
            incarnation=0,
            sequence=0,
            collected=0,
            refused=refused,
            weights_version=acted,
            frames=frames,
            tm1=renumbered.take(begins["source"]),
            t=renumbered.take(ends["arrival"]),
            tm1_depth=begins["depth"].copy(),
            t_depth=t_depth,
            a_tm1=begins["action"].copy(),
            r_t=returns.take(first).astype(np.float32),
            discount_t=discount_t.astype(np.float32),
            action_mask=action_mask,
        )

    def _without_bad(
        self, lengths: np.ndarray, closed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
        """Of the closed windows those with no bad step, and how many others there were.

        As columns `[B]`: the position of the first step in [R, N], the length, and the rows of the
        first and the last step.
        """
        first = closed.ravel().nonzero()[0]  # rows lie N apart
        length = lengths.take(first)
        rows = self._rows.reshape(-1)  # of records: `take` is far faster than an index
        begins, ends = rows.take(first), rows.take(first + (length - 1) * len(self._envs))
        causes = ends["bad"]
        if num_bad := np.count_nonzero(causes):
            self.refused_by.update(CAUSES[cause] for cause in causes[causes > 0].tolist())
            is_good = causes == 0
            first, length = first[is_good], length[is_good]
            begins, ends = begins[is_good], ends[is_good]
        return first, length, begins, ends, int(num_bad)

    def _carry(self, open_: np.ndarray) -> None:
        """Keeps the rows from the first with an open window `[R, N]`, and their frames."""
        positions = open_.ravel().nonzero()[0]
        first = int(positions[0]) // len(self._envs) if len(positions) else self.num_rows
        sources, current = self._rows.reshape(-1).take(positions), self._rows[self.num_rows]
        needed, renumbered = self._buffer.renumber(
            (sources["source"], current["source"]), (sources["depth"], current["depth"])
        )
        self._buffer.keep(needed)
        kept = self.num_rows - first
        self._rows[: kept + 1] = self._rows[first : self.num_rows + 1]
        self.num_rows = kept
        rows = self._rows[: kept + 1]
        rows["pending"][:kept] = open_[first:]
        # Where no window is open the numbers become meaningless, and are never used.
        rows["source"] = renumbered.take(rows["source"])
        rows["arrival"][:-1] = rows["source"][1:]


def _windows(
    rewards: np.ndarray, pending: np.ndarray, last: np.ndarray, discounts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums up the window that starts at each pending step.

    rewards: `[R, N]` finite.  pending, last: `[R, N]` bool.
    discounts: `[n]` float64, gamma^k.

    Returns `[R, N]` discounted sums, float64 so that the one rounding is the last cast; lengths m,
    int64; and bool, whether the window is closed.
    """
    returns = np.zeros(rewards.shape)
    lengths = np.zeros(rewards.shape, np.int64)
    open_ = pending.copy()
    for k in range(min(len(discounts), len(rewards))):
        goes_on = open_[: len(rewards) - k]  # a view: windows with a k-th reward
        # An array of one: a scalar times float32 is float32 in NumPy 1.
        returns[: len(goes_on)] += goes_on * (discounts[k : k + 1] * rewards[k:])
        lengths[: len(goes_on)] += goes_on
        goes_on &= ~last[k:]
    return returns, lengths, pending & (~open_ | (lengths == len(discounts)))
