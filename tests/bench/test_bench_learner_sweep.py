"""The learner's sweep: what is varied, and what limits what."""

from __future__ import annotations

import pytest

from distdqn.bench import learner as single
from distdqn.bench import learner_sweep as sweep
from distdqn.bench.measure import Rates

TINY = dict(networks=("mlp",), batch_sizes=(4,), superbatch=2, capacity=600, threads=1)
QUICK = dict(repeats=2, seconds=0.01, devices=("cpu",))


def test_eager_updates_are_measured_bare_and_fed_without_a_limit():
    options = sweep.Options(**TINY, **QUICK, precisions=("float32",), modes=("eager",))
    lines = []

    result = sweep.run(options, lines.append)

    assert [(case.name, case.settings["mode"]) for case in result.cases] == [
        ("update", "eager"),
        ("fed", "eager"),
    ]
    for case in result.cases:
        assert case.limit is None and case.value.min > 0 and case.unit == "updates/s"
        # 4 inputs, 120 and 84 hidden, 2 actions
        assert case.details == {"threads": 1, "parameters": 5 * 120 + 121 * 84 + 85 * 2}
    assert not result.notes and lines[0] == "mlp, batch 4, float32, cpu"


def test_what_cannot_be_compiled_is_noted_and_measured_eager(monkeypatch):
    monkeypatch.setattr(single, "compile_update", lambda learner: "no compiler")
    options = sweep.Options(**TINY, **QUICK, precisions=("float32",))

    result = sweep.run(options, lambda line: None)

    assert {case.settings["mode"] for case in result.cases} == {"eager"}
    assert result.notes == ("mlp, cpu: no limit, no compiler",)


def test_batch_sizes_and_precisions_are_varied_around_the_first_of_each():
    options = sweep.Options(
        batch_sizes=(32, 64, 128), precisions=("float32", "bfloat16"), devices=("cpu",), double=True
    )

    planned = list(sweep._plan(options, "nature"))

    assert [(one.batch_size, one.precision) for one in planned] == [
        (32, "float32"),
        (64, "float32"),
        (128, "float32"),
        (32, "bfloat16"),
    ]
    assert all(one.network == "nature" and one.double for one in planned)


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
    assert sweep._devices(wanted) == devices


def test_the_bare_compiled_update_is_the_limit_of_all_the_others():
    one = single.parse(["--network", "mlp", "--device", "cpu"])
    measured = {
        name: Rates((rate, rate), 0.1)
        for name, rate in (
            ("update compiled", 100.0),
            ("fed compiled", 80.0),
            ("update eager", 25.0),
            ("fed eager", 20.0),
        )
    }

    cases = list(sweep._cases(one, measured, {name: {} for name in measured}))

    shares = [None if case.share is None else case.share.median for case in cases]
    assert shares == [None, 0.8, 0.25, 0.2]
    assert [case.limit_name for case in cases] == ["", *[sweep.LIMIT] * 3]
