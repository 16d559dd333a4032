"""The learner's benchmark: its figures, its made-up experience, its flags."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from distdqn.bench import learner as bench
from distdqn.bench.measure import Rates
from distdqn.bench.result import Result
from distdqn.bench.synthetic import TASKS, filled_replay, make_block

TINY = ["--device", "cpu", "--seconds", "0.05", "--repeats", "2", "--capacity", "600"]
SMALL = dict(networks=("mlp",), batch_sizes=(4,), superbatch=2, capacity=600, threads=1)
QUICK = dict(repeats=2, seconds=0.01, devices=("cpu",))


def test_the_command_prints_its_figures_as_json():
    command = [sys.executable, "-m", "distdqn.bench.learner", *TINY, "--network", "minatar"]
    flags = ["--eager", "--batch-size", "8", "--superbatch", "2", "--prioritized", "--json"]
    done = subprocess.run([*command, *flags], capture_output=True, timeout=300, check=True)

    result = Result.from_json(json.loads(done.stdout))

    cases = {case.name: case for case in result.cases}
    assert list(cases) == ["update", "fed", "staged"]
    assert result.options["prioritized"] and result.options["networks"] == ["minatar"]
    for case in result.cases:
        assert 0 < case.value.min <= case.value.median <= case.value.max
        assert case.details["parameters"] == 592 + 131200 + 774
        assert (case.settings["device"], case.settings["batch"]) == ("cpu", 8)
        assert case.peak_bytes > 10**7
    assert cases["update"].settings["mode"] == cases["fed"].settings["mode"] == "eager"
    shares = [value for name, value in cases["fed"].details.items() if "share" in name]
    assert len(shares) == 3 and sum(shares) == pytest.approx(1)
    assert {"cpu", "cores", "torch", "numpy", "python"} <= result.machine.keys()


def test_the_table_names_the_rates_and_the_share(capsys):
    flags = ["--network", "mlp", "--eager", "--batch-size", "8", "--superbatch", "2", "--double"]
    assert bench.main([*TINY, *flags]) == 0
    shown = capsys.readouterr()
    assert "mlp, batch 8, float32, cpu" in shown.err
    assert "fed network=mlp batch=8" in shown.out and "updates/s" in shown.out
    assert "sample share" in shown.out


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch-size", "0"],
        ["--precision", "float16"],
        ["--seconds", "nan"],
    ],
)
def test_flags_out_of_range_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        bench.main(flags)
    assert f"error: {flags[0]}" in capsys.readouterr().err


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
    assert replay.frames.capacity == math.ceil(600 * (1.01 + 48 / 512) * (1 + 512 / 600))
    assert set(np.unique(batch.discount_t)) <= {np.float32(0), np.float32(0.99**3)}


# --- the sweep -----------------------------------------------------------------------


def test_eager_updates_are_measured_bare_and_fed_without_a_limit():
    options = bench.Options(**SMALL, **QUICK, precisions=("float32",), modes=("eager",))
    lines = []

    result = bench.run(options, lines.append)

    assert [(case.name, case.settings.get("mode")) for case in result.cases] == [
        ("update", "eager"),
        ("fed", "eager"),
        ("staged", None),
    ]
    for case in result.cases:
        assert case.limit is None and case.value.min > 0 and case.unit == "updates/s"
        # 4 inputs, 120 and 84 hidden, 2 actions
        facts = {"threads": 1, "parameters": 5 * 120 + 121 * 84 + 85 * 2}
        assert facts.items() <= case.details.items()
    assert not result.notes and lines[0] == "mlp, batch 4, float32, cpu"


def test_what_cannot_be_compiled_is_noted_and_measured_eager(monkeypatch):
    monkeypatch.setattr(bench, "compile_now", lambda learner: "no compiler")
    options = bench.Options(**SMALL, **QUICK, precisions=("float32",))

    result = bench.run(options, lambda line: None)

    assert [case.settings.get("mode") for case in result.cases] == ["eager", "eager", None]
    assert result.notes == ("mlp, cpu: no limit, no compiler",)


def test_batch_sizes_and_precisions_are_varied_around_the_first_of_each():
    options = bench.Options(
        batch_sizes=(32, 64, 128), precisions=("float32", "bfloat16"), devices=("cpu",)
    )

    planned = list(bench.plan(options, "nature"))

    assert [(one.batch, one.precision) for one in planned] == [
        (32, "float32"),
        (64, "float32"),
        (128, "float32"),
        (32, "bfloat16"),
    ]
    assert {(one.network, one.device) for one in planned} == {("nature", "cpu")}


@pytest.mark.parametrize(
    ("present", "wanted", "devices"),
    [
        (False, ("auto",), ["cpu"]),
        (True, ("auto",), ["cpu", "cuda"]),
        (True, ("cuda", "auto"), ["cuda", "cpu"]),
        (False, ("cuda",), ["cuda"]),  # the learner refuses it in a line
    ],
)
def test_auto_stands_for_the_devices_that_are_present(monkeypatch, present, wanted, devices):
    monkeypatch.setattr("torch.cuda.is_available", lambda: present)
    options = bench.Options(batch_sizes=(32,), precisions=("float32",), devices=wanted)
    assert [point.device for point in bench.plan(options, "mlp")] == devices


def test_the_bare_compiled_update_is_the_limit_of_all_the_others():
    point = bench.Point("mlp", 32, "float32", "cpu")
    measured = {
        name: Rates((rate, rate), 0.1)
        for name, rate in (
            ("update compiled", 100.0),
            ("fed compiled", 80.0),
            ("update eager", 25.0),
            ("fed eager", 20.0),
        )
    }

    cases = bench.cases_of(point, measured, {}, {})

    shares = [None if case.share is None else case.share.median for case in cases]
    assert shares == [None, 0.8, 0.25, 0.2]
    assert [case.limit_name for case in cases] == ["", *[bench.LIMIT] * 3]
