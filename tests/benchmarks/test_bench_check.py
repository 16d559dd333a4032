"""The guard against slowdowns: its comparison, on recorded figures.

Nothing here asks how fast anything is: clocks are scripted and measurements made up.
"""

from __future__ import annotations

import json
import math
import time

import check
import pytest
from guard import record, slowdown, turns
from guard.record import Record, compare
from guard.turns import Item, Ratios

from distdqn.bench.result import Figure
from distdqn.errors import DistDQNError
from distdqn.machine.cpu import ThreadTimes

MACHINE = {"cpu": "A", "cores": 2, "torch": "2", "numpy": "2", "numba": "0"}


def ratios(limit, reference):
    return Ratios(Figure.of([limit]), Figure.of([reference]))


def made_record(**items):
    return Record("2026-01-01", MACHINE, items, dict.fromkeys(items, "a limit"))


def item(name, part="sampler", work=lambda: None):
    return Item(name, part, work, work, "a limit", work)


class FakeTime:
    """A clock that moves by `tick` whenever it is read, and by what works say."""

    def __init__(self, tick=0.0):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now

    def lasting(self, seconds):
        def work():
            self.now += seconds

        return work


# --- the comparison


@pytest.mark.parametrize(
    ("limit", "reference", "ok"),
    [
        (1.0, 1.0, True),
        (0.851, 0.5, True),  # only one ratio has fallen beyond the tolerance
        (0.5, 0.851, True),
        (0.849, 0.849, False),
        (1 / 1.3, 1 / 1.3, False),
        (2.0, 2.0, True),
        (math.nan, math.nan, False),
    ],
)
def test_an_item_fails_when_both_ratios_fall_by_more_than_the_tolerance(limit, reference, ok):
    recorded = {"a": ratios(0.5, 4.0)}
    (verdict,) = compare({"a": ratios(0.5 * limit, 4.0 * reference)}, recorded)
    assert verdict.ok is ok and record.TOLERANCE == 0.15


def test_a_verdict_says_which_side_changed():
    def words(limit, reference):
        return compare({"a": ratios(limit, reference)}, {"a": ratios(1.0, 1.0)})[0].words

    assert words(1.0, 1.0) == "" and words(0.7, 0.7) == "slower"
    assert words(0.7, 1.0) == "only against the limit"
    assert words(1.0, 0.7) == "only against the reference"
    assert words(1.2, 1.3) == "faster: record it"


def test_items_of_one_side_alone_fail():
    verdicts = compare(
        {"new": ratios(1, 1), "both": ratios(1, 1)},
        made_record(both=ratios(1, 1), gone=ratios(1, 1)).ratios,
    )
    assert [(v.name, v.ok, v.words) for v in verdicts] == [
        ("new", False, "not in the record"),
        ("both", True, ""),
        ("gone", False, "in the record, not measured"),
    ]


def test_another_machine_is_named_with_the_way_to_a_record_of_ones_own():
    assert record.other_machine(MACHINE, MACHINE | {"load_average": [9]}) == ""
    line = record.other_machine(MACHINE, MACHINE | {"cpu": "B"})
    assert "cpu A there, B here" in line and "UPDATE=1 RECORD=" in line and "\n" not in line


# --- the record


def test_a_record_is_read_as_it_was_written(tmp_path):
    made = made_record(a=ratios(0.25, 3.5))
    record.write(made, tmp_path / "results" / "check.json")
    assert record.read(tmp_path / "results" / "check.json") == made
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["check.json"]


GOOD = made_record(a=ratios(1, 1)).to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        json.dumps(GOOD | {"format": 9}),
        json.dumps(GOOD | {"items": {"a": {"limit": {}}}}),
        json.dumps(GOOD).replace('"median": 1', '"median": 0'),
        json.dumps(GOOD).replace('"median": 1', '"median": NaN'),
        json.dumps({name: value for name, value in GOOD.items() if name != "machine"}),
    ],
)
def test_a_broken_record_is_one_line_and_exit_status_2(text, tmp_path, capsys):
    path = tmp_path / "check.json"
    path.write_text(text)
    assert check.main(["--record", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said and "make bench-check UPDATE=1" in said


def test_a_missing_record_is_one_line(tmp_path):
    with pytest.raises(DistDQNError, match="make bench-check UPDATE=1"):
        record.read(tmp_path / "none.json")


def test_a_new_record_is_the_middle_of_several_measurements():
    figures = iter([ratios(1, 30), ratios(3, 10), ratios(2, 20)])
    made = check.new_record([item("a")], lambda items: {"a": next(figures)})
    assert made.ratios == {"a": Ratios(Figure(2, 1, 3), Figure(20, 10, 30))}
    assert made.limits == {"a": "a limit"} and made.machine["cores"] >= 1


def test_the_committed_record_can_be_read_and_guards_every_part():
    committed = record.read(check.RECORD)
    assert {"cpu", "cores", "torch"} <= committed.machine.keys()
    for word in ("draw", "priorities", "sample", "add", "update of", "act in"):
        assert any(word in name for name in committed.ratios), word


# --- measuring in turn


def test_ratios_are_those_of_the_times(monkeypatch):
    clock = FakeTime()
    works = [clock.lasting(s) for s in (0.002, 0.001, 0.010)]
    measured = turns.measure(
        [Item("a", "sampler", works[0], works[1], "a limit", works[2])], clock, passes=2, rounds=3
    )
    assert measured["a"].limit.median == pytest.approx(0.5)
    assert measured["a"].reference.median == pytest.approx(5.0)
    assert measured["a"].limit.min == pytest.approx(measured["a"].limit.max)


def test_a_bad_moment_of_the_machine_cancels():
    clock = FakeTime()

    def lasting(seconds):
        def work():
            clock.now += seconds * (3 if clock.now % 0.2 < 0.1 else 1)  # half the time bad

        return work

    each = Item("a", "update", lasting(0.002), lasting(0.001), "a limit", lasting(0.004))
    measured = turns.measure([each], clock, passes=3, rounds=40)["a"]
    assert clock.now > 1.0  # several bad moments
    assert measured.limit.median == pytest.approx(0.5)
    assert measured.reference.median == pytest.approx(2.0)


def test_own_time_counts_sleeping_but_not_waiting_for_a_core(monkeypatch):
    clock = turns.OwnTime()
    began, started = time.perf_counter(), clock()
    time.sleep(0.05)
    assert 0.04 < clock() - started <= time.perf_counter() - began
    waited = iter([0.0, 0.0, 3.0])
    monkeypatch.setattr("time.perf_counter", lambda: 10.0)
    times = lambda thread: ThreadTimes(0.0, next(waited))  # noqa: E731
    monkeypatch.setattr(turns.ThreadClock, "read", times)
    assert [clock(), clock(), clock()] == [10.0, 10.0, 7.0]


# --- noise, and the self-test


def test_what_fails_is_measured_again_and_may_then_pass(capsys):
    asked = []

    def measure(items):
        asked.append([each.name for each in items])
        slow = 0.5 if len(asked) == 1 else 1.0
        return {
            each.name: ratios(slow, slow) if each.name == "b" else ratios(1, 1) for each in items
        }

    recorded = {"a": ratios(1, 1), "b": ratios(1, 1)}
    verdicts = check.check([item("a"), item("b")], measure, recorded)
    assert asked == [["a", "b"], ["b"]] and all(v.ok for v in verdicts)
    assert "measured again, for noise: b" in capsys.readouterr().err


def test_what_fails_three_times_has_failed_and_what_has_no_record_is_not_tried_again():
    asked = []

    def measure(items):
        asked.append([each.name for each in items])
        return {each.name: ratios(0.5, 0.5) for each in items}

    recorded = {"a": ratios(1, 1), "gone": ratios(1, 1)}
    verdicts = check.check([item("a"), item("new")], measure, recorded)
    assert asked == [["a", "new"], ["a"], ["a"]] and len(asked) == check.ATTEMPTS
    assert {v.name: v.ok for v in verdicts} == {"a": False, "new": False, "gone": False}


@pytest.mark.parametrize("tick", [0.0001, 0.001])
def test_a_slowed_function_takes_three_tenths_longer(tick):
    clock = FakeTime(tick)
    slow = slowdown.slowed(clock.lasting(10.0), 0.3, clock)
    started = clock.now
    slow()
    assert clock.now - started == pytest.approx(13.0, rel=tick)


def test_a_slowed_function_gives_what_it_gave():
    slow = slowdown.slowed(lambda a, b: (a, b), 0.3)
    assert slow(1, b=2) == (1, 2)


def test_a_slowdown_ends_with_its_block_whatever_happens():
    class Thing:
        def work(self):
            return 7

    original = Thing.work
    with pytest.raises(RuntimeError), slowdown.slow_down([(Thing, "work")]):
        assert Thing().work() == 7 and Thing.work is not original
        raise RuntimeError
    assert Thing.work is original


class Part:
    def sampler(self): ...
    def update(self): ...


STUB_TARGETS = (
    slowdown.Target("sampler", [(Part, "sampler")], touched=("replay",)),
    slowdown.Target("update", [(Part, "update")]),
)
PARTS = {"draw": "sampler", "sample": "replay", "learn": "update"}


def stub_check(when_slow, always=()):
    """Verdicts of a check that sees which of `Part`'s methods is replaced."""
    originals = {name: getattr(Part, name) for name in ("sampler", "update")}

    def check():
        failed = set(always)
        for name, names in when_slow.items():
            if getattr(Part, name) is not originals[name]:
                failed |= set(names)
        now = {name: ratios(*([0.7, 0.7] if name in failed else [1, 1])) for name in PARTS}
        return compare(now, {name: ratios(1, 1) for name in PARTS})

    return check


@pytest.mark.parametrize(
    ("when_slow", "always", "ok"),
    [
        ({"sampler": ["draw"], "update": ["learn"]}, (), [True, True, True]),
        ({"sampler": ["draw", "sample"], "update": ["learn"]}, (), [True, True, True]),
        ({"sampler": ["sample"], "update": ["learn"]}, (), [True, False, True]),
        ({"sampler": ["draw"]}, (), [True, True, False]),
        ({"sampler": ["draw"], "update": ["learn"]}, (), [True, True, True]),
        ({"sampler": ["draw"], "update": ["learn", "draw"]}, (), [True, True, False]),
        ({"sampler": ["draw"], "update": ["learn"]}, ["draw"], [False, True, False]),
    ],
)
def test_the_self_test_wants_each_slowdown_noticed_where_it_is(when_slow, always, ok):
    trials = list(slowdown.self_test(stub_check(when_slow, always), PARTS, STUB_TARGETS))
    assert [trial.slowed for trial in trials] == ["", "sampler", "update"]
    assert [trial.ok for trial in trials] == ok


def test_the_self_test_ends_with_1_unless_all_is_as_it_should_be(tmp_path, monkeypatch, capsys):
    path = tmp_path / "check.json"
    record.write(made_record(draw=ratios(1, 1)), path)
    monkeypatch.setattr(slowdown, "self_test", lambda check, parts: iter(trials))
    for ok in (True, False):
        trials = [slowdown.Trial("", (), True), slowdown.Trial("sampler", ("draw",), ok)]
        status = check.run_self_test([item("draw")], path, False, lambda items: {})
        said = capsys.readouterr()
        assert status == (0 if ok else 1)
        assert "sampler slowed by 30%: the check fails: draw" in said.err
        assert ("self-test passed" if ok else "self-test FAILED") in said.out


def test_every_part_that_must_not_slow_down_is_slowed_in_the_self_test():
    assert {"sampler", "update", "rollout"} <= {target.part for target in slowdown.TARGETS}
    for target in slowdown.TARGETS:
        for owner, name in target.methods:
            assert callable(getattr(owner, name))


def test_a_record_names_the_items_that_were_unsteady_in_both_ratios():
    steady, wide = Figure(1.0, 0.95, 1.05), Figure(1.0, 0.9, 1.1)
    found = {
        "steady": Ratios(steady, steady),
        "one": Ratios(wide, steady),
        "both": Ratios(wide, wide),
    }
    assert record.unsteady(found) == ["both"]


# --- what it prints


def run_check(tmp_path, capsys, now, as_json):
    path = tmp_path / "check.json"
    record.write(made_record(a=ratios(0.5, 4)), path)
    status = check.run_check([item("a")], path, as_json, lambda items: {"a": now})
    return status, capsys.readouterr().out


def test_the_table_names_both_ratios_and_the_verdict(tmp_path, capsys):
    status, text = run_check(tmp_path, capsys, ratios(0.45, 4.4), as_json=False)
    assert status == 0 and "passed" in text and "note: the record was made elsewhere" in text
    assert "0.45     0.5   -10.0%      4.4       4   +10.0%   ok" in text
    status, text = run_check(tmp_path, capsys, ratios(0.3, 2), as_json=False)
    assert status == 1 and "FAILED (slower)" in text and "more than 15% below" in text


def test_the_json_holds_the_verdicts(tmp_path, capsys):
    status, text = run_check(tmp_path, capsys, ratios(0.3, 2), as_json=True)
    document = json.loads(text)
    assert status == 1 and not document["ok"] and document["tolerance"] == 0.15
    assert document["items"][0]["limit_change"] == pytest.approx(-0.4)
