"""What is shown, how often, and where."""

from __future__ import annotations

import dataclasses
import io
import math
import time

import pytest
from rich.console import Console

from distdqn.reporting import progress as progress_module
from distdqn.reporting.progress import Progress, picture, plain_line
from distdqn.telemetry.ledger import Ledger
from distdqn.telemetry.status import RunStatus

STATUS = RunStatus(
    state="running",
    elapsed_s=75.0,
    env_steps=312_448,
    total_env_steps=500_000,
    gradient_steps=29_411,
    samples_per_insert=12.79,
    env_steps_per_s=20_000.0,
    gradient_steps_per_s=1_893.0,
    workers_target=4,
    workers_alive=4,
    shards_target=3,
    shards_alive=3,
    shard_items=(3312, 3340, 3348),
    replay_size=10_000,
    learner_wait_fraction=0.021,
    worker_wait_fraction=0.55,
    staleness_p50=2.0,
    staleness_p95=4.0,
    train_return_mean=431.2,
    eval_return_mean=487.5,
    best_eval_return_mean=500.0,
    q_start_mean=98.6,
    return_start_mean=97.2,
    q_abs_max=99.5,
    q_bound=100.0,
    soft_divergence=False,
    epsilon=0.05,
    compiled=True,
)


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("distdqn.reporting.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def console(terminal: bool = False, width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(status: RunStatus, width: int = 100, configured: float | None = None) -> str:
    output = console(width=width)
    output.print(picture(status, configured))
    return shown(output)


def test_the_picture_tells_all_of_a_run():
    text = drawn(STATUS, configured=12.8)
    for expected in (
        "running",
        "62%",
        "1:15, 0:09 left",  # 187,552 steps at 20,000 a second
        "env 312,448 of 500,000",
        "updates 29,411",
        "compiled",
        "training 431.2",
        "evaluation 487.5",
        "best 500.0",
        "env steps/s 20,000",
        "updates/s 1,893",
        "epsilon 0.050",
        "samples/insert 12.79 of 12.8",
        "items 10,000",
        "in a shard 3,312 to 3,348",
        "q at start 98.6",
        "realised 97.2",
        "max |q| 99.5 of 100.0",
        "learner 2%",
        "workers 55%",
        "staleness 2, p95 4",
        "workers 4 of 4",
        "shards 3 of 3",
    ):
        assert expected in text
    assert "trouble" not in text


FACTS = (
    "running",
    "62%",
    "1:15, 0:09 left",
    "env 312,448 of 500,000",
    "updates 29,411",
    "evaluation 487.5",
    "env steps/s 20,000",
    "samples/insert 12.79 of 12.8",
    "in a shard 3,312 to 3,348",
    "max |q| 99.5 of 100.0",
    "staleness 2, p95 4",
    "workers 4 of 4",
    "worker restarts 2",
    "transitions lost 1,280",
)
LABELS = ("steps", "return", "now", "replay", "values", "waiting", "alive", "trouble")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_label_and_no_fact_is_broken_at_any_width(width):
    status = dataclasses.replace(STATUS, worker_restarts=2, transitions=Ledger(lost=1280))
    lines = drawn(status, width, configured=12.8).splitlines()

    assert all(len(line) <= width for line in lines)
    for fact in FACTS:
        assert sum(fact in line for line in lines) == 1, fact
    begun = [line.split()[0] for line in lines[1:] if not line.startswith(" ")]
    assert begun == list(LABELS)
    if width >= 80:
        assert len(lines) == 1 + len(LABELS)


def test_facts_too_long_for_any_line_are_folded_under_their_label():
    status = dataclasses.replace(STATUS, env_steps=10**15, total_env_steps=10**16)
    lines = drawn(status, width=40).splitlines()
    assert all(len(line) <= 40 for line in lines) and "…" not in "".join(lines)


@pytest.mark.parametrize("change", [{"state": "stopping"}, {"env_steps": 500_000}])
def test_a_run_that_stops_or_has_all_its_steps_is_not_told_to_have_time_left(change):
    status = dataclasses.replace(STATUS, **change)
    assert "left" not in drawn(status) and "left" not in plain_line(status)


def test_what_is_not_known_yet_is_a_dash():
    text = drawn(RunStatus(total_env_steps=500_000)) + plain_line(RunStatus())
    assert "nan" not in text and "training -" in text and "eager" in text


def test_what_was_lost_or_replaced_is_trouble():
    status = dataclasses.replace(
        STATUS, worker_restarts=2, transitions=Ledger(lost=1280), items_lost=3300
    )
    told = ["worker restarts 2", "items lost 3,300", "transitions lost 1,280"]
    assert "trouble  " + "  ".join(told) in drawn(status)
    assert plain_line(status).endswith(", ".join(told))


@pytest.mark.parametrize(
    ("largest", "shown_as"), [(250.0, "250.0 of 100.0"), (math.inf, "infinite of 100.0")]
)
def test_soft_divergence_marks_the_largest_value(largest, shown_as):
    status = dataclasses.replace(STATUS, q_abs_max=largest, soft_divergence=True)
    output = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    output.print(picture(status))
    assert f"\x1b[1;31m{shown_as}" in shown(output)
    assert "trouble" not in shown(output)  # nothing was lost


def test_a_log_gets_one_plain_line_every_five_seconds(clock):
    output = console()
    with Progress(console=output) as progress:
        for _ in range(101):
            progress.update(STATUS)
            clock.now += 0.1
        clock.now += 8.0  # of final evaluation, say
    lines = shown(output).splitlines()
    assert len(lines) == 4  # at 0, 5 and 10 s, and the last state at the end
    assert lines[0].startswith("running 1:15: 312,448 of 500,000 env steps (62%, 0:09 left)")
    assert "return 431.2 (evaluation 487.5, best 500.0)" in lines[0]
    assert "now 20,000 env steps/s and 1,893 updates/s" in lines[0]
    assert lines[-1].startswith("ended 1:23: ")
    assert "12.79 samples per insert" in lines[0] and "\x1b" not in shown(output)


def test_a_terminal_gets_a_picture_that_ends_with_the_last_state(clock):
    output = console(terminal=True)
    with Progress(samples_per_insert=12.8, console=output) as progress:
        progress.update(STATUS)
        progress.say("worker 1 died")
        progress.update(dataclasses.replace(STATUS, gradient_steps=29_500))  # too soon to be drawn
        assert "29,500" not in shown(output)
        clock.now += 0.6
        progress.update(dataclasses.replace(STATUS, gradient_steps=30_000))
        assert "30,000" in shown(output) and "12.79 of 12.8" in shown(output)
        progress.update(dataclasses.replace(STATUS, gradient_steps=49_000))
    assert "worker 1 died" in shown(output)
    assert "49,000" in shown(output)


def wait_for(condition):
    deadline = time.perf_counter() + 60
    while not condition():
        assert time.perf_counter() < deadline
        time.sleep(0.01)


@pytest.fixture
def impatient(monkeypatch):
    """The display's thread looks every 10 ms."""
    monkeypatch.setattr(progress_module, "_REDRAW_PERIOD_S", 0.01)


def test_a_log_tells_what_took_long_once_it_is_over(clock):
    output = console()
    with Progress(console=output) as progress:
        with progress.stage("starting Ray"):
            clock.now += 3.21
        with progress.stage("taking no time"):
            clock.now += 0.1
        with pytest.raises(KeyError), progress.stage("failing"):
            clock.now += 2.0
            raise KeyError
    assert shown(output).splitlines() == ["starting Ray: 3.2 s"]


def test_a_log_is_never_silent_for_five_seconds(clock, impatient):
    output = console()
    with Progress(console=output) as progress:
        with progress.stage("starting Ray"):
            for word in ("starting Ray: 4 s so far", "starting Ray: 8 s so far"):
                clock.now += 4.0
                wait_for(lambda word=word: word in shown(output))
        progress.update(STATUS)
        clock.now += 4.0
        wait_for(lambda: "no news of the run: 4 s so far" in shown(output))
    assert len(shown(output).splitlines()) == 6  # the stage's end and two of the status


def test_a_terminal_counts_the_seconds_of_a_stage_under_the_picture(clock, impatient):
    output = console(terminal=True)
    with Progress(console=output) as progress:
        with progress.stage("starting Ray"):
            assert "starting Ray: 0 s" in shown(output)
            clock.now += 1.0
            wait_for(lambda: "starting Ray: 1 s" in shown(output))
        progress.update(STATUS)
        with progress.stage("evaluating"):
            *_, last = shown(output).split("starting Ray: 1.0 s")
            assert "starting Ray" not in last
            assert last.index("312,448") < last.index("evaluating: 0 s")
        clock.now += 1.0
    assert "evaluating" not in shown(output).split("running")[-1]


def test_a_stage_within_a_stage_gives_it_back(clock, impatient):
    output = console(terminal=True)
    with Progress(console=output) as progress, progress.stage("outer"):
        with progress.stage("inner"):
            pass
        clock.now += 7.0
        wait_for(lambda: "outer: 7 s" in shown(output))


def test_a_message_is_one_line_as_it_is(clock):
    output = console(width=40)
    Progress(console=output).say("[red]a/long/path/" + "x" * 60 + "\nand more")
    assert shown(output) == "[red]a/long/path/" + "x" * 60 + " and more\n"


def test_too_many_messages_are_counted_not_shown(clock):
    output = console()
    progress = Progress(console=output, max_lines_per_s=2.0)
    for number in range(10):
        progress.say(f"line {number}")
    assert shown(output).splitlines() == ["line 0", "line 1"]
    clock.now += 0.5
    progress.say("later")
    assert shown(output).splitlines()[2:] == ["(8 lines left out) later"]


def test_a_display_that_is_off_shows_nothing(clock):
    output = console(terminal=True)
    with Progress(console=output, enabled=False) as progress, progress.stage("starting Ray"):
        progress.update(STATUS)
        clock.now += 10.0
        progress.say("hello")
    assert shown(output) == ""


def test_the_display_goes_to_stderr(capsys):
    with Progress() as progress:
        progress.update(STATUS)
    out, err = capsys.readouterr()
    assert out == "" and "312,448 of 500,000" in err


def test_the_display_is_taken_down_when_the_run_fails(clock):
    output = console(terminal=True)
    with pytest.raises(KeyError), Progress(console=output):
        raise KeyError
    with Progress(console=output) as progress:  # rich has one display at a time
        progress.update(STATUS)
