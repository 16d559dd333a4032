"""The summary's fields, and the verdict on the bottleneck."""

import hashlib
import math

import numpy as np
import pytest

from distdqn.actors.messages import EvaluationReport, Poll
from distdqn.metrics import Ledger, RunStatus
from distdqn.summary import bottleneck, evaluation_fields, from_status, weights_sha256
from distdqn.types import BEFORE_ANY


def poll(worker_wait=0.0, **busy):
    status = RunStatus(worker_wait_fraction=worker_wait)
    shares = {"env": 0.1, "inference": 0.1, "replay": 0.1, "learner": 0.1} | busy
    return Poll(status, [], [], [], shares)


def report(*returns):
    return EvaluationReport(0, BEFORE_ANY, np.array(returns), np.ones(len(returns)), 0, np.zeros(0))


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


def test_the_two_evaluations_are_kept_apart():
    fields = evaluation_fields(report(1.0, 3.0), report(10.0))
    assert fields == {
        "eval_return_mean": 2.0,
        "eval_return_std": 1.0,
        "eval_episodes": 2,
        "best_eval_return_mean": 10.0,
    }


def test_a_run_broken_off_has_no_evaluation():
    fields = evaluation_fields(None, None)
    assert fields["eval_episodes"] == 0
    assert math.isnan(fields["eval_return_mean"])
    assert math.isnan(fields["best_eval_return_mean"])


def test_the_ledger_goes_into_the_summary_field_by_field():
    fields = from_status(RunStatus(transitions=Ledger(10, 6, 1, 0, 3)))
    names = ("collected", "accepted", "refused", "lost")
    assert [fields[f"transitions_{name}"] for name in names] == [10, 6, 1, 3]


def test_the_digest_is_of_float32_bytes():
    vector = np.array([1.0, 2.0], np.float32)
    assert weights_sha256(vector) == hashlib.sha256(vector.tobytes()).hexdigest()
    assert weights_sha256(vector.astype(np.float64)) == weights_sha256(vector)
