"""The summary's fields, and where they come from."""

import dataclasses
import hashlib
import json
import math

import numpy as np

from distdqn.reporting.summary import (
    Summary,
    evaluation_fields,
    refused_line,
    transition_fields,
    weights_sha256,
)
from distdqn.telemetry.ledger import Ledger
from distdqn.telemetry.reports import EvaluationReport
from distdqn.telemetry.status import Figures, RunStatus, shared


def report(*returns, **fields):
    return EvaluationReport(0, np.array(returns), np.zeros(0), **fields)


def test_the_two_evaluations_are_kept_apart():
    last = report(
        1.0, 3.0, start_values=np.array([40.0, 60.0]), discounted_returns=np.array([44.0, 46.0])
    )
    fields = evaluation_fields(last, report(10.0))
    assert fields == {
        "eval_return_mean": 2.0,
        "eval_return_std": 1.0,
        "eval_episodes": 2,
        "best_eval_return_mean": 10.0,
        "q_start_mean": 50.0,
        "return_start_mean": 45.0,
    }


def test_a_run_broken_off_has_no_evaluation():
    fields = evaluation_fields(None, None)
    assert fields["eval_episodes"] == 0
    assert math.isnan(fields["eval_return_mean"])
    for name in ("best_eval_return_mean", "q_start_mean", "return_start_mean"):
        assert math.isnan(fields[name])


OWN = {
    "run_name": "run",
    "run_folder": "runs/run",
    "env_id": "CartPole-v1",
    "made_with": [],
    "seed": 1,
    "stopped_by": "total_env_steps",
    "wall_s": 2.0,
    "startup_s": 1.0,
    "train_s": 1.0,
    "best_eval_env_steps": 10,
    "chosen_eval_return_mean": 3.0,
    "samples_per_insert_set": 12.8,
    "error_band": math.nan,
    "peak_pss_bytes": 5,
    "bottleneck": "env",
    "verdict": "",
    "verdict_detail": {},
    "weights_sha256": "",
}


def test_every_field_of_the_summary_comes_from_somewhere():
    status = RunStatus(q_abs_max=120.0, q_bound=100.0, soft_divergence=True, shard_items=(3, 4))
    told = shared(status, Figures) | transition_fields(status.transitions)
    summary = Summary(**OWN, **(told | evaluation_fields(None, None)))

    assert (summary.q_abs_max, summary.q_bound, summary.soft_divergence) == (120.0, 100.0, True)
    written = summary.to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["td_error_abs_p95"] is None and written["shard_items"] == [3, 4]
    assert written.keys() == {field.name for field in dataclasses.fields(Summary)}


def test_the_summary_has_the_names_that_users_rely_on():
    promised = """run_name env_id seed stopped_by env_steps gradient_steps wall_s startup_s
        env_steps_per_s gradient_steps_per_s samples_per_insert learner_wait_fraction
        worker_wait_fraction staleness_p50 staleness_p95 transitions_collected
        transitions_accepted transitions_refused transitions_lost items_lost worker_restarts
        shard_restarts learner_restarts train_return_mean eval_return_mean eval_return_std
        eval_episodes best_eval_return_mean peak_pss_bytes bottleneck weights_sha256
        q_start_mean return_start_mean q_abs_max q_bound soft_divergence"""
    assert set(promised.split()) <= {field.name for field in dataclasses.fields(Summary)}


def test_the_ledger_goes_into_the_summary_and_what_was_in_flight_is_lost():
    fields = transition_fields(Ledger(10, 5, 1, 1, 3))
    names = ("collected", "accepted", "refused", "lost")
    assert [fields[f"transitions_{name}"] for name in names] == [10, 5, 1, 4]


def test_the_digest_is_of_float32_bytes():
    vector = np.array([1.0, 2.0], np.float32)
    assert weights_sha256(vector) == hashlib.sha256(vector.tobytes()).hexdigest()
    assert weights_sha256(vector.astype(np.float64)) == weights_sha256(vector)


def test_what_was_refused_is_one_line_the_most_frequent_cause_first():
    by_cause = {"observation not finite": 2, "reward not finite": 1_200}
    told = {"transitions_refused_by": by_cause, "transitions_collected": 50_000}
    line = "1,200 (reward not finite), 2 (observation not finite) of 50,000 transitions"
    assert refused_line(told) == line
    assert refused_line(told | {"transitions_refused_by": {}}) == refused_line({}) == ""
