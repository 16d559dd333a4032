"""One Q-learning update: target, TD error, gradient, optimizer.

It is written here once. The same function runs eagerly, is traced and compiled, and is
captured in a CUDA graph; nothing else computes a gradient.

    update(*state, learning_rate, *batch) -> td_errors [B], scalars [4]

State: `online [P]`, `target [P]`, `step` (0-dim int64), optimizer slots `[P]`; all but the
target are written in place. `learning_rate` is 0-dim float64. Batch: `obs_tm1, a_tm1, r_t,
discount_t, obs_t, weights` and, where the env gives masks, `action_mask_t`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from distdqn import value_learning
from distdqn.config.sections import LearnerConfig
from distdqn.learning.optimizers import Optimizer, clip_by_global_norm, make_optimizer, move
from distdqn.weights.flat_parameters import FlatParameters

Tensors = tuple[torch.Tensor, ...]
Apply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Update = Callable[..., Sequence[torch.Tensor]]

# Of parameters, rewards and weights. bfloat16 is for the layers' arithmetic: parameters, the
# head of a `QNetwork`, TD errors, loss and optimizer stay float32. In float32 a GPU's
# convolutions may use TF32 (ten bits of mantissa), as PyTorch's defaults have it and published
# results used; its dense layers do not.
DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
_LOSSES = {"huber": value_learning.huber, "mse": value_learning.squared}
_SETTINGS = (
    *("gradient", "loss", "double", "max_grad_norm", "precision", "optimizer", "optimizer_eps"),
    *("optimizer_momentum", "rmsprop_decay", "rmsprop_centered", "rmsprop_eps_inside_sqrt"),
)


def update_settings(settings: LearnerConfig) -> LearnerConfig:
    """What of the settings decides the update, all others at their defaults.

    Compiled code is kept under these: it serves whatever the learning rate or a period is.
    """
    return LearnerConfig(**{name: getattr(settings, name) for name in _SETTINGS})


def build_update(network: nn.Module, settings: LearnerConfig) -> Update:
    """The update of a network's parameters, as it is compiled."""
    return make_update(FlatParameters(network).apply, settings)


def initial_state(online: torch.Tensor, settings: LearnerConfig) -> dict[str, torch.Tensor]:
    """The state by name, in its order: `online [P]`, a target that equals it, zeros."""
    state = {"online": online, "target": online.clone()}
    state["step"] = torch.zeros((), dtype=torch.int64, device=online.device)
    return state | {name: torch.zeros_like(online) for name in _optimizer(settings).slot_names}


def make_update(apply: Apply, settings: LearnerConfig, chunk: int | None = None) -> Update:
    """The update in place; see the top of this file.

    apply: `(parameters [P], obs [B, *obs_shape]) -> q [B, A]`, differentiable.
    chunk: as in `move`.

    Returns:
      Function to `td_errors [B]` before the update, and `[4]` loss, mean Q-value of the
      actions taken, norm of the gradient before clipping, largest absolute Q-value of the
      actions taken. It reads no tensor's value on the host, so that it can be traced.
    """
    if settings.gradient == "residual" and settings.double:
        raise ValueError("double must be False with the residual gradient, got True")
    optimizer, loss_of = _optimizer(settings), _LOSSES[settings.loss]
    num_slots = len(optimizer.slot_names)
    q_of = _in_bfloat16(apply) if settings.precision == "bfloat16" else apply

    def update(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        online, target, step, *rest = arguments
        slots, learning_rate, batch = rest[:num_slots], rest[num_slots], rest[num_slots + 1 :]
        _, a_tm1, _, _, _, weights, *_ = batch
        with torch.enable_grad():
            leaf = online.detach().requires_grad_()  # its gradient is one cat
            td_errors, q_tm1 = _td_errors(q_of, settings, leaf, target, *batch)
            loss = value_learning.weighted_mean(loss_of(td_errors), weights)
            (gradient,) = torch.autograd.grad(loss, leaf)
        with torch.no_grad():
            gradient, norm = clip_by_global_norm(gradient, settings.max_grad_norm)
            q = value_learning.action_values(q_tm1, a_tm1)
            scalars = torch.stack((loss, q.mean(), norm, torch.linalg.vector_norm(q, torch.inf)))
            move(optimizer, online, gradient, slots, step.add_(1), learning_rate, chunk)
        return td_errors.detach(), scalars

    return update


def _td_errors(
    apply: Apply,
    settings: LearnerConfig,
    online: torch.Tensor,
    target: torch.Tensor,
    *batch: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`td_errors [B], q_tm1 [B, A]`, by the settings' equation.

    "residual" differentiates through the bootstrap target too, bootstraps from the online
    network and leaves the target network unused.
    """
    obs_tm1, a_tm1, r_t, discount_t, obs_t, _, *mask = batch
    source = (q_tm1 := apply(online, obs_tm1), a_tm1, r_t, discount_t)
    if settings.gradient == "residual":
        return value_learning.residual_q_learning(*source, apply(online, obs_t), *mask), q_tm1
    with torch.no_grad():
        q_t_value = apply(target, obs_t)
        q_t_selector = apply(online, obs_t) if settings.double else None
    if q_t_selector is None:
        return value_learning.q_learning(*source, q_t_value, *mask), q_tm1
    return value_learning.double_q_learning(*source, q_t_value, q_t_selector, *mask), q_tm1


def _in_bfloat16(apply: Apply) -> Apply:
    """The same with the layers' arithmetic in bfloat16; the Q-values stay float32."""

    def apply_in_bfloat16(flat: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        # Its cache of cast weights would outlive the call within a capture.
        with torch.autocast(flat.device.type, torch.bfloat16, cache_enabled=False):
            return apply(flat, obs).to(flat.dtype)

    return apply_in_bfloat16


def _optimizer(settings: LearnerConfig) -> Optimizer:
    return make_optimizer(
        settings.optimizer,
        eps=settings.optimizer_eps,
        momentum=settings.optimizer_momentum,
        decay=settings.rmsprop_decay,
        centered=settings.rmsprop_centered,
        eps_inside_sqrt=settings.rmsprop_eps_inside_sqrt,
    )
