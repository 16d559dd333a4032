"""Adam and RMSprop as pure functions on flat vectors.

They give torch.optim's numbers, but return new vectors in place of changing old ones;
`move` writes them over the old.

Symbols: `params`, `gradient` and every slot are `[P]`; `step` is a 0-dim int64 tensor,
1 at the first update; `learning_rate` a 0-dim float64 tensor. The scalars stay float64
beside float32 vectors (a 0-dim tensor does not promote a vector): `1 - 0.999^step`
in float32 is off by 1e-5 at the first step.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

Slots = tuple[torch.Tensor, ...]
UpdateParams = Callable[
    [torch.Tensor, torch.Tensor, Sequence[torch.Tensor], torch.Tensor, torch.Tensor],
    tuple[torch.Tensor, Slots],
]


class Optimizer(NamedTuple):
    """A rule that moves parameters, and the names of the vectors it remembers.

    slot_names: one name for each slot, all `[P]` zeros at first.
    update: `(params, gradient, slots, step, learning_rate) -> (params, slots)`.
    """

    slot_names: tuple[str, ...]
    update: UpdateParams


def make_optimizer(name: str, eps: float, momentum: float = 0.0, **constants: Any) -> Optimizer:
    """Binds the constants of "adam", which takes `eps` alone, or "rmsprop" (see `rmsprop`).

    Raises:
      ValueError: another name, or momentum for Adam, whose first moment is one.
    """
    if name == "adam":
        if momentum:
            raise ValueError(f"momentum belongs to rmsprop, got {momentum} for adam")
        return Optimizer(("first_moment", "second_moment"), functools.partial(adam, eps=eps))
    if name != "rmsprop":
        raise ValueError(f"optimizer must be adam or rmsprop, got {name!r}")
    rule = functools.partial(rmsprop, eps=eps, momentum=momentum, **constants)
    return Optimizer(rmsprop_slot_names(momentum, constants.get("centered", False)), rule)


def move(
    optimizer: Optimizer,
    params: torch.Tensor,
    gradient: torch.Tensor,
    slots: Sequence[torch.Tensor],
    step: torch.Tensor,
    learning_rate: torch.Tensor,
    chunk: int | None = None,
) -> None:
    """`optimizer.update`, written over `params` and `slots`, `chunk` entries at a time.

    The rules go over their vectors a dozen times. Eagerly each pass over a large network
    is one through memory; the passes over a chunk are through a core's cache. What is
    compiled is one pass, and takes the vectors whole (None).
    """
    vectors = (gradient, params, *slots)
    chunks = [vectors] if chunk is None else zip(*(x.split(chunk) for x in vectors), strict=True)
    for g, *old in chunks:
        new_params, new_slots = optimizer.update(old[0], g, old[1:], step, learning_rate)
        for tensor, value in zip(old, (new_params, *new_slots), strict=True):
            tensor.copy_(value)


def adam(
    params: torch.Tensor,
    gradient: torch.Tensor,
    slots: Sequence[torch.Tensor],
    step: torch.Tensor,
    learning_rate: torch.Tensor,
    eps: float,
    b1: float = 0.9,
    b2: float = 0.999,
) -> tuple[torch.Tensor, Slots]:
    """Kingma and Ba 2015 (arXiv:1412.6980) algorithm 1; torch.optim.Adam's numbers.

    `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
    `params - learning_rate * m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps)`.

    `slots`: first moment m, second moment v.
    """
    first_moment, second_moment = slots
    assert params.shape == gradient.shape == first_moment.shape == second_moment.shape
    first_moment = torch.lerp(first_moment, gradient, 1.0 - b1)
    second_moment = torch.addcmul(second_moment * b2, gradient, gradient, value=1.0 - b2)
    t = step.to(torch.float64)
    # Bias correction on the scalars (Kingma and Ba, end of section 2), not on vectors.
    root = (1.0 - b2**t).sqrt()
    scalars = torch.stack((learning_rate * root / (1.0 - b1**t), eps * root))
    # Compilers inline scalars into the loop over the vector, with both powers; what is seen
    # through strides they compute once. It was a tenth of an update of a Nature network.
    step_size, eps_hat = scalars.as_strided((2,), (1,)).unbind()
    denominator = second_moment.sqrt() + eps_hat
    params = torch.addcdiv(params, step_size * first_moment, denominator, value=-1.0)
    return params, (first_moment, second_moment)


def rmsprop_slot_names(momentum: float, centered: bool) -> tuple[str, ...]:
    """The slots in the order in which `rmsprop` takes and returns them."""
    used = {"second_moment": True, "first_moment": centered, "momentum": bool(momentum)}
    return tuple(name for name, is_used in used.items() if is_used)


def rmsprop(
    params: torch.Tensor,
    gradient: torch.Tensor,
    slots: Sequence[torch.Tensor],
    step: torch.Tensor,
    learning_rate: torch.Tensor,
    eps: float,
    momentum: float = 0.0,
    decay: float = 0.99,
    centered: bool = False,
    eps_inside_sqrt: bool = False,
) -> tuple[torch.Tensor, Slots]:
    """Tieleman and Hinton 2012, Coursera lecture 6.5; torch.optim.RMSprop's numbers.

    `v = decay v + (1 - decay) g^2`, `u = g / (sqrt(v) + eps)`, `params - learning_rate u`.
    centered: the mean gradient's square is taken from v (Graves 2013, arXiv:1308.0850,
      eq. 38 to 40).
    eps_inside_sqrt: `sqrt(v + eps)`, as Mnih et al. 2015, whose "min squared gradient"
      0.01 is meant so.
    momentum: `b = momentum b + u` is subtracted in place of u, times the learning rate.

    `slots`: as named by `rmsprop_slot_names`; `step` is not used.
    """
    second_moment, *rest = slots
    assert len(slots) == len(rmsprop_slot_names(momentum, centered)), len(slots)
    assert all(x.shape == params.shape for x in (gradient, *slots)), params.shape
    second_moment = torch.addcmul(second_moment * decay, gradient, gradient, value=1.0 - decay)
    new_slots, variance = [second_moment], second_moment
    if centered:
        first_moment = torch.lerp(rest.pop(0), gradient, 1.0 - decay)
        # Rounding can take the difference below zero, and torch.optim then gives NaN.
        variance = (second_moment - first_moment.square()).clamp(min=0.0)
        new_slots.append(first_moment)
    root = (variance + eps).sqrt() if eps_inside_sqrt else variance.sqrt() + eps
    direction = gradient / root
    if momentum:
        direction = rest.pop(0) * momentum + direction
        new_slots.append(direction)
    return params - learning_rate * direction, tuple(new_slots)


def clip_by_global_norm(
    gradient: torch.Tensor, max_norm: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales the gradient down to a norm of `max_norm`; torch's `clip_grad_norm_`.

    Pascanu et al. 2013 (arXiv:1211.5063) algorithm 1. None leaves it as it is.

    Returns:
      `[P]` gradient and its 0-dim norm before clipping.
    """
    norm = torch.linalg.vector_norm(gradient)
    if max_norm is None:
        return gradient, norm
    return gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0), norm
