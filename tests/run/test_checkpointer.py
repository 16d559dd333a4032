"""Flat vectors become files by parameter name, and start other runs."""

import numpy as np
import pytest

from distdqn.config import from_values
from distdqn.errors import RunError
from distdqn.files.checkpoint import checkpoints, load_checkpoint
from distdqn.files.run_folder import RunFolder
from distdqn.run.checkpointer import Checkpointer, by_name, initial_parameters

LAYOUT = (("weight", (2, 3)), ("bias", (2,)))


def make(tmp_path, **keys):
    config = from_values({"runs_dir": str(tmp_path), **keys})
    folder = RunFolder.create(tmp_path, "first", "CartPole-v1", "")
    return config, Checkpointer(folder.path, 2, {"torso": "auto"}, "CartPole-v1"), folder


def state(fill):
    learner = {
        "online": np.full(8, fill, np.float32),
        "target": np.zeros(8, np.float32),
        "second_moment": np.ones(8, np.float32),
        "gradient_steps": 3,
        "target_copies": 1,
    }
    return {"learner": learner, "layout": LAYOUT, "samples": 96, "inserts": 50}


def test_a_flat_vector_is_cut_by_its_layout():
    named = by_name(np.arange(8.0), LAYOUT)
    np.testing.assert_array_equal(named["weight"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(named["bias"], [6, 7])


def test_a_layout_of_another_size_is_a_bug():
    with pytest.raises(AssertionError, match="layout of 8 for a vector of 9"):
        by_name(np.zeros(9), LAYOUT)


def test_a_state_is_saved_with_its_counters_and_the_oldest_goes(tmp_path):
    _, checkpointer, folder = make(tmp_path)
    for env_steps in (100, 200, 300):
        checkpointer.save(state(env_steps), env_steps)
    assert [path.name for path in checkpoints(folder.path)] == ["step_200", "step_300"]
    loaded = load_checkpoint(folder.path / "checkpoints" / "step_300")
    assert loaded.counters["gradient_steps"] == 3
    assert loaded.counters["samples"] == 96
    assert loaded.online["bias"].tolist() == [300, 300]
    assert list(loaded.optimizer) == ["second_moment"]


def test_no_state_saves_nothing(tmp_path):
    _, checkpointer, folder = make(tmp_path)
    assert checkpointer.save(None, 5) is None
    assert checkpoints(folder.path) == []


def test_best_weights_start_another_run(tmp_path):
    config, checkpointer, _ = make(tmp_path)
    checkpointer.save(state(1.0), 100)
    checkpointer.save_best(np.full(8, 7.0, np.float32), LAYOUT, 60)
    for which, value in (("best", 7.0), ("newest", 1.0)):
        second = from_values(
            {"runs_dir": str(tmp_path), "init_from": "first", "init_checkpoint": which}
        )
        assert initial_parameters(second)["bias"].tolist() == [value, value]
    assert initial_parameters(config) is None


def test_a_run_to_start_from_that_does_not_exist_is_named(tmp_path):
    config = from_values({"runs_dir": str(tmp_path), "init_from": "nowhere"})
    with pytest.raises(RunError, match="nowhere"):
        initial_parameters(config)
