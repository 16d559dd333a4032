"""What parts measure of themselves, and what is left over."""

import math
import time

import pytest

from distdqn.machine.cpu import ThreadTimes
from distdqn.telemetry import usage
from distdqn.telemetry.usage import Meter, RestMeter, Spent


class FakeClock:
    def __init__(self):
        self.times = ThreadTimes(0.0, 0.0)

    def read(self):
        return self.times


@pytest.fixture
def hands(monkeypatch):
    """A meter whose clocks are moved by hand: (meter, its thread's clock, move the wall)."""
    clock, now = FakeClock(), [100.0]
    monkeypatch.setattr(usage, "ThreadClock", lambda: clock)
    monkeypatch.setattr(usage.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return Meter(), clock, move


@pytest.fixture
def alone(monkeypatch):
    """A machine named here with 4 cores that have been busy for 50 s."""
    monkeypatch.setattr(usage.platform, "node", lambda: "here")
    monkeypatch.setattr(usage, "usable_cores", lambda: 4)
    monkeypatch.setattr(usage, "machine_busy_s", lambda: 50.0)


def spent(work_s, cpu_s=0.0, host="here", cores=4, queued_s=0.0):
    return Spent(1, work_s, queued_s, cpu_s, host, cores)


def test_waits_are_no_work_and_their_queues_are_none_either(hands):
    meter, clock, move = hands
    move(3.0)
    clock.times = ThreadTimes(1.0, 0.5)
    with meter.waiting():
        move(2.0)
        clock.times = ThreadTimes(1.0, 0.75)

    part = meter.spent()

    assert (meter.wait_s, part.work_s, part.queued_s) == (2.0, 3.0, 0.5)


def test_a_wait_that_fails_is_counted_too(hands):
    meter, _, move = hands
    with pytest.raises(RuntimeError), meter.waiting():
        move(2.0)
        raise RuntimeError
    assert meter.wait_s == 2.0


def test_time_on_a_cpu_is_no_queue(hands):
    meter, clock, move = hands
    move(3.0)
    clock.times = ThreadTimes(2.0, 1.5)
    assert meter.spent().queued_s == 1.0


def test_a_process_that_works_while_it_runs_is_measured_by_all_its_threads(hands, monkeypatch):
    meter, clock, move = hands
    move(10.0)
    monkeypatch.setattr(usage.time, "process_time", lambda: 2.0)
    clock.times = ThreadTimes(1.0, 0.5)
    part = meter.spent_running(known_s=1.0)
    assert (part.work_s, part.queued_s) == (2.5, 0.5)


def test_without_thread_times_its_known_work_counts(hands, monkeypatch):
    meter, clock, _ = hands
    clock.times = ThreadTimes()
    monkeypatch.setattr(usage.time, "process_time", lambda: 0.0)
    part = meter.spent_running(known_s=1.0)
    assert (part.work_s, part.queued_s) == (1.0, 0.0)


def test_a_meter_says_where_it_is():
    part = Meter().spent()
    assert part.host and part.cores >= 1 and part.cpu_s == pytest.approx(time.process_time(), abs=1)


def test_the_rest_is_what_the_parts_did_not_take(alone):
    assert RestMeter().cpu_s([spent(0, cpu_s=20.0), spent(0, cpu_s=5.0)]) == 25.0


def test_on_several_machines_the_rest_is_this_process(alone):
    own = time.process_time()
    assert own <= RestMeter().cpu_s([spent(0, cpu_s=20.0, host="there")]) <= own + 5.0


def test_a_first_part_on_another_machine_makes_the_rest_neither_jump_nor_fall(alone, monkeypatch):
    rest, own = RestMeter(), iter([3.0, 4.0, 6.0])
    monkeypatch.setattr(usage.time, "process_time", lambda: next(own))
    here, there = spent(0, cpu_s=20.0), spent(0, cpu_s=9.0, host="there")

    assert rest.cpu_s([here]) == 30.0
    assert rest.cpu_s([here, there]) == 30.0  # from now on it is this process
    assert rest.cpu_s([here, there]) == 31.0
    assert rest.cpu_s([here, there]) == 33.0


def test_where_the_machine_does_not_tell_the_rest_is_this_process(alone, monkeypatch):
    monkeypatch.setattr(usage, "machine_busy_s", lambda: math.nan)
    own = time.process_time()
    assert own <= RestMeter().cpu_s([spent(0, cpu_s=1e9)]) <= own + 5.0


def test_each_host_counts_its_cores_once(alone):
    parts = [spent(0), spent(0), spent(0, host="there", cores=16), spent(0, host="there", cores=8)]
    assert RestMeter().cores(parts) == 4 + 16
    assert RestMeter().cores([]) == 4
