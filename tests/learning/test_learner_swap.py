"""Compiled and captured updates in the eager one's place."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from learner_parts import (
    B,
    K,
    learn,
    make_batch,
    make_learner,
    make_weights,
    needs_gpu,
    same_state,
)
from torch.fx.experimental.proxy_tensor import make_fx

from distdqn.learning.substitute import UpdateInUse


@pytest.mark.parametrize("double", [False, True])
def test_a_traced_update_takes_the_eager_ones_place_and_gives_its_results(double):
    options = {"double": double, "target_period": 3, "max_grad_norm": 1.0}
    eager, swapped = make_learner(**options), make_learner(**options)
    for learner in (eager, swapped):
        learn(learner, make_batch(0), make_weights(0), 1e-2)
    before = swapped.get_state()
    traced = make_fx(swapped.build_update())(*swapped.example_arguments())
    assert swapped.swap(traced) and swapped.compiled and not swapped.swap_refused
    assert all(np.array_equal(before[name], x) for name, x in swapped.get_state().items())
    for seed in range(1, 4):
        expected = learn(eager, make_batch(seed), make_weights(seed), 1e-2)
        got = learn(swapped, make_batch(seed), make_weights(seed), 1e-2)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(swapped.online_vector(), eager.online_vector(), atol=1e-6)
    assert swapped.diagnostics.scalars() == pytest.approx(eager.diagnostics.scalars(), rel=1e-4)


def fails(*arguments):
    arguments[0].fill_(7.0)
    raise RuntimeError("illegal instruction")


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (fails, "fails: RuntimeError: illegal instruction"),
        (make_learner(loss="mse").build_update(), "scalars is off by"),
        (lambda *arguments: (torch.zeros(B + 1), torch.zeros(4)), r"td_errors is \[9\]"),
        (lambda *arguments: (torch.full((B,), torch.nan), torch.zeros(4)), "off by nan"),
        (lambda *arguments: (torch.zeros(B), torch.zeros(3)), r"scalars is \[3\], required \[4\]"),
        (lambda *arguments: None, "fails: TypeError"),
    ],
)
def test_a_wrong_compiled_update_is_refused_and_the_learner_goes_on(candidate, reason):
    learner, untouched = make_learner(), make_learner()
    for x in (learner, untouched):
        learn(x, make_batch(0), None, 1e-2)
    assert not learner.swap(candidate) and not learner.compiled
    assert re.search(reason, learner.swap_refused)
    for x in (learner, untouched):
        learn(x, make_batch(1), None, 1e-2)
    assert same_state(learner, untouched)


def test_masked_batches_have_a_compiled_update_of_their_own():
    learner = make_learner()
    learn(learner, make_batch(0, with_mask=True), None, 1e-2)
    traced = make_fx(learner.build_update())(*learner.example_arguments(with_action_mask=True))
    calls = []

    def counted(*arguments):
        calls.append(len(arguments))
        return traced(*arguments)

    assert learner.swap(counted), learner.swap_refused
    del calls[:]
    learn(learner, make_batch(0, with_mask=True), None, 1e-2)
    assert len(calls) == K
    learn(learner, make_batch(1), None, 1e-2)  # eager: no compiled one fits
    assert len(calls) == K and learner.gradient_steps == 3 * K


def test_the_function_to_compile_shares_no_network_with_the_learner():
    learner = make_learner()
    learn(learner, make_batch(0), None, 1e-2)
    before = learner.get_state()
    arguments = learner.example_arguments()
    learner.build_update()(*arguments)
    assert all(np.array_equal(before[name], x) for name, x in learner.get_state().items())
    assert not np.array_equal(arguments[0].numpy(), before["online"])


def test_a_capture_that_fails_leaves_the_eager_update(monkeypatch):
    def no_capture(*arguments):
        raise RuntimeError("operation not permitted when stream is capturing")

    def eager(*arguments):
        raise AssertionError("only asked for")

    monkeypatch.setattr("distdqn.learning.substitute.capture_cuda_graph", no_capture)
    in_use = UpdateInUse(eager, {"online": torch.zeros(2)}, "float32", capture=True)
    for _ in range(2):
        assert in_use.function(torch.zeros(()), (torch.zeros(2),)) is eager
    assert "not captured: RuntimeError: operation not permitted" in in_use.refused
    assert not in_use.compiled


@needs_gpu
def test_a_captured_graph_gives_the_cpus_results():
    cpu, gpu = make_learner(target_period=3), make_learner(target_period=3, device="cuda")
    for seed in range(4):
        expected = learn(cpu, make_batch(seed), make_weights(seed), 1e-3)
        got = learn(gpu, make_batch(seed), make_weights(seed), 1e-3)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    assert gpu.compiled, gpu.swap_refused
    np.testing.assert_allclose(gpu.online_vector(), cpu.online_vector(), atol=1e-4)
