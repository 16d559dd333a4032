"""Lockstep from end to end: the same weights wherever the parts are."""

import functools
import itertools
import json
import os
import shutil
import signal
import time
import weakref

import fake_envs
import numpy as np
import pytest
from ray_parts import (
    linear_network,
    make_cartpole,
    network_of_wrong_shape_elsewhere,
    nodes_of_actors,
)
from run_parts import LONE, assert_closed, lockstep, read_metrics, small, wait_for
from torch import nn

import distdqn
from distdqn.config import Schedule, load_config
from distdqn.errors import CheckpointError, EnvFailure, ResourceError, RunError
from distdqn.files.checkpoint import checkpoints
from distdqn.lockstep import run as lockstep_run
from distdqn.run.checkpointer import Checkpointer

CONFIGURATIONS = list(itertools.product([1, 4], [1, 3], ["uniform", "prioritized"]))


def train(config, **arguments):
    return distdqn.train(config, display=False, **arguments)


def interrupted_after_first_checkpoint(monkeypatch, config, **arguments):
    """The summary of a run that gets SIGINT while it saves its first checkpoint."""
    save = Checkpointer.save_lockstep

    def save_and_interrupt(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return save(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save_lockstep", save_and_interrupt)
        return train(config, **arguments)


def changes_of(workers, shards, kind, **changes):
    shape = {"workers__count": workers, "replay__shards": shards, "replay__kind": kind}
    return shape | changes


def assert_alike(summaries, env_steps=3_000):
    """Whole runs of one configuration: the same weights and returns, and the updates owed."""
    assert len({s.weights_sha256 for s in summaries}) == 1
    assert len({(s.train_return_mean, s.eval_return_mean) for s in summaries}) == 1
    for summary in summaries:
        assert_closed(summary)
        assert summary.env_steps == env_steps
        assert summary.gradient_steps == (env_steps - 512) * 2 // 32


@pytest.mark.parametrize(("workers", "shards", "kind"), CONFIGURATIONS)
def test_repeated_and_resumed_runs_give_the_same_weights(
    tmp_path, monkeypatch, workers, shards, kind
):
    changes = changes_of(workers, shards, kind, total_env_steps=1_600, replay__capacity=1_000)

    first = train(lockstep(tmp_path / "a", **changes))
    again = train(lockstep(tmp_path / "b", **changes))
    config = lockstep(tmp_path / "c", **changes)
    broken_off = interrupted_after_first_checkpoint(monkeypatch, config)
    resumed = distdqn.resume("run", tmp_path / "c" / "runs", display=False)

    assert broken_off.stopped_by == "SIGINT" and broken_off.env_steps < 1_600
    assert broken_off.weights_sha256 != first.weights_sha256
    assert_alike([first, again, resumed], 1_600)


@pytest.mark.parametrize(("workers", "shards", "kind"), [CONFIGURATIONS[0], CONFIGURATIONS[-1]])
def test_one_process_and_actors_give_the_same_weights(ray_cluster, tmp_path, workers, shards, kind):
    changes = changes_of(workers, shards, kind)

    first = train(lockstep(tmp_path / "a", **changes))
    over_ray = train(lockstep(tmp_path / "b", mode="lockstep_ray", **changes))

    assert_alike([first, over_ray])


@pytest.mark.long
@pytest.mark.parametrize(("workers", "shards", "kind"), CONFIGURATIONS)
def test_one_process_and_actors_repeated_and_resumed_give_the_same_weights(
    ray_cluster, tmp_path, monkeypatch, workers, shards, kind
):
    changes = changes_of(workers, shards, kind)

    first = train(lockstep(tmp_path / "a", **changes))
    again = train(lockstep(tmp_path / "b", **changes))
    over_ray = train(lockstep(tmp_path / "c", mode="lockstep_ray", **changes))
    interrupted_after_first_checkpoint(monkeypatch, lockstep(tmp_path / "d", **changes))
    resumed = distdqn.resume("run", tmp_path / "d" / "runs", display=False)

    assert_alike([first, again, over_ray, resumed])


PICTURES = {
    "vectors": {"env__id": "CartPole-v1", "env__frame_stack": 4, "env__stack_padding": "repeat"},
    "minatar": {"env__id": "MinAtar/Breakout-v0", "total_env_steps": 1_500},
    "atari": {
        "env__id": "ALE/Breakout-v5",
        "env__atari__terminal_on_life_loss": True,
        "env__atari__fire_on_reset": True,
        "replay__compression": "lz4",
        "total_env_steps": 760,
        "workers__envs_per_worker": 4,
        "workers__block_transitions": 32,
        "eval__max_episode_steps": 40,
    },
}


@pytest.mark.parametrize("kind", PICTURES)
def test_frames_and_stacks_give_the_same_weights_everywhere_too(
    ray_cluster, tmp_path, monkeypatch, kind
):
    if kind != "vectors":
        pytest.importorskip("minatar" if kind == "minatar" else "ale_py")
    if kind == "atari":
        pytest.importorskip("lz4")
    changes = LONE | {"replay__kind": "prioritized", "eval__period_env_steps": 5_000}
    changes |= PICTURES[kind]

    first = train(lockstep(tmp_path / "a", **changes))
    over_ray = train(lockstep(tmp_path / "b", mode="lockstep_ray", **changes))
    broken_off = interrupted_after_first_checkpoint(
        monkeypatch, lockstep(tmp_path / "c", **changes)
    )
    resumed = distdqn.resume("run", tmp_path / "c" / "runs", display=False)

    assert broken_off.stopped_by == "SIGINT" and broken_off.env_steps < first.env_steps
    assert len({s.weights_sha256 for s in (first, over_ray, resumed)}) == 1
    assert first.gradient_steps == (first.env_steps - 512) * 2 // 32 > 0
    assert_closed(first)


def test_a_run_over_actors_is_resumed_over_actors(ray_cluster, tmp_path, monkeypatch):
    changes = {"replay__kind": "prioritized", "workers__count": 1, "total_env_steps": 1_600}
    config = lockstep(tmp_path, mode="lockstep_ray", **changes)
    interrupted_after_first_checkpoint(monkeypatch, config)

    resumed = distdqn.resume("run", tmp_path / "runs", display=False)

    whole = train(lockstep(tmp_path / "whole", **changes))
    assert resumed.weights_sha256 == whole.weights_sha256


def test_different_configurations_differ(tmp_path):
    one, other = (train(lockstep(tmp_path / str(s), seed=s)) for s in (1, 2))

    assert one.weights_sha256 != other.weights_sha256


def test_the_run_folder_goes_on_where_the_run_was_broken_off(tmp_path, monkeypatch):
    interrupted_after_first_checkpoint(monkeypatch, lockstep(tmp_path))
    episodes = [m for m in read_metrics(tmp_path) if "charts/episodic_return" in m]

    summary = distdqn.resume("run", tmp_path / "runs", display=False)

    steps = [m["global_step"] for m in read_metrics(tmp_path) if "charts/episodic_return" in m]
    assert steps[: len(episodes)] == [m["global_step"] for m in episodes]
    assert steps == sorted(steps) and len(steps) > len(episodes)
    assert summary.stopped_by == "total_env_steps"
    whole = train(lockstep(tmp_path / "whole"))
    assert summary.best_eval_return_mean == whole.best_eval_return_mean


def test_a_schedule_that_follows_the_run_is_recorded_and_resumed_in_env_steps(
    tmp_path, monkeypatch
):
    config = lockstep(tmp_path, total_env_steps=1_600)
    assert config.workers.epsilon.value == Schedule(1.0, 0.05, fraction=0.5)

    interrupted_after_first_checkpoint(monkeypatch, config)
    recorded = load_config(tmp_path / "runs" / "run" / "config.yaml")
    summary = distdqn.resume("run", tmp_path / "runs", display=False)

    assert recorded.workers.epsilon.value == Schedule(1.0, 0.05, 800)
    assert summary.stopped_by == "total_env_steps"


def test_a_schedule_that_outlasts_the_run_is_said_before_the_start(tmp_path, capsys):
    outlasting = "1.0:0.05:5000"

    distdqn.train(lockstep(tmp_path, total_env_steps=600, workers__epsilon__value=outlasting))

    said = " ".join(capsys.readouterr().err.split())
    line = (
        "workers.epsilon.value reaches 0.05 after 5,000 env steps, the run ends at 600 with 0.886"
    )
    assert line in said and said.index(line) < said.index("bytes per transition")


def test_checkpoints_that_cut_most_episodes_are_said_once(tmp_path, capsys):
    distdqn.train(lockstep(tmp_path, checkpoint__period_rounds=1, **LONE))
    err = " ".join(capsys.readouterr().err.split())
    line = "episodes of 4 envs ended between two checkpoints, 16 steps of each env"
    assert err.count(line) == 1 and "raise --checkpoint.period-rounds (1)" in err


def test_checkpoints_between_whole_episodes_are_not_worth_a_word(tmp_path, capsys):
    distdqn.train(lockstep(tmp_path, checkpoint__period_rounds=10, **LONE))
    assert "period-rounds" not in capsys.readouterr().err


def test_a_damaged_checkpoint_is_passed_over_and_the_weights_are_the_same(tmp_path, monkeypatch):
    config = lockstep(tmp_path, checkpoint__period_rounds=2)
    saves = itertools.count(1)
    save = Checkpointer.save_lockstep

    def interrupt_at_third(self, *args):
        if next(saves) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return save(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save_lockstep", interrupt_at_third)
        train(config)
    *_, newest = checkpoints(tmp_path / "runs" / "run")
    (newest / "online.safetensors").write_bytes(b"nothing")

    resumed = distdqn.resume("run", tmp_path / "runs", display=False)

    whole = train(lockstep(tmp_path / "whole", checkpoint__period_rounds=2))
    assert resumed.weights_sha256 == whole.weights_sha256


def test_altered_replay_is_named(tmp_path, monkeypatch):
    interrupted_after_first_checkpoint(monkeypatch, lockstep(tmp_path))
    for segment in (tmp_path / "runs" / "run" / "checkpoints" / "replay").rglob("*.msgpack"):
        segment.write_bytes(segment.read_bytes()[:-1])

    with pytest.raises(CheckpointError, match=r"\.msgpack is truncated"):
        distdqn.resume("run", tmp_path / "runs", display=False)


def test_what_cannot_be_resumed_is_refused(ray_cluster, tmp_path):
    finished = lockstep(tmp_path, run_name="finished")
    train(finished)
    with pytest.raises(RunError, match="has finished"):
        distdqn.resume("finished", tmp_path / "runs")

    train(small(tmp_path, run_name="async", total_env_steps=1_000, **LONE))
    with pytest.raises(RunError, match=r"is asynchronous.*--init-from .*async starts"):
        distdqn.resume("async", tmp_path / "runs")
    for weights in ("best", "checkpoints"):
        shutil.rmtree(tmp_path / "runs" / "async" / weights)
    with pytest.raises(RunError, match="is asynchronous.* it has no checkpoint"):
        distdqn.resume("async", tmp_path / "runs")

    with pytest.raises(RunError, match="no run 'none'"):
        distdqn.resume("none", tmp_path / "runs")


def test_a_run_with_an_env_of_its_own_is_resumed_with_it_alone(tmp_path, monkeypatch):
    interrupted_after_first_checkpoint(monkeypatch, lockstep(tmp_path), make_env=make_cartpole)

    with pytest.raises(
        RunError, match=r"parts.make_cartpole, .* distdqn.resume\('/.*/run', make_env="
    ):
        distdqn.resume("run", tmp_path / "runs", display=False)
    resumed = distdqn.resume("run", tmp_path / "runs", make_env=make_cartpole, display=False)

    assert resumed.env_steps == 3_000


def test_a_failing_env_ends_the_run_with_its_weights_saved(tmp_path):
    config = lockstep(tmp_path, checkpoint__period_rounds=1_000)
    faulty = fake_envs.faulty_maker("raise", at=20)
    with pytest.raises(EnvFailure, match=r"raised in step: .*fake_envs\.py:\d+ in step"):
        train(config, make_env=faulty)

    assert len(checkpoints(tmp_path / "runs" / "run")) == 1
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume.* has weights alone"):
        distdqn.resume("run", tmp_path / "runs", make_env=faulty, display=False)
    log = (tmp_path / "runs" / "run" / "errors.log").read_text()
    assert " run\nTraceback" in log and "ValueError: the wheel" in log


def test_what_was_refused_is_told_by_cause_and_once_when_it_first_happens(tmp_path, capsys):
    maker = fake_envs.faulty_maker("nan_reward", at=50)
    config = lockstep(tmp_path, checkpoint__period_rounds=1_000, eval__final_episodes=2)

    summary = distdqn.train(config, make_env=maker)

    by_cause = summary.transitions_refused_by
    assert list(by_cause) == ["reward not finite"]
    assert by_cause["reward not finite"] == summary.transitions_refused > 8
    written = json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())
    assert written["transitions_refused_by"] == by_cause
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("of worker 0 gave the reward nan in its step 50: transitions that touch") == 1
    assert f"refused {summary.transitions_refused} (reward not finite) of 3,000 transit" in said


class Fussy(nn.Module):
    """A network that takes no batch of 32."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, obs):
        if len(obs) == 32:
            raise RuntimeError("too many")
        return self.linear(obs)


def test_a_network_that_raises_is_named_with_its_line(tmp_path):
    with pytest.raises(RunError, match=r"network raised RuntimeError: too many at .*in forward$"):
        train(lockstep(tmp_path), make_network=lambda space, num_actions: Fussy())

    log = (tmp_path / "runs" / "run" / "errors.log").read_text()
    assert 'raise RuntimeError("too many")' in log


def test_a_bug_of_ours_leaves_its_traceback_in_the_runs_folder(tmp_path, monkeypatch):
    def fail(self):
        raise KeyError("x")

    monkeypatch.setattr("distdqn.lockstep.schedule.Lockstep.advance", fail)
    with pytest.raises(KeyError) as caught:
        train(lockstep(tmp_path))

    log = tmp_path / "runs" / "run" / "internal_error.log"
    assert vars(caught.value)["log"] == log and log.read_text().endswith("KeyError: 'x'\n")


def test_a_signal_after_the_last_border_leaves_the_run_to_be_resumed(tmp_path, monkeypatch):
    from distdqn.lockstep.schedule import Lockstep

    advance = Lockstep.advance

    def advance_and_interrupt_in_the_last_round(self):
        advance(self)
        if self.finished:
            os.kill(os.getpid(), signal.SIGINT)

    config = lockstep(tmp_path, checkpoint__keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(Lockstep, "advance", advance_and_interrupt_in_the_last_round)
        stopped = train(config)
    resumed = distdqn.resume("run", tmp_path / "runs", display=False)

    assert stopped.stopped_by == "SIGINT" and stopped.env_steps == 3_000
    assert np.isnan(stopped.eval_return_mean)
    assert np.isfinite(resumed.eval_return_mean)
    assert resumed.weights_sha256 == stopped.weights_sha256
    assert len(checkpoints(tmp_path / "runs" / "run")) == 1


def test_metrics_are_on_the_disk_before_the_checkpoint_that_counts_them(tmp_path, monkeypatch):
    save = Checkpointer.save_lockstep
    missing = []

    def look_and_save(self, state, run_state, *rest):
        written = {m["global_step"] for m in read_metrics(tmp_path)}
        missing.extend(set(run_state["record"]["train_curve"][:, 0].tolist()) - written)
        return save(self, state, run_state, *rest)

    monkeypatch.setattr(Checkpointer, "save_lockstep", look_and_save)
    train(lockstep(tmp_path))

    assert not missing


def test_a_resumed_run_lets_go_of_the_replay_it_was_given(tmp_path, monkeypatch):
    interrupted_after_first_checkpoint(monkeypatch, lockstep(tmp_path))
    frames, alive = [], []
    load, save = Checkpointer.load_lockstep, Checkpointer.save_lockstep

    def note_frames(self):
        state, warnings = load(self)
        frames.append(weakref.ref(state["shards"][0]["segments"][0]["frames"]))
        return state, warnings

    def look(self, *arguments):
        alive.append(frames[0]() is not None)
        return save(self, *arguments)

    monkeypatch.setattr(Checkpointer, "load_lockstep", note_frames)
    monkeypatch.setattr(Checkpointer, "save_lockstep", look)
    distdqn.resume("run", tmp_path / "runs", display=False)

    assert alive and not any(alive)


def test_a_changed_configuration_is_refused_by_key_and_values(tmp_path, monkeypatch):
    interrupted_after_first_checkpoint(monkeypatch, lockstep(tmp_path))
    path = tmp_path / "runs" / "run" / "config.yaml"
    path.write_text(path.read_text().replace("discount: 0.99", "discount: 0.9"))

    with pytest.raises(RunError, match=r"learner.discount 0.9, the run was started with 0.99"):
        distdqn.resume("run", tmp_path / "runs", display=False)


def test_a_refused_resume_changes_nothing(tmp_path, monkeypatch):
    interrupted_after_first_checkpoint(monkeypatch, lockstep(tmp_path), make_env=make_cartpole)
    folder = tmp_path / "runs" / "run"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    with pytest.raises(RunError, match="started with make_env, .* make_env=..."):
        network = {"make_network": linear_network}
        distdqn.resume("run", tmp_path / "runs", make_cartpole, **network, display=False)

    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dead_learner_is_named(ray_cluster, tmp_path, monkeypatch):
    import ray

    from distdqn.lockstep.system import LockstepSystem

    note_round = LockstepSystem.note_round

    def kill_the_learner(self):
        note_round(self)
        if self.lockstep.number == 3:
            ray.kill(self.learner.actor)

    monkeypatch.setattr(LockstepSystem, "note_round", kill_the_learner)

    with pytest.raises(RunError, match=r"the learner died .*distdqn resume"):
        train(lockstep(tmp_path, mode="lockstep_ray", replay__kind="prioritized", **LONE))


def test_reaching_the_return_ends_the_run_with_the_updates_owed(tmp_path):
    summary = train(lockstep(tmp_path, eval__stop_at_return=5.0))

    assert summary.stopped_by == "stop_at_return"
    assert summary.env_steps < 3_000
    assert summary.gradient_steps == (summary.env_steps - 512) * 2 // 32
    assert_closed(summary)


def test_fifo_uses_each_transition_once(tmp_path, monkeypatch):
    from distdqn.learning.training import Training

    item_ids = []
    update = Training.update

    def noting_update(self, batch, *arguments):
        item_ids.append(batch.item_ids.ravel())
        return update(self, batch, *arguments)

    monkeypatch.setattr(Training, "update", noting_update)
    config = lockstep(
        tmp_path, replay__kind="fifo", replay__shards=1, replay__samples_per_insert=1.0,
        replay__min_size_to_sample=32,
    )  # fmt: skip

    summary = train(config)

    used = np.concatenate(item_ids)
    np.testing.assert_array_equal(used, np.arange(len(used)))
    assert len(used) == summary.gradient_steps * 32 == (3_000 - 32) // 32 * 32


def test_a_dead_actor_ends_a_lockstep_run_in_one_line(ray_cluster, tmp_path):
    config = lockstep(tmp_path, mode="lockstep_ray", replay__shards=1)
    with pytest.raises(RunError, match=r"the worker \d died .*distdqn resume"):
        train(config, make_env=fake_envs.faulty_maker("exit", at=20))


def test_actors_that_find_no_place_are_named_and_none_is_left(ray_cluster, tmp_path):
    config = lockstep(tmp_path, mode="lockstep_ray", workers__num_cpus=1_000.0, start_timeout_s=5.0)
    with pytest.raises(ResourceError, match="still not started: worker 0, worker 1"):
        train(config)

    wait_for(lambda: not nodes_of_actors("MemberActor"))


def test_an_env_that_is_never_made_over_actors_is_named_with_the_limit(ray_cluster, tmp_path):
    limits = {"workers__construct_timeout_s": 1.5, "workers__num_cpus": 0.0}
    missed = r"_make_slow' was not constructed within 1\.5 s \(workers\.construct_timeout_s\)"
    with pytest.raises(EnvFailure, match=missed):
        config = lockstep(tmp_path, mode="lockstep_ray", **limits, **LONE)
        train(config, make_env=fake_envs.slow_maker(3600.0))

    wait_for(lambda: not nodes_of_actors("MemberActor"))


def test_a_part_that_cannot_be_made_over_actors_is_named(ray_cluster, tmp_path):
    wrong_there = functools.partial(network_of_wrong_shape_elsewhere, os.getpid())
    with pytest.raises(RunError, match="the learner did not start: the network must give "):
        config = lockstep(tmp_path, mode="lockstep_ray", **LONE)
        train(config, make_network=wrong_there)
    assert not (tmp_path / "runs" / "run" / "errors.log").exists()  # a refusal, no failure


def test_sigterm_saves_the_weights_where_the_next_checkpoint_is_far(tmp_path, monkeypatch):
    from distdqn.lockstep.schedule import Lockstep

    advance = Lockstep.advance

    def advance_and_interrupt(self):
        advance(self)
        if self.number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    monkeypatch.setattr(lockstep_run, "_BORDER", 0.001)  # 20 ms
    monkeypatch.setattr(Lockstep, "advance", advance_and_interrupt)
    stopped = train(lockstep(tmp_path, checkpoint__period_rounds=1_000))

    assert stopped.stopped_by == "SIGTERM" and stopped.env_steps < 3_000
    assert len(checkpoints(tmp_path / "runs" / "run")) == 1


def test_a_signal_in_the_final_evaluation_breaks_it_off(tmp_path, monkeypatch):
    from distdqn.lockstep.system import LockstepSystem

    def evaluate(self, *_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr(LockstepSystem, "evaluate", evaluate)
    stopped = train(lockstep(tmp_path))

    assert stopped.stopped_by == "SIGINT" and stopped.exit_status == 130
    assert stopped.env_steps == 3_000 and np.isnan(stopped.eval_return_mean)
    assert checkpoints(tmp_path / "runs" / "run")
