"""The learner: the update's state, moved superbatch by superbatch.

The state's tensors are written in place and never replaced, since compiled functions
and CUDA graphs hold on to their memory.

    superbatch [K, B] -> K x update(state, learning_rate, minibatch) -> |td| [K, B]
                              |
                              +-> every target_period: target <- online
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from distdqn.config.sections import LearnerConfig
from distdqn.learning.diagnostics import Diagnostics
from distdqn.learning.staging import (
    Columns,
    Staging,
    arbitrary_batch,
    choose_device,
    has_bfloat16,
    update_columns,
)
from distdqn.learning.substitute import UpdateInUse, assign
from distdqn.learning.update import (
    DTYPES,
    Tensors,
    Update,
    build_update,
    initial_state,
    make_update,
    update_settings,
)
from distdqn.machine.cpu_threads import cpu_threads, default_num_threads
from distdqn.types import ObservationSpec, PriorityUpdate, ReplayBatch
from distdqn.value_learning import importance_weights
from distdqn.weights.flat_parameters import FlatParameters

_SLOW_BFLOAT16 = (
    "this device has no arithmetic in bfloat16: --learner.precision float32 is more exact and "
    "likely faster"
)
_COUNTS = ("gradient_steps", "target_copies")
_CHUNK = 2**15  # entries: eight vectors of it fit into a core's second-level cache


class Learner:
    """Applies updates to one set of parameters and keeps the count.

    The update starts eager; `swap` puts a compiled one in its place. On a GPU the first
    superbatch captures a CUDA graph, and the host waits for the GPU once a superbatch. One
    thread calls it; its updates use `num_threads` of the CPU.

    num_threads: settings.num_threads, or what suits the network.
    device: where the updates run.
    dtype: of the parameters.
    parameters: the map between vectors and the network (a copy of the one given).
    layout: names and shapes of the parameters, in the order of the vectors.
    state: what the update writes in place, by name, in its order.
    diagnostics: what the updates have shown.
    gradient_steps: updates made; equals the state's `step`.
    target_copies: updates of the target network made.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: LearnerConfig,
        observation: ObservationSpec,
        num_actions: int,
        cuda_graph: bool = True,
    ) -> None:
        """Online and target network start from `network`'s parameters.

        cuda_graph: whether a GPU's update is captured as a whole.

        Raises:
          ValueError: the network cannot be flattened, or settings contradict each other.
          ResourceError: a GPU is asked for and not there.
        """
        # In float64 on the CPU alone: it is for verification.
        self.device = choose_device("cpu" if settings.precision == "float64" else settings.device)
        self.dtype, on_gpu = DTYPES[settings.precision], self.device.type == "cuda"
        network = copy.deepcopy(network).to(device=self.device, dtype=self.dtype)
        self.parameters, self.settings = FlatParameters(network), settings
        self.layout = self.parameters.layout
        self.num_threads = settings.num_threads or (1 if on_gpu else default_num_threads(network))
        self._observation, self._num_actions = observation, num_actions
        self.state = initial_state(self.parameters.flatten(), settings)
        self._learning_rate = torch.zeros((), dtype=torch.float64, device=self.device)
        eager = make_update(
            self.parameters.apply, update_settings(settings), None if on_gpu else _CHUNK
        )
        self._update = UpdateInUse(eager, self.state, settings.precision, on_gpu and cuda_graph)
        self._staging = Staging(self.device)
        self._last_minibatch: Tensors | None = None
        self.diagnostics = Diagnostics()
        self.gradient_steps = self.target_copies = 0
        if settings.precision == "bfloat16" and not has_bfloat16(self.device):
            self.diagnostics.warn(_SLOW_BFLOAT16)

    @property
    def compiled(self) -> bool:
        """Whether a compiled or captured update is in place."""
        return self._update.compiled

    @property
    def swap_refused(self) -> str:
        """Why the last `swap`, or the capture, was refused; else empty."""
        return self._update.refused

    def learn(
        self,
        batch: ReplayBatch,
        shard_probability: float,
        num_items: int,
        exponent: float,
        learning_rate: float,
    ) -> PriorityUpdate:
        """Makes K updates, one for each minibatch of a superbatch, in order.

        batch: K minibatches of `settings.batch_size`; K may differ from call to call.
        shard_probability: with which the batch's shard was drawn.
        num_items: over all shards.  exponent: of the importance weights, over all shards.

        Returns each item's absolute TD error, before its own update. Raises ValueError for
        shapes that do not fit the settings.
        """
        weights = importance_weights(batch.probabilities * shard_probability, num_items, exponent)
        columns = self._columns(batch, weights)
        self._learning_rate.fill_(learning_rate)
        abs_td_errors = torch.empty(batch.r_t.shape, dtype=self.dtype, device=self.device)
        scalars = abs_td_errors.new_empty((len(batch.r_t), 4))
        state = (*self.state.values(), self._learning_rate)
        with cpu_threads(self.num_threads):
            for k, minibatch in enumerate(self._staging.minibatches(*columns)):
                td_errors, scalars[k] = self.update_of(minibatch)(*state, *minibatch)
                torch.abs(td_errors, out=abs_td_errors[k])
                self._last_minibatch = minibatch
                self.gradient_steps += 1
                if self.gradient_steps % self.settings.target_period == 0:
                    self._update_target()
        host = torch.cat((abs_td_errors, scalars), dim=1).to("cpu", torch.float32).numpy()
        errors = np.ascontiguousarray(host[:, :-4])
        self.diagnostics.note(errors, host[:, -4:])
        return PriorityUpdate(batch.item_ids.ravel(), errors.ravel())

    def update_of(self, minibatch: Tensors) -> Update:
        """The update in use for minibatches like this one, on flat arguments.

        The first call on a GPU captures the CUDA graph, which knows this learner's state alone.
        """
        return self._update.function(self._learning_rate, minibatch)

    @property
    def build_update(self) -> Callable[[], Update]:
        """Makes the update that is compiled, in any process that has this network's classes.

        It has a network of its own: it can be traced while this learner goes on.
        """
        network = copy.deepcopy(self.parameters.module)
        return functools.partial(build_update, network, update_settings(self.settings))

    def example_arguments(self, with_action_mask: bool = False) -> Tensors:
        """Flat arguments of an update: a copy of the state, an arbitrary minibatch.

        with_action_mask: whether the batches have masks; a compiled update fits one kind
        alone, and batches of the other kind then take the eager one.
        """
        own = (*self.state.values(), self._learning_rate)
        return (*(x.clone() for x in own), *self.example_minibatch(with_action_mask))

    def example_minibatch(self, with_action_mask: bool = False) -> Tensors:
        """An arbitrary minibatch, on the device."""
        size = (1, self.settings.batch_size)
        batch = arbitrary_batch(self._observation, self._num_actions, size, with_action_mask)
        weights = np.random.default_rng(1).uniform(0.1, 1.0, size).astype(np.float32)
        (minibatch,) = Staging(self.device).minibatches(*self._columns(batch, weights))
        return minibatch

    def swap(self, candidate: Update) -> bool:
        """Puts a compiled update in place of the eager one, if it agrees.

        One update of each, from one state on the newest minibatch (an arbitrary one
        before the first superbatch), must give the same outputs and the same change of
        the state. Minibatches with another number of arrays stay with the eager one.

        Returns:
          Whether it is in place; `swap_refused` says why not.
        """
        with cpu_threads(self.num_threads):
            return self._update.swap(candidate, self._last_minibatch or self.example_minibatch())

    def online_vector(self) -> np.ndarray:
        """A copy of the online parameters `[P]`."""
        return _to_numpy(self.state["online"])

    def target_vector(self) -> np.ndarray:
        """A copy of the target parameters `[P]`."""
        return _to_numpy(self.state["target"])

    def set_parameters(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Starts both networks from parameters by name; optimizer and counters stay.

        Raises:
          ValueError: names or shapes of another network.
        """
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        flat = self.parameters.from_state_dict(tensors)
        assign((self.state["online"], self.state["target"]), (flat, flat))

    def get_state(self) -> dict[str, Any]:
        """Copies of all that the next update depends on.

        `online`, `target` and the optimizer's slots by name, `[P]` arrays;
        `gradient_steps` and `target_copies`, ints.
        """
        vectors = {name: _to_numpy(x) for name, x in self.state.items() if name != "step"}
        return vectors | {name: getattr(self, name) for name in _COUNTS}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `get_state()`, bit for bit.

        Raises:
          ValueError: a state of another network or optimizer; this one is unchanged.
        """
        vectors = {name: x for name, x in self.state.items() if name != "step"}
        if state.keys() != {*vectors, *_COUNTS}:
            names = sorted((*vectors, *_COUNTS))
            raise ValueError(f"learner state must hold {names}, got {sorted(state)}")
        for name, vector in vectors.items():
            got, required = list(state[name].shape), list(vector.shape)
            if got != required:
                raise ValueError(f"{name} must be {required} for this network, got {got}")
        for name, vector in vectors.items():
            vector.copy_(torch.from_numpy(np.array(state[name])))
        self.gradient_steps, self.target_copies = (int(state[name]) for name in _COUNTS)
        self.state["step"].fill_(self.gradient_steps)

    def _update_target(self) -> None:
        online, target, tau = self.state["online"], self.state["target"], self.settings.target_tau
        if tau == 1.0:
            target.copy_(online)  # target + 1 * (online - target) would round
        else:
            target.lerp_(online, tau)
        self.target_copies += 1

    def _columns(self, batch: ReplayBatch, importance_weights: np.ndarray) -> Columns:
        sizes = (self.settings.batch_size, self._observation, self._num_actions)
        return update_columns(batch, importance_weights, *sizes, dtype=self.dtype)


def _to_numpy(vector: torch.Tensor) -> np.ndarray:
    """A copy; `numpy()` alone would be a view of what the next update changes."""
    return vector.cpu().numpy().copy()
