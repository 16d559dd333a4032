"""Q-learning as equations: tensors in, TD error out.

Every function returns the TD error, target minus estimate, and not the loss, so that loss,
priority and metric share it. The bootstrap target is detached, so that the gradient is the
semi-gradient; `residual_q_learning` alone lets it flow through the target too.

Symbols: `B` batch, `A` actions; `tm1` is the source and `t` the arrival of an n-step
transition, so `r_t` is already discounted and `discount_t` already gamma^n, and no
gamma appears below. `discount_t` is 0 where the episode terminated.
"""

import numpy as np
import torch
from torch import Tensor


def action_values(q: Tensor, actions: Tensor) -> Tensor:
    """The values of the given actions: `q [B, A]`, `actions [B]` int64 -> `[B]`."""
    assert q.ndim == 2 and q.is_floating_point(), (q.shape, q.dtype)
    assert actions.shape == q.shape[:1], (actions.shape, q.shape)
    assert actions.dtype == torch.int64, actions.dtype
    return q.gather(1, actions.unsqueeze(1)).squeeze(1)


def q_learning(
    q_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    q_t_value: Tensor,
    action_mask_t: Tensor | None = None,
) -> Tensor:
    """TD errors `[B]` of Q-learning, `r + discount * max_a q_t(a) - q_tm1(a_tm1)`.

    Watkins and Dayan 1992, "Q-learning"; with a target network in the place of
    `q_t_value`, Mnih et al. 2013 (arXiv:1312.5602) eq. 2, whose eq. 3 is the
    semi-gradient, and Mnih et al. 2015 (doi:10.1038/nature14236), Methods.

    q_tm1: `[B, A]` online values at the source; the only argument with a gradient.
    a_tm1: `[B]` int64 actions taken there.
    r_t: `[B]` discounted sum of up to n rewards.
    discount_t: `[B]` multiplier of the bootstrap value, 0 on termination.
    q_t_value: `[B, A]` target-network values at arrival.
    action_mask_t: `[B, A]` bool, True where allowed at arrival. A row whose discount is 0 may
      hold anything; one without an allowed action and with a positive discount gives an
      infinite error, as its target is not defined.
    """
    _assert_transitions(q_tm1, r_t, discount_t, q_t_value, action_mask_t)
    v_t = _allowed(q_t_value, action_mask_t).amax(dim=1)  # [B]
    target_tm1 = r_t + _bootstrap(discount_t, v_t, action_mask_t)
    return target_tm1.detach() - action_values(q_tm1, a_tm1)


def double_q_learning(
    q_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    q_t_value: Tensor,
    q_t_selector: Tensor,
    action_mask_t: Tensor | None = None,
) -> Tensor:
    """TD errors `[B]` of double Q-learning: one network chooses, the other one judges.

    `r + discount * q_t_value(argmax_a q_t_selector(a)) - q_tm1(a_tm1)`; van Hasselt,
    Guez and Silver 2016 (arXiv:1509.06461) eq. 4, there with the online network as
    selector and the target network as value.

    q_t_selector: `[B, A]` online values at arrival; no gradient flows into it.
    The others as in `q_learning`, the mask holds for the choice.
    """
    _assert_transitions(q_tm1, r_t, discount_t, q_t_value, action_mask_t)
    assert q_t_selector.shape == q_t_value.shape, (q_t_selector.shape, q_t_value.shape)
    a_t = _allowed(q_t_selector, action_mask_t).argmax(dim=1)  # [B]
    v_t = action_values(_allowed(q_t_value, action_mask_t), a_t)  # [B]
    target_tm1 = r_t + _bootstrap(discount_t, v_t, action_mask_t)
    return target_tm1.detach() - action_values(q_tm1, a_tm1)


def residual_q_learning(
    q_tm1: Tensor,
    a_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    q_t: Tensor,
    action_mask_t: Tensor | None = None,
) -> Tensor:
    """TD errors `[B]` of Q-learning whose bootstrap value has a gradient as well.

    The values are those of `q_learning`; half the square's gradient is `td * (discount * grad max_a
    q_t(a) - grad q_tm1(a_tm1))`, the residual gradient of Baird 1995, "Residual algorithms:
    reinforcement learning with function approximation". It descends the mean squared Bellman
    residual of sampled transitions. Where arrivals are random that is not zero at q*: one sample of
    `t` for both factors adds the variance of the target, which it lowers too (Baird draws two).

    q_t: `[B, A]` values at arrival by the network of `q_tm1`; at the maximum the gradient is
      that of the first largest allowed action.
    The others as in `q_learning`.
    """
    _assert_transitions(q_tm1, r_t, discount_t, q_t, action_mask_t)
    allowed = _allowed(q_t, action_mask_t)
    v_t = action_values(allowed, allowed.argmax(dim=1))  # [B]; amax would share it among equals
    target_tm1 = r_t + _bootstrap(discount_t, v_t, action_mask_t)
    return target_tm1 - action_values(q_tm1, a_tm1)


def huber(td_errors: Tensor) -> Tensor:
    """`td^2 / 2` up to 1 and `|td| - 1/2` beyond, elementwise.

    Huber 1964 (doi:10.1214/aoms/1177703732) with k = 1. Its derivative is the TD error
    clipped to [-1, 1], the error clipping of Mnih et al. 2015, Methods.
    """
    clipped = td_errors.abs().clamp(max=1.0)
    # c * (|td| - c/2) is both branches at once, without evaluating an overflowing td^2.
    return clipped * (td_errors.abs() - 0.5 * clipped)


def squared(td_errors: Tensor) -> Tensor:
    """`td^2`, elementwise: Mnih et al. 2013 eq. 2, without a factor of one half."""
    return td_errors.square()


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """`1/B sum_i w_i loss_i`, 0-dim: the weight meets its own loss before the mean.

    Schaul et al. 2016 (arXiv:1511.05952) algorithm 1, line 13. `losses`, `weights`:
    `[B]`. The mean is over B and not over the sum of the weights.
    """
    # A [B, 1] against a [B] would give [B, B] and a mean that corrects nothing.
    assert losses.ndim == 1 and losses.shape == weights.shape, (losses.shape, weights.shape)
    return (weights * losses).mean()


def importance_weights(probabilities: np.ndarray, num_items: int, exponent: float) -> np.ndarray:
    """`w_i = (1 / (N P(i)))^beta / max_j w_j`, Schaul et al. 2016, section 3.4.

    probabilities: `[..., B]` float64 global probabilities, P(shard) P(item | shard), with which the
      items of each minibatch were drawn.
    num_items: N, items in all shards together.
    exponent: beta; 0 gives ones, 1 corrects the bias in full.
    Raises ValueError for a probability outside (0, 1], no item or a negative exponent: they come
    from other processes. Gives `[..., B]` float32 in (0, 1]. The maximum is over the last axis:
    every minibatch is normalised by itself, whatever others travel in its superbatch. N cancels
    against it, up to rounding.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if not np.all((probabilities > 0.0) & (probabilities <= 1.0)):
        raise ValueError(
            f"probabilities must lie in (0, 1], got {np.min(probabilities)} to "
            f"{np.max(probabilities)}: an item that was sampled has a positive one"
        )
    if num_items < 1 or exponent < 0.0:
        raise ValueError(f"num_items >= 1 and exponent >= 0 required, got {num_items}, {exponent}")
    weights = (num_items * probabilities) ** -exponent
    return (weights / weights.max(axis=-1, keepdims=True)).astype(np.float32)


def _assert_transitions(
    q_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor, action_mask_t: Tensor | None
) -> None:
    batch, dtype = q_tm1.shape[:1], q_tm1.dtype
    assert q_tm1.ndim == 2 and q_tm1.shape == q_t.shape, (q_tm1.shape, q_t.shape)
    assert r_t.shape == batch and discount_t.shape == batch, (r_t.shape, discount_t.shape)
    assert r_t.dtype == dtype and discount_t.dtype == dtype, (r_t.dtype, discount_t.dtype, dtype)
    if action_mask_t is not None:
        assert action_mask_t.shape == q_tm1.shape, (action_mask_t.shape, q_tm1.shape)
        assert action_mask_t.dtype == torch.bool, action_mask_t.dtype


def _allowed(q: Tensor, action_mask: Tensor | None) -> Tensor:
    """`[B, A]` with -inf where an action is not allowed."""
    return q if action_mask is None else q.masked_fill(~action_mask, -torch.inf)


def _bootstrap(discount_t: Tensor, v_t: Tensor, action_mask_t: Tensor | None) -> Tensor:
    """`discount_t * v_t` `[B]`, 0 where the discount is 0 though `v_t` be -inf."""
    if action_mask_t is None:
        return discount_t * v_t
    # 0 * -inf is NaN: a terminal observation may come with every action masked.
    return torch.where(discount_t == 0.0, 0.0, discount_t * v_t)
