"""What is written comes back; what was harmed is refused by name."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distdqn.errors import CheckpointError
from distdqn.files import checkpoint as module
from distdqn.files.checkpoint import (
    Checkpoint,
    checkpoints,
    find_checkpoint,
    has_resumable,
    load_checkpoint,
    newest,
    prune,
    save_checkpoint,
    step_folder,
)

FILES = ["manifest.json", "online.safetensors", "optimizer.safetensors", "target.safetensors"]


def make(env_steps: int = 1000) -> Checkpoint:
    rng = np.random.default_rng(env_steps)
    counters: dict[str, Any] = {"env_steps": np.int64(env_steps), "gradient_steps": 7}
    shapes = {"torso.0.weight": (3, 4), "torso.0.bias": (3,), "scale": ()}
    return Checkpoint(
        online={k: rng.standard_normal(s, np.float32) for k, s in shapes.items()},
        target={k: rng.standard_normal(s, np.float32) for k, s in shapes.items()},
        optimizer={"first_moment": rng.standard_normal(16), "step": np.array(7, np.int64)},
        counters=counters | {"best_return": 0.1 + 0.2},
        network={
            "observation": {"shape": (4,), "dtype": "float32"},
            "num_actions": 2,
            "hidden": [120, 84],
        },
        env_id="CartPole-v1",
    )


def assert_equal(got: Checkpoint, expected: Checkpoint) -> None:
    for name in ("online", "target", "optimizer"):
        a, b = getattr(got, name), getattr(expected, name)
        assert a.keys() == b.keys()
        for key in b:
            assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape
            np.testing.assert_array_equal(a[key], b[key])
    assert got.counters == expected.counters
    assert got.env_id == expected.env_id


def save_steps(run: Path, *steps: int) -> list[Path]:
    return [save_checkpoint(step_folder(run, n), make(n)) for n in steps]


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints" / "step_1000", make())
    assert sorted(p.name for p in path.iterdir()) == FILES
    got = load_checkpoint(path)
    assert_equal(got, make())
    assert got.env_steps == 1000
    assert got.network == {
        "observation": {"shape": [4], "dtype": "float32"},
        "num_actions": 2,
        "hidden": [120, 84],
    }


def test_an_array_that_is_a_view_is_written_by_its_values(tmp_path):
    matrix = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    view = Checkpoint({"w": matrix.T[::2]}, {}, {}, {"env_steps": 1}, {})
    got = load_checkpoint(save_checkpoint(tmp_path / "c", view))
    np.testing.assert_array_equal(got.online["w"], matrix.T[::2])


def test_saving_again_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    save_checkpoint(tmp_path / "best", make(1))
    save_checkpoint(tmp_path / "best", make(2))
    assert_equal(load_checkpoint(tmp_path / "best"), make(2))
    assert os.listdir(tmp_path) == ["best"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["truncated", "altered", "removed", "emptied"])
def test_a_harmed_file_is_named(tmp_path, name, harm):
    path = save_checkpoint(tmp_path / "step_5", make())
    data = (path / name).read_bytes()
    if harm == "removed":
        (path / name).unlink()
    elif harm == "altered":
        # The last digit of a JSON number, or one bit of an array.
        at = data.index(b"1000") if name == "manifest.json" else len(data) - 1
        (path / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    else:
        (path / name).write_bytes(data[: len(data) // 2 if harm == "truncated" else 0])
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_another_format_names_both_versions(tmp_path):
    path = save_checkpoint(tmp_path / "c", make())
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 2, "distdqn": "9.1"}))
    with pytest.raises(CheckpointError, match=r"format 2 \(distdqn 9.1\).*reads format 1"):
        load_checkpoint(path)


def test_no_checkpoint_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at .*nothing: manifest.json is miss"):
        load_checkpoint(tmp_path / "nothing")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "best", make(1))

    def full(path, data, write=module.write_file):
        if path.name == "optimizer.safetensors":
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(module, "write_file", full)
    with pytest.raises(CheckpointError, match="cannot save .*best: No space left on device"):
        save_checkpoint(tmp_path / "best", make(2))
    assert_equal(load_checkpoint(tmp_path / "best"), make(1))
    assert os.listdir(tmp_path) == ["best"]


def test_a_writer_killed_between_the_renames_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "best", make(1))
    rename, calls = os.rename, []

    def killed(old, new):
        if Path(new).parent == tmp_path:  # not one of the files inside
            calls.append(new)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(old, new)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "best", make(2))
    monkeypatch.undo()
    assert not (tmp_path / "best").exists()
    assert_equal(load_checkpoint(tmp_path / "best"), make(1))
    assert find_checkpoint(tmp_path)[0] == tmp_path / "best"
    save_checkpoint(tmp_path / "best", make(3))
    assert_equal(load_checkpoint(tmp_path / "best"), make(3))
    assert os.listdir(tmp_path) == ["best"]


def test_checkpoints_are_in_order_of_steps_not_of_letters(tmp_path):
    save_steps(tmp_path, 900, 1000, 20)
    (tmp_path / "checkpoints" / "replay").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_20", "step_900", "step_1000"]


def test_the_newest_valid_skips_harmed_ones_and_says_which_file(tmp_path):
    first, second, third = save_steps(tmp_path, 10, 20, 30)
    path, _, warnings = newest(tmp_path)
    assert (path, warnings) == (third, [])
    (third / "target.safetensors").write_bytes(b"")
    (second / "manifest.json").unlink()
    path, _, warnings = newest(tmp_path)
    assert path == first and len(warnings) == 2
    assert "step_30/target.safetensors is truncated" in warnings[0]
    assert warnings[0].endswith("using step_10")
    (first / "online.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step_10/online.safetensors is missing"):
        newest(tmp_path)


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="it has none yet"):
        newest(tmp_path)


def test_the_best_is_the_newest_until_one_is_kept(tmp_path):
    first, second = save_steps(tmp_path, 10, 20)
    assert find_checkpoint(tmp_path, "best")[::2] == (second, [])
    best = save_checkpoint(tmp_path / "best", make(10))
    path, checkpoint, lines = find_checkpoint(tmp_path, "best")
    assert (path, lines) == (best, [])
    assert_equal(checkpoint, make(10))
    assert find_checkpoint(tmp_path, "newest")[::2] == (second, [])
    for which in (first, "step_10", "checkpoints/step_10"):
        assert find_checkpoint(tmp_path, which)[0] == first
    with pytest.raises(CheckpointError, match="step_99: required best, newest, or a path"):
        find_checkpoint(tmp_path, "step_99")


def test_pruning_keeps_the_newest_and_removes_what_broken_off_writers_left(tmp_path):
    kept = save_steps(tmp_path, 10, 20, 30, 40)[2:]
    partial = tmp_path / "checkpoints" / ".step_50.partial-abcd"
    partial.mkdir()
    (partial / "online.safetensors").write_bytes(b"half")
    assert len(prune(tmp_path, keep=2)) == 3
    assert checkpoints(tmp_path) == kept and not partial.exists()
    assert prune(tmp_path, keep=2) == []
    with pytest.raises(ValueError, match="keep must be >= 1, got 0"):
        prune(tmp_path, keep=0)


def test_what_a_crash_left_in_place_of_the_best_goes_with_the_next_pruning(tmp_path):
    save_checkpoint(tmp_path / "best", make(1))
    for name in (".best.old", ".best.partial-0123abcd"):
        save_checkpoint(tmp_path / name, make(2))
    save_steps(tmp_path, 20)

    prune(tmp_path, keep=1)

    assert sorted(os.listdir(tmp_path)) == ["best", "checkpoints"]


def test_the_only_best_there_is_stays_though_its_writer_was_killed(tmp_path):
    save_checkpoint(tmp_path / ".best.old", make(1))
    save_steps(tmp_path, 20)

    prune(tmp_path, keep=1)

    assert_equal(load_checkpoint(tmp_path / "best"), make(1))


def test_a_run_goes_on_from_the_newest_checkpoint_with_its_state(tmp_path):
    resumable = dataclasses.replace(make(1), run_state={"round": 3, "curve": np.arange(3.0)})
    save_checkpoint(step_folder(tmp_path, 20), make(2))
    assert not has_resumable(tmp_path)
    save_checkpoint(step_folder(tmp_path, 10), resumable)
    assert has_resumable(tmp_path)

    _, found, warnings = newest(tmp_path, resumable=True)

    assert_equal(found, make(1))
    assert found.run_state is not None and found.run_state["round"] == 3
    np.testing.assert_array_equal(found.run_state["curve"], np.arange(3.0))
    assert warnings == []


def test_weights_alone_are_not_enough_to_go_on(tmp_path):
    save_checkpoint(step_folder(tmp_path, 20), make(2))
    with pytest.raises(
        CheckpointError, match="no checkpoint to resume .*step_20 has weights alone"
    ):
        newest(tmp_path, resumable=True)
    with pytest.raises(CheckpointError, match="it has none yet"):
        newest(tmp_path / "nothing", resumable=True)


def test_an_altered_run_state_is_refused_by_name(tmp_path):
    path = save_checkpoint(tmp_path / "c", dataclasses.replace(make(), run_state={"round": 3}))
    (path / "run_state.msgpack").write_bytes(b"\x92\x01\x00")
    with pytest.raises(CheckpointError, match=r"run_state\.msgpack is truncated"):
        load_checkpoint(path)
