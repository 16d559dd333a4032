"""The broadcast benchmark: a small one on real Ray, and what its parts count."""

from __future__ import annotations

import numpy as np
import pytest

from distdqn.bench import broadcast as bench
from distdqn.bench.broadcast import WaitingEnv, WatchedRollout
from distdqn.bench.result import Result
from distdqn.bench.synthetic import TASKS
from distdqn.types import WeightSnapshot, WeightsVersion


def test_a_publication_is_timed_to_the_last_worker_beside_its_limits(ray_cluster):
    options = bench.Options(("minatar",), (2,), env_wait_ms=1.0, repeats=2, seconds=0.05)
    said = []
    result = bench.run(options, said.append)
    latency, pause = result.cases
    assert latency.settings == pause.settings == {"network": "minatar", "workers": 2}
    assert latency.unit == "ms" and latency.better == pause.better == "lower"
    assert 0 < latency.details["first_worker_ms"] <= latency.value.max
    assert pause.value.min < latency.value.max
    for case in result.cases:
        assert case.limit.min > 0 and case.limit.max < 60_000
        assert case.share.min > 0 and case.limit_name
    assert latency.peak_bytes > 10**7
    assert said[0] == "starts 2 workers and a learner" and "network=minatar workers=2" in said[1]
    assert Result.from_json(result.to_json()) == result


def test_figures_are_of_each_publication_and_of_its_own_limit(monkeypatch):
    monkeypatch.setattr(bench, "tree_pss_bytes", lambda: 77)
    found = [
        bench.Publication(last=0.1, first=0.05, pause=0.002, memcpy=0.001, put=0.01),
        bench.Publication(last=0.3, first=0.07, pause=0.004, memcpy=0.004, put=0.06),
    ]
    latency, pause = bench.cases_of("nature", 16, found, 0.02, bench.Options())
    assert (latency.value.median, latency.limit.max) == pytest.approx((200.0, 60.0))
    assert (latency.share.min, latency.share.max) == pytest.approx((0.1, 0.2))
    assert latency.details["first_worker_ms"] == pytest.approx(60.0)
    assert (latency.cpu_s, latency.peak_bytes) == (0.02, 77)
    assert (pause.value.max, pause.share.min, pause.share.max) == pytest.approx((4.0, 0.5, 1.0))


class FakeRollout:
    """Notes what it is told."""

    stepped = 12

    def __init__(self, env):
        self.env, self.told = env, []

    def set_weights(self, snapshot):
        self.told.append(snapshot.version.counter)

    def collect(self, max_transitions, until):
        self.env.step(np.zeros(1))
        return "a block"


def test_the_first_action_after_new_weights_is_noted_and_no_later_one(monkeypatch):
    clock = iter([10.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    env = WaitingEnv(TASKS["mlp"], wait_s=0.0)
    rollout = FakeRollout(env)
    watched = WatchedRollout(rollout, env)
    seen = []
    for counter in (None, 1, None, 2, None):
        if counter:
            version = WeightsVersion(1, counter)
            watched.set_weights(WeightSnapshot(version, version, 0, np.zeros(1, np.float32)))
        assert watched.collect(5, 0.0) is None
        seen.append(env.acted)
    assert seen == [(0, 0.0), (1, 10.0), (1, 10.0), (2, 20.0), (2, 20.0)]
    assert rollout.told == [1, 2] and watched.stepped == 12


@pytest.mark.parametrize("torso", list(TASKS))
def test_the_waiting_env_gives_steps_of_the_networks_shape(torso):
    env = WaitingEnv(TASKS[torso], wait_s=0.0)
    step = env.step(np.zeros(1))
    spec = env.observation
    assert env.reset(seed=0).shape == step.obs_t.shape == (1, *spec.shape)
    assert step.obs_t.dtype == spec.dtype and step.valid.all() and not step.starts.any()
