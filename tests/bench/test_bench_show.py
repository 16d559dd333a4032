"""What is made of a result: ratios, tables, plot, page."""

from __future__ import annotations

import dataclasses

import pytest
from bench_parts import made_up_case, made_up_result

from distdqn.bench.page import to_html
from distdqn.bench.panels import panels
from distdqn.bench.plot import svg_text, write_png
from distdqn.bench.ratios import compare
from distdqn.bench.result import Figure, Result
from distdqn.bench.table import comparison_lines, number, panel_rows, percent, seconds


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
    assert "only in the old result: add size=1000 kind=uniform" in comparison_lines(comparison)


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
        (-2.5e9, "-2.5G"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_shares_and_times_have_units():
    assert percent(0.0235) == "2.35 %" and percent(1.746) == "175 %"
    assert [seconds(x) for x in (2.0, 0.0123, 4.5e-6, 6e-9)] == ["2 s", "12.3 ms", "4.5 us", "6 ns"]


def test_a_panel_says_once_what_its_cases_share():
    first = made_up_case(settings={"size": 10_000, "kind": "uniform", "full": True})
    second = dataclasses.replace(first, settings={"size": 10_000, "kind": "fifo", "full": True})

    (panel, other) = panels([first, made_up_case("add"), second])

    assert panel.shared == "size 10,000  full" and panel.told == ("kind uniform", "kind fifo")
    assert panel.title == "sample, transitions/s" and panel.limit_name == "memcpy"
    assert other.shared == "" and other.told == ("size 1,000  kind uniform",)


def test_a_column_that_no_case_fills_is_left_out():
    (panel,) = panels([made_up_case(limit=(), cpu_s=0.002, details={"threads": 2})])
    columns, rows = panel_rows(panel)

    assert columns == ("", "median", "min - max", "CPU per unit", "besides")
    assert rows == [("size 1,000  kind uniform", "11", "10 - 12", "2 ms", "threads 2")]


def test_the_page_holds_figures_picture_machine_options_and_ratios():
    result = made_up_result(made_up_case(), made_up_case("<add>", limit=()))
    page = to_html(result, compare(made_up_result(made_up_case(value=(5.0, 5.0, 5.0))), result))

    for words in ("<svg", "memcpy", "50 %", "Fast", "a note", "2.20", "&lt;add&gt;", "repeats"):
        assert words in page
    assert "<add>" not in page and "http" not in page.replace("http://www.w3.org/", "").replace(
        "http://purl.org/", ""
    ).replace("http://creativecommons.org/", "").replace("https://matplotlib.org/", "")


def test_thirty_cases_zeros_and_none_at_all_can_be_drawn(tmp_path):
    many = [
        made_up_case(value=(10.0**k,) * 3, limit=(), settings={"size": 10**k}) for k in range(30)
    ]
    zero = made_up_case("none", value=(0.0, 0.0, 0.0), limit=())
    write_png(tmp_path / "many.png", made_up_result(*many, zero))
    write_png(tmp_path / "none.png", made_up_result())

    for name in ("many.png", "none.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_result_gives_the_same_picture():
    result = made_up_result(made_up_case())
    assert svg_text(result) == svg_text(result)
    assert svg_text(result) != svg_text(
        made_up_result(dataclasses.replace(made_up_case(), value=Figure(1.0, 1.0, 1.0)))
    )
