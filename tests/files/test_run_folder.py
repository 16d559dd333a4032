"""Names that are in use, and files that other shells read."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from distdqn.errors import RunError
from distdqn.files.run_folder import RunFolder, list_runs
from distdqn.telemetry.histograms import LogHistogram


def create(runs_dir, name=None, env_id="CartPole-v1") -> RunFolder:
    return RunFolder.create(runs_dir, name, env_id, "seed: 1\n")


def test_a_new_run_says_who_owns_it(tmp_path):
    folder = create(tmp_path / "runs", "first")
    assert folder.path == tmp_path / "runs" / "first" and folder.name == "first"
    assert folder.config_path.read_text() == "seed: 1\n"
    run = folder.read_run_json()
    assert run["pid"] == os.getpid() and run["state"] == "starting"
    folder.tell(
        state="running",
        address="127.0.0.1:6379",
        namespace="first",
        token_file=str(folder.token_path),
    )
    run = RunFolder.find("first", tmp_path / "runs").read_run_json()
    assert (run["state"], run["address"], run["namespace"]) == (
        "running",
        "127.0.0.1:6379",
        "first",
    )
    assert run["pid"] == os.getpid() and run["token_file"].endswith("first/ray_token")
    folder.tell(state="finished")
    assert folder.read_run_json()["state"] == "finished"
    assert not list(folder.path.glob(".*"))


def test_a_new_run_removes_the_tokens_of_those_that_were_killed(tmp_path):
    killed, live, unknown = create(tmp_path, "killed"), create(tmp_path, "live"), tmp_path / "x"
    killed.tell(state="running", pid_created=1.0)
    unknown.mkdir()
    tokens = [killed.token_path, live.token_path, unknown / "ray_token"]
    for token in tokens:
        token.touch()

    create(tmp_path, "new")

    assert [token.exists() for token in tokens] == [False, True, True]


def test_the_default_name_is_environment_and_time_and_never_taken(tmp_path):
    names = [create(tmp_path, env_id="ALE/Pong-v5").name for _ in range(3)]
    assert len(set(names)) == 3
    for name in names:
        assert re.fullmatch(r"ALE-Pong-v5-\d{8}-\d{6}(-\d+)?", name)


def test_a_name_in_use_by_a_live_process_is_refused_with_its_pid(tmp_path):
    create(tmp_path, "one")
    with pytest.raises(RunError, match=f"in use by process {os.getpid()} on .*--run-name"):
        create(tmp_path, "one")


def test_the_name_of_a_finished_run_is_refused_with_its_folder(tmp_path):
    create(tmp_path, "one").tell(state="finished", trained=True)
    with pytest.raises(RunError, match=r"is taken: .*/one is there; choose another --run-name"):
        create(tmp_path, "one")


def test_a_run_is_live_only_while_its_very_process_is(tmp_path):
    script = (
        "import sys; from distdqn.files.run_folder import RunFolder\n"
        f"print(RunFolder.create({str(tmp_path)!r}, 'one', 'E', '').is_live)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=300)
    assert done.stdout == b"True\n", done.stderr
    folder = RunFolder(tmp_path / "one")
    assert not folder.is_live
    # The number now belongs to another process: this one.
    run = folder.read_run_json() | {"pid": os.getpid()}
    (folder.path / "run.json").write_text(json.dumps(run))
    assert not folder.is_live
    (folder.path / "run.json").write_text(json.dumps(run | {"host": "elsewhere"}))
    assert folder.is_live


def test_of_two_that_take_one_name_one_succeeds(tmp_path):
    results = []

    def take():
        try:
            results.append(create(tmp_path, "one").name)
        except RunError as error:
            results.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert len(results) == 8 and results.count("one") == 1


def test_a_start_that_failed_leaves_no_folder(tmp_path):
    folder = create(tmp_path, "one")
    folder.token_path.write_text("secret")
    folder.tell(state="failed")

    folder.drop_failed_start()

    assert not folder.path.exists()


@pytest.mark.parametrize("kept", ["trained", "checkpoints"])
def test_a_run_that_failed_later_keeps_its_folder_without_the_token(tmp_path, kept):
    folder = create(tmp_path, "one")
    folder.token_path.write_text("secret")
    if kept == "trained":
        folder.tell(trained=True)
    else:
        (folder.path / "checkpoints").mkdir()
    folder.tell(state="failed")

    folder.drop_failed_start()

    assert list_runs(tmp_path) == [folder.path] and not folder.token_path.exists()


def test_a_failed_start_with_a_log_stays_but_neither_its_name_nor_the_list_is_taken(tmp_path):
    failed, log = create(tmp_path, "one"), tmp_path / "one" / "errors.log"
    log.write_text("why")
    failed.tell(state="failed")

    failed.drop_failed_start()

    assert list_runs(tmp_path) == [] and log.exists()
    with pytest.raises(RunError, match="no run 'x' in .*: there is none yet"):
        RunFolder.find("x", tmp_path)
    with pytest.raises(RunError, match=f"ended before it had trained.*; {log} says why"):
        RunFolder.find("one", tmp_path)
    create(tmp_path, "one")
    assert not log.exists() and list_runs(tmp_path) == [tmp_path / "one"]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_start_that_was_killed_holds_its_name_no_longer(tmp_path):
    run = create(tmp_path, "one").read_run_json()
    (tmp_path / "one" / "run.json").write_text(json.dumps(run | {"pid": 2**22 + 1}))

    assert list_runs(tmp_path) == []
    assert create(tmp_path, "one").is_live


def test_a_place_that_cannot_be_written_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make a folder in .*/file: .*--runs-dir"):
        create(tmp_path / "file")


def test_a_run_is_found_by_name_and_by_path(tmp_path):
    path = create(tmp_path, "one").path
    assert RunFolder.find("one", tmp_path).path == path
    assert RunFolder.find(path, tmp_path / "elsewhere").path == path


def test_a_run_that_is_not_there_names_the_newest(tmp_path):
    with pytest.raises(RunError, match="no run 'x' in .*: there is none yet"):
        RunFolder.find("x", tmp_path / "nowhere")
    for index in range(7):
        path = create(tmp_path, f"run{index}").path / "run.json"
        os.utime(path, (1000 + index, 1000 + index))
    assert [path.name for path in list_runs(tmp_path)][:2] == ["run6", "run5"]
    with pytest.raises(RunError, match="the newest are run6, run5, run4, run3, run2$"):
        RunFolder.find("x", tmp_path)


def test_a_name_that_is_almost_one_names_the_run_that_was_meant(tmp_path):
    create(tmp_path, "CartPole-long")
    with pytest.raises(RunError, match=r"did you mean CartPole-long\?$"):
        RunFolder.find("cartpole_long", tmp_path)


def test_a_folder_of_runs_and_a_checkpoint_are_told_from_a_run(tmp_path):
    best = create(tmp_path, "one").path / "best"
    with pytest.raises(RunError, match="holds runs and is none: .* the newest are one$"):
        RunFolder.find(tmp_path, tmp_path)
    best.mkdir()
    (best / "manifest.json").touch()
    with pytest.raises(RunError, match=f"is a checkpoint: name its run, .*/one, and .* {best}$"):
        RunFolder.find(best, tmp_path)


def lines(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def events(folder: RunFolder) -> list[tuple[str, int, float]]:
    from tensorboard.backend.event_processing import (
        event_file_loader,
    )

    found = []
    for path in sorted(folder.path.glob("events.out.tfevents.*")):
        for event in event_file_loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = value.simple_value or value.tensor.float_val[0]
                found.append((value.tag, event.step, number))
    return found


def test_scalars_reach_metrics_and_tensorboard_under_the_same_names(tmp_path):
    folder = create(tmp_path)
    folder.metrics.write({"losses/td_loss": np.float32(0.5), "charts/staleness": math.nan}, 10, 3)
    folder.metrics.write({"losses/td_loss": math.inf}, 15, 3)
    folder.metrics.write_episodes([(20, 9.0, 9), (21, np.float64(-3.5), 30)], 4)
    folder.close()
    folder.close()
    written = lines(folder)
    times = [line.pop("time") for line in written]
    assert times == sorted(times) and abs(times[0] - time.time()) < 600
    assert [(line.pop("global_step"), line.pop("gradient_steps")) for line in written] == [
        (10, 3),
        (20, 4),
        (21, 4),
    ]
    assert written == [
        {"losses/td_loss": 0.5},
        {"charts/episodic_return": 9.0, "charts/episodic_length": 9.0},
        {"charts/episodic_return": -3.5, "charts/episodic_length": 30.0},
    ]
    assert events(folder) == [
        ("losses/td_loss", 10, 0.5),
        ("charts/episodic_return", 20, 9.0),
        ("charts/episodic_length", 20, 9.0),
        ("charts/episodic_return", 21, -3.5),
        ("charts/episodic_length", 21, 30.0),
    ]


def test_an_evaluation_keeps_the_step_of_its_weights_and_the_lines_their_order(tmp_path):
    folder = create(tmp_path)
    folder.metrics.write({"losses/td_loss": 0.5}, 900, 30)
    folder.metrics.write({"eval/episodic_return": 7.0}, 900, 30, evaluated=600)
    folder.close()
    line = lines(folder)[1]
    assert (line["global_step"], line["gradient_steps"], line["eval/env_steps"]) == (900, 30, 600)
    assert events(folder) == [("losses/td_loss", 900, 0.5), ("eval/episodic_return", 600, 7.0)]


def test_a_histogram_reaches_tensorboard_bucket_by_bucket_and_metrics_not_at_all(tmp_path):
    from tensorboard.backend.event_processing import event_file_loader
    from tensorboard.util import tensor_util

    folder = create(tmp_path)
    histogram = LogHistogram(np.array([0.0, 1.0, 1.0, 8.0, math.inf]))
    folder.metrics.write_histogram("losses/td_error_abs", *histogram.bins(), 12)
    folder.close()
    (path,) = folder.path.glob("events.out.tfevents.*")
    (event,) = [e for e in event_file_loader.EventFileLoader(str(path)).Load() if e.step]
    (value,) = event.summary.value
    assert (value.tag, event.step) == ("losses/td_error_abs", 12)
    assert value.metadata.plugin_data.plugin_name == "histograms"
    buckets = tensor_util.make_ndarray(value.tensor)  # [n, 3]: left, right, count
    assert buckets[:, 2].sum() == 5 and np.isfinite(buckets).all()
    for number, count in ((0.0, 1), (1.0, 2), (8.0, 1), (1.2e6, 1)):
        (inside,) = buckets[(buckets[:, 0] <= number) & (number < buckets[:, 1])]
        assert inside[2] == count
    assert lines(folder) == []


def test_metrics_reach_the_disk_while_the_run_goes_on(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("distdqn.files.metrics_log.time.monotonic", lambda: clock[0])
    folder = create(tmp_path)
    folder.metrics.write({"a": 1.0}, 1, 0)
    folder.metrics.write({"a": 2.0}, 2, 0)
    assert [line["global_step"] for line in lines(folder)] == [1]
    clock[0] += 1.0
    folder.metrics.write({"a": 3.0}, 3, 0)
    assert [line["global_step"] for line in lines(folder)] == [1, 2, 3]
    folder.close()


def test_a_resumed_run_goes_on_in_the_same_metrics(tmp_path):
    folder = create(tmp_path, "one")
    folder.metrics.write({"a": 1.0}, 1, 0)
    folder.close()
    again = RunFolder.find("one", tmp_path)
    again.metrics.write({"a": 2.0}, 2, 0)
    again.close()
    assert [line["a"] for line in lines(again)] == [1.0, 2.0]
    assert [value for _, _, value in events(again)] == [1.0, 2.0]


def test_the_summary_is_standard_json(tmp_path):
    folder = create(tmp_path)
    folder.write_summary({"a": math.nan, "b": np.int64(3), "c": (1, math.inf), "d": folder.path})
    summary = json.loads((folder.path / "summary.json").read_text())
    assert summary == {"a": None, "b": 3, "c": [1, None], "d": str(folder.path)}


def test_a_video_lies_in_its_folder(tmp_path):
    folder = create(tmp_path)
    path = folder.write_video("best_0.mp4", b"film")
    assert path == folder.path / "videos" / "best_0.mp4" and path.read_bytes() == b"film"


def tags_and_steps(folder: RunFolder) -> list[tuple[int, float]]:
    """(global step, value) of the tag "a" as TensorBoard's own reader keeps them."""
    from tensorboard.backend.event_processing import event_accumulator

    accumulator = event_accumulator.EventAccumulator(str(folder.path))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars("a")]


def test_a_rewound_run_writes_on_as_if_it_had_never_gone_further(tmp_path):
    first = create(tmp_path, "one")
    for step in (1, 2, 3, 4):
        first.metrics.write({"a": step}, step, 0)
    first.close()
    with open(first.path / "metrics.jsonl", "a") as lines:
        lines.write('{"global_step": 2, "a"')  # its writer was killed

    second = RunFolder(first.path)
    second.rewind(2)
    second.metrics.write({"a": 30.0}, 3, 0)
    second.close()

    lines = (first.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["a"] for line in lines] == [1.0, 2.0, 30.0]
    assert tags_and_steps(second) == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_rewinding_to_the_start_leaves_an_empty_file(tmp_path):
    folder = create(tmp_path, "one")
    folder.metrics.write({"a": 1.0}, 5, 0)
    folder.close()
    folder.rewind(0)
    folder.close()

    assert (folder.path / "metrics.jsonl").read_text() == ""


def test_what_is_flushed_is_there_for_another_process(tmp_path):
    folder = create(tmp_path, "one")
    for step in range(3):
        folder.metrics.write({"a": 1.0}, step, 0)
    folder.metrics.flush()

    assert len((folder.path / "metrics.jsonl").read_text().splitlines()) == 3
    folder.close()


def test_a_run_is_taken_over_only_when_nobody_has_it(tmp_path):
    folder = create(tmp_path, "one")
    with pytest.raises(RunError, match=f"in use by process {os.getpid()} .* before it is resumed"):
        folder.take_over()
    folder.tell(state="stopped")
    folder.take_over()
    assert folder.is_live
    folder.tell(state="finished")
    with pytest.raises(RunError, match="has finished: there is nothing to resume; --init-from one"):
        folder.take_over()
    folder.close()


def test_visits_come_back(tmp_path):
    from safetensors.numpy import load_file

    folder = create(tmp_path, "one")
    visits = np.arange(6).reshape(3, 2)
    folder.write_visits(visits)

    np.testing.assert_array_equal(load_file(folder.path / "visits.safetensors")["visits"], visits)


def test_tracebacks_are_kept_with_their_time_and_part(tmp_path):
    folder = create(tmp_path)
    assert (
        folder.log_error("worker 1", "Traceback ...\nKeyError: 1\n") == folder.path / "errors.log"
    )
    assert folder.log_error("learner", "ValueError: 2") is None  # already said where
    first, second = (folder.path / "errors.log").read_text().split("\n\n")[:2]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:+-]+ worker 1\nTraceback ...\nKeyError: 1", first)
    assert second.endswith(" learner\nValueError: 2")


def test_the_log_of_tracebacks_does_not_grow_without_end(tmp_path):
    folder = create(tmp_path)
    for _ in range(30):
        folder.log_error("worker 0", "x" * 50_000)
    text = (folder.path / "errors.log").read_text()
    assert 900_000 < len(text) < 1_050_000
    assert text.count("This file is full: what fails from now on is not written down.") == 1


def failed_start(tmp_path):
    """A folder that a start has left, which its log keeps."""
    failed = create(tmp_path, "one")
    (failed.path / "errors.log").write_text("why")
    failed.tell(state="failed")


def assert_the_other_run_is_whole(tmp_path):
    folder = RunFolder(tmp_path / "one")
    assert folder.is_live and not folder.failed_to_start
    assert not (folder.path / "errors.log").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_run_that_takes_the_name_of_a_failed_start_first_keeps_its_folder(tmp_path, monkeypatch):
    failed_start(tmp_path)
    flock = fcntl.flock

    def other_was_faster(*arguments):
        monkeypatch.setattr(fcntl, "flock", flock)
        create(tmp_path, "one")
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", other_was_faster)
    with pytest.raises(RunError, match="run name 'one' is in use by process"):
        create(tmp_path, "one")
    assert_the_other_run_is_whole(tmp_path)


def test_where_nothing_locks_a_folder_that_became_live_is_put_back(tmp_path, monkeypatch):
    failed_start(tmp_path)
    rename = Path.rename

    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "no locks available")

    def other_was_faster(path, target):
        monkeypatch.setattr(Path, "rename", rename)
        create(tmp_path, "one")
        return rename(path, target)

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(Path, "rename", other_was_faster)
    with pytest.raises(RunError, match="run name 'one' is in use by process"):
        create(tmp_path, "one")
    assert_the_other_run_is_whole(tmp_path)
