"""Worker, shard and learner as the schedule asks for them."""

import numpy as np
from run_parts import lockstep

from distdqn.config import EnvConfig
from distdqn.config.schedules import in_env_steps
from distdqn.envs.make import describe
from distdqn.lockstep.system import LockstepSystem
from distdqn.run.factory import Factory


def make_system(tmp_path, **changes):
    config = in_env_steps(lockstep(tmp_path, **changes))
    env = describe(EnvConfig("CartPole-v1"))
    factory = Factory(config, env.observation, env.num_actions, env.action_start, None)
    system = LockstepSystem(factory)
    system.start(None)
    return system


def test_the_last_poll_is_of_the_last_update(tmp_path):
    system = make_system(tmp_path)
    system.poll()  # nothing learned yet: this empty distribution must not be the last word
    while not system.lockstep.finished:
        system.lockstep.advance()
        system.note_round()

    status = system.poll(is_last=True).status

    assert status.env_steps == 3_000 and np.isfinite(status.td_error_abs_p50)


def test_values_that_diverge_are_named_with_the_way_out(tmp_path):
    system = make_system(tmp_path, learner__learning_rate=1e30, learner__loss="mse")
    notes = []
    while not system.lockstep.finished:
        system.lockstep.advance()
        system.note_round()
        notes += system.poll().notes

    (line,) = [note for note in notes if "NaN or infinite" in note]
    assert "--learner.learning-rate" in line


def test_the_work_of_one_process_takes_no_more_than_its_time(tmp_path):
    system = make_system(tmp_path)
    while not system.lockstep.finished:
        system.lockstep.advance()
        system.note_round()

    spent = system.poll(is_last=True).usage

    seconds = [part.work_s for part in (spent.workers, spent.shards, spent.learner)]
    assert min(seconds) > 0.0 and 0.5 * spent.at_s < sum(seconds) <= spent.at_s
