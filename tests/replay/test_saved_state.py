"""A restored replay is the one that was saved: against its uninterrupted twin."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_parts import CARTPOLE, INDEX, Worker, make_replay

from distdqn.files.codec import decode, encode
from distdqn.replay.replay import IDS_PER_EPOCH, Replay
from distdqn.replay.saved_state import cut
from distdqn.types import ObservationSpec, PriorityUpdate, ReplayBatch, WeightsVersion

STACKED = ObservationSpec((10, 10), "uint8", stack=4)
KINDS = ["uniform", "prioritized", "fifo"]


def saved(replay: Replay, segments: list[Any]) -> dict[str, Any]:
    """The state after `segments`, which gain the new one; as a file would give it back."""
    last = segments[-1] if segments else None
    numbers = (0, 0)
    if last is not None:
        numbers = (
            last["first_item"] + len(last["a_tm1"]),
            last["first_frame"] + len(last["frames"]),
        )
    state = decode(encode(replay.get_state(*numbers)))
    segments += state["segments"]
    return state | {"segments": list(segments)}


def assert_twins(replay: Replay, restored: Replay) -> None:
    """Both draw the same, bit by bit."""
    assert restored.check_valid() == (True, "")
    for name in ("inserts", "size", "mass", "dropped_updates", "refused_priorities"):
        assert getattr(replay, name) == getattr(restored, name), name
    if replay.mass < 6:
        return
    batches = [one.sample(2, 3) for one in (replay, restored)]
    for field in dataclasses.fields(ReplayBatch):
        first, second = (getattr(batch, field.name) for batch in batches)
        assert (first is None) == (second is None), field.name
        if first is not None:
            assert first.tobytes() == second.tobytes(), field.name
    update = PriorityUpdate(batches[0].item_ids, batches[0].r_t ** 2)
    for one in (replay, restored):
        one.update_priorities(update)
    np.testing.assert_array_equal(replay.visits, restored.visits)
    newest = WeightsVersion(1, 40)
    for behind in (0, 10, 30):
        np.testing.assert_equal(
            replay.versions.stale_fraction(newest, behind),
            restored.versions.stale_fraction(newest, behind),
        )


@settings(deadline=None, max_examples=60)
@given(
    capacity=st.integers(1, 60),
    kind=st.sampled_from(KINDS),
    observation=st.sampled_from([CARTPOLE, INDEX]),
    frames_per_item=st.sampled_from([0.1, 1.25]),
    blocks=st.lists(
        st.tuples(st.integers(0, 80), st.integers(0, 90), st.booleans(), st.booleans()), max_size=14
    ),
)
def test_a_replay_restored_from_its_segments_is_the_uninterrupted_one(
    capacity: int,
    kind: str,
    observation: Any,
    frames_per_item: float,
    blocks: list[tuple[int, int, bool, bool]],
) -> None:
    def make(**kwargs: Any) -> Replay:
        return make_replay(capacity, observation, kind, frames_per_item=frames_per_item, **kwargs)

    replay, restored, worker = make(), make(), Worker(observation)
    segments: list[Any] = []
    for counter, (num, num_frames, masked, saves) in enumerate(blocks):
        priorities = worker.rng.random(num)
        version = WeightsVersion(1, counter)
        block = worker.block(num, num_frames, masked, priorities, version)
        replay.add(block)
        restored.add(block)
        if saves:
            state = saved(replay, segments)
            restored = make(seed=77)
            restored.set_state(state)
        assert_twins(replay, restored)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_without_the_earlier_ones_is_the_whole(kind: str) -> None:
    replay, worker = make_replay(100, kind=kind), Worker(CARTPOLE)
    for _ in range(7):
        replay.add(worker.block(23, masked=True, priorities=worker.rng.random(23)))
    replay.update_priorities(PriorityUpdate(np.array([5, 99]), np.array([1.0, np.nan])))
    restored = make_replay(100, kind=kind, seed=77)
    restored.set_state(saved(replay, []))
    assert_twins(replay, restored)
    for one in (replay, restored):
        one.add(Worker(CARTPOLE, 1).block(31))
    assert_twins(replay, restored)
    assert restored.dropped_updates > 0


def test_a_later_state_gives_only_what_came_since() -> None:
    replay, worker = make_replay(100), Worker(CARTPOLE)
    for _ in range(3):
        replay.add(worker.block(20, num_frames=22))
    first = replay.get_state()
    replay.add(worker.block(20, num_frames=22))
    second = replay.get_state(first["inserts"], first["next_frame"])
    (segment,) = second["segments"]
    assert (segment["first_item"], len(segment["a_tm1"])) == (60, 20)
    assert (segment["first_frame"], len(segment["frames"])) == (66, 22)
    replay.add(worker.block(95))
    (segment,) = replay.get_state(first["inserts"], first["next_frame"])["segments"]
    assert (segment["first_item"], len(segment["a_tm1"])) == (75, 100)  # the live ones
    assert segment["first_frame"] == 66  # those of the block that item 75 came with
    with pytest.raises(ValueError, match="at most 175 and 184, got 176 and 0"):
        replay.get_state(176)


def test_a_state_is_not_touched_by_what_comes_later() -> None:
    replay, worker = make_replay(10, INDEX), Worker(INDEX)
    replay.add(worker.block(10))
    state = replay.get_state()
    before = encode(state)
    replay.add(worker.block(10))
    replay.sample(2, 5)
    assert encode(state) == before


def test_a_missing_segment_is_refused_and_changes_nothing() -> None:
    replay, worker, segments = make_replay(100), Worker(CARTPOLE), list[Any]()
    for _ in range(3):
        replay.add(worker.block(20))
        state = saved(replay, segments)
    other = make_replay(100)
    other.add(worker.block(5))
    for missing, message in ((0, "item 0 is req"), (1, "item 20 is req"), (2, "item 60 are req")):
        some = [segment for i, segment in enumerate(segments) if i != missing]
        with pytest.raises(ValueError, match=message):
            other.set_state(state | {"segments": some})
    segments[1]["frames"] = segments[1]["frames"][:-1]
    with pytest.raises(ValueError, match="with frame 41 is required, got one from 42 on"):
        other.set_state(state | {"segments": segments})
    assert (other.size, other.inserts) == (5, 5) and other.check_valid() == (True, "")


def test_a_replay_restored_into_a_new_epoch_gives_new_ids_to_the_same_draws() -> None:
    replay = make_replay(10)
    replay.add(Worker(CARTPOLE).block(13))
    state = replay.get_state()
    same, other = make_replay(10), make_replay(10, epoch=replay.epoch + 1)
    same.set_state(state)
    other.set_state(state)
    ids = replay.sample(2, 8).item_ids
    assert np.array_equal(same.sample(2, 8).item_ids, ids)
    assert np.array_equal(other.sample(2, 8).item_ids, ids + IDS_PER_EPOCH)
    other.update_priorities(PriorityUpdate(ids, np.ones(ids.shape)))
    assert other.dropped_updates == ids.size


def test_a_state_of_another_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="that of the state, 10, got 11"):
        make_replay(11).set_state(make_replay(10).get_state())


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=6).map(sorted),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_pieces_are_cut_to_each_row_once(
    pieces: list[tuple[int, int]], first: int, length: int
) -> None:
    end = first + length
    held = {row for start, count in pieces for row in range(start, start + count)}
    if set(range(first, end)) - held:
        with pytest.raises(ValueError, match="is missing"):
            cut(pieces, first, end, "row")
        return
    taken: list[int] = []
    for (start, count), rows in zip(pieces, cut(pieces, first, end, "row"), strict=True):
        assert 0 <= rows.start <= rows.stop <= count
        taken += list(range(start, start + count))[rows]
    assert taken == list(range(first, end))


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_segment_of_which_nothing_is_live_is_passed_over(compression: str) -> None:
    if compression == "lz4":
        pytest.importorskip("lz4.block")
    replay, restored = (
        make_replay(60, STACKED, seed=seed, compression=compression) for seed in (0, 77)
    )
    worker = Worker(STACKED)
    replay.add(worker.block(30, masked=True))
    first = replay.get_state()
    for _ in range(3):
        replay.add(worker.block(30, masked=True))
    later = replay.get_state(first["inserts"], first["next_frame"])
    restored.set_state(later | {"segments": first["segments"] + later["segments"]})
    assert_twins(replay, restored)


def test_frames_of_another_shape_are_refused_with_nothing_changed() -> None:
    replay = make_replay(10)
    replay.add(Worker(CARTPOLE).block(10))
    other = make_replay(10, ObservationSpec((5,), "float32"))
    with pytest.raises(ValueError, match=r"frames .* shape \(5,\), got \(4,\)"):
        other.set_state(replay.get_state())
    assert other.size == 0 and other.check_valid() == (True, "")


@pytest.mark.parametrize("shape", [(9, 10), (11, 10)])
@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_compressed_frames_of_another_size_are_refused_with_nothing_changed(
    shape: tuple[int, ...], compression: str
) -> None:
    pytest.importorskip("lz4.block")
    replay = make_replay(10, STACKED, compression="lz4")
    replay.add(Worker(STACKED).block(10))
    spec = dataclasses.replace(STACKED, shape=shape)
    other = make_replay(10, spec, compression=compression)
    other.add(Worker(spec).block(4))
    before = encode(other.get_state())
    with pytest.raises(ValueError, match=f"compressed frame must hold {10 * shape[0]} bytes, got"):
        other.set_state(replay.get_state())
    assert encode(other.get_state()) == before
