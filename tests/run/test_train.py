"""The whole system on real Ray."""

import json
import os
import re
import signal
import threading

import fake_envs
import numpy as np
import pytest
import ray_parts
from run_parts import (
    LONE,
    assert_closed,
    assert_verdict,
    in_thread,
    read_metrics,
    small,
    wait_for,
    wait_for_control,
    wait_for_pids,
)

import distdqn
from distdqn.errors import (
    ConfigError,
    DistDQNError,
    EnvFailure,
    ResourceError,
    RunError,
    UnknownEnvError,
)
from distdqn.run import async_run
from distdqn.telemetry.status import SCALARS


def test_a_run_takes_exactly_its_steps_and_makes_exactly_the_owed_updates(ray_cluster, tmp_path):
    summary = distdqn.train(small(tmp_path), display=False)
    assert summary.stopped_by == "total_env_steps"
    assert summary.env_steps == 6_000
    assert summary.gradient_steps == 2.0 * (6_000 - 512) // 32 == 343
    assert summary.samples_per_insert == pytest.approx(343 * 32 / (6_000 - 512))
    assert_closed(summary)
    assert summary.transitions_accepted == 6_000
    assert min(summary.shard_items) > 0.2 * sum(summary.shard_items)
    assert summary.eval_episodes == 4
    assert np.isfinite(summary.best_eval_return_mean)


def test_the_run_folder_holds_what_the_contract_says(ray_cluster, tmp_path):
    distdqn.train(small(tmp_path, eval__video_episodes=1, **LONE), display=False)
    folder = tmp_path / "runs" / "run"
    for name in ("run.json", "config.yaml", "summary.json", "learning_curve.png", "metrics.jsonl"):
        assert (folder / name).stat().st_size > 0, name
    assert list(folder.glob("events.*"))
    assert list((folder / "videos").glob("*.mp4"))
    (checkpoint,) = (folder / "checkpoints").glob("step_6000")
    for place in (checkpoint, folder / "best"):
        names = {path.name for path in place.iterdir()}
        assert {"manifest.json", "online.safetensors"} <= names
    lines = read_metrics(tmp_path)
    tags = set().union(*(line.keys() for line in lines))
    assert {"charts/samples_per_insert", "replay/size", "eval/episodic_return"} <= tags
    for clock in ("global_step", "gradient_steps", "time"):
        told = [line[clock] for line in lines]
        assert told == sorted(told), clock
    policy = distdqn.load_policy(folder)
    assert policy(np.zeros(4, np.float32)) in (0, 1)


def test_prioritized_double_dueling_n_step_with_a_ladder_runs_whole(ray_cluster, tmp_path):
    summary = distdqn.train(
        small(
            tmp_path,
            replay__kind="prioritized",
            replay__shards=3,
            learner__double=True,
            learner__n_step=3,
            network__dueling=True,
            workers__epsilon__kind="ladder",
        ),
        display=False,
    )
    assert summary.transitions_accepted == summary.env_steps == 6_000
    assert len(summary.shard_items) == 3
    assert set(SCALARS) <= set().union(*(line.keys() for line in read_metrics(tmp_path)))
    for name in ("q_start_mean", "return_start_mean", "q_abs_max", "q_bound"):
        assert np.isfinite(getattr(summary, name)), name
    assert summary.q_bound == pytest.approx(1.0 / (1.0 - 0.99))
    assert summary.soft_divergence == (summary.q_abs_max > 1.01 * summary.q_bound)


def test_training_learns_cartpole_beyond_chance(ray_cluster, tmp_path):
    config = small(
        tmp_path,
        total_env_steps=20_000,
        replay__samples_per_insert=16.0,
        replay__capacity=20_000,
        learner__batch_size=64,
        learner__learning_rate=1e-3,
        learner__target_period=50,
        network__hidden=[64, 64],
        workers__epsilon__value={"start": 1.0, "end": 0.05, "env_steps": 8_000},
        eval__episodes=5,
    )
    summary = distdqn.train(config, display=False)
    assert summary.best_eval_return_mean > 80  # acting at random gives about 22


def test_reaching_the_return_ends_the_run_early(ray_cluster, tmp_path):
    config = small(tmp_path, total_env_steps=1_000_000, eval__stop_at_return=5.0, **LONE)
    summary = distdqn.train(config, display=False)
    assert summary.stopped_by == "stop_at_return"
    assert summary.env_steps < 1_000_000
    assert_closed(summary)


def summary_after_killing(kind, index, tmp_path):
    """Of a run, one process of which is killed in its middle."""
    config = small(tmp_path, total_env_steps=60_000, eval__period_env_steps=None)
    thread, outcome = in_thread(config)
    os.kill(wait_for_pids()[kind][index], signal.SIGKILL)
    thread.join(timeout=300)
    summary = outcome["summary"]
    assert summary.env_steps == 60_000
    assert_closed(summary)
    return summary


def test_a_killed_worker_is_replaced_and_the_counts_close(ray_cluster, tmp_path):
    summary = summary_after_killing("workers", 0, tmp_path)
    assert summary.worker_restarts == 1
    assert_verdict(summary)


def test_a_killed_shard_returns_empty_and_its_items_are_counted(ray_cluster, tmp_path):
    summary = summary_after_killing("shards", 1, tmp_path)
    assert summary.shard_restarts == 1
    assert summary.items_lost > 0


def test_a_killed_learner_goes_on_from_its_snapshot(ray_cluster, tmp_path):
    config = small(tmp_path, total_env_steps=60_000, eval__period_env_steps=None)
    thread, outcome = in_thread(config)
    pids = wait_for_pids(env_steps=5_000)
    os.kill(pids["learner"], signal.SIGKILL)
    thread.join(timeout=300)
    summary = outcome["summary"]
    assert summary.learner_restarts == 1
    assert summary.env_steps == 60_000
    assert summary.gradient_steps == 2 * (60_000 - 512) // 32


@pytest.mark.parametrize(("part", "told"), [("control", "control"), ("server", "weight server")])
def test_a_run_that_loses_what_nobody_else_has_ends_with_its_weights(
    ray_cluster, tmp_path, monkeypatch, part, told
):
    import ray

    places = []

    class Kept(async_run.Placement):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            places.append(self)

    monkeypatch.setattr(async_run, "Placement", Kept)
    periods = {"learner__snapshot_period_s": 0.5, "checkpoint__period_s": 1_000.0}
    thread, outcome = in_thread(small(tmp_path, total_env_steps=5_000_000, **periods, **LONE))
    wait_for_control(env_steps=5_000)
    ray.kill(getattr(places[0], part))
    thread.join(timeout=300)

    assert f"the {told} died" in str(outcome["error"])
    (saved,) = (tmp_path / "runs" / "run" / "checkpoints").glob("step_*")
    counters = json.loads((saved / "manifest.json").read_text())["counters"]
    assert counters["gradient_steps"] > 50 and counters["env_steps"] >= 2_000


def test_interrupting_saves_the_weights(ray_cluster, tmp_path):
    from distdqn.files.run_folder import RunFolder

    config = small(tmp_path, total_env_steps=5_000_000, **LONE)
    metrics = tmp_path / "runs" / "run" / "metrics.jsonl"

    def interrupt_once_it_learns():
        wait_for(lambda: metrics.exists() and "losses/td_loss" in metrics.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_once_it_learns, daemon=True).start()
    summary = distdqn.train(config, display=False)
    assert summary.stopped_by == "SIGINT"
    assert summary.exit_status == 130
    folder = RunFolder.find("run", config.runs_dir)
    assert list((folder.path / "checkpoints").glob("step_*"))


def test_weights_of_another_run_can_start_a_new_one(ray_cluster, tmp_path):
    distdqn.train(small(tmp_path, mode="lockstep", total_env_steps=1_000), display=False)
    config = small(
        tmp_path,
        **LONE,
        total_env_steps=1_000,
        run_name="second",
        init_from=str(tmp_path / "runs" / "run"),
        init_checkpoint="newest",
        learner__learning_rate=0.0,
    )
    first = json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())
    assert distdqn.train(config, display=False).weights_sha256 == first["weights_sha256"]


def test_an_unknown_env_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UnknownEnvError, match="CartPole-v1"):
        distdqn.train(small(tmp_path, env__id="CartPool-v1"), display=False)
    assert not (tmp_path / "runs").exists()


def test_a_replay_that_cannot_fit_is_refused_with_both_figures(apart, tmp_path):
    with pytest.raises(ResourceError, match="GiB are free"):
        distdqn.train(small(tmp_path, replay__capacity=10**12), display=False)


def test_a_name_in_use_is_refused(ray_cluster, tmp_path):
    distdqn.train(small(tmp_path, mode="lockstep", total_env_steps=1_000), display=False)
    with pytest.raises(RunError, match="run"):
        distdqn.train(small(tmp_path), display=False)


def test_a_cluster_with_too_few_resources_says_what_is_missing(ray_cluster, tmp_path):
    config = small(
        tmp_path,
        workers__count=10,
        workers__num_cpus=3.0,
        total_env_steps=50_000_000,
        start_timeout_s=5.0,
    )
    with pytest.raises(ResourceError, match=r"more; the run needs 31 CPUs .*--workers\.count"):
        distdqn.train(config, display=False)
    assert not (tmp_path / "runs" / "run").exists()


def test_a_gpu_that_is_not_there_is_refused(ray_cluster, tmp_path):
    config = small(tmp_path, learner__device="cuda", learner__num_gpus=1)
    with pytest.raises(ResourceError, match="learner.device is cuda"):
        distdqn.train(config, display=False)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "raised in step: ValueError: the wheel"),
        ("raise_reset", "raised in reset: ValueError: no reset today"),
        ("shape", "changed its observation shape"),
        ("nan_obs", "observation"),
        ("inf_reward", "reward"),
    ],
)
def test_a_broken_env_ends_the_run_with_one_line_and_a_checkpoint(
    ray_cluster, tmp_path, fault, message
):
    config = small(
        tmp_path, workers__max_env_failures=1, replay__shards=1, eval__period_env_steps=None
    )
    with pytest.raises(EnvFailure, match=message) as caught:
        maker = fake_envs.faulty_maker(fault, at=3, again=True)
        distdqn.train(config, make_env=maker, display=False)
    assert "\n" not in str(caught.value)
    assert "max_env_failures is 1" in str(caught.value)
    log = (tmp_path / "runs" / "run" / "errors.log").read_text()
    entries = re.findall(r"^\S+ worker \d$", log, re.MULTILINE)
    assert len(entries) >= 2 and message.partition(": ")[2] in log
    if fault.startswith("raise"):  # the user's own line, in one line and with all that led to it
        assert re.search(r"fake_envs\.py:\d+ in (step|reset)", str(caught.value))
        assert log.count("Traceback") == len(entries) and "serial.py" in log
    assert list((tmp_path / "runs" / "run" / "checkpoints").glob("step_*"))


def test_a_hanging_env_is_found_and_named(ray_cluster, tmp_path):
    config = small(tmp_path, workers__max_env_failures=0, workers__env_timeout_s=1.5, **LONE)
    missed = r"'make_env\(\)' did not return within 1\.5 s \(workers\.env_timeout_s\)"
    with pytest.raises(EnvFailure, match=missed + r" at \S*fake_envs\.py:\d+ in step"):
        distdqn.train(config, make_env=fake_envs.faulty_maker("hang"), display=False)
    log = (tmp_path / "runs" / "run" / "errors.log").read_text()
    assert "time.sleep(self.hang_s)" in log  # where it stood


def test_an_env_that_is_never_made_is_found_and_named(ray_cluster, tmp_path):
    limit = {"workers__max_env_failures": 0, "workers__construct_timeout_s": 1.5}
    missed = r"was not constructed within 1\.5 s \(workers\.construct_timeout_s\)"
    with pytest.raises(EnvFailure, match=missed):
        maker = fake_envs.slow_maker(3600.0)
        distdqn.train(small(tmp_path, **limit, **LONE), make_env=maker, display=False)


def test_envs_may_take_longer_to_make_than_a_step(ray_cluster, tmp_path):
    config = small(tmp_path, total_env_steps=2_000, workers__env_timeout_s=2.0, **LONE)
    summary = distdqn.train(config, make_env=fake_envs.slow_maker(1.0), display=False)
    assert summary.worker_restarts == 0 and summary.env_steps == 2_000


def test_an_env_that_fails_now_and_then_is_restarted(ray_cluster, tmp_path):
    config = small(tmp_path, total_env_steps=2_400, workers__max_env_failures=50, **LONE)
    summary = distdqn.train(config, make_env=fake_envs.faulty_maker("raise", at=400), display=False)
    assert summary.env_steps == 2_400
    assert summary.worker_restarts >= 1
    assert_closed(summary)


def test_an_own_network_and_env_train(ray_cluster, tmp_path):
    summary = distdqn.train(
        small(tmp_path, total_env_steps=2_000, **LONE),
        make_env=ray_parts.make_cartpole,
        make_network=ray_parts.linear_network,
        display=False,
    )
    assert summary.env_steps == 2_000


def test_a_network_of_the_wrong_shape_is_refused_in_one_line(ray_cluster, tmp_path):
    wrong, config = ray_parts.network_of_wrong_shape, small(tmp_path, **LONE)
    with pytest.raises(DistDQNError) as caught:
        distdqn.train(config, make_network=wrong, display=False)
    assert "\n" not in str(caught.value)
    assert "[B, A]" in str(caught.value)


@pytest.mark.parametrize(
    ("torso", "message"),
    [("nature", "frames of shape .4. are no pictures"), ("resnet", "unknown torso 'resnet'")],
)
def test_a_torso_that_does_not_fit_is_refused_before_anything_starts(tmp_path, torso, message):
    with pytest.raises(ConfigError, match=message):
        distdqn.train(small(tmp_path, network__torso=torso), display=False)
    assert not (tmp_path / "runs").exists()
