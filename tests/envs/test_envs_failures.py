"""What envs do wrong is marked or refused, and the messages are read."""

from typing import Any

import cloudpickle
import numpy as np
import pytest
from fake_envs import FaultyEnv, ScriptedEnv, ScriptedVectorEnv, faulty_maker, stepper_of
from gymnasium.vector import AutoresetMode

from distdqn import errors
from distdqn.config import EnvConfig
from distdqn.envs.make import make_stepper
from distdqn.envs.stepper import VectorStepper


@pytest.mark.parametrize(
    "fault, what",
    [("nan_reward", "reward"), ("inf_reward", "reward"), ("nan_obs", "observation")],
)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_bad_value_marks_its_env_only(fault, what, clip):
    envs = [FaultyEnv(fault, at=2), FaultyEnv("none")]
    stepper = stepper_of(envs, reward_clip=clip)
    stepper.reset()
    marks = [stepper.step(np.ones(2, np.int64)) for _ in range(3)]
    assert [step.bad.tolist() for step in marks] == [[False] * 2, [True, False], [False] * 2]
    assert [step.bad_what for step in marks] == ["", what, ""]


def test_a_reward_too_large_for_float32_is_bad():
    stepper = stepper_of([ScriptedEnv()], reward_scale=1e300)
    stepper.reset()
    with np.errstate(over="ignore"):
        step = stepper.step(np.array([1]))
    assert step.bad.tolist() == [True] and step.bad_what == "reward"


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.SAME_STEP])
def test_a_bad_reset_observation_is_marked_and_healed_by_another_reset(mode):
    vector_env = ScriptedVectorEnv(2, mode, lengths=(1,))
    vector_env.envs[1] = FaultyEnv("nan_reset", at=2, lengths=(1,))
    stepper = VectorStepper(vector_env, "F")
    stepper.reset()
    step = stepper.step(np.ones(2, np.int64))
    assert step.bad.tolist() == [False, True] and step.bad_what == "observation"
    assert np.isfinite(step.obs_t).all() and np.isnan(step.next_obs[1]).all()
    assert np.isfinite(stepper.reset_envs(step.bad)[0]).all()


def test_a_reset_that_heals_nothing_is_a_failure():
    message = "environment 'S' gave a NaN or infinite observation in reset"
    with pytest.raises(errors.EnvFailure, match=message):
        stepper_of([FaultyEnv("nan_reset", at=1)]).reset()
    stepper = stepper_of([FaultyEnv("nan_reset", at=2, again=True, lengths=(1,))])
    stepper.reset()
    step = stepper.step(np.array([1]))
    with pytest.raises(errors.EnvFailure, match=message):
        stepper.reset_envs(step.bad)


@pytest.mark.parametrize(
    "fault, message",
    [
        (
            "raise",
            "environment 'make_env()' raised in step: ValueError: the wheel fell off (env 1)",
        ),
        (
            "raise_reset",
            "environment 'make_env()' raised in reset: ValueError: no reset today (env",
        ),
        (
            "shape",
            "environment 'make_env()' changed its observation shape from (3,) to (4,) in step (env",
        ),
        ("dtype", "changed its observation dtype from float32 to complex64 in step (env 1)"),
        ("tuple", "raised in step: ValueError: not enough values to unpack (expected 5, got 4)"),
        (
            "empty_mask",
            "allows no action: info['action_mask'] of env 1 is all zero in a state that",
        ),
    ],
)
def test_a_failure_is_one_line_that_names_the_env(fault, message):
    make_faulty = cloudpickle.loads(cloudpickle.dumps(faulty_maker(fault, lengths=(3,))))
    first = iter([ScriptedEnv()])
    stepper = make_stepper(EnvConfig(), 2, lambda: next(first, None) or make_faulty())
    stepper.reset(seed=0)
    with pytest.raises(errors.EnvFailure) as caught:
        for _ in range(4):
            stepper.step(np.ones(2, np.int64))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_native_vector_env_that_changes_its_shape_is_refused():
    vector_env: Any = ScriptedVectorEnv(2)
    stepper = VectorStepper(vector_env, "S")
    stepper.reset()
    vector_env.step = lambda actions: (np.zeros((2, 5)), *np.zeros((3, 2)), {})
    with pytest.raises(
        errors.EnvFailure, match=r"'S' changed its observation shape from \(3,\) to"
    ):
        stepper.step(np.zeros(2, np.int64))


def test_a_same_step_env_without_final_observations_is_refused():
    vector_env = ScriptedVectorEnv(2, AutoresetMode.SAME_STEP, lengths=(1,), final="missing")
    stepper = VectorStepper(vector_env, "S")
    stepper.reset()
    with pytest.raises(errors.EnvFailure, match=r"gave no info\['final_obs'\] \(env 0\)"):
        stepper.step(np.ones(2, np.int64))


@pytest.mark.parametrize("mode", ["Sometimes", None])
def test_an_unknown_autoreset_mode_is_refused(mode):
    with pytest.raises(errors.EnvError, match="declares the autoreset mode .* knows NextStep"):
        VectorStepper(ScriptedVectorEnv(1, mode), "S")


def test_step_before_reset_is_refused():
    with pytest.raises(RuntimeError, match="needs a reset before"):
        VectorStepper(ScriptedVectorEnv(1), "S").step(np.zeros(1, np.int64))


def test_close_closes_every_env_even_one_that_raises():
    envs: list[Any] = [ScriptedEnv(), ScriptedEnv()]
    stepper = stepper_of(envs)
    stepper.close()
    assert all(env.closed for env in envs)
    envs[0].close = lambda: 1 / 0
    stepper.close()
