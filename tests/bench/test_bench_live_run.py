from types import SimpleNamespace

import pytest
from pipeline_parts import config, poll, usage

from distdqn.bench import live_run
from distdqn.bench.live_run import LiveRun, run_cpu_s, without_end
from distdqn.errors import RunError
from distdqn.run.factory import Factory
from distdqn.types import ObservationSpec

FACTORY = Factory(without_end(config()), ObservationSpec((1,), "float32"), 2, 0, None)


class FakeSystem:
    """Answers polls from a list, the last one again and again; notes what is asked."""

    def __init__(self, usages):
        self.usages, self.events = usages, []

    def __call__(self, config, place, say):
        return self

    def start(self):
        self.events.append("start")

    def poll(self, timeout_s):
        spent = self.usages.pop(0) if len(self.usages) > 1 else self.usages[0]
        self.events.append(("poll", spent.gradient_steps))
        return poll(spent, notes=["a note"] if spent.at_s == 2.0 else [])

    def wind_down(self, hear):
        self.events.append("wind down")

    def close(self):
        self.events.append("close")


@pytest.fixture
def fake(monkeypatch):
    def make(*usages):
        system = FakeSystem(list(usages))
        monkeypatch.setattr(live_run, "System", system)
        monkeypatch.setattr(live_run, "Placement", lambda parts, run_name: None)
        return system

    return make


def test_a_run_settles_once_it_updates_and_its_update_is_compiled(fake):
    system = fake(
        usage(1.0),
        usage(2.0),
        usage(3.0, 10, 4, compiling=True),
        usage(4.0, 20, 5, compiling=True),
        usage(5.0, 30, 6, compiled=True),
    )
    said = []

    with LiveRun(FACTORY, "run", said.append) as live:
        live.settle(0.0, compiled=True)

    polls = [("poll", steps) for steps in (0, 0, 4, 5, 6, 6)]  # the last is the warm-up's
    assert system.events == ["start", *polls, "wind down", "close"]
    assert said == ["a note"]


def test_a_compile_that_has_failed_is_not_awaited(fake):
    system = fake(usage(1.0, 10, 4, compiling=True), usage(2.5, 20, 5))
    said = []

    with LiveRun(FACTORY, "run", said.append) as live:
        live.settle(0.0, compiled=True)

    polls = [("poll", steps) for steps in (4, 5, 5)]
    assert system.events == ["start", *polls, "wind down", "close"]
    assert said == ["the run's update is not compiled; measuring the eager one"]


def test_nothing_is_awaited_where_no_compiled_update_can_come(fake):
    system = fake(usage(1.0, 10, 4))

    with LiveRun(FACTORY, "run", print) as live:
        live.settle(0.0, compiled=False)

    assert system.events == ["start", ("poll", 4), ("poll", 4), "wind down", "close"]


def test_a_window_ends_when_the_learner_has_just_told_of_its_updates(fake):
    fake(
        usage(1.0, 10, 4), usage(1.1, 11, 4), usage(1.2, 12, 5),  # the first border
        usage(2.0, 18, 8),  # the window
        usage(3.0, 20, 9), usage(3.1, 20, 9), usage(3.2, 30, 12),  # the second
    )  # fmt: skip

    with LiveRun(FACTORY, "run", print) as live:
        found = live.measure(seconds=0.0, repeats=1)

    assert [border.at_s for border in found.borders] == [1.2, 3.2]
    assert found.whole.gradient_steps == 7
    assert found.peak_bytes > 0


def test_a_window_without_an_update_is_no_measurement(fake, monkeypatch):
    monkeypatch.setattr(live_run, "NEWS_TIMEOUT_S", 0.0)
    fake(usage(1.0, 10, 4), usage(1.0, 10, 4), usage(9.0, 20, 4))

    with (
        pytest.raises(RunError, match=r"10 env steps and 0 updates.*give it more --seconds"),
        LiveRun(FACTORY, "run", print) as live,
    ):
        live.measure(seconds=0.0, repeats=1)


def test_after_an_error_every_actor_is_ended_at_once(fake):
    system = fake(usage(1.0))

    with pytest.raises(KeyboardInterrupt), LiveRun(FACTORY, "run", print):
        raise KeyboardInterrupt

    assert system.events == ["start", "close"]


def test_a_start_that_fails_leaves_no_actor(fake):
    system = fake(usage(1.0))
    system.start = lambda: (_ for _ in ()).throw(RunError("no room"))

    with pytest.raises(RunError, match="no room"), LiveRun(FACTORY, "run", print):
        pass

    assert system.events == ["close"]


def test_where_ray_is_not_this_process_s_own_the_reports_tell_the_cpu_time(fake, monkeypatch):
    monkeypatch.setattr(live_run, "run_cpu_s", lambda: float("nan"))
    fake(usage(1.0, 1, 1), usage(1.0, 1, 2), usage(2.0, 5, 3), usage(2.0, 5, 3),
         usage(2.0, 9, 4, rest_cpu_s=1.5))  # fmt: skip

    with LiveRun(FACTORY, "run", print) as live:
        found = live.measure(seconds=0.0, repeats=1)

    assert found.cpu_s == (1.5,)
    assert found.other_cores == 0.0


def test_cpu_time_counts_children_where_ray_is_among_them(monkeypatch):
    class Process:
        def __init__(self, name, seconds, children=()):
            self._name, self._seconds, self._children = name, seconds, list(children)

        def name(self):
            return self._name

        def cpu_times(self):
            return SimpleNamespace(user=self._seconds, system=0.5)

        def children(self, recursive):
            assert recursive
            return self._children

    found = []
    for names in (["worker"], ["worker", "raylet"]):
        this = Process("python", 1.0, [Process(name, 10.0) for name in names])
        monkeypatch.setattr(live_run.psutil, "Process", lambda this=this: this)
        found.append(run_cpu_s())

    assert str(found[0]) == "nan"
    assert found[1] == pytest.approx(1.5 + 2 * 10.5)


def test_a_run_without_end_keeps_all_but_what_would_end_it():
    before = config(run_name="mine", init_from="theirs")

    after = without_end(before)

    assert after.learner == before.learner
    assert after.replay == before.replay
    assert after.total_env_steps > 10**12
    assert after.eval.period_env_steps is None
    assert after.workers.max_env_failures == 0
    assert after.run_name is after.init_from is None
