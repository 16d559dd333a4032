"""The replay ring against a plain list of whole transitions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_parts import CARTPOLE, INDEX, NUM_ACTIONS, Worker, make_replay

from distdqn.replay.layout import replay_bytes, visits_shape
from distdqn.replay.replay import IDS_PER_EPOCH, Replay
from distdqn.replay.sampling import PlainSampler
from distdqn.types import (
    ObservationSpec,
    PriorityUpdate,
    ReplayBatch,
    TransitionBlock,
    WeightsVersion,
)

SPECS = [
    CARTPOLE,
    INDEX,
    ObservationSpec((3,), "uint8"),
    ObservationSpec((2, 4), "uint8"),
    ObservationSpec((3,), "float64"),
    ObservationSpec((5,), "bool"),
]


class Twin:
    """What Replay should hold: the last `capacity` transitions, each with its observations."""

    def __init__(self, capacity: int, epoch: int = 0) -> None:
        self.capacity = capacity
        self.next_id = epoch * 2**40
        self.items: dict[int, dict[str, Any]] = {}
        self.any_mask = False

    def add(self, block: TransitionBlock) -> None:
        self.any_mask |= block.action_mask is not None
        masks = block.action_mask
        for i in range(block.num_transitions):
            self.items[self.next_id] = {
                "obs_tm1": block.frames[block.tm1[i]],
                "obs_t": block.frames[block.t[i]],
                "a_tm1": block.a_tm1[i],
                "r_t": block.r_t[i],
                "discount_t": block.discount_t[i],
                "action_mask_t": [True] * NUM_ACTIONS if masks is None else masks[block.t[i]],
                "priority": None if block.priorities is None else block.priorities[i],
            }
            self.next_id += 1
            self.items.pop(self.next_id - 1 - self.capacity, None)

    def assert_holds(self, batch: ReplayBatch) -> None:
        for k, b in np.ndindex(batch.item_ids.shape):
            item = self.items[int(batch.item_ids[k, b])]
            for name in ("obs_tm1", "obs_t", "a_tm1", "r_t", "discount_t"):
                np.testing.assert_array_equal(getattr(batch, name)[k, b], item[name], name)
            if batch.action_mask_t is not None:
                np.testing.assert_array_equal(batch.action_mask_t[k, b], item["action_mask_t"])
        assert (batch.action_mask_t is not None) == self.any_mask


def all_ids(replay: Replay) -> list[int]:
    return np.unique(replay.sample(50, 4 * replay.size).item_ids).tolist()


@settings(deadline=None, max_examples=60)
@given(
    capacity=st.integers(1, 40),
    observation=st.sampled_from(SPECS),
    kind=st.sampled_from(["uniform", "prioritized"]),
    frames_per_item=st.sampled_from([0.1, 1.0, 1.25]),
    blocks=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 90), st.booleans(), st.booleans()), max_size=12
    ),
)
def test_every_sampled_row_is_a_transition_that_a_plain_list_holds(
    capacity: int,
    observation: ObservationSpec,
    kind: str,
    frames_per_item: float,
    blocks: list[tuple[int, int, bool, bool]],
) -> None:
    kwargs: dict[str, Any] = {"epoch": 2, "frames_per_item": frames_per_item}
    replay = make_replay(capacity, observation, kind, **kwargs)
    worker, twin = Worker(observation), Twin(capacity, epoch=2)
    for num, num_frames, masked, restores in blocks:
        block = worker.block(num, num_frames, masked, worker.rng.random(num))
        replay.add(block)
        if num:
            twin.add(block)
        assert replay.check_valid() == (True, "")
        assert (replay.size, replay.inserts) == (len(twin.items), twin.next_id - 2 * 2**40)
        if replay.size:
            batch = replay.sample(3, 8)
            twin.assert_holds(batch)
            old = np.concatenate([batch.item_ids.ravel(), batch.item_ids.ravel() - capacity])
            replay.update_priorities(PriorityUpdate(old, worker.rng.random(old.shape)))
        if restores:
            saved = replay.get_state()
            replay = make_replay(capacity, observation, kind, **kwargs)
            replay.set_state(saved)


def test_batches_have_the_shapes_and_types_of_the_contract() -> None:
    replay = make_replay(50, ObservationSpec((2, 3), "uint8"))
    replay.add(Worker(ObservationSpec((2, 3), "uint8")).block(20, masked=True))
    batch = replay.sample(4, 5)
    expected = {
        "obs_tm1": ((4, 5, 2, 3), "uint8"),
        "obs_t": ((4, 5, 2, 3), "uint8"),
        "a_tm1": ((4, 5), "int64"),
        "r_t": ((4, 5), "float32"),
        "discount_t": ((4, 5), "float32"),
        "item_ids": ((4, 5), "int64"),
        "probabilities": ((4, 5), "float64"),
        "action_mask_t": ((4, 5, NUM_ACTIONS), "bool"),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(batch, name)
        assert (array.shape, str(array.dtype), array.flags.c_contiguous) == (shape, dtype, True)


def test_added_arrays_are_copied() -> None:
    replay, block = make_replay(50), Worker(CARTPOLE).block(20)
    twin = Twin(50)
    twin.add(dataclasses.replace(block, frames=block.frames.copy(), r_t=block.r_t.copy()))
    replay.add(block)
    block.frames[:] = -1.0
    block.r_t[:] = -1.0
    twin.assert_holds(replay.sample(2, 50))


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_each_minibatch_is_a_sample_of_the_whole_replay(kind: str) -> None:
    replay = make_replay(40, kind=kind)
    replay.add(Worker(CARTPOLE).block(55, priorities=np.arange(55) / 10))
    batch = replay.sample(200, 100)
    if kind == "prioritized":
        powers = (np.arange(15, 55, dtype=np.float32).astype(float) / 10 + 0.01) ** 0.6
    else:
        powers = np.ones(40)
    expected = powers / powers.sum()
    np.testing.assert_allclose(batch.probabilities, expected[batch.item_ids - 15], rtol=1e-6)
    counts = np.bincount(batch.item_ids.ravel() - 15, minlength=40)
    assert ((counts - 20_000 * expected) ** 2 / (20_000 * expected)).sum() < 73  # p = 0.001
    means = (batch.item_ids - 15).mean(axis=1)  # a slice of one stratified draw would drift
    assert np.all(np.abs(means - (expected * np.arange(40)).sum()) < 5.5)


def test_updated_priorities_change_the_probabilities_by_the_formula() -> None:
    replay = make_replay(4)
    replay.add(Worker(CARTPOLE).block(4, priorities=[1, 1, 1, 1]))
    ids = np.array([[0, 3], [2, 3]])
    replay.update_priorities(PriorityUpdate(ids, np.array([[5, 9], [0, 2]], np.float32)))
    powers = np.array([5.01, 1.01, 0.01, 2.01]) ** 0.6  # of equal ids the last wins
    batch = replay.sample(10, 20)
    np.testing.assert_allclose(batch.probabilities, (powers / powers.sum())[batch.item_ids])
    np.testing.assert_allclose(replay.mass, powers.sum())
    assert replay.priority_max == 9.0


def test_updates_of_evicted_items_are_dropped_and_counted() -> None:
    replay, worker = make_replay(10), Worker(CARTPOLE)
    replay.add(worker.block(10, priorities=np.ones(10)))
    replay.add(worker.block(4, priorities=np.ones(4)))  # slots 0 to 3 have new owners
    mass = replay.mass
    replay.update_priorities(PriorityUpdate(np.arange(4), np.full(4, 100.0, np.float32)))
    assert (replay.mass, replay.priority_max, replay.dropped_updates) == (mass, 1.0, 4)
    replay.update_priorities(PriorityUpdate(np.array([3, 4, 13, 14]), np.ones(4, np.float32)))
    assert replay.dropped_updates == 6
    assert all_ids(replay) == list(range(4, 14))


def test_updates_of_another_epoch_are_dropped_and_counted() -> None:
    replays = [make_replay(10, epoch=epoch) for epoch in (0, 1, 2)]
    for replay in replays:
        replay.add(Worker(CARTPOLE).block(10, priorities=np.ones(10)))
    ids = IDS_PER_EPOCH + np.arange(10)
    for replay in replays:
        replay.update_priorities(PriorityUpdate(ids, np.full(10, 3.0, np.float32)))
    assert [replay.dropped_updates for replay in replays] == [10, 0, 10]
    assert [replay.priority_max for replay in replays] == [1.0, 3.0, 1.0]
    assert all_ids(replays[1]) == ids.tolist()


def test_priorities_that_are_not_finite_are_refused_and_counted() -> None:
    replay = make_replay(10)
    replay.add(Worker(CARTPOLE).block(3, priorities=[1.0, np.nan, 1.0]))
    replay.update_priorities(PriorityUpdate(np.arange(3), np.array([np.inf, 1.0, -1.0])))
    assert replay.refused_priorities == 3
    np.testing.assert_allclose(replay.mass, 3 * 1.01**0.6)


def test_of_a_block_larger_than_the_capacity_the_last_items_stay() -> None:
    replay, worker, twin = make_replay(10), Worker(CARTPOLE), Twin(10)
    for num in (7, 35, 4):
        block = worker.block(num, priorities=worker.rng.random(num))
        replay.add(block)
        twin.add(block)
    assert (replay.size, replay.inserts) == (10, 46)
    assert all_ids(replay) == sorted(twin.items) == list(range(36, 46))
    twin.assert_holds(replay.sample(2, 50))


def test_short_episodes_grow_the_frames_and_evict_nothing_early() -> None:
    replay, worker, twin = make_replay(1_000), Worker(CARTPOLE), Twin(1_000)
    before = replay.nbytes
    for _ in range(60):
        block = worker.block(50, num_frames=100)  # one-step episodes: two frames an item
        replay.add(block)
        twin.add(block)
        assert replay.check_valid() == (True, "")
    assert replay.size == 1_000
    assert all_ids(replay) == sorted(twin.items)
    twin.assert_holds(replay.sample(5, 200))
    frame_bytes = 16 * 2_000  # those needed: of 20 blocks, the arriving one among them
    assert before - 16 * 1_250 + frame_bytes <= replay.nbytes
    assert replay.nbytes <= before - 16 * 1.10 + 1.25 * frame_bytes


def test_the_frames_do_not_grow_without_need() -> None:
    replay, worker = make_replay(1_000), Worker(CARTPOLE)
    before = replay.nbytes
    for _ in range(100):
        replay.add(worker.block(64, num_frames=66))
    assert replay.nbytes == before


def test_frames_without_a_mask_allow_every_action() -> None:
    replay, worker, twin = make_replay(30), Worker(CARTPOLE), Twin(30)
    for masked in (False, True, False):
        block = worker.block(10, masked=masked)
        replay.add(block)
        twin.add(block)
        twin.assert_holds(replay.sample(4, 30))
    batch = replay.sample(10, 30)
    assert batch.action_mask_t is not None
    assert batch.action_mask_t[batch.item_ids < 10].all()
    assert not batch.action_mask_t[(batch.item_ids >= 10) & (batch.item_ids < 20)].all()
    assert batch.action_mask_t[batch.item_ids >= 20].all()


def test_an_empty_replay_refuses_to_be_sampled() -> None:
    with pytest.raises(RuntimeError, match="cannot sample: 0 of 10 items are held, add a block"):
        make_replay(10).sample(1, 1)
    with pytest.raises(ValueError, match="at least 1, got 0 and 5"):
        make_replay(10).sample(0, 5)


def test_seed_and_epoch_determine_the_draws() -> None:
    drawn = []
    for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1)):
        replay = make_replay(100, kind="uniform", seed=seed, epoch=epoch)
        replay.add(Worker(CARTPOLE).block(100))
        drawn.append(tuple((replay.sample(1, 50).item_ids % IDS_PER_EPOCH).ravel()))
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tm1": np.full(5, 6, np.int32)}, r"tm1 of a block must be in \[0, 6\), got 6"),
        ({"t": np.full(5, -1, np.int32)}, r"t of a block must be in \[0, 6\), got -1"),
        ({"a_tm1": np.full(5, 3, np.int32)}, r"a_tm1 of a block must be in \[0, 3\), got 3"),
        ({"r_t": np.zeros(4, np.float32)}, r"r_t .* shape \(5,\), got \(4,\)"),
        ({"priorities": np.zeros(6)}, r"priorities .* shape \(5,\), got \(6,\)"),
        ({"frames": np.zeros((6, 5), np.float32)}, r"frames .* \(6, 4\), got \(6, 5\)"),
        ({"frames": np.zeros((6, 4))}, "frames of a block must be float32, got float64"),
        ({"action_mask": np.ones((6, 2), bool)}, r"action_mask .* \(6, 3\), got \(6, 2\)"),
    ],
)
def test_a_block_that_contradicts_itself_is_refused_and_changes_nothing(
    change: dict[str, Any], message: str
) -> None:
    replay, worker = make_replay(10), Worker(CARTPOLE)
    replay.add(worker.block(10))
    with pytest.raises(ValueError, match=message):
        replay.add(dataclasses.replace(worker.block(5), **change))
    assert (replay.size, replay.inserts) == (10, 10)
    assert replay.check_valid() == (True, "")


def test_updates_with_unequal_shapes_and_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        make_replay(10).update_priorities(PriorityUpdate(np.arange(2), np.ones(3)))
    with pytest.raises(AssertionError, match="replay and sampler must match"):
        Replay(10, CARTPOLE, NUM_ACTIONS, PlainSampler(9), seed=0)
    with pytest.raises(AssertionError, match="epoch -1"):
        make_replay(10, epoch=-1)
    with pytest.raises(AssertionError, match=r"of shape \(0,\)"):
        make_replay(10, ObservationSpec((0,), "float32"))


def test_check_valid_names_what_is_corrupt() -> None:
    def corrupt(name: str, value: Any) -> str:
        replay = make_replay(20)
        for _ in range(3):
            replay.add(Worker(CARTPOLE).block(10))
        if name in ("size", "inserts"):
            setattr(replay, name, value)
        else:
            replay.items[name][15] = value
        valid, why = replay.check_valid()
        assert not valid
        return why

    assert corrupt("size", 19) == "the sampler has 20 live slots, the ring 19"
    assert corrupt("inserts", 5) == "size is 20 after 5 inserts"
    assert corrupt("t", 500) == "an item's t is not among the frames"
    assert corrupt("tm1", -12) == "an item's tm1 is not among the frames"
    assert "order of the items" in corrupt("block_frame", 0)


@pytest.mark.parametrize("kind", ["uniform", "prioritized", "fifo"])
def test_the_bytes_needed_are_those_allocated(kind: str) -> None:
    prioritized = kind == "prioritized"
    for observation in SPECS:
        replay = make_replay(1_000, observation, kind)
        needed = replay_bytes(1_000, observation, NUM_ACTIONS, prioritized)
        assert needed == replay.nbytes
        replay.add(Worker(observation).block(10, masked=True))
        assert replay.nbytes == needed + 1_250 * NUM_ACTIONS  # a byte a frame and action


def test_fifo_hands_out_each_transition_once_in_the_order_of_arrival() -> None:
    replay, worker, twin = make_replay(50, kind="fifo", epoch=1), Worker(CARTPOLE), Twin(50, 1)
    for num in (30, 17, 13):
        block = worker.block(num)
        replay.add(block)
        twin.add(block)
    assert (replay.size, replay.mass) == (50, 50.0)
    drawn = [replay.sample(2, 7), replay.sample(4, 9)]
    for batch in drawn:
        twin.assert_holds(batch)
    ids = np.concatenate([batch.item_ids.ravel() for batch in drawn])
    assert ids.tolist() == list(range(IDS_PER_EPOCH + 10, IDS_PER_EPOCH + 60))
    with pytest.raises(RuntimeError, match="1 slots are required .* 0 are left"):
        replay.sample(1, 1)


def test_visits_count_every_added_pair_for_ever() -> None:
    replay, worker = make_replay(20, INDEX), Worker(INDEX)
    blocks = [worker.block(num) for num in (7, 45, 0, 12)]
    expected = np.zeros((500, NUM_ACTIONS), np.int64)
    for block in blocks:
        replay.add(block)
        for tm1, action in zip(block.tm1, block.a_tm1, strict=True):
            expected[block.frames[tm1], action] += 1
    assert replay.visits is not None and replay.visits.dtype == np.int64
    np.testing.assert_array_equal(replay.visits, expected)


def test_visits_are_counted_for_few_indices_only() -> None:
    assert make_replay(20).visits is None
    at_most = ObservationSpec((), "int32", num_categories=2**18)
    assert visits_shape(at_most, 4) == (2**18, 4)
    assert visits_shape(at_most, 5) is None


def test_an_index_that_is_no_observation_is_refused() -> None:
    block = dataclasses.replace(Worker(INDEX).block(5), frames=np.full(6, 500, np.int32))
    with pytest.raises(ValueError, match=r"frames of a block must be in \[0, 500\), got 500"):
        make_replay(20, INDEX).add(block)


def test_the_stale_share_counts_live_items() -> None:
    replay, worker = make_replay(20), Worker(CARTPOLE)
    newest = WeightsVersion(1, 30)
    assert np.isnan(replay.versions.stale_fraction(newest, 10))
    for counter, num in ((5, 8), (19, 9), (25, 8)):  # 5 of the first are evicted
        replay.add(worker.block(num, version=WeightsVersion(1, counter)))
    assert replay.versions.stale_fraction(newest, 4) == 1.0
    assert replay.versions.stale_fraction(newest, 10) == 12 / 20
    assert replay.versions.stale_fraction(newest, 11) == 3 / 20
    assert replay.versions.stale_fraction(newest, 25) == 0.0
    replay.add(worker.block(25, version=WeightsVersion(1, 29)))
    assert replay.versions.stale_fraction(newest, 1) == 0.0


def test_evenly_spaced_priorities_come_back_without_a_random_number() -> None:
    replay = make_replay(100)
    assert replay.priorities(10).shape == (0,)
    replay.add(Worker(CARTPOLE).block(120, priorities=np.arange(120) / 8))
    before = replay.get_state()["rng"].tolist()
    np.testing.assert_allclose(replay.priorities(1_000), np.arange(20, 120) / 8, atol=1e-12)
    np.testing.assert_allclose(replay.priorities(20), np.arange(20, 120, 5) / 8, atol=1e-12)
    assert replay.get_state()["rng"].tolist() == before
    other = make_replay(100, kind="uniform")
    other.add(Worker(CARTPOLE).block(120))
    assert other.priorities(10).shape == (0,)
