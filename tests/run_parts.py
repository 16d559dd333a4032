"""Small runs on CartPole, and what every summary must hold."""

import json
import math
import threading
import time

import distdqn
from distdqn.config import from_values

SMALL = {
    "total_env_steps": 6_000,
    "run_name": "run",
    "seed": 1,
    "env.id": "CartPole-v1",
    "workers.count": 2,
    "workers.envs_per_worker": 4,
    "workers.block_transitions": 64,
    "workers.num_cpus": 0.5,
    "start_timeout_s": 600,  # a busy machine is no fault
    "workers.construct_timeout_s": 600,
    "workers.env_timeout_s": 600,
    "replay.shards": 2,
    "replay.capacity": 4_000,
    "replay.min_size_to_sample": 512,
    "replay.samples_per_insert": 2.0,
    "learner.batch_size": 32,
    "learner.superbatch": 4,
    "learner.compile": False,
    "learner.snapshot_period_s": 0.5,
    "learner.publish_period": 10,
    "network.hidden": [32],
    "eval.period_env_steps": 2_000,
    "eval.episodes": 2,
    "eval.final_episodes": 4,
    "eval.video_episodes": 0,
}


LONE = {"workers__count": 1, "replay__shards": 1}  # each part is a process that starts anew


def small(tmp_path, **changes):
    """A configuration of a few seconds on CartPole; `a__b=` stands for the key a.b."""
    keys = {name.replace("__", "."): value for name, value in changes.items()}
    return from_values({**SMALL, "runs_dir": str(tmp_path / "runs"), **keys})


def in_thread(config, **arguments):
    """Trains in a thread; the result or the error lands in the returned dict."""
    outcome = {}

    def run():
        try:
            outcome["summary"] = distdqn.train(config, display=False, **arguments)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def wait_for(condition, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def wait_for_control(env_steps=2_000):
    """The run's control actor once it knows of some steps, and of items in every shard."""
    import ray

    def control():
        try:
            return ray.get_actor("control", namespace="run")
        except ValueError:
            return None

    def is_under_way():
        status = ray.get(control().status.remote(), timeout=300)
        holding = sum(items > 0 for items in status.shard_items)
        return status.env_steps >= env_steps and holding == status.shards_target

    wait_for(control)
    wait_for(is_under_way)
    return control()


def wait_for_pids(env_steps=2_000):
    """The run's pids once it has made some steps."""
    import ray

    return ray.get(wait_for_control(env_steps).pids.remote(), timeout=300)


def read_metrics(tmp_path):
    lines = (tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_closed(summary):
    assert summary.transitions_collected == (
        summary.transitions_accepted + summary.transitions_refused + summary.transitions_lost
    )


def assert_verdict(summary):
    """Every stage has told what it spent, and the summary says what follows."""
    detail = summary.verdict_detail
    assert detail["limit"] in {"workers", "learner", "shards", "cores", "absence", "transfer"}
    assert set(detail["capacities"]) == {"workers", "learner", "shards", "cores"}
    assert all(value > 0 for value in detail["capacities"].values())
    assert all(0 < share <= 1 for share in detail["busy"].values())
    assert 0 < detail["env_steps_per_s"] < math.inf
    assert summary.verdict == detail["line"] and "env steps/s" in summary.verdict


def lockstep(tmp_path, **changes):
    keys = {
        "mode": "lockstep",
        "total_env_steps": 3_000,
        "checkpoint__period_rounds": 3,
        "replay__capacity": 2_000,
        "learner__n_step": 3,
        "learner__double": True,
        "eval__period_env_steps": 1_000,
        "eval__final_episodes": 2,
        "workers__num_cpus": 0.25,
    }
    return small(tmp_path, **{**keys, **changes})
