"""What is made of a result: ratios, tables, plot."""

from __future__ import annotations

import dataclasses

import pytest
from bench_parts import made_up_case, made_up_result

from distdqn.bench.result import Figure, Result
from distdqn.bench.show import compare, number, panel_rows, panels, percent, show, write_png


def test_a_rate_twice_as_high_is_twice_as_good_and_so_is_a_time_half_as_long():
    old = made_up_result(
        made_up_case("sample", value=(10.0, 10.0, 10.0)),
        made_up_case("publish", value=(8.0, 8.0, 8.0), limit=(2.0, 2.0, 2.0), better="lower"),
    )
    new = made_up_result(
        made_up_case("sample", value=(20.0, 20.0, 20.0)),
        made_up_case("publish", value=(4.0, 4.0, 4.0), limit=(2.0, 2.0, 2.0), better="lower"),
    )

    ratios = compare(old, new).ratios

    assert [ratio.times for ratio in ratios] == [2.0, 2.0]
    assert (ratios[1].old_share, ratios[1].new_share) == (0.25, 0.5)


def test_the_range_of_a_ratio_is_from_the_least_to_the_most_favourable_repetitions():
    old, new = made_up_case(value=(8.0, 10.0, 16.0)), made_up_case(value=(12.0, 20.0, 32.0))

    (ratio,) = compare(made_up_result(old), made_up_result(new)).ratios
    assert (ratio.times, ratio.low, ratio.high) == (2.0, 12 / 16, 32 / 8)

    slow, fast = (dataclasses.replace(case, better="lower") for case in (new, old))
    (ratio,) = compare(made_up_result(slow), made_up_result(fast)).ratios
    assert (ratio.times, ratio.low, ratio.high) == (2.0, 12 / 16, 32 / 8)


def test_a_figure_of_zero_does_not_stop_a_comparison():
    zero = made_up_case(value=(0.0, 0.0, 0.0), limit=())
    (ratio,) = compare(made_up_result(zero), made_up_result(made_up_case(limit=()))).ratios
    assert ratio.times == float("inf")
    (ratio,) = compare(made_up_result(zero), made_up_result(zero)).ratios
    assert ratio.times == 1.0


def test_cases_that_one_side_lacks_are_named():
    old = made_up_result(made_up_case("add"), made_up_case("sample"))
    new = made_up_result(made_up_case("sample"), made_up_case("update"))

    comparison = compare(old, new)

    assert [ratio.label for ratio in comparison.ratios] == ["sample size=1000 kind=uniform"]
    assert comparison.only_old == ("add size=1000 kind=uniform",)
    assert comparison.only_new == ("update size=1000 kind=uniform",)


def test_another_unit_is_not_compared():
    comparison = compare(
        made_up_result(made_up_case(unit="ms")), made_up_result(made_up_case(unit="s"))
    )
    assert not comparison.ratios and "another unit" in comparison.warnings[0]


def test_what_makes_a_comparison_doubtful_is_said():
    old = made_up_result(made_up_case())
    machine = {"cpu": "Slow", "cores": 2, "torch": "2.13", "load_average": [9.0, 9.0, 9.0]}
    new = made_up_result(
        made_up_case(), machine=machine, version="0.2.0", options={"sizes": (5,), "repeats": 3}
    )

    assert compare(old, new).warnings == (
        "the versions of distdqn differ: 0.1.0 -> 0.2.0",
        "the machines differ: cpu Fast -> Slow",
        "the options differ: sizes 1000 -> 5",
    )


def test_a_result_read_from_json_equals_the_one_that_was_written():
    result = made_up_result(made_up_case())
    read = Result.from_json(result.to_json() | {"comparison": {}})

    assert read.cases == result.cases
    assert not compare(read, result).warnings


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.01234, "0.0123"),
        (12.34, "12.3"),
        (999.6, "1,000"),
        (1_234.0, "1,230"),
        (99_999.0, "100,000"),
        (4.567e6, "4.57M"),
        (-2.5e9, "-2,500M"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_shares_are_told_in_percent():
    assert [percent(x) for x in (0.0235, 1.746, None)] == ["2.35 %", "175 %", "-"]


def test_a_panel_says_once_what_its_cases_share():
    first = made_up_case(settings={"size": 10_000, "kind": "uniform", "obs": "pictures"})
    second = dataclasses.replace(first, settings=first.settings | {"kind": "fifo"})

    (panel, other) = panels([first, made_up_case("add"), second])

    assert panel.shared == "size 10,000  obs pictures" and panel.told == (
        "kind uniform",
        "kind fifo",
    )
    assert panel.title == "sample, transitions/s" and panel.limit_name == "memcpy"
    assert other.shared == "" and other.told == ("size 1,000  kind uniform",)


def test_a_column_that_no_case_fills_is_left_out():
    (panel,) = panels([made_up_case(limit=(), cpu_s=0.002)])
    columns, rows = panel_rows(panel)

    assert columns == ("", "median", "min - max", "CPU us per unit")
    assert rows == [("size 1,000  kind uniform", "11", "10 - 12", "2,000")]


def test_figures_notes_machine_and_ratios_are_shown(capsys):
    result = made_up_result(made_up_case(), made_up_case("[add]", limit=(), peak_bytes=5 * 10**7))
    show(result, compare(made_up_result(made_up_case(value=(5.0, 5.0, 5.0))), result))

    shown = capsys.readouterr().err
    for words in ("limit: memcpy", "50 %", "cpu Fast", "a note", "2.20", "[add]", "peak MB"):
        assert words in shown
    assert "only in the new: [add] size=1000 kind=uniform" in shown


def test_thirty_cases_zeros_and_none_at_all_can_be_drawn(tmp_path):
    many = [
        made_up_case(value=(10.0**k,) * 3, limit=(), settings={"size": 10**k}) for k in range(30)
    ]
    zero = made_up_case("none", value=(0.0, 0.0, 0.0), limit=())
    write_png(tmp_path / "many.png", made_up_result(*many, zero))
    write_png(tmp_path / "none.png", made_up_result())

    for name in ("many.png", "none.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_result_gives_the_same_picture(tmp_path):
    result = made_up_result(made_up_case())
    other = made_up_result(dataclasses.replace(made_up_case(), value=Figure(1.0, 1.0, 1.0)))
    for name, one in {"first": result, "again": result, "other": other}.items():
        write_png(tmp_path / name, one)

    pictures = [(tmp_path / name).read_bytes() for name in ("first", "again", "other")]
    assert pictures[0] == pictures[1] != pictures[2]
