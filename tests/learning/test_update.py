"""The pure update against plain autograd, finite differences and its own trace."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from learner_parts import make_settings
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from distdqn.config import Schedule
from distdqn.learning.substitute import disagreement
from distdqn.learning.update import initial_state, make_update, update_settings
from distdqn.networks.q_network import make_network
from distdqn.types import ObservationSpec
from distdqn.weights.flat_parameters import FlatParameters

OBSERVATION = ObservationSpec((3,), "float64")
B, A = 16, 4
HUGE = 1e12


def make_batch(seed, with_mask=False, dtype=torch.float64):
    """TD errors well beyond 1 and within, terminations, discounts of one to three steps."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": dtype}
    mask = torch.rand(B, A, **options) < 0.5
    mask[torch.arange(B), torch.randint(A, (B,), generator=generator)] = True
    batch = (
        torch.randn(B, 3, **options),
        torch.randint(A, (B,), generator=generator),
        2.0 * torch.randn(B, **options),
        torch.tensor([0.0, 0.99, 0.99**2, 0.99**3], dtype=dtype).repeat(B // 4),
        torch.randn(B, 3, **options),
        0.1 + torch.rand(B, **options),
    )
    return (*batch, mask) if with_mask else batch


def make_parts(settings, dueling=False, dtype=torch.float64):
    torch.manual_seed(0)
    network = make_network(OBSERVATION, A, hidden=(8, 6), dueling=dueling).to(dtype)
    parameters = FlatParameters(network)
    state = tuple(initial_state(parameters.flatten(), settings).values())
    return parameters, state, make_update(parameters.apply, settings)


def applied(update, state, rate, batch):
    """One update of a copy of the state: the new state, TD errors, scalars."""
    state = tuple(x.clone() for x in state)
    td_errors, scalars = update(*state, rate, *batch)
    return state, td_errors, scalars


def plain_loss(online, target, batch, double, loss):
    """As one writes it with modules; returns the loss and the TD errors."""
    obs_tm1, a_tm1, r_t, discount_t, obs_t, weights, *mask = batch
    q_t = target(obs_t).detach()
    choice = online(obs_t).detach() if double else q_t
    if mask:
        choice = torch.where(mask[0], choice, torch.tensor(-1e9, dtype=choice.dtype))
    y = r_t + discount_t * q_t[torch.arange(B), choice.max(1).indices]
    q = online(obs_tm1)[torch.arange(B), a_tm1]
    each = nn.functional.huber_loss if loss == "huber" else nn.functional.mse_loss
    return (weights * each(q, y, reduction="none")).sum() / B, (y - q).detach()


CASES = [
    {"double": double, "loss": loss, "dueling": dueling, "mask": mask, "max_grad_norm": norm}
    for (double, loss, dueling), (mask, norm) in zip(
        itertools.product((False, True), ("huber", "mse"), (False, True)),
        itertools.cycle([(False, None), (True, 0.5), (True, None)]),
        strict=False,
    )
]


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{v}" for v in c.values()))
def test_twenty_updates_equal_modules_autograd_and_torch_optim(case, optimizer):
    settings = make_settings(
        loss=case["loss"],
        double=case["double"],
        max_grad_norm=case["max_grad_norm"],
        optimizer=optimizer,
        optimizer_eps=1e-4,
    )
    parameters, state, update = make_parts(settings, case["dueling"])
    online = copy.deepcopy(parameters.module)
    target = copy.deepcopy(online)
    make = torch.optim.Adam if optimizer == "adam" else torch.optim.RMSprop
    torch_optimizer = make(online.parameters(), lr=1e-2, eps=1e-4)
    rate = torch.tensor(1e-2, dtype=torch.float64)
    for step in range(20):
        batch = make_batch(step, case["mask"])
        state, td_errors, scalars = applied(update, state, rate, batch)
        loss, plain_td_errors = plain_loss(online, target, batch, case["double"], case["loss"])
        torch_optimizer.zero_grad()
        loss.backward()
        limit = case["max_grad_norm"] or torch.inf
        norm = nn.utils.clip_grad_norm_(online.parameters(), limit)
        torch_optimizer.step()
        torch.testing.assert_close(td_errors, plain_td_errors)
        torch.testing.assert_close(scalars[0], loss.detach())
        torch.testing.assert_close(scalars[2], norm)
        if step % 7 == 6:
            state = (state[0], state[0].clone(), *state[2:])
            target.load_state_dict(online.state_dict())
    expected = nn.utils.parameters_to_vector(online.parameters()).detach()
    torch.testing.assert_close(state[0], expected, rtol=1e-9, atol=1e-9)
    assert state[2].item() == 20


@pytest.mark.parametrize("double", [False, True])
def test_the_gradient_is_the_derivative_with_the_target_held_fixed(double):
    # Beside a huge eps the root of v vanishes: the step is learning_rate * g / eps.
    settings = make_settings(loss="mse", double=double, optimizer="rmsprop", optimizer_eps=HUGE)
    parameters, state, update = make_parts(settings)
    batch = make_batch(1)
    new_state, td_errors, _ = applied(update, state, torch.tensor(HUGE, dtype=torch.float64), batch)
    gradient = state[0] - new_state[0]
    obs_tm1, a_tm1, _, _, _, weights = batch
    rows, y = torch.arange(B), td_errors + parameters.apply(state[0], batch[0])[range(B), a_tm1]

    def loss_with_fixed_target(flat):
        return (weights * (y - parameters.apply(flat, obs_tm1)[rows, a_tm1]) ** 2).mean()

    def loss_with_moving_target(flat):
        moving = (flat, flat, *state[2:])
        return applied(update, moving, torch.zeros((), dtype=torch.float64), batch)[2][0]

    def derivative(loss, i, step=1e-6):
        offset = torch.zeros_like(state[0])
        offset[i] = step
        return ((loss(state[0] + offset) - loss(state[0] - offset)) / (2 * step)).item()

    some = range(0, parameters.size, 5)
    fixed = [derivative(loss_with_fixed_target, i) for i in some]
    assert gradient[::5].tolist() == pytest.approx(fixed, abs=1e-6)
    moving = [derivative(loss_with_moving_target, i) for i in some]
    assert gradient[::5].tolist() != pytest.approx(moving, abs=1e-2)


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_the_residual_gradient_is_the_derivative_of_the_whole_loss(loss, with_mask):
    # As above, the step is the gradient.
    options = {"loss": loss, "optimizer": "rmsprop", "optimizer_eps": HUGE}
    parameters, state, update = make_parts(make_settings(gradient="residual", **options))
    obs_tm1, a_tm1, r_t, discount_t, obs_t, weights, *mask = batch = make_batch(1, with_mask)
    target = torch.full_like(state[0], torch.nan)  # must not be read
    rate = torch.tensor(HUGE, dtype=torch.float64)
    new_state, td_errors, scalars = applied(update, (state[0], target, *state[2:]), rate, batch)
    gradient, rows = state[0] - new_state[0], torch.arange(B)

    def residuals(flat):
        q_t = parameters.apply(flat, obs_t)
        best = (q_t.masked_fill(~mask[0], -1e9) if mask else q_t).max(1).values
        return r_t + discount_t * best - parameters.apply(flat, obs_tm1)[rows, a_tm1]

    def plain(flat):
        each = nn.functional.huber_loss if loss == "huber" else nn.functional.mse_loss
        y = residuals(flat)
        return (weights * each(y, torch.zeros_like(y), reduction="none")).mean()

    def derivative(i, step=1e-6):
        offset = torch.zeros_like(state[0])
        offset[i] = step
        return ((plain(state[0] + offset) - plain(state[0] - offset)) / (2 * step)).item()

    expected = [derivative(i) for i in range(0, parameters.size, 5)]
    assert gradient[::5].tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(td_errors, residuals(state[0]))
    torch.testing.assert_close(scalars[0], plain(state[0]))
    _, _, semi = make_parts(make_settings(**options))
    semi_gradient = state[0] - applied(semi, state, rate, batch)[0][0]
    assert (semi_gradient - gradient).abs().max() > 0.05  # online and target are equal here


def test_the_scalars_are_loss_mean_value_norm_and_largest_value():
    parameters, state, update = make_parts(
        make_settings(
            batch_size=B,
        )
    )
    batch = make_batch(2)
    q = parameters.apply(state[0], batch[0])[torch.arange(B), batch[1]]
    scalars = applied(update, state, torch.tensor(0.1, dtype=torch.float64), batch)[2]
    assert scalars.shape == (4,)
    torch.testing.assert_close(scalars[1], q.mean())
    torch.testing.assert_close(scalars[3], q.abs().max())
    assert -q.min() > q.max()  # the sign must not matter


def test_the_weight_of_an_item_scales_its_own_gradient_only():
    # A table: the gradient of entry (s, a) is -w * 2 td / B of the item that visited it.
    settings = make_settings(batch_size=2, loss="mse", optimizer="rmsprop", optimizer_eps=HUGE)
    network = nn.Linear(2, 1, bias=False)
    parameters = FlatParameters(network)
    state = tuple(initial_state(torch.zeros(2), settings).values())
    eye, zeros = torch.eye(2), torch.zeros(2)
    rewards, weights = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.5])
    batch = (eye, torch.zeros(2, dtype=torch.int64), rewards, zeros, eye, weights)
    update = make_update(parameters.apply, settings)
    new_state, _, scalars = applied(update, state, torch.tensor(HUGE, dtype=torch.float64), batch)
    # Mean first and weights afterwards would give 0.75 and 2.25 here, and the loss 3.75.
    torch.testing.assert_close(new_state[0], torch.tensor([1.0, 1.5]))
    assert scalars[0].item() == (1.0 * 1.0 + 0.5 * 9.0) / 2


def test_the_update_writes_the_state_in_place_and_nothing_else():
    _, state, update = make_parts(make_settings())
    batch, rate = make_batch(0), torch.tensor(0.1, dtype=torch.float64)
    before = [x.clone() for x in state]
    rest = [x.clone() for x in (rate, *batch)]
    outputs = update(*state, rate, *batch)
    assert all(map(torch.equal, rest, (rate, *batch)))
    changed = [not torch.equal(old, new) for old, new in zip(before, state, strict=True)]
    assert changed == [True, False, True, True, True]  # the target network stays
    assert not any(x.requires_grad for x in (*state, *outputs))


@pytest.mark.parametrize(
    "settings",
    [
        make_settings(double=True, max_grad_norm=1.0),
        make_settings(
            batch_size=B,
            loss="mse",
            optimizer="rmsprop",
            rmsprop_centered=True,
            optimizer_momentum=0.9,
        ),
        make_settings(gradient="residual"),
    ],
    ids=["adam", "rmsprop", "residual"],
)
@pytest.mark.parametrize("with_mask", [False, True])
def test_the_trace_of_one_batch_is_the_update_on_every_batch(settings, with_mask):
    _, state, update = make_parts(settings, dueling=True)
    function = update
    rate = torch.tensor(1e-2, dtype=torch.float64)
    scratch = [x.clone() for x in state]
    traced = make_fx(function)(*scratch, rate, *make_batch(0, with_mask))
    other = [x.clone() for x in state]
    for seed in range(1, 6):
        batch = make_batch(seed, with_mask)
        expected = function(*state, rate, *batch)
        got = traced(*other, rate, *batch)
        torch.testing.assert_close(list(got), list(expected))
        torch.testing.assert_close(other, list(state))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loss": "mse"}, "scalars"),
        ({"double": True}, "td_errors"),
        ({"gradient": "residual"}, "scalars"),
        ({"optimizer_eps": 0.1}, "online"),
        ({"max_grad_norm": 1e-3}, "first_moment"),
    ],
)
def test_an_update_by_another_formula_disagrees_and_the_state_is_put_back(change, named):
    settings = make_settings()
    parameters, state, update = make_parts(settings)
    _, _, warm = make_parts(settings)
    state = applied(warm, state, torch.tensor(0.1, dtype=torch.float64), make_batch(0))[0]
    named_state = dict(zip(initial_state(state[0], settings), state, strict=True))
    before = [x.clone() for x in state]
    other = make_update(parameters.apply, make_settings(**change))
    candidate, reference = other, update
    assert named in disagreement(candidate, reference, named_state, make_batch(1))
    assert disagreement(reference, reference, named_state, make_batch(1)) == ""
    assert all(map(torch.equal, state, before))


def test_rounding_in_another_order_is_no_disagreement():
    settings = make_settings()
    parameters, state, update = make_parts(settings, dtype=torch.float32)
    named_state = dict(zip(initial_state(state[0], settings), state, strict=True))

    def in_double(flat, obs):
        layers = dict(zip(parameters.names, parameters.views(flat.double()), strict=True))
        x = obs.double()
        for i in (0, 2):
            weight, bias = layers[f"torso.{i}.weight"], layers[f"torso.{i}.bias"]
            x = torch.relu(x @ weight.T + bias)
        return (x @ layers["head.weight"].T + layers["head.bias"]).float()

    candidate = make_update(in_double, settings)
    batch = make_batch(0, dtype=torch.float32)
    assert disagreement(candidate, update, named_state, batch) == ""


def test_double_q_learning_has_no_residual_gradient():
    with pytest.raises(ValueError, match="double must be False with the residual"):
        make_parts(make_settings(gradient="residual", double=True))


def test_only_what_the_update_is_made_of_is_in_its_settings():
    others = {
        "batch_size": 7,
        "learning_rate": Schedule.constant(0.5),
        "target_period": 7,
        "target_tau": 0.5,
        "publish_period": 7,
        "n_step": 3,
        "discount": 0.5,
        "superbatch": 3,
        "prefetch": 3,
        "num_threads": 3,
    }
    assert update_settings(make_settings(**others)) == update_settings(make_settings())
    own = {
        "gradient": "residual",
        "loss": "mse",
        "double": True,
        "max_grad_norm": 1.0,
        "precision": "float64",
        "optimizer": "rmsprop",
        "optimizer_eps": 0.1,
        "optimizer_momentum": 0.5,
        "rmsprop_decay": 0.5,
        "rmsprop_centered": True,
        "rmsprop_eps_inside_sqrt": True,
    }
    for name, value in own.items():
        assert getattr(update_settings(make_settings(**{name: value})), name) == value
