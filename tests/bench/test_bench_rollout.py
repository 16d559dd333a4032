"""The rollout benchmark: rates of valid steps, limits of their own rounds."""

from __future__ import annotations

import numpy as np
import pytest

from distdqn.bench import rollout as bench
from distdqn.bench.measure import Rates
from distdqn.bench.result import Result
from distdqn.config import EnvConfig
from distdqn.envs.make import BareEnv
from distdqn.errors import UnknownEnvError

TINY = bench.Options(env_ids=("CartPole-v1",), envs=(2,), repeats=2, seconds=0.02)


def measured(options):
    said = []
    return bench.run(options, said.append), said


def test_each_number_of_envs_has_envs_network_and_both_beside_their_limits():
    result, said = measured(TINY)
    cases = {case.name: case for case in result.cases}
    env, inference = cases["env alone"], cases["inference alone"]
    both, counted = cases["rollout"], cases["rollout, inference counted"]
    assert len(cases) == len(result.cases) == 4 and said == ["CartPole-v1, 2 envs"]
    assert all(case.settings == {"env": "CartPole-v1", "envs": 2} for case in result.cases)
    assert all(case.unit == "env steps/s" and case.cpu_s > 0 for case in result.cases)
    assert both.limit == env.value and both.value == counted.value and both.peak_bytes > 10**7
    assert counted.limit.max < min(env.value.max, inference.value.max)
    assert both.share.median < counted.share.median
    assert Result.from_json(result.to_json()) == result


def test_the_limit_of_both_is_one_after_the_other_in_each_round():
    # 1 s in 100 and 1 s in 300 steps: 4/300 s a step in all; 1/4 and 1/4 s: 2 a second.
    rates = bench.in_turn_rates(Rates((100.0, 4.0), 1.0), Rates((300.0, 4.0), 2.0))
    assert rates.per_s == pytest.approx((75.0, 2.0)) and rates.cpu_s == 3.0


def test_games_are_left_out_with_a_note_where_ale_py_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result, _ = measured(bench.Options(env_ids=("ALE/Breakout-v5",)))
    assert not result.cases
    assert result.notes == ("left out: ALE/Breakout-v5, ale-py is not installed",)


def test_an_env_that_is_not_there_is_refused():
    with pytest.raises(UnknownEnvError, match="closest: CartPole-v1"):
        measured(bench.Options(env_ids=("CartPol-v1",), envs=(1,), seconds=0.01))


class FakeVectorEnv:
    """Every env ends in each third step; remembers the actions."""

    def __init__(self, mode, space):
        self.metadata, self.single_action_space = {"autoreset_mode": mode}, space
        self.steps, self.actions, self.closed = 0, [], False

    def reset(self, seed):
        assert seed == 0

    def step(self, actions):
        self.steps += 1
        self.actions.append(actions)
        ended = np.array([self.steps % 3 == 0, self.steps % 3 == 0])
        return None, None, ended, np.zeros(2, bool), {}

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("mode", "taken"), [("NEXT_STEP", [2, 2, 2, 0]), ("SAME_STEP", [2] * 4)])
def test_steps_that_only_reset_an_env_are_not_counted(monkeypatch, mode, taken):
    import gymnasium

    fake = FakeVectorEnv(
        gymnasium.vector.AutoresetMode[mode], gymnasium.spaces.Discrete(3, start=5)
    )
    monkeypatch.setattr(gymnasium, "make_vec", lambda *args, **kwargs: fake)
    env = BareEnv(EnvConfig("CartPole-v1"), 2)
    assert [env.step() for _ in range(4)] == taken
    env.close()
    assert fake.closed and {5, 6, 7} >= set(np.concatenate(fake.actions).tolist())


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "ALE/Breakout-v5"])
def test_envs_step_by_their_makers_means(env_id):
    if env_id.startswith("ALE"):
        pytest.importorskip("ale_py")
    env = BareEnv(EnvConfig(env_id), 2)
    assert sum(env.step() for _ in range(20)) > 20
    env.close()
