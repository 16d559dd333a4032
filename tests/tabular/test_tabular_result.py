"""What is said of a verification: complaints, JSON, rows, pictures, the page."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from tabular_parts import made_up, made_up_outcomes, made_up_result

from distdqn.plain_json import to_json
from distdqn.tabular import figures
from distdqn.tabular import result as rows
from distdqn.tabular.page import to_html
from distdqn.tabular.plan import Bound

ERROR_BOUND = Bound("max_error", 0.03, True)


@pytest.fixture(scope="module")
def page():
    return to_html(made_up())


# --- complaints and JSON -------------------------------------------------------------


def test_a_missed_bound_is_named_with_its_figure():
    result = made_up_result(error=0.04, bounds=(ERROR_BOUND, Bound("greedy_return", 0.1, False)))

    assert result.missed == [ERROR_BOUND]
    assert result.complaints == ["lake-table: max_error is 0.04, must be at most 0.03"]
    assert made_up([result]).complaints == result.complaints


def test_counts_that_do_not_close_are_a_complaint():
    result = made_up_result()
    assert not result.complaints

    lossy = dataclasses.replace(result, summary={**result.summary, "transitions_lost": 2})

    (line,) = lossy.complaints
    assert "1000 transitions collected" in line and "accepted 990, refused 7, lost 2" in line
    assert lossy.to_json()["counts_close"] is False


def test_counts_of_the_ablation_count_too():
    first, *others = made_up_outcomes()
    lossy = dataclasses.replace(first, complaints=("triad-1: 9 transitions collected",))

    assert made_up(outcomes=[lossy, *others]).complaints == ["triad-1: 9 transitions collected"]


def test_json_holds_every_figure_and_both_tables_of_values():
    found = made_up()

    read = json.loads(to_json(found.to_json()))

    assert read["holds"] is True and read["complaints"] == []
    first = read["runs"][0]
    assert first["run_folder"] == "runs/lake-table" and first["counts_close"] is True
    assert first["max_error"] == pytest.approx(0.01)
    assert first["value_error"] == pytest.approx(1e-4)
    assert first["optimal_return"] == pytest.approx(0.740165, abs=1e-6)
    assert first["bounds"] == [
        {"figure": "max_error", "limit": 0.03, "at_most": True, "holds": True}
    ]
    assert [point["env_steps"] for point in first["over_time"]] == [100, 500, 1_000]
    assert len(first["q"]) == len(first["q_star"]) == len(first["visits"]) == 16
    assert first["fewest_visits"] == 5
    assert read["ablation"][0]["title"] == "replay, target network"
    assert read["ablation"][0]["exact_start_value"] is None
    assert read["tsitsiklis_van_roy_weight"]["discount 0.99"][1] == pytest.approx(0.99 * 1.2)


# --- rows ----------------------------------------------------------------------------


def test_the_terminals_columns_are_among_the_pages():
    found = made_up()

    for columns, lines in (
        (rows.SHORT_COLUMNS, [rows.result_row(result) for result in found.results]),
        (rows.SHORT_ABLATION_COLUMNS, rows.ablation_rows(found.outcomes)),
    ):
        assert len({tuple(line) for line in lines}) == 1
        assert rows.only(columns, lines)[0] == tuple(lines[0][column] for column in columns)


def test_a_row_says_which_bounds_hold():
    held = made_up_result(bounds=(ERROR_BOUND,))
    missed = made_up_result(error=0.5, bounds=(ERROR_BOUND,))

    assert rows.result_row(held)["bound"] == "error at most 0.03: holds"
    assert rows.result_row(missed)["bound"] == "error at most 0.03: missed"
    assert rows.result_row(made_up_result())["bound"] == "-"


def test_seeds_of_a_setting_are_one_row_of_median_and_range():
    outcomes = made_up_outcomes(seeds=(1, 2, 4))

    first, *_, last = (tuple(row.values()) for row in rows.ablation_rows(outcomes))

    assert first[:4] == ("CartPole", "replay, target network", "3", "3 (2 to 5)")
    assert first[4] == "-" and first[6] == "0 of 3" and first[7] == "20 (10 to 40)"
    assert last[1] == "replay, target network, double" and last[4] == "0.542"


def test_lines_of_progress_name_run_and_figures():
    line = rows.result_line(made_up_result(error=0.25))
    assert "FrozenLake-v1, table: max |q - q*| 0.2500" in line and "12 s" in line
    outcome = made_up_outcomes()[-1]
    assert rows.outcome_line(outcome).endswith("greedy return 20.00, diverged")


# --- pictures and the page -----------------------------------------------------------


def test_pictures_are_svg_with_readable_text():
    found = made_up()
    pictures = [
        figures.values_figure(found.results),
        figures.errors_figure(found.results),
        figures.divergence_figure(found.baird, found.tsitsiklis_van_roy),
        figures.ablation_figure(found.outcomes),
    ]

    for picture in pictures:
        assert ElementTree.fromstring(picture).tag.endswith("svg")
        assert 'width="100%"' in picture and "<metadata>" not in picture
    assert all("exact q*" in picture for picture in pictures[:1])
    assert "env steps" in pictures[1] and "sweeps over all states" in pictures[2]
    assert "no replay, no target network" in pictures[3]


class Links(HTMLParser):
    """What a page would load or lead to, and whether its tags are balanced."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        names = ("src", "href", "xlink:href", "data", "action")
        self.found += [value for name, value in attributes if name in names]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "br"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(page):
    links = Links()
    links.feed(page)

    assert not links.open
    assert all(link.startswith("#") for link in links.found)  # parts of the same picture
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert page.count("<svg") == 4 and "<script" not in page


def test_the_page_names_every_run_and_every_setting(page):
    for result in made_up().results:
        assert result.planned.name in page
    for outcome in made_up_outcomes():
        assert outcome.setting.title in page
    assert "All 1 stated bounds hold" in page
    assert "goes through the target too" in page.replace("\n", " ")


def test_the_page_begins_with_what_does_not_hold():
    missed = made_up([made_up_result("<b>", error=0.5, bounds=(ERROR_BOUND,))], outcomes=[])

    text = to_html(missed)

    assert "&lt;b&gt;: max_error is 0.5, must be at most 0.03" in text
    assert text.index("Not all holds") < text.index("<svg")
    assert "double Q-learning" not in text  # no ablation, no section about it
