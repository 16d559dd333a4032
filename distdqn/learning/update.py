"""One Q-learning update as a pure function.

TD target, gradient, clipping and optimizer are written here once. The same function
runs eagerly, is traced and compiled, and is captured in a CUDA graph; nothing else
computes a gradient.

State, in this order: `online [P]`, `target [P]`, `step` (0-dim int64), optimizer slots
`[P]`. Batch, in this order: `obs_tm1, a_tm1, r_t, discount_t, obs_t, weights` and,
where the env gives masks, `action_mask_t`. Flat arguments are state, learning rate
(0-dim float64), batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from distdqn import value_learning
from distdqn.learning.optimizers import (
    Optimizer,
    clip_by_global_norm,
    make_optimizer,
    move_in_chunks,
)

Tensors = tuple[torch.Tensor, ...]
Apply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Update = Callable[[Tensors, torch.Tensor, Tensors], tuple[Tensors, torch.Tensor, torch.Tensor]]
InPlaceUpdate = Callable[..., Sequence[torch.Tensor]]

_LOSSES = {"huber": value_learning.huber, "mse": value_learning.squared}
_GRADIENTS = ("semi", "residual")
# Of a compiled update's change. In bfloat16 eager layers round every result to eight bits,
# compiled ones only those that leave a kernel; a whole float32 update is 5e-2 away.
_TOLERANCES = {"float32": 1e-3, "bfloat16": 1e-2, "float64": 1e-3}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerSettings:
    """Constants of the update.

    batch_size: B.
    loss: "huber" or "mse".
    double: double Q-learning's target in place of Q-learning's.
    gradient: "semi" holds the bootstrap target fixed; "residual" differentiates through
      it too, bootstraps from the online network and leaves the target network unused.
    max_grad_norm: the gradient is scaled down to it, None for no limit.
    target_period: gradient steps between updates of the target network.
    target_tau: share of the online parameters in such an update; 1 is a copy.
    optimizer: "adam" or "rmsprop"; momentum and the `rmsprop_*` are of the latter.
    device: "cpu", "cuda", or "auto" for cuda where there is one.
    precision: "float32"; "bfloat16" for the layers' arithmetic, where parameters, the head
      of a `QNetwork`, TD errors, loss and optimizer stay float32; or "float64" for
      verification. In float32 a GPU's convolutions may use TF32 (ten bits of mantissa),
      as PyTorch's defaults have it and published results used; its dense layers do not.
    num_threads: CPU threads of an update; None for `default_num_threads`.
    cuda_graph: whether a GPU's update is captured as a whole.
    """

    batch_size: int
    loss: str = "huber"
    double: bool = False
    gradient: str = "semi"
    max_grad_norm: float | None = None
    target_period: int = 1
    target_tau: float = 1.0
    optimizer: str = "adam"
    optimizer_eps: float = 1e-8
    optimizer_momentum: float = 0.0
    rmsprop_decay: float = 0.99
    rmsprop_centered: bool = False
    rmsprop_eps_inside_sqrt: bool = False
    device: str = "cpu"
    precision: str = "float32"
    num_threads: int | None = None
    cuda_graph: bool = True

    def __post_init__(self) -> None:
        _require(self.loss in _LOSSES, "loss", self.loss, "huber or mse")
        _require(self.gradient in _GRADIENTS, "gradient", self.gradient, "semi or residual")
        residual_double = self.gradient == "residual" and self.double
        _require(not residual_double, "double", True, "False with the residual gradient")
        known = ", ".join(_DTYPES)
        _require(self.precision in _DTYPES, "precision", self.precision, f"one of {known}")
        threads = self.num_threads
        _require(threads is None or threads >= 1, "num_threads", threads, ">= 1 or None")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, ">= 1")
        _require(self.target_period >= 1, "target_period", self.target_period, ">= 1")
        _require(0.0 < self.target_tau <= 1.0, "target_tau", self.target_tau, "in (0, 1]")

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters, rewards and weights."""
        return _DTYPES[self.precision]

    @property
    def tolerance(self) -> float:
        """By which a compiled update's change may differ from the eager one's, relatively."""
        return _TOLERANCES[self.precision]

    @property
    def rule(self) -> Optimizer:
        """The optimizer with its constants; ValueError if there is no such one."""
        return make_optimizer(
            self.optimizer,
            eps=self.optimizer_eps,
            momentum=self.optimizer_momentum,
            decay=self.rmsprop_decay,
            centered=self.rmsprop_centered,
            eps_inside_sqrt=self.rmsprop_eps_inside_sqrt,
        )


def initial_state(online: torch.Tensor, settings: LearnerSettings) -> dict[str, torch.Tensor]:
    """The state by name, in its order: `online [P]`, a target that equals it, zeros."""
    state = {"online": online, "target": online.clone()}
    state["step"] = torch.zeros((), dtype=torch.int64, device=online.device)
    return state | {name: torch.zeros_like(online) for name in settings.rule.slot_names}


def make_update(apply: Apply, settings: LearnerSettings, chunk: int | None = None) -> Update:
    """The pure update `(state, learning_rate, batch) -> (state, td_errors, scalars)`.

    apply: `(parameters [P], obs [B, *obs_shape]) -> q [B, A]`, differentiable.
    td_errors: `[B]`, before the update.  scalars: `[4]` loss, mean Q-value of the
    actions taken, norm of the gradient before clipping, largest absolute Q-value of the
    actions taken. It reads no tensor's value on the host, so that it can be traced.
    chunk: not pure then: the new state is written over the given one, by
      `move_in_chunks`, which is faster where it is called eagerly.
    """
    optimizer, loss_of = settings.rule, _LOSSES[settings.loss]
    if settings.precision == "bfloat16":
        apply = _in_bfloat16(apply)

    def td_errors_of(
        online: torch.Tensor, target: torch.Tensor, batch: Tensors
    ) -> tuple[torch.Tensor, torch.Tensor]:
        obs_tm1, a_tm1, r_t, discount_t, obs_t, _, *mask = batch
        q_tm1 = apply(online, obs_tm1)
        if settings.gradient == "residual":
            arguments = (q_tm1, a_tm1, r_t, discount_t, apply(online, obs_t))
            return value_learning.residual_q_learning(*arguments, *mask), q_tm1
        with torch.no_grad():
            q_t_value = apply(target, obs_t)
            q_t_selector = apply(online, obs_t) if settings.double else None
        arguments = (q_tm1, a_tm1, r_t, discount_t, q_t_value)
        if q_t_selector is None:
            return value_learning.q_learning(*arguments, *mask), q_tm1
        return value_learning.double_q_learning(*arguments, q_t_selector, *mask), q_tm1

    def update(
        state: Tensors, learning_rate: torch.Tensor, batch: Tensors
    ) -> tuple[Tensors, torch.Tensor, torch.Tensor]:
        online, target, step, *slots = state
        _, a_tm1, _, _, _, weights, *_ = batch
        with torch.enable_grad():
            online = online.detach().requires_grad_()  # a leaf: its gradient is one cat
            td_errors, q_tm1 = td_errors_of(online, target, batch)
            loss = value_learning.weighted_mean(loss_of(td_errors), weights)
            (gradient,) = torch.autograd.grad(loss, online)
        with torch.no_grad():
            gradient, norm = clip_by_global_norm(gradient, settings.max_grad_norm)
            q = value_learning.action_values(q_tm1, a_tm1)
            scalars = torch.stack((loss, q.mean(), norm, torch.linalg.vector_norm(q, torch.inf)))
            if chunk is not None:
                rest = (slots, step.add_(1), learning_rate, chunk)
                move_in_chunks(optimizer, state[0], gradient, *rest)
                return state, td_errors.detach(), scalars
            step = step + 1
            moved = optimizer.update(online, gradient, slots, step, learning_rate)
        return (moved[0], target, step, *moved[1]), td_errors.detach(), scalars

    return update


def _in_bfloat16(apply: Apply) -> Apply:
    """The same with the layers' arithmetic in bfloat16; the Q-values stay float32."""

    def apply_in_bfloat16(flat: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        # Its cache of cast weights would outlive the call within a capture.
        with torch.autocast(flat.device.type, torch.bfloat16, cache_enabled=False):
            return apply(flat, obs).to(flat.dtype)

    return apply_in_bfloat16


def in_place(update: Update, state_size: int) -> InPlaceUpdate:
    """The update on flat arguments, which writes the new state over the old.

    `(*state, learning_rate, *batch) -> (td_errors [B], scalars [4])`, where the first
    `state_size` arguments are the state. This is what is compiled: the state keeps its
    memory, and no call returns or allocates parameters.
    """

    def update_in_place(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state, learning_rate = arguments[:state_size], arguments[state_size]
        new_state, td_errors, scalars = update(state, learning_rate, arguments[state_size + 1 :])
        with torch.no_grad():
            for old, new in zip(state, new_state, strict=True):
                if new is not old:  # the target network passes through, in chunks all
                    old.copy_(new)
        return td_errors, scalars

    return update_in_place


def capture_cuda_graph(
    function: InPlaceUpdate, arguments: Tensors, state_size: int
) -> InPlaceUpdate:
    """Records `function` once and replays it: one launch in place of some hundred.

    The graph is bound to the memory of the state in `arguments`, whatever state a call
    passes; the rest is copied into buffers of its own. The state is as before on return.
    Its `td_errors` are overwritten by the next call, its `scalars` are not.
    """
    state, inputs = arguments[:state_size], [x.clone() for x in arguments[state_size:]]
    saved = [x.clone() for x in state]
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # lazy initialisation (cuBLAS, autograd) cannot be captured
                function(*state, *inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Helper threads publish and prefetch meanwhile: their CUDA calls are no error here.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            td_errors, scalars = function(*state, *inputs)
    finally:
        assign(state, saved)

    def replay(*arguments: torch.Tensor) -> Sequence[torch.Tensor]:
        assign(inputs, arguments[state_size:])
        graph.replay()
        return td_errors, scalars.clone()

    return replay


def disagreement(
    candidate: InPlaceUpdate,
    reference: InPlaceUpdate,
    state: dict[str, torch.Tensor],
    minibatch: Tensors,
    tolerance: float = 1e-3,
) -> str:
    """How one update of the candidate differs from the reference's; empty if it does not.

    The candidate runs on the tensors of `state` themselves (a CUDA graph knows no
    others), which are put back. For the comparison the learning rate is 1 and second
    moments are raised by 1: near zero, Adam turns rounding noise in a vanishing
    gradient into a whole step.

    tolerance: of the outputs and of the state's change, as norms.
    """
    saved = [x.clone() for x in state.values()]
    learning_rate = torch.ones((), dtype=torch.float64, device=state["online"].device)
    try:
        state["second_moment"].add_(1.0)
        before = {name: x.clone() for name, x in state.items()}
        expected = {name: x.clone() for name, x in state.items()}
        expected_out = reference(*expected.values(), learning_rate, *minibatch)
        out = candidate(*state.values(), learning_rate, *minibatch)
        differences = [
            _difference("td_errors", out[0], expected_out[0], tolerance),
            _difference("scalars", out[1], expected_out[1], tolerance),
            *(
                _difference(name, state[name], expected[name], tolerance, before[name])
                for name in state
            ),
        ]
    finally:
        assign(tuple(state.values()), saved)
    return "; ".join(filter(None, differences))


def assign(tensors: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """Copies values into tensors, one by one."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _difference(
    name: str,
    got: torch.Tensor,
    expected: torch.Tensor,
    tolerance: float,
    before: torch.Tensor | None = None,
) -> str:
    """Empty where the change from `before` (0) agrees to within `tolerance` of it."""
    if got.shape != expected.shape:
        return f"{name} is {list(got.shape)}, required {list(expected.shape)}"
    dtype = got.dtype if got.is_floating_point() else torch.float64
    error = (got.double() - expected.double()).norm().item()
    size = expected.double().norm().item()
    change = size if before is None else (expected.double() - before.double()).norm().item()
    bound = tolerance * change + 2.0 * torch.finfo(dtype).eps * size
    # Written so that NaN, for which every comparison is false, is a difference.
    return "" if error <= bound else f"{name} is off by {error:.2g}, more than {bound:.2g}"


def _require(holds: bool, name: str, value: object, bound: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {bound}, got {value!r}")
