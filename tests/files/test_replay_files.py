"""Segments shared by checkpoints: what is saved is loaded, what is harmed is named."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replay_parts import CARTPOLE, INDEX, Worker, make_replay

from distdqn.errors import CheckpointError
from distdqn.files import replay_files as module
from distdqn.files.codec import encode
from distdqn.files.durable import listing
from distdqn.files.replay_files import (
    check_replay,
    load_replay,
    prune_segments,
    save_replay,
    saved_up_to,
)
from distdqn.replay.replay import Replay
from distdqn.types import ObservationSpec


def save(run: Path, replay: Replay, previous: Any = None, shard: int = 0) -> dict[str, Any]:
    entry = save_replay(run, shard, replay.get_state(*saved_up_to(previous)), previous)
    return json.loads(json.dumps(entry))  # as the manifest keeps it


def names(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def listed_names(*entries: dict[str, Any]) -> set[str]:
    return {file["file"] for e in entries for file in [e["state"], *e["segments"]]}


def numbers(entry: dict[str, Any]) -> list[tuple[int, int]]:
    return [(segment["first_item"], segment["end_item"]) for segment in entry["segments"]]


def assert_draws_the_same(replay: Replay, restored: Replay) -> None:
    assert restored.check_valid() == (True, "")
    first, second = (one.sample(3, 8) for one in (replay, restored))
    for name in ("obs_tm1", "obs_t", "r_t", "item_ids", "probabilities"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


@pytest.mark.parametrize("kind", ["uniform", "prioritized", "fifo"])
def test_each_checkpoint_adds_a_segment_and_restores_the_whole(tmp_path: Path, kind: str) -> None:
    replay, worker, entry = make_replay(100, INDEX, kind), Worker(INDEX), None
    expected = [
        [(0, 30)],
        [(0, 30), (30, 60)],
        [(0, 30), (30, 60), (60, 90)],
        [(0, 30), (30, 60), (60, 90), (90, 120)],  # 20 to 120 are live
        [(30, 60), (60, 90), (90, 120), (120, 150)],
    ]
    for listed in expected:
        for masked in (False, True):
            replay.add(worker.block(15, 17, masked, priorities=worker.rng.random(15)))
        entry = save(tmp_path, replay, entry)
        assert numbers(entry) == listed
        restored = make_replay(100, INDEX, kind, seed=5)
        restored.set_state(load_replay(tmp_path, entry))
        check_replay(tmp_path, entry)
        assert_draws_the_same(replay, restored)


def test_a_segment_lies_where_users_look_and_is_as_listed(tmp_path: Path) -> None:
    replay = make_replay(10)
    replay.add(Worker(CARTPOLE).block(4))
    entry = save(tmp_path, replay, shard=3)
    assert entry["shard"] == 3
    (segment,) = entry["segments"]
    folder = tmp_path / "checkpoints" / "replay" / "shard_3"
    assert {path.parent for path in folder.iterdir()} == {folder}
    path = tmp_path / segment["file"]
    assert path == folder / f"000000000000-{segment['sha256'][:16]}.msgpack"
    assert listing(path.read_bytes()).items() <= segment.items()
    assert (segment["first_frame"], segment["end_frame"]) == (0, 5)


def test_a_checkpoint_with_nothing_new_writes_no_segment(tmp_path: Path) -> None:
    empty = make_replay(10)
    first = save(tmp_path, empty)
    assert numbers(first) == [(0, 0)]
    restored = make_replay(10, seed=1)
    restored.set_state(load_replay(tmp_path, first))
    assert restored.size == 0
    empty.add(Worker(CARTPOLE).block(3))
    second = save(tmp_path, empty, first)
    before = names(tmp_path)
    third = save(tmp_path, empty, second)
    assert third == second and names(tmp_path) == before


def test_a_restored_run_goes_on_with_the_segments_of_its_checkpoint(tmp_path: Path) -> None:
    worker, replay = Worker(CARTPOLE), make_replay(100)
    replay.add(worker.block(40))
    kept = save(tmp_path, replay)
    replay.add(worker.block(10))
    lost = save(tmp_path, replay, kept)  # its manifest will not have been written
    restored = make_replay(100)
    restored.set_state(load_replay(tmp_path, kept))
    restored.add(Worker(CARTPOLE, seed=9).block(10))
    entry = save(tmp_path, restored, kept)
    assert numbers(entry) == numbers(lost) == [(0, 40), (40, 50)]
    assert entry["segments"][1]["file"] != lost["segments"][1]["file"]
    for one, listed in ((replay, lost), (restored, entry)):  # neither overwrote the other's
        again = make_replay(100)
        again.set_state(load_replay(tmp_path, listed))
        assert_draws_the_same(one, again)


def test_many_small_segments_are_written_anew_as_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_SMALL_SEGMENTS", 4)
    replay, worker, counts = make_replay(1_000), Worker(CARTPOLE), []
    entry: dict[str, Any] = {}
    for _ in range(10):
        replay.add(worker.block(20))
        entry = save(tmp_path, replay, entry or None)
        counts.append(len(entry["segments"]))
    assert counts == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert numbers(entry) == [(0, 180), (180, 200)]
    restored = make_replay(1_000)
    restored.set_state(load_replay(tmp_path, entry))
    assert_draws_the_same(replay, restored)


@pytest.mark.parametrize("num_frames", [61, 600])
def test_a_large_segment_is_cut_and_full_ones_are_not_written_anew(
    tmp_path: Path, monkeypatch, num_frames: int
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 400)
    monkeypatch.setattr(module, "MAX_SMALL_SEGMENTS", 2)
    replay, worker = make_replay(100), Worker(CARTPOLE)
    for _ in range(2):
        replay.add(worker.block(60, num_frames, masked=True))
    entry = save(tmp_path, replay)
    assert len(entry["segments"]) > 5
    assert max(segment["bytes"] for segment in entry["segments"]) < 800
    assert saved_up_to(entry) == (120, 2 * num_frames)
    replay.add(worker.block(3))
    entry = save(tmp_path, replay, entry)
    restored = make_replay(100)
    restored.set_state(load_replay(tmp_path, entry))
    assert_draws_the_same(replay, restored)


def test_files_that_no_kept_checkpoint_lists_are_removed(tmp_path: Path) -> None:
    replays = [make_replay(100), make_replay(100)]
    worker, history = Worker(CARTPOLE), list[list[dict[str, Any]]]()
    for _ in range(6):
        for replay in replays:
            replay.add(worker.block(40))
        previous = history[-1] if history else [None, None]
        history.append([save(tmp_path, replays[i], previous[i], shard=i) for i in (0, 1)])
    folder = tmp_path / "checkpoints" / "replay" / "shard_1"
    (folder / ".state.partial-0123abcd").write_bytes(b"broken off")
    (folder / "notes.txt").write_text("of the user")
    kept = [entry for entries in history[-2:] for entry in entries]
    gone = prune_segments(tmp_path, kept)
    assert names(tmp_path) == listed_names(*kept) | {"checkpoints/replay/shard_1/notes.txt"}
    # Of six segments and six states a shard, 3 + 1 segments and 2 states are in use.
    assert len(gone) == 2 * (2 + 4) + 1
    for entry in kept:
        check_replay(tmp_path, entry)
    assert prune_segments(tmp_path, kept) == []
    assert prune_segments(tmp_path / "without", []) == []


def test_a_harmed_file_is_named(tmp_path: Path) -> None:
    replay = make_replay(50)
    replay.add(Worker(CARTPOLE).block(20))
    entry = save(tmp_path, replay)
    for listed in (entry["state"], entry["segments"][0]):
        path = tmp_path / listed["file"]
        data = path.read_bytes()
        harmed = bytearray(data)
        harmed[len(data) // 2] ^= 1
        for content, what in ((data[:-1], "truncated"), (bytes(harmed), "altered"), (b"", "trunc")):
            path.write_bytes(content)
            for read in (load_replay, check_replay):
                with pytest.raises(CheckpointError, match=f"{path} is {what}"):
                    read(tmp_path, entry)
        path.unlink()
        with pytest.raises(CheckpointError, match=f"{path} is missing"):
            load_replay(tmp_path, entry)
        path.write_bytes(data)
    load_replay(tmp_path, entry)


def test_a_file_of_another_version_is_named(tmp_path: Path) -> None:
    data = b"\x92\x07" + encode({})[2:]
    (tmp_path / "state").write_bytes(data)
    entry = {"shard": 0, "state": {"file": "state", **listing(data)}, "segments": []}
    with pytest.raises(CheckpointError, match=f"{tmp_path}/state cannot be read: .* version 7"):
        load_replay(tmp_path, entry)


def test_a_full_disk_is_said_and_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    replay = make_replay(50)
    replay.add(Worker(CARTPOLE).block(20))
    entry, before = save(tmp_path, replay), names(tmp_path)
    replay.add(Worker(CARTPOLE).block(20))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="cannot save replay .*shard_0: No space left"):
        save(tmp_path, replay, entry)
    assert names(tmp_path) == before
    check_replay(tmp_path, entry)


def test_every_file_and_then_their_folder_are_brought_to_the_disk(tmp_path, monkeypatch) -> None:
    folders: list[bool] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        folders.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real(descriptor)

    replay = make_replay(50)
    replay.add(Worker(CARTPOLE).block(20))
    monkeypatch.setattr(os, "fsync", noted)
    save(tmp_path, replay)
    assert folders == [True, True, False, False, True]  # the new folders, two files, their folder


def test_an_entry_of_another_replay_is_refused(tmp_path: Path) -> None:
    replay, worker = make_replay(50), Worker(CARTPOLE)
    for num in (20, 10):
        replay.add(worker.block(num))
    state = replay.get_state(20, 21)
    other = make_replay(50)
    other.add(worker.block(15))
    for previous in (None, save(tmp_path, other)):
        with pytest.raises(ValueError, match="is missing"):
            save_replay(tmp_path, 0, state, previous)


def test_equal_runs_write_equal_files(tmp_path: Path) -> None:
    for run in ("one", "two"):
        replay = make_replay(50)
        replay.add(Worker(CARTPOLE).block(20, priorities=np.ones(20)))
        save(tmp_path / run, replay)
    assert names(tmp_path / "one") == names(tmp_path / "two")


def test_compressed_frames_are_saved_as_they_are_in_pieces(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("lz4.block")
    monkeypatch.setattr(module, "SEGMENT_BYTES", 600)
    spec = ObservationSpec((10, 10), "uint8", stack=4)
    worker, replay = Worker(spec), make_replay(60, spec, compression="lz4")
    entry = save(tmp_path, replay)
    for _ in range(3):
        replay.add(worker.block(30, masked=True))
        entry = save(tmp_path, replay, entry)
    assert len(entry["segments"]) > 6
    for compression in ("lz4", "none"):
        restored = make_replay(60, spec, seed=5, compression=compression)
        restored.set_state(load_replay(tmp_path, entry))
        before = replay.get_state()
        assert_draws_the_same(replay, restored)
        replay.set_state(before)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_piece_with_live_items_may_hold_evicted_frames_only(
    tmp_path: Path, monkeypatch, compression: str
) -> None:
    if compression == "lz4":
        pytest.importorskip("lz4.block")
    monkeypatch.setattr(module, "SEGMENT_BYTES", 4_000)
    spec = ObservationSpec((10, 10), "uint8", stack=4)
    worker, replay = Worker(spec), make_replay(100, spec, compression=compression)
    for _ in range(20):
        replay.add(worker.block(1, num_frames=20))
    replay.add(worker.block(60))
    before = save(tmp_path, replay)  # 80 items and 461 frames, cut apart
    replay.add(worker.block(60))
    entry = save(tmp_path, replay, before)
    first_item, oldest_frame = 40, 400
    assert any(
        piece["end_item"] > first_item and piece["end_frame"] < oldest_frame
        for piece in entry["segments"]
    )
    restored = make_replay(100, spec, seed=5, compression=compression)
    restored.set_state(load_replay(tmp_path, entry))
    assert_draws_the_same(replay, restored)
