import math
import time
from functools import partial

import pytest
from fake_envs import FaultyEnv
from pipeline_parts import config, measured

from distdqn.bench import pipeline
from distdqn.bench.alone import Alone
from distdqn.bench.live_run import LiveRun, opened_ray, without_end
from distdqn.bench.measure import Rates
from distdqn.bench.pipeline import Options
from distdqn.errors import ConfigError, EnvFailure
from distdqn.run.factory import make_factory

QUICK = Options(seconds=0.5, repeats=2, warm_up_s=0.1, alone_seconds=0.05)


def alone(updates=(10.0, 20.0), env_steps=(50.0, 150.0), compiled=True, note=""):
    return Alone(Rates(updates, 0.02), Rates(env_steps, 0.005), compiled, note)


def case(found=None, config_=None):
    found, config_ = found or measured(), config_ or config()
    return pipeline.case_of(found, [alone(), alone()], config_)


def test_windows_begin_where_the_ones_before_ended():
    first, second = measured().windows

    assert (first.at_s, first.env_steps, first.gradient_steps) == (10.0, 1000, 100)
    assert (second.at_s, second.env_steps, second.gradient_steps) == (10.0, 2000, 200)
    assert measured().whole.env_steps == 3000


def test_updates_count_as_the_env_steps_that_they_are_owed_for():
    limits = pipeline.limits_of(measured(), [alone(), alone((30.0, 40.0))], config())

    # Ten env steps to an update; before and after the system, on average.
    assert limits.learner == pytest.approx((10 * (10 + 30) / 2, 10 * (20 + 40) / 2))


def test_one_rollout_counts_for_every_worker():
    limits = pipeline.limits_of(measured(workers=2), [alone(), alone()], config(workers=2))

    assert limits.rollout == pytest.approx((100.0, 300.0))


def test_all_cores_would_make_what_the_measured_cpu_time_allows():
    limits = pipeline.limits_of(measured(cores=2), [alone()], config())

    # 1,000 env steps took 8 s, and 2,000 took 12 s.
    assert limits.cores == pytest.approx((2 * 1000 / 8, 2 * 2000 / 12))


@pytest.mark.parametrize(
    ("cores", "updates", "name"),
    [(3, 1.0, "cores"), (4, 1.0, "learner"), (4, 1000.0, "rollout")],
)
def test_the_slower_part_is_the_limit_only_where_every_part_has_a_core(cores, updates, name):
    rates = alone(updates=(updates, updates))

    limits = pipeline.limits_of(measured(cores=cores), [rates], config(workers=2, shards=1))

    assert limits.name == name
    assert limits.values == getattr(limits, name)


def test_the_case_has_its_share_of_the_limit_that_counts_and_of_the_others():
    found = case()

    assert (found.value.min, found.value.max) == (100.0, 200.0)
    # 8 of 20 core seconds and 12 of 20.
    assert (found.share.min, found.share.max) == pytest.approx((0.4, 0.6))
    assert found.details["share_of_cores"] == pytest.approx(0.5)
    assert found.details["share_of_learner"] == pytest.approx((100 / 100 + 200 / 200) / 2)
    assert found.details["share_of_rollout"] == pytest.approx((100 / 100 + 200 / 300) / 2)
    assert "all cores" in found.limit_name
    assert found.cpu_s == pytest.approx(20 / 3000)
    assert found.peak_bytes == 10**9


def test_the_details_have_the_rates_of_all_windows():
    details = case().details

    assert details["updates_per_s"] == pytest.approx(300 / 20)
    assert details["cpu_s_per_update"] == pytest.approx(20 / 300)
    assert details["kept_samples_per_insert"] == pytest.approx(300 * 32 / 3000)


def test_shares_of_time_are_means_over_the_parts_of_a_kind():
    found = pipeline.shares_of(measured(workers=2).whole)

    assert found == pytest.approx(
        {
            "learner_waits": 0.1,  # worked 18 of 20 s
            "learner_queued": 0.15,
            "workers_wait": 0.25,  # each worked 15 of 20 s
            "workers_queued": 1 / 40,
            "workers_in_env": 12 / 40,
            "workers_in_inference": 8 / 40,
            "shards_busy": 0.25,
        }
    )


def test_cpu_of_the_rest_is_what_the_parts_did_not_take():
    found = pipeline.cores_of(measured())

    assert found == pytest.approx(
        {
            "learner_cores": 0.6,
            "workers_cores": 0.2,
            "shards_cores": 0.1,
            "rest_cores": 0.1,  # 20 s in all less 18
            "all_cores": 1.0,
            "other_programs_cores": 0.4,  # 28 s of the machine less 20
            "cores": 2,
        }
    )


def test_a_disturbed_measurement_says_so():
    lines = pipeline.remarks(measured(), [alone(), alone()])

    assert [line for line in lines if "other programs took 0.40 of 2 cores" in line]


def test_updates_of_which_one_alone_was_compiled_are_not_compared_in_silence():
    lines = pipeline.remarks(measured(), [alone(compiled=False, note="no compiler")])

    assert lines[0] == "no compiler"
    assert "only the system's update was compiled" in lines[1]


def test_what_reached_its_figures_alone_is_in_the_systems_unit():
    limits = pipeline.limits_of(measured(), [alone()], config())

    learner, rollouts = pipeline.alone_cases([alone()], limits, config())

    assert {learner.unit, rollouts.unit} == {"env steps/s"}
    assert learner.value.median == pytest.approx(150.0)
    assert learner.cpu_s == pytest.approx(0.02 / 10)
    assert rollouts.value.median == pytest.approx(200.0)
    assert rollouts.cpu_s == pytest.approx(0.005)


def test_a_person_is_told_where_time_and_cpu_went():
    time_line, cpu_line, share_line = pipeline.told(measured(), case().details)

    assert "learner waits 10%" in time_line
    assert "workers wait 25%" in time_line
    assert "shards busy 25%" in time_line
    assert "workers 0.20, learner 0.60, shards 0.10" in cpu_line
    assert share_line.endswith("cores 50%")


def test_lockstep_is_refused():
    with pytest.raises(ConfigError, match="mode is lockstep, the benchmark needs async"):
        pipeline.run(Options(), print, config(mode="lockstep"))


def test_a_real_run_is_measured_to_the_end(ray_cluster):
    said = []

    result = pipeline.run(QUICK, said.append, config(workers=1))

    system, learner, rollouts = result.cases
    assert result.benchmark == "pipeline"
    # Between these it says how settling goes, in as many lines as that takes.
    assert said[0].startswith("alone: ") and said[-1].startswith("alone: ")
    assert said[-2].startswith("1 workers, 1 shards: ")
    assert len({each.label for each in result.cases}) == 3
    assert 0 < system.value.min <= system.value.median <= system.value.max < math.inf
    assert min(learner.value.min, rollouts.value.min, system.cpu_s, system.peak_bytes) > 0
    shares = {n: v for n, v in system.details.items() if n.split("_")[0] in ("learner", "workers")}
    assert shares and all(map(math.isfinite, shares.values())), shares
    assert system.details["share_of_cores"] > 0
    assert 0 <= system.details["kept_samples_per_insert"] < math.inf
    assert result.from_json(result.to_json()) == result
    assert actors_are_gone()


def test_an_env_that_raises_ends_the_run_with_one_line_and_no_actor_is_left(ray_cluster):
    factory = make_factory(without_end(config(workers=1)), partial(FaultyEnv, "raise", at=20))

    with (
        pytest.raises(EnvFailure) as caught,
        opened_ray(factory, print) as name,
        LiveRun(factory, name, print) as live,
    ):
        live.settle(1.0, compiled=False)

    assert "the wheel" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert actors_are_gone()


def actors_are_gone():
    """Whether every CPU that the cluster has is free again, within some seconds."""
    import ray

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]:
            names = ray.util.list_named_actors(all_namespaces=True)
            if not [each for each in names if each["namespace"].startswith("bench-")]:
                return True
        time.sleep(0.1)
    return False
