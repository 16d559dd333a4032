from functools import partial

import pytest
from fake_envs import FaultyEnv, ScriptedEnv
from pipeline_parts import config

from distdqn.bench.alone import alone_here, bare_updates, collecting, measure_alone
from distdqn.bench.live_run import without_end
from distdqn.errors import EnvFailure, RunError
from distdqn.run.factory import make_factory


def test_both_are_measured_in_turn():
    found = alone_here(make_factory(without_end(config())), seconds=0.02, repeats=3)

    assert len(found.updates.per_s) == len(found.env_steps.per_s) == 3
    assert min(found.updates.per_s + found.env_steps.per_s) > 0
    assert (found.compiled, found.note, found.device) == (False, "", "cpu")


def test_a_round_of_acting_gives_the_env_steps_it_took():
    rollout = make_factory(without_end(config())).rollout(0, 0)
    collect = collecting(rollout)

    taken = collect() + collect()

    assert taken == rollout.stepped > 0


@pytest.mark.parametrize("masks", [False, True])
def test_a_round_of_updates_gives_their_number(masks):
    learner = make_factory(without_end(config()), partial(ScriptedEnv, masks=masks)).learner()

    made = bare_updates(learner, 5, masks)()

    assert made == learner.state["step"].item() == 5


def test_an_env_that_raises_is_told_in_its_own_line():
    factory = make_factory(without_end(config()), partial(FaultyEnv, "raise", at=20))

    with pytest.raises(EnvFailure, match="the wheel"):
        measure_alone(factory, 0.05, 2)


def test_a_process_that_dies_ends_the_wait():
    factory = make_factory(without_end(config()), partial(FaultyEnv, "exit", at=20))

    with pytest.raises(RunError, match="alone: the process died"):
        measure_alone(factory, 0.05, 2)
