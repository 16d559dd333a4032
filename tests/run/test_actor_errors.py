"""What Ray tells of another process becomes one line, and a traceback for the log."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from distdqn.errors import EnvFailure, ResourceError, RunError, traceback_of
from distdqn.run import actors
from distdqn.run.actors import answer, failed


def forward(batch):
    raise RuntimeError(f"I do not like {batch}")


def over_ray(error):
    """As `ray.get` raises it: the class of the cause, and Ray's own text."""
    return RayTaskError("run", traceback_of(error), error, "ray::LearnerActor", 1, "ip", "repr")


def raised(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def refuse():
    raise ResourceError("learner.device is cuda but PyTorch sees no GPU")


def test_the_users_line_ends_the_one_line_and_the_traceback_goes_along():
    failure = failed("learner", "failed: {}", over_ray(raised(forward, 32)))
    line = forward.__code__.co_firstlineno + 1
    assert str(failure).startswith("the learner failed: RuntimeError: I do not like 32 at ")
    assert str(failure).endswith(f"test_actor_errors.py:{line} in forward")
    assert "Traceback" not in str(failure) and 'raise RuntimeError(f"I do' in failure.details
    assert failure.part == "learner" and "\x1b[" not in failure.details


@pytest.mark.parametrize("in_constructor", [False, True])
def test_a_refusal_is_told_without_its_class_and_leaves_no_traceback(monkeypatch, in_constructor):
    monkeypatch.setattr(actors, "own_frame", lambda text: "")  # `refuse` stands in for our code
    error = over_ray(raised(refuse))
    failure = failed(
        "learner", "did not start: {}", ActorDiedError(error) if in_constructor else error
    )
    line = "the learner did not start: learner.device is cuda but PyTorch sees no GPU"
    assert (str(failure), failure.details) == (line, "")


def test_a_failure_of_an_env_keeps_its_own_traceback_and_gets_its_part(monkeypatch):
    cause = EnvFailure("it raised")
    cause.details = "Traceback ..."
    error = over_ray(cause)

    def get(ref, timeout):
        raise error

    monkeypatch.setattr(actors.ray, "get", get)
    with pytest.raises(EnvFailure) as caught:
        answer(None, "evaluator", 1.0)
    told = caught.value
    assert (str(told), told.details, told.part) == ("it raised", "Traceback ...", "evaluator")


def test_a_death_is_told_with_its_way_out():
    failure = failed("worker 1", "died ({}): look at it", ActorDiedError())
    assert isinstance(failure, RunError) and str(failure).startswith("the worker 1 died (The actor")
    assert str(failure).endswith("): look at it")
