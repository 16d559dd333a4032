"""n-step windows: numbers by hand, borders, refusals, and a plain twin.

Observations are `[env, time]`, so a transition says by itself what it connects.
Returns are summed in float64 and rounded once: they equal the float32 of the exact sum.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_parts import make_step

from distdqn.acting.n_step import NStepAccumulator
from distdqn.types import BEFORE_ANY, ObservationSpec, WeightsVersion

SPEC = ObservationSpec((2,), "float32")


@dataclasses.dataclass
class Row:
    """One step of one env."""

    r: float = 0.0
    a: int = 0
    terminated: bool = False
    truncated: bool = False
    valid: bool = True
    bad: bool = False
    restarted: bool = False


class Feed:
    """Adds rows to an accumulator and remembers full transitions for the twin."""

    def __init__(self, num_envs, n_step, discount, masks=False):
        self.accumulator = NStepAccumulator(num_envs, n_step, discount, SPEC, num_actions=3)
        self.n_step, self.discount, self.masks = n_step, discount, masks
        self.time = 0
        self.source = self.observe(range(num_envs))
        self.history: list[list] = [[] for _ in range(num_envs)]  # (source, row, arrival)
        self.accumulator.begin(self.source, self.mask_of(self.source))

    def observe(self, envs):
        """New observations; every one is seen once."""
        self.time += 1
        return np.array([[env, self.time] for env in envs], np.float32).reshape(-1, 2)

    def mask_of(self, obs):
        return obs[:, 1:] % np.array([2, 3, 5]) == 0 if self.masks else None

    def step(self, *rows):
        arrival = self.observe(range(len(rows)))
        for env, row in enumerate(rows):
            self.history[env].append((self.source[env], row, arrival[env]))
        column = {name: np.array([getattr(row, name) for row in rows]) for name in ROW_NAMES}
        restarted, bad = column["restarted"], column["bad"]
        following = arrival.copy()
        if restarted.any():
            following[restarted] = self.observe(np.flatnonzero(restarted))
        seen = np.where(bad[:, None], np.nan, arrival)
        step = make_step(
            seen.astype(np.float32),
            r_t=np.where(bad, np.nan, column["r"]).astype(np.float32),
            next_obs=following,
            action_mask_t=self.mask_of(arrival),
            next_action_mask=self.mask_of(following),
            starts=restarted,
            **{name: column[name] for name in ROW_NAMES if name not in "ra"},
        )
        self.accumulator.add(column["a"], step)
        self.source = following

    def twin(self):
        """Transitions by a loop over each env's steps, and how many are refused."""
        transitions, refused = [], 0
        for steps in self.history:
            for i in range(len(steps)):
                if not steps[i][1].valid:
                    continue
                window = [steps[i]]
                while len(window) < self.n_step and not ends(window[-1][1]):
                    after = steps[i + len(window) : i + len(window) + 1]
                    if not after or not after[0][1].valid:
                        break
                    window += after
                if window[-1][1].bad:
                    refused += 1
                else:
                    transitions.append(self.combine(window))
        return sorted(transitions), refused

    def combine(self, window):
        total = sum(self.discount**k * row.r for k, (_, row, _) in enumerate(window))
        terminated = window[-1][1].terminated
        return (
            tuple(window[0][0]),
            window[0][1].a,
            np.float32(total),
            np.float32(0.0 if terminated else self.discount ** len(window)),
            tuple(window[-1][2]),
        )


ROW_NAMES = [field.name for field in dataclasses.fields(Row)]


def ends(row):
    return row.terminated or row.truncated or row.restarted or row.bad


def transitions_of(part):
    """Emitted transitions with their observations instead of positions."""
    return [
        (tuple(part.frames[tm1]), int(a), r, discount, tuple(part.frames[t]))
        for tm1, t, a, r, discount in zip(
            part.tm1, part.t, part.a_tm1, part.r_t, part.discount_t, strict=True
        )
    ]


def numbers(part):
    """(source time, arrival time, r_t, discount_t) of a one-env part."""
    return [
        (source[1], arrival[1], pytest.approx(r), pytest.approx(discount))
        for source, _, r, discount, arrival in transitions_of(part)
    ]


def test_a_full_window_sums_discounted_rewards_and_the_open_ones_wait():
    feed = Feed(1, 3, 0.5)
    for reward in (1, 2, 4, 8):
        feed.step(Row(r=reward, a=int(reward) % 3))
    part = feed.accumulator.emit()
    # 1 + 0.5 * 2 + 0.25 * 4 = 3; 2 + 0.5 * 4 + 0.25 * 8 = 6; gamma^3 = 0.125
    assert numbers(part) == [(1, 4, 3, 0.125), (2, 5, 6, 0.125)]
    assert part.a_tm1.tolist() == [1, 2]
    assert feed.accumulator.num_pending == 2


def test_the_arrays_have_the_types_of_a_block():
    feed = Feed(2, 1, 0.9)
    feed.step(Row(), Row())
    part = feed.accumulator.emit()
    assert [part.tm1.dtype, part.t.dtype, part.a_tm1.dtype] == [np.int32] * 3
    assert [part.r_t.dtype, part.discount_t.dtype, part.frames.dtype] == [np.float32] * 3
    assert part.action_mask is None


def test_termination_keeps_the_tails_without_bootstrap():
    feed = Feed(1, 3, 0.5)
    feed.step(Row(r=1))
    feed.step(Row(r=2))
    feed.step(Row(r=4, terminated=True, restarted=True))
    # 1 + 1 + 1; 2 + 2; 4
    assert numbers(feed.accumulator.emit()) == [(1, 4, 3, 0), (2, 4, 4, 0), (3, 4, 4, 0)]
    assert feed.accumulator.num_pending == 0


def test_truncation_keeps_the_bootstrap_discount():
    feed = Feed(1, 3, 0.5)
    feed.step(Row(r=1))
    feed.step(Row(r=2, truncated=True, restarted=True))
    assert numbers(feed.accumulator.emit()) == [(1, 3, 2, 0.25), (2, 3, 2, 0.5)]


def test_termination_wins_where_a_step_is_both():
    feed = Feed(1, 1, 0.5)
    feed.step(Row(r=1, terminated=True, truncated=True, restarted=True))
    assert numbers(feed.accumulator.emit()) == [(1, 2, 1, 0)]


def test_the_next_episode_starts_at_the_reset_observation():
    feed = Feed(1, 2, 0.5)
    feed.step(Row(r=1, terminated=True, restarted=True))  # arrives at 2, restarts at 3
    feed.step(Row(r=2))
    feed.step(Row(r=4))
    part = feed.accumulator.emit()
    assert numbers(part) == [(1, 2, 1, 0), (3, 5, 4, 0.25)]
    assert part.frames[:, 1].tolist() == [1, 2, 3, 5]


def test_an_autoreset_step_is_no_transition_and_its_arrival_is_the_next_source():
    feed = Feed(1, 2, 0.5)
    feed.step(Row(r=1))
    feed.step(Row(r=2, truncated=True))  # arrives at 3, the final observation
    feed.step(Row(r=99, valid=False))  # arrives at 4, the reset observation
    feed.step(Row(r=4, terminated=True))
    assert numbers(feed.accumulator.emit()) == [(1, 3, 2, 0.25), (2, 3, 2, 0.5), (4, 5, 4, 0)]


def test_a_dropped_step_closes_the_window_before_it_with_a_bootstrap():
    feed = Feed(1, 3, 0.5)
    feed.step(Row(r=1))
    feed.step(Row(r=2))
    feed.step(Row(r=99, valid=False))
    feed.step(Row(r=4))
    part = feed.accumulator.emit()
    assert numbers(part) == [(1, 3, 2, 0.25), (2, 3, 2, 0.5)]
    assert numbers(feed.accumulator.emit(flush=True)) == [(4, 5, 4, 0.5)]


def test_a_dropped_step_right_after_a_border_closes_the_carried_window():
    feed = Feed(1, 3, 0.5)
    feed.step(Row(r=1))
    feed.step(Row(r=2))
    assert not numbers(feed.accumulator.emit())
    feed.step(Row(r=99, valid=False))
    assert numbers(feed.accumulator.emit()) == [(1, 3, 2, 0.25), (2, 3, 2, 0.5)]


def test_a_window_crosses_the_border_of_blocks_with_few_frames_repeated():
    feed = Feed(1, 3, 0.5)
    for reward in (1, 2, 4, 8):
        feed.step(Row(r=reward))
    first = feed.accumulator.emit()
    feed.step(Row(r=16))
    second = feed.accumulator.emit()
    assert numbers(second) == [(3, 6, 4 + 4 + 4, 0.125)]
    assert first.frames[:, 1].tolist() == [1, 2, 4, 5]
    assert second.frames[:, 1].tolist() == [3, 6]
    feed.step(Row(r=32, truncated=True, restarted=True))
    # The carried sources 4 and 5 and the current observation 6, each once more.
    assert feed.accumulator.emit().frames[:, 1].tolist() == [4, 5, 6, 7]


def test_flush_closes_open_windows_at_the_last_observation_and_the_stream_goes_on():
    feed = Feed(1, 3, 0.5)
    feed.step(Row(r=1))
    feed.step(Row(r=2))
    assert numbers(feed.accumulator.emit(flush=True)) == [(1, 3, 2, 0.25), (2, 3, 2, 0.5)]
    assert feed.accumulator.num_pending == 0
    feed.step(Row(r=4))
    assert numbers(feed.accumulator.emit(flush=True)) == [(3, 4, 4, 0.5)]


def test_flushing_or_emitting_nothing_gives_an_empty_part():
    accumulator = Feed(2, 3, 0.9).accumulator
    for flush in (False, True):
        part = accumulator.emit(flush)
        assert part.frames.shape == (0, 2)
        assert len(part.a_tm1) == len(part.tm1) == part.refused == 0


def test_windows_that_touch_a_bad_step_are_refused_and_those_around_are_kept():
    feed = Feed(1, 2, 0.5)
    feed.step(Row(r=1))
    feed.step(Row(r=2))
    feed.step(Row(r=4, bad=True, restarted=True))  # arrives at 4 with a NaN, restarts at 5
    feed.step(Row(r=8, terminated=True, restarted=True))
    part = feed.accumulator.emit()
    assert numbers(part) == [(1, 3, 2, 0.25), (5, 6, 8, 0)]
    assert part.refused == 2
    assert np.isfinite(part.frames).all()


def test_envs_reset_along_with_a_bad_one_close_their_windows_with_a_bootstrap():
    feed = Feed(2, 3, 0.5)
    feed.step(Row(r=1), Row(r=1))
    feed.step(Row(r=2, bad=True, restarted=True), Row(r=2, restarted=True))
    part = feed.accumulator.emit()
    assert [row[2:4] for row in transitions_of(part)] == [(2.0, 0.25), (2.0, 0.5)]
    assert {row[0][0] for row in transitions_of(part)} == {1.0}
    assert part.refused == 2


def test_a_bad_env_that_was_not_reset_is_a_bug():
    with pytest.raises(AssertionError, match="must be reset"):
        Feed(1, 1, 0.9).step(Row(bad=True))


def test_discount_zero_and_one_are_exact():
    for discount, expected in ((0.0, (1, 0.0)), (1.0, (3, 1.0))):
        feed = Feed(1, 2, discount)
        feed.step(Row(r=1))
        feed.step(Row(r=2))
        assert [row[2:4] for row in transitions_of(feed.accumulator.emit())] == [expected]


def test_a_block_has_the_version_of_the_row_of_its_first_transition():
    versions = [WeightsVersion(1, k) for k in range(3)]
    feed = Feed(2, 3, 0.9)
    feed.step(Row(), Row(valid=False))
    feed.step(Row(), Row(terminated=True, restarted=True))
    assert feed.accumulator.emit(versions=versions[:2]).weights_version == versions[1]
    assert feed.accumulator.num_rows == 2
    feed.step(Row(), Row())
    assert feed.accumulator.emit(versions=versions).weights_version == versions[0]
    assert feed.accumulator.num_rows == 2
    assert feed.accumulator.emit(versions=versions[:2]).weights_version == BEFORE_ANY


def test_num_ready_is_what_emit_takes_out_at_least():
    feed = Feed(2, 3, 0.9)
    for _ in range(4):
        feed.step(Row(), Row())
    assert feed.accumulator.num_ready == 4
    feed.step(Row(terminated=True, restarted=True), Row())
    assert feed.accumulator.num_ready == 6
    assert len(feed.accumulator.emit().a_tm1) == 8  # the tails of env 0 too


def test_masks_stay_with_their_frames():
    feed = Feed(2, 2, 0.9, masks=True)
    for k in range(40):
        feed.step(Row(terminated=k % 7 == 6, restarted=k % 7 == 6), Row())
        if k % 9 == 8:
            part = feed.accumulator.emit()
            np.testing.assert_array_equal(part.action_mask, feed.mask_of(part.frames))


def test_frames_before_the_first_mask_allow_everything():
    accumulator = NStepAccumulator(1, 1, 0.9, SPEC, num_actions=3)
    one = np.ones((1, 2), np.float32)
    accumulator.begin(one)
    mask = np.array([[True, False, True]])
    accumulator.add(np.zeros(1, int), make_step(one, action_mask_t=mask))
    expected = [[True, True, True], [True, False, True]]
    np.testing.assert_array_equal(accumulator.emit().action_mask, expected)


def test_begin_refuses_to_drop_pending_steps():
    feed = Feed(1, 1, 0.9)
    feed.step(Row())
    with pytest.raises(RuntimeError, match="1 steps are pending"):
        feed.accumulator.begin(feed.source)


@pytest.mark.parametrize(
    ("num_envs", "n_step", "discount"), [(0, 1, 0.9), (1, 0, 0.9), (1, 1, 1.1)]
)
def test_arguments_out_of_range_are_refused_with_their_values(num_envs, n_step, discount):
    with pytest.raises(AssertionError, match=f"{n_step}, {num_envs}, {discount}"):
        NStepAccumulator(num_envs, n_step, discount, SPEC, 2)


def random_rows(rng, style, awaiting):
    """One random vector step; `awaiting` marks envs whose next step only resets them."""
    rows = []
    for waits in awaiting:
        row = Row(r=float(np.float32(rng.normal())), a=int(rng.integers(3)))
        row.terminated, row.truncated = rng.random(2) < 0.15
        row.valid = rng.random() > 0.1  # dropped
        row.bad = rng.random() < 0.05
        if waits:
            row.valid = row.terminated = row.truncated = False
        row.restarted = row.bad or (style == "within" and (row.terminated or row.truncated))
        rows.append(row)
    if style == "together" and any(row.bad or row.terminated for row in rows):
        for row in rows:
            row.restarted = True
    return rows


@settings(deadline=None, max_examples=150)
@given(
    num_envs=st.integers(1, 4),
    n_step=st.integers(1, 5),
    discount=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    style=st.sampled_from(["within", "next step", "together"]),
    borders=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_hold_what_a_plain_loop_over_each_env_gives(
    num_envs, n_step, discount, style, borders, seed
):
    """Whatever the borders: every valid step is emitted or refused, exactly once.

    within: reset in the step that ends an episode.  next step: an invalid step resets.
    together: one env that ends or is bad resets all of them.
    """
    rng = np.random.default_rng(seed)
    feed, awaiting = Feed(num_envs, n_step, discount, masks=True), [False] * num_envs
    parts, num_valid = [], 0
    for length in borders:
        for _ in range(length):
            rows = random_rows(rng, style, awaiting)
            awaiting = [ends(row) and not row.restarted for row in rows]
            feed.step(*rows)
            num_valid += sum(row.valid for row in rows)
        open_before = feed.accumulator.num_pending
        parts.append(feed.accumulator.emit())
        num_out = len(parts[-1].a_tm1) + parts[-1].refused
        assert feed.accumulator.num_pending == open_before - num_out
        assert feed.accumulator.num_pending <= (n_step - 1) * num_envs
    parts.append(feed.accumulator.emit(flush=True))
    expected, refused = feed.twin()
    assert sorted(itertools.chain(*map(transitions_of, parts))) == expected
    assert sum(part.refused for part in parts) == refused
    assert len(expected) + refused == num_valid
    for part in parts:
        np.testing.assert_array_equal(part.action_mask, feed.mask_of(part.frames))
        assert len(np.unique(part.frames, axis=0)) == len(part.frames)
        referred = np.union1d(part.tm1, part.t)
        np.testing.assert_array_equal(referred, np.arange(len(part.frames)))
