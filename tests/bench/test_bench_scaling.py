import contextlib

import pytest
from pipeline_parts import config, usage

from distdqn.bench import pipeline, scaling
from distdqn.bench.alone import Alone
from distdqn.bench.live_run import Measured
from distdqn.bench.measure import Rates
from distdqn.bench.scaling import Options
from distdqn.errors import ConfigError
from distdqn.telemetry.usage import Spent

ALONE = Alone(Rates((100.0, 100.0), 0.01), Rates((300.0, 300.0), 0.001), compiled=True)
OPTIONS = Options(workers=(1, 2, 4), shards=(1, 2), repeats=2)


def at_rate(env_steps_per_s, workers, shards, cores=16):
    """Two windows of a second each with one core second in each."""
    parts = {"workers": Spent(workers, 1.0, 0.0, 0.2), "shards": Spent(shards, 0.5)}
    borders = [
        usage(second, int(second * env_steps_per_s), int(second * env_steps_per_s / 10),
              cores=cores, learner=Spent(1, second * 0.9), **parts)
        for second in (0.0, 1.0, 2.0)
    ]  # fmt: skip
    return Measured(tuple(borders), (1.0, 1.0), 10**8)


@pytest.fixture
def events(monkeypatch):
    """Everything that would start a process replaced; a system reaches 100 sqrt(workers)."""
    happened = []

    @contextlib.contextmanager
    def opened_ray(factory, say):
        happened.append(("ray", factory.config.workers.count, factory.config.replay.shards))
        yield "bench"
        happened.append("ray ends")

    class LiveRun(contextlib.nullcontext):
        def __init__(self, factory, run_name, say):
            super().__init__(self)
            self.workers, self.shards = factory.config.workers.count, factory.config.replay.shards
            happened.append((run_name, self.workers, self.shards))

        def settle(self, warm_up_s, compiled):
            assert compiled

        def measure(self, seconds, repeats):
            return at_rate(100 * self.workers**0.5, self.workers, self.shards)

    def measure_alone(factory, seconds, repeats):
        happened.append("alone")
        return ALONE

    for replacement in (opened_ray, LiveRun, measure_alone):
        monkeypatch.setattr(pipeline, replacement.__name__, replacement)
    return happened


def test_every_point_is_measured_in_one_ray_between_the_parts_alone(events):
    scaling.run(OPTIONS, str, config())

    points = [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2)]
    runs = [(f"bench-{number}", *point) for number, point in enumerate(points)]
    assert events == ["alone", ("ray", 4, 2), *runs, "ray ends", "alone"]


def test_a_point_is_told_by_its_workers_and_shards(events):
    result = scaling.run(OPTIONS, str, config())

    found = [(case.settings["workers"], case.settings["shards"]) for case in result.cases]
    assert found == [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2)]
    assert len({case.label for case in result.cases}) == 6


def test_efficiency_is_against_as_many_times_the_first_point(events):
    result = scaling.run(OPTIONS, str, config())

    details = {
        (case.settings["workers"], case.settings["shards"]): case.details for case in result.cases
    }
    assert details[1, 1]["efficiency"] == pytest.approx(1.0)
    assert details[4, 1]["speed_up"] == pytest.approx(2.0, rel=0.01)  # sqrt(4)
    assert details[4, 1]["efficiency"] == pytest.approx(0.5, rel=0.01)
    assert details[2, 2]["efficiency"] == pytest.approx(2**-0.5, rel=0.01)


def test_a_points_limit_is_as_many_rollouts_or_the_learner(events):
    result = scaling.run(OPTIONS, str, config())

    limits = [case.limit.median for case in result.cases[:3]]
    # A rollout 300, the learner 100 updates of ten env steps.
    assert limits == pytest.approx([300.0, 600.0, 1000.0])


def test_every_point_says_what_limits_it(events):
    result = scaling.run(OPTIONS, str, config())

    words = {case.details["limited_by"] for case in result.cases}
    assert words <= {"workers", "learner", "shards", "cores", "absence", "transfer"}
    for case, note in zip(result.cases, result.notes, strict=False):
        assert note.startswith("workers {workers}, shards {shards}: ".format(**case.settings))
        assert note.endswith(f"limited by {case.details['limited_by']}")


def test_a_configuration_that_is_refused_is_refused_before_anything_starts(events):
    too_many = Options(workers=(1,), shards=(1, 100))

    with pytest.raises(ConfigError, match="replay.capacity is 2000"):
        scaling.run(too_many, str, config())

    assert events == []


def test_a_point_keeps_all_other_settings():
    found = scaling.with_parts(config(), 7, 3)

    assert (found.workers.count, found.replay.shards) == (7, 3)
    assert found.workers.envs_per_worker == config().workers.envs_per_worker
    assert found.replay.samples_per_insert == config().replay.samples_per_insert
