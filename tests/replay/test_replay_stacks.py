"""Every sampled pair of stacks against a naive buffer that copies each observation whole.

Frames are `[env, time]`: no two are alike, so a stack says by itself what it is made of.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import numpy as np
import pytest
from replay_parts import make_sampler
from step_parts import make_step

from distdqn.acting.n_step import NStepAccumulator
from distdqn.replay.replay import Replay
from distdqn.types import ObservationSpec, PriorityUpdate

NUM_ENVS, NUM_ACTIONS, CAPACITY, DISCOUNT = 8, 3, 600, 0.9


def spec_of(stack: int, padding: Any) -> ObservationSpec:
    return ObservationSpec((2,), "int32", stack=stack, padding=padding)


@dataclasses.dataclass
class NaiveStep:
    """A step of one env as full copies: whole stacks, and what ended with it."""

    source: np.ndarray
    arrival: np.ndarray
    action: int
    reward: float
    valid: bool
    terminated: bool
    closes: bool
    bad: bool


class Streams:
    """Interleaved envs with random ends of every kind, and their steps as full copies.

    terminated: the env is reset within the step.  truncated: likewise, or by the next step,
    which is none.  A lost life: the env goes on from the same frame.
    """

    def __init__(self, spec: ObservationSpec, n_step: int, seed: int) -> None:
        self.spec, self.rng = spec, np.random.default_rng(seed)
        self.time = 0
        self.accumulator = NStepAccumulator(NUM_ENVS, n_step, DISCOUNT, spec, NUM_ACTIONS)
        self.episodes: list[deque] = [deque(maxlen=spec.stack) for _ in range(NUM_ENVS)]
        self.history: list[list[NaiveStep]] = [[] for _ in range(NUM_ENVS)]
        self.must_reset = np.zeros(NUM_ENVS, bool)
        self.frames = self.observe()
        self.accumulator.begin(self.frames)
        for env in range(NUM_ENVS):
            self.episodes[env].append(self.frames[env])

    def observe(self) -> np.ndarray:
        self.time += 1
        return np.array([[env, self.time] for env in range(NUM_ENVS)], np.int32)

    def stack_of(self, env: int) -> np.ndarray:
        held = list(self.episodes[env])
        first = held[0] if self.spec.padding == "repeat" else np.zeros_like(held[0])
        full = [first] * (self.spec.stack - len(held)) + held
        return np.array(full if self.spec.stack > 1 else full[0])

    def step(self) -> None:
        draw = self.rng.random((4, NUM_ENVS))
        valid = ~self.must_reset & (draw[0] > 0.05)
        terminated = valid & (draw[1] < 0.05)
        lost_life = valid & ~terminated & (draw[1] < 0.12)
        truncated = valid & ~terminated & ~lost_life & (draw[1] < 0.17)
        bad = valid & (draw[2] < 0.02)
        waits = truncated & ~bad & (draw[3] < 0.5)  # for a step that only resets
        restarted = (terminated | truncated | bad) & ~waits & ~lost_life | bad
        starts = restarted | lost_life | self.must_reset
        arrival, fresh = self.observe(), self.observe()
        following = np.where(restarted[:, None], fresh, arrival)
        actions = self.rng.integers(0, NUM_ACTIONS, NUM_ENVS)
        rewards = self.rng.normal(size=NUM_ENVS).astype(np.float32)
        step = make_step(
            arrival,
            r_t=np.where(bad, np.nan, rewards).astype(np.float32),
            terminated=terminated | lost_life,
            truncated=truncated,
            valid=valid,
            bad=bad,
            next_obs=following,
            restarted=restarted,
            starts=starts,
        )
        self.accumulator.add(actions, step)
        for env in range(NUM_ENVS):
            source = self.stack_of(env)
            self.episodes[env].append(arrival[env])
            self.history[env].append(
                NaiveStep(
                    source,
                    self.stack_of(env),
                    int(actions[env]),
                    float(rewards[env]),
                    bool(valid[env]),
                    bool(terminated[env] or lost_life[env]),
                    bool(terminated[env] or truncated[env] or lost_life[env] or bad[env]),
                    bool(bad[env]),
                )
            )
            if starts[env]:
                self.episodes[env].clear()
                self.episodes[env].append(following[env])
        self.must_reset = waits


def windows(steps: list[NaiveStep], n_step: int) -> dict[tuple, tuple]:
    """Transitions of one env by a loop over its steps, by their source's identity."""
    found = {}
    for i, first in enumerate(steps):
        if not first.valid:
            continue
        window = [first]
        while len(window) < n_step and not window[-1].closes:
            after = steps[i + len(window) : i + len(window) + 1]
            if not after or not after[0].valid:
                break
            window += after
        if window[-1].bad:
            continue
        total = sum(DISCOUNT**k * step.reward for k, step in enumerate(window))
        discount = 0.0 if window[-1].terminated else DISCOUNT ** len(window)
        newest = first.source if first.source.ndim == 1 else first.source[-1]
        found[tuple(newest)] = (first.source, first.action, total, discount, window[-1].arrival)
    return found


class Fill:
    """A replay filled in blocks of random length, and the order in which sources came."""

    def __init__(self, spec: ObservationSpec, n_step: int, kind: str, **kwargs: Any) -> None:
        self.streams, self.rng = Streams(spec, n_step, seed=3), np.random.default_rng(4)
        sampler = make_sampler(kind, CAPACITY)
        self.replay = Replay(CAPACITY, spec, NUM_ACTIONS, sampler, seed=0, **kwargs)
        self.sources: list[tuple] = []
        self.prioritized = kind == "prioritized"

    def add(self, flush: bool = False) -> None:
        for _ in range(int(self.rng.integers(0, 40))):
            self.streams.step()
        if flush:
            for steps in self.streams.history:
                if steps:
                    steps[-1].closes = True
        part = self.streams.accumulator.emit(flush)
        num = part.num_transitions
        priorities = self.rng.random(num).astype(np.float32) if self.prioritized else None
        self.sources += [tuple(part.frames[newest]) for newest in part.tm1]
        self.replay.add(dataclasses.replace(part, priorities=priorities))


def assert_holds(batch: Any, expected: dict[tuple, tuple], sources: list[tuple]) -> int:
    """Each pair of a batch is the naive one; returns how many there were."""
    columns = [batch.obs_tm1, batch.a_tm1, batch.r_t, batch.discount_t, batch.obs_t]
    flat = [column.reshape(-1, *column.shape[2:]) for column in columns]
    for item, *values in zip(batch.item_ids.ravel(), *flat, strict=True):
        for value, naive in zip(values, expected[sources[item]], strict=True):
            np.testing.assert_allclose(value, naive, rtol=1e-6, atol=1e-6)
    return len(flat[0])


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
@pytest.mark.parametrize("padding", ["zero", "repeat"])
@pytest.mark.parametrize(("n_step", "stack"), [(1, 4), (3, 4), (3, 1), (5, 2)])
def test_every_sampled_pair_is_that_of_a_buffer_of_full_copies(
    kind: str, padding: str, n_step: int, stack: int
) -> None:
    fill = Fill(spec_of(stack, padding), n_step, kind, frames_per_item=0.5)
    drawn, laps = [], 0.0
    while fill.replay.inserts < 4 * CAPACITY:  # two wraps and more of items and of frames
        fill.add(flush=fill.rng.random() < 0.1)
        assert fill.replay.check_valid() == (True, "")
        if fill.replay.size:
            drawn.append(fill.replay.sample(4, 32))
            ids = drawn[-1].item_ids[0]
            if fill.prioritized:
                fill.replay.update_priorities(PriorityUpdate(ids, np.ones(len(ids), np.float32)))
        laps = fill.replay.frames.next_number / fill.replay.frames.capacity
    assert laps > 2
    expected: dict[tuple, tuple] = {}
    for steps in fill.streams.history:
        expected |= windows(steps, n_step)
    assert sum(assert_holds(batch, expected, fill.sources) for batch in drawn) > 2_000


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_restored_replay_gives_the_same_stacks(compression: str) -> None:
    if compression == "lz4":
        pytest.importorskip("lz4.block")
    spec = spec_of(4, "zero")
    fill = Fill(spec, 3, "prioritized", compression=compression)
    while fill.replay.inserts < 2 * CAPACITY:
        fill.add()
    for other in {"none", compression}:
        sampler = make_sampler("prioritized", CAPACITY)
        restored = Replay(CAPACITY, spec, NUM_ACTIONS, sampler, seed=9, compression=other)
        restored.set_state(fill.replay.get_state())
        assert restored.check_valid() == (True, "")
        state = fill.replay.get_state()
        first, second = fill.replay.sample(2, 64), restored.sample(2, 64)
        for field in ("item_ids", "obs_tm1", "obs_t", "a_tm1", "r_t", "discount_t"):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
        fill.replay.set_state(state)


def test_a_lost_life_stores_its_frame_once() -> None:
    spec = spec_of(4, "zero")
    accumulator = NStepAccumulator(1, 1, DISCOUNT, spec, NUM_ACTIONS)
    frames = np.array([[0, time] for time in range(7)], np.int32)
    no, yes = np.zeros(1, bool), np.ones(1, bool)
    accumulator.begin(frames[:1])
    for time in range(1, 7):
        lost = yes if time == 3 else no
        obs = frames[time : time + 1]
        accumulator.add(np.zeros(1, int), make_step(obs, terminated=lost, starts=lost))
    part = accumulator.emit()
    assert part.frames[:, 1].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert part.tm1_depth.tolist() == [0, 1, 2, 0, 1, 2]
    assert part.t_depth.tolist() == [1, 2, 3, 1, 2, 3]
    assert (part.tm1[3], part.t[2]) == (3, 3)  # one frame, with two depths


def test_a_border_of_blocks_repeats_the_stack_and_the_window() -> None:
    stack, n_step = 4, 3
    accumulator = NStepAccumulator(2, n_step, DISCOUNT, spec_of(stack, "zero"), NUM_ACTIONS)
    time = 0
    accumulator.begin(np.zeros((2, 2), np.int32))
    for _ in range(3):
        for _ in range(20):
            time += 1
            obs = np.array([[0, time], [1, time]], np.int32)
            accumulator.add(np.zeros(2, int), make_step(obs))
        part = accumulator.emit()
        num_frames = len(part.frames) // 2
    assert len(part.a_tm1) == 40
    # The oldest source is n - 1 steps behind the border, its stack stack - 1 before that.
    assert num_frames == 20 + n_step + stack - 1
    expected = [[env, t] for env in (0, 1) for t in range(time - num_frames + 1, time + 1)]
    assert part.frames.tolist() == expected
