"""A compiled or captured update in the eager one's place.

It must give what the eager one gives on the newest minibatch: a compiler, a cache or a
graph may be wrong, and training on is worth more than training faster.
"""

from collections.abc import Sequence

import torch

from distdqn.learning.update import Tensors, Update

# Of the change, in bfloat16: eager layers round every result to eight bits, compiled ones
# only those that leave a kernel; a whole float32 update is 5e-2 away.
_TOLERANCES = {"float32": 1e-3, "bfloat16": 1e-2, "float64": 1e-3}

_OUTPUTS = ("td_errors", "scalars")


class UpdateInUse:
    """The eager update until another one has shown that it gives the same.

    eager: what to compare with.  state: its tensors by name, in their order.
    precision: of the settings; how far apart two updates may be.
    capture: whether the first minibatch captures a CUDA graph.
    refused: why the last candidate, or the capture, was refused; else empty.
    """

    def __init__(
        self, eager: Update, state: dict[str, torch.Tensor], precision: str, capture: bool
    ) -> None:
        self._eager, self._state, self._tolerance = eager, state, _TOLERANCES[precision]
        self._compiled: Update | None = None
        self._arity = 0  # arrays of a minibatch that the compiled update takes
        self._capture_due = capture
        self.refused = ""

    @property
    def compiled(self) -> bool:
        """Whether a compiled or captured update is in place."""
        return self._compiled is not None

    def function(self, learning_rate: torch.Tensor, minibatch: Tensors) -> Update:
        """The update for a minibatch of so many arrays: another number takes the eager one."""
        if self._capture_due:
            self._capture_due, state = False, tuple(self._state.values())
            try:
                graph = capture_cuda_graph(self._eager, state, (learning_rate, *minibatch))
                self.swap(graph, minibatch)
            except Exception as error:  # capture fails in many ways, none of them ours to end
                self.refused = f"CUDA graph not captured: {type(error).__name__}: {error}"
        if self._compiled is not None and self._arity == len(minibatch):
            return self._compiled
        return self._eager

    def swap(self, candidate: Update, minibatch: Tensors) -> bool:
        """Puts a candidate in place of the eager update, if they agree on this minibatch."""
        known = (self._eager, self._state, minibatch, self._tolerance)
        try:
            self.refused = disagreement(candidate, *known)
        except Exception as error:  # compiled code fails in any way; the eager one goes on
            self.refused = f"compiled update fails: {type(error).__name__}: {error}"
        if self.refused:
            return False
        self._compiled, self._arity = candidate, len(minibatch)
        return True


def capture_cuda_graph(function: Update, state: Tensors, inputs: Tensors) -> Update:
    """Records `function(*state, *inputs)` once and replays it: one launch, not some hundred.

    The graph is bound to the memory of `state`, whatever state a call passes; the inputs
    are copied into buffers of its own. The state is as before on return. Its `td_errors`
    are overwritten by the next call, its `scalars` are not.
    """
    inputs = tuple(x.clone() for x in inputs)
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
        assign(inputs, arguments[len(state) :])
        graph.replay()
        return td_errors, scalars.clone()

    return replay


def disagreement(
    candidate: Update,
    reference: Update,
    state: dict[str, torch.Tensor],
    minibatch: Tensors,
    tolerance: float = 1e-3,
) -> str:
    """How one update of the candidate differs from the reference's; empty if it does not.

    The candidate runs on the tensors of `state` themselves (a CUDA graph knows no others), which
    are put back. For the comparison the learning rate is 1 and second moments are raised by 1: near
    zero, Adam turns rounding noise in a vanishing gradient into a whole step.

    tolerance: of the outputs and of the state's change, as norms.
    """
    saved = [x.clone() for x in state.values()]
    learning_rate = torch.ones((), dtype=torch.float64, device=state["online"].device)
    try:
        state["second_moment"].add_(1.0)
        before = {name: x.clone() for name, x in state.items()}
        expected = {name: x.clone() for name, x in state.items()}
        outputs = reference(*expected.values(), learning_rate, *minibatch)
        expected |= zip(_OUTPUTS, outputs, strict=True)
        outputs = candidate(*state.values(), learning_rate, *minibatch)
        got = state | dict(zip(_OUTPUTS, outputs, strict=True))
        differences = [
            _difference(name, got[name], expected[name], tolerance, before.get(name))
            for name in (*_OUTPUTS, *state)
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
