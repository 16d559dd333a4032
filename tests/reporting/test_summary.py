"""The summary's fields, and the verdict on the bottleneck."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest

from distdqn.reporting.summary import (
    Summary,
    bottleneck,
    evaluation_fields,
    from_status,
    verdict_fields,
    weights_sha256,
)
from distdqn.reporting.verdict import TOO_SHORT, judge_turns, unknown
from distdqn.telemetry.ledger import Ledger
from distdqn.telemetry.reports import EvaluationReport, Poll
from distdqn.telemetry.status import RunStatus
from distdqn.types import BEFORE_ANY


def poll(worker_wait=0.0, **busy):
    status = RunStatus(worker_wait_fraction=worker_wait)
    shares = {"env": 0.1, "inference": 0.1, "replay": 0.1, "learner": 0.1} | busy
    return Poll(status, [], [], [], shares)


def report(*returns, **fields):
    return EvaluationReport(
        0, BEFORE_ANY, np.array(returns), np.ones(len(returns)), 0, np.zeros(0), **fields
    )


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (poll(worker_wait=0.9, learner=0.95), "learner"),
        (poll(env=0.6, inference=0.2), "env"),
        (poll(env=0.2, inference=0.6), "inference"),
        (poll(worker_wait=0.8, replay=0.9), "replay"),
        (poll(worker_wait=0.8, replay=0.1), "transfer"),
        (poll(learner=math.nan), "learner"),
    ],
)
def test_the_busiest_stage_is_the_bottleneck(seen, verdict):
    assert bottleneck(seen) == verdict


def test_a_verdict_names_the_bottleneck():
    verdict = judge_turns({"env": 0.75, "learner": 0.25}, 100.0)
    fields = verdict_fields(verdict, poll(learner=0.95))
    assert fields["bottleneck"] == "env"
    assert fields["verdict"] == verdict.line() and fields["verdict_detail"] == verdict.to_json()


def test_a_run_without_a_verdict_still_names_a_bottleneck():
    fields = verdict_fields(unknown(), poll(learner=0.95))
    assert (fields["bottleneck"], fields["verdict"]) == ("learner", TOO_SHORT)


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


@pytest.mark.parametrize(("seen", "told"), [(1.0, True), (0.0, False), (math.nan, None)])
def test_soft_divergence_is_true_false_or_not_known(seen, told):
    fields = from_status(RunStatus(q_abs_max=120.0, q_bound=100.0, soft_divergence=seen))
    assert fields["soft_divergence"] is told
    assert (fields["q_abs_max"], fields["q_bound"]) == (120.0, 100.0)


def test_every_field_of_the_summary_comes_from_somewhere():
    given = {**from_status(RunStatus()), **evaluation_fields(None, None)}
    names = {field.name for field in dataclasses.fields(Summary)}
    assert given.keys() <= names and {"td_error_abs_p95", "stale_fraction_100"} <= given.keys()


def test_the_ledger_goes_into_the_summary_field_by_field():
    fields = from_status(RunStatus(transitions=Ledger(10, 6, 1, 0, 3)))
    names = ("collected", "accepted", "refused", "lost")
    assert [fields[f"transitions_{name}"] for name in names] == [10, 6, 1, 3]


def test_the_digest_is_of_float32_bytes():
    vector = np.array([1.0, 2.0], np.float32)
    assert weights_sha256(vector) == hashlib.sha256(vector.tobytes()).hexdigest()
    assert weights_sha256(vector.astype(np.float64)) == weights_sha256(vector)
