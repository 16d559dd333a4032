"""Worker, shard and learner as the schedule asks for them."""

import numpy as np
import pytest
from ray_parts import block, build_replay
from run_parts import lockstep

from distdqn.config import EnvConfig
from distdqn.envs import describe
from distdqn.lockstep.members import LockstepShard
from distdqn.lockstep.system import LockstepSystem
from distdqn.run.factory import Parts
from distdqn.types import WeightsVersion


def make_shard():
    return LockstepShard(lambda: build_replay(0, 0, prioritized=True), 0)


def version(counter):
    return WeightsVersion(1, counter)


def make_system(tmp_path, **changes):
    config = lockstep(tmp_path, **changes)
    env = describe(EnvConfig("CartPole-v1"))
    parts = Parts(config, env.observation, env.num_actions, env.action_start, None)
    system = LockstepSystem(parts)
    system.start(None)
    return system


def test_a_shard_measures_age_against_the_newest_weights_of_all():
    shard = make_shard()
    shard.add(block(10), version(0))

    ages = [
        shard.report(version(counter), is_last=True).diagnostics.stale_fraction_10
        for counter in (10, 11)
    ]

    assert ages == [0.0, 1.0]


def test_a_shard_counts_how_far_behind_each_block_was_when_it_came():
    shard = make_shard()
    shard.add(block(10), version(0))
    shard.add(block(5, sequence=1), version(3))

    counts = shard.report(version(3), is_last=True).staleness_counts

    assert counts[0] == 10 and counts[3] == 5 and counts.sum() == 15


def test_a_restored_shard_samples_and_reports_as_the_one_before():
    shard, restored = make_shard(), make_shard()
    shard.add(block(10), version(2))
    restored.set_state(shard.get_state(0, 0))

    np.testing.assert_array_equal(shard.sample(2, 4).item_ids, restored.sample(2, 4).item_ids)
    reports = [part.report(version(2), is_last=True) for part in (shard, restored)]
    np.testing.assert_array_equal(*(report.staleness_counts for report in reports))
    assert reports[0].counters == reports[1].counters


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


def test_the_shares_of_one_process_sum_up_to_its_time(tmp_path):
    system = make_system(tmp_path)
    while not system.lockstep.finished:
        system.lockstep.advance()
        system.note_round()

    busy = system.poll(is_last=True).busy

    assert sum(busy.values()) == pytest.approx(1.0, abs=1e-6)
    assert min(busy.values()) >= 0.0
