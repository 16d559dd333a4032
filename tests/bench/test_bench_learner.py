"""The learner's benchmark: its figures, its made-up experience, its flags."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from distdqn.bench import learner as bench
from distdqn.bench.measure import Rates, measure
from distdqn.bench.synthetic import TASKS, filled_replay, make_block

TINY = ["--device", "cpu", "--seconds", "0.05", "--repeats", "2", "--capacity", "600"]


def test_the_command_prints_its_figures_as_json():
    command = [sys.executable, "-m", "distdqn.bench.learner", *TINY, "--network", "minatar"]
    flags = ["--eager", "--batch-size", "8", "--superbatch", "2", "--prioritized", "--json"]
    done = subprocess.run([*command, *flags], capture_output=True, timeout=300, check=True)
    result = json.loads(done.stdout)
    assert result["parameters"] == 592 + 131200 + 774 and result["device"] == "cpu"
    assert not result["compiled"] and result["options"]["prioritized"]
    for kind in ("bare", "staged", "fed"):
        rate, transitions = result[kind]["updates_per_s"], result[kind]["transitions_per_s"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert transitions["median"] == pytest.approx(8 * rate["median"])
    assert sum(result["fed"]["shares"].values()) == pytest.approx(1)
    assert result["peak_memory_bytes"]["host"] > result["replay_bytes"]
    assert result["peak_memory_bytes"]["device"] is None
    assert {"cpu", "cores", "torch", "numpy", "python"} <= result["machine"].keys()


def test_the_table_names_the_rates_and_the_share(capsys):
    flags = ["--network", "mlp", "--eager", "--batch-size", "8", "--superbatch", "2", "--double"]
    bench.main([*TINY, *flags])
    text = capsys.readouterr().out
    assert "mlp, batch 8, float32, double" in text and "eager by --eager" in text
    assert "fed reaches" in text and "peak memory" in text


@pytest.mark.parametrize(
    "flags", [["--batch-size", "0"], ["--precision", "float16"], ["--compiled", "--eager"]]
)
def test_flags_out_of_range_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        bench.parse(flags)
    assert "error: argument" in capsys.readouterr().err


def test_a_rate_is_the_work_done_over_the_time_it_took(monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 0.5))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("time.process_time", lambda: 7.0)
    # A call lasts half a second and does 3 units: 6 a second, whatever the length.
    rates = measure(lambda: 3, seconds=2.0, repeats=3)
    assert rates.per_s == (6.0, 6.0, 6.0) and rates.cpu_s == 0.0
    assert Rates((1.0, 9.0, 2.0), 0.1).summary(10) == {"median": 20.0, "min": 10.0, "max": 90.0}


@pytest.mark.parametrize("network", list(TASKS))
@pytest.mark.parametrize("n_step", [1, 3])
def test_made_up_blocks_hold_whole_stacks_n_steps_apart(network, n_step):
    task = TASKS[network]
    block = make_block(task, n_step, True, np.random.default_rng(0))
    depth = task.observation.stack - 1
    assert block.num_transitions == 8 * 64
    assert (block.t - block.tm1 == n_step).all() and (block.tm1_depth == depth).all()
    length = len(block.frames) // 8  # of each env; no stack or step crosses into the next
    assert ((block.tm1 - depth) // length == block.t // length).all()


def test_a_filled_replay_gives_batches_of_the_networks_shape():
    task = TASKS["nature"]
    replay = filled_replay(task, 600, True, 3)
    assert replay.size == 600
    batch = replay.sample(2, 4)
    assert batch.obs_tm1.shape == (2, 4, 4, 84, 84) and batch.obs_tm1.dtype == np.uint8
    # As a run plans: 512 of 8 envs in a block repeat 3 + 3 frames each; the ring did not grow.
    assert replay._frames.capacity == math.ceil(600 * (1.01 + 48 / 512) * (1 + 512 / 600))
    assert set(np.unique(batch.discount_t)) <= {np.float32(0), np.float32(0.99**3)}
