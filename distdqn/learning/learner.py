"""The learner: the update's state, moved superbatch by superbatch.

The state's tensors are written in place and never replaced, since compiled functions
and CUDA graphs hold on to their memory.

    superbatch [K, B] -> K x update(state, learning_rate, minibatch) -> |td| [K, B]
                              |
                              +-> every target_period: target <- online
"""

from __future__ import annotations

import collections
import copy
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from distdqn.learning.staging import Columns, Staging, choose_device, has_bfloat16, update_columns
from distdqn.learning.update import (
    InPlaceUpdate,
    LearnerSettings,
    Tensors,
    assign,
    capture_cuda_graph,
    disagreement,
    in_place,
    initial_state,
    make_update,
)
from distdqn.machine.cpu_threads import cpu_threads, default_num_threads
from distdqn.networks.q_network import check_network
from distdqn.types import ObservationSpec, PriorityUpdate, ReplayBatch
from distdqn.value_learning import importance_weights
from distdqn.weights.flat_parameters import FlatParameters, Layout

__all__ = ["Learner", "LearnerSettings", "choose_device"]

_RECENT_SUPERBATCHES = 100
_DIVERGED = (
    "TD errors became NaN or infinite: the values diverge; lower --learner.learning-rate or "
    "set --learner.max-grad-norm"
)
_SLOW_BFLOAT16 = (
    "this device has no arithmetic in bfloat16: --learner.precision float32 is more exact and "
    "likely faster"
)
_CHUNK = 2**15  # entries: eight vectors of it fit into a core's second-level cache


class Learner:
    """Applies updates to one set of parameters and keeps the count.

    The update starts eager; `swap` puts a compiled one in its place. On a GPU the first
    superbatch captures a CUDA graph, and the host waits for the GPU once a superbatch. One
    thread calls it; its updates use `num_threads` of the CPU.

    num_threads: settings.num_threads, or what suits the network.
    parameters: the map between vectors and the network (a copy of the one given).
    gradient_steps: updates made; equals the state's `step`.
    target_copies: updates of the target network made.
    non_finite: TD errors so far that were NaN or infinite; the caller decides.
    q_abs_max: largest absolute Q-value so far of the actions learned from, NaN before any,
      infinite once a value was NaN. For display: no update depends on it and `get_state`
      leaves it out.
    swap_refused: why the last `swap`, or the capture, was refused; else empty.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: LearnerSettings,
        observation: ObservationSpec,
        num_actions: int,
    ) -> None:
        """Online and target network start from `network`'s parameters.

        Raises:
          ValueError: the network does not give `[B, A]` or cannot be flattened.
          ResourceError: a GPU is asked for and not there.
        """
        self._device = choose_device(settings.device)
        self._dtype = settings.dtype
        network = copy.deepcopy(network).to(device=self._device, dtype=self._dtype)
        check_network(network, observation, num_actions)
        self.parameters = FlatParameters(network)
        self.settings = settings
        on_gpu = self._device.type == "cuda"
        self.num_threads = settings.num_threads or (1 if on_gpu else default_num_threads(network))
        self._observation, self._num_actions = observation, num_actions
        self._named_state = initial_state(self.parameters.flatten(), settings)
        self._state: Tensors = tuple(self._named_state.values())
        self._learning_rate = torch.zeros((), dtype=torch.float64, device=self._device)
        chunk = None if on_gpu else _CHUNK
        self._eager = in_place(
            make_update(self.parameters.apply, settings, chunk), len(self._state)
        )
        self._staging = Staging(self._device)
        self._compiled: InPlaceUpdate | None = None
        self._compiled_arity = 0
        self._capture_due = on_gpu and settings.cuda_graph
        self._last_minibatch: Tensors | None = None
        self._scalars: list[float] = [math.nan] * 4
        self._recent: collections.deque[np.ndarray] = collections.deque(maxlen=_RECENT_SUPERBATCHES)
        self.gradient_steps = self.target_copies = self.non_finite = 0
        self._has_diverged = False
        self._warnings: list[str] = []
        if settings.precision == "bfloat16" and not has_bfloat16(self._device):
            self._warnings.append(_SLOW_BFLOAT16)
        self.q_abs_max = math.nan
        self.swap_refused = ""

    @property
    def compiled(self) -> bool:
        """Whether a compiled or captured update is in place."""
        return self._compiled is not None

    @property
    def device(self) -> torch.device:
        """Where the updates run."""
        return self._device

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters, in the order of the vectors."""
        return self.parameters.layout

    @property
    def update_function(self) -> InPlaceUpdate:
        """The eager in-place update on flat arguments, with a network of its own.

        It can be traced in another thread while this learner goes on.
        """
        return self.build_update()

    @property
    def build_update(self) -> Callable[[], InPlaceUpdate]:
        """Makes `update_function`, in any process that has this network's classes."""
        network = copy.deepcopy(self.parameters.module)
        return functools.partial(_build_update, network, self.settings, len(self._state))

    def example_arguments(self, with_action_mask: bool = False) -> Tensors:
        """Flat arguments of `update_function`: a copy of the state, an arbitrary batch.

        with_action_mask: whether the batches have masks; a compiled update fits one kind
        alone, and batches of the other kind then take the eager one.
        """
        size = (1, self.settings.batch_size)
        mask = np.ones((*size, self._num_actions), bool) if with_action_mask else None
        rng = np.random.default_rng(0)
        batch = ReplayBatch(
            obs_tm1=_arbitrary_obs(self._observation, size, rng),
            a_tm1=rng.integers(self._num_actions, size=size),
            r_t=rng.standard_normal(size, np.float32),
            discount_t=rng.choice([0.0, 0.99], size).astype(np.float32),
            obs_t=_arbitrary_obs(self._observation, size, rng),
            item_ids=np.zeros(size, np.int64),
            probabilities=np.ones(size),
            action_mask_t=mask,
        )
        columns = self._columns(batch, rng.uniform(0.1, 1.0, size).astype(np.float32))
        (minibatch,) = Staging(self._device).minibatches(*columns)
        return (*(x.clone() for x in self._state), self._learning_rate.clone(), *minibatch)

    def update_superbatch(
        self,
        batch: ReplayBatch,
        importance_weights: np.ndarray | None,
        learning_rate: float,
    ) -> np.ndarray:
        """Makes K updates, one for each minibatch, in order.

        Args:
          batch: K minibatches of `settings.batch_size`; K may differ from call to call.
          importance_weights: `[K, B]` float32, or None for ones.
          learning_rate: of all K updates.

        Returns:
          `[K, B]` float32 absolute TD errors, each before its own update.

        Raises:
          ValueError: shapes that do not fit the settings.
        """
        if importance_weights is None:
            importance_weights = np.ones(batch.r_t.shape, np.float32)
        columns = self._columns(batch, importance_weights)
        self._learning_rate.fill_(learning_rate)
        abs_td_errors = torch.empty(batch.r_t.shape, dtype=self._dtype, device=self._device)
        figures = torch.empty((len(batch.r_t), 4), dtype=self._dtype, device=self._device)
        with cpu_threads(self.num_threads):
            minibatches = self._staging.minibatches(*columns)
            for minibatch, *out in zip(minibatches, abs_td_errors, figures, strict=True):
                self.update_minibatch(minibatch, *out)
        both = torch.cat((abs_td_errors, figures), dim=1).to("cpu", torch.float32).numpy()
        host = np.ascontiguousarray(both[:, :-4])
        self._note(host, both[:, -4:])
        return host

    def update_minibatch(
        self, minibatch: Tensors, abs_td_errors: torch.Tensor, figures: torch.Tensor
    ) -> None:
        """One update on tensors of the device, with the learning rate of the last superbatch.

        Writes `[B]` absolute TD errors and `[4]` scalars; on a GPU it only launches that.
        """
        self._last_minibatch = minibatch
        if self._capture_due:
            self._capture(minibatch)
        compiled = self._compiled if self._compiled_arity == len(minibatch) else None
        function = self._eager if compiled is None else compiled
        td_errors, scalars = function(*self._state, self._learning_rate, *minibatch)
        torch.abs(td_errors, out=abs_td_errors)
        figures.copy_(scalars)
        self.gradient_steps += 1
        if self.gradient_steps % self.settings.target_period == 0:
            self._update_target()

    def learn(
        self,
        batch: ReplayBatch,
        shard_probability: float,
        num_items: int,
        exponent: float,
        learning_rate: float,
    ) -> PriorityUpdate:
        """A superbatch with importance weights over all shards; the new priorities.

        shard_probability: with which the batch's shard was drawn.
        num_items: over all shards.  exponent: of the importance weights.
        """
        weights = importance_weights(batch.probabilities * shard_probability, num_items, exponent)
        abs_td_errors = self.update_superbatch(batch, weights, learning_rate)
        return PriorityUpdate(batch.item_ids.ravel(), abs_td_errors.ravel())

    def take_warning(self) -> str:
        """What is to be said, each line once; else empty."""
        if self.non_finite and not self._has_diverged:
            self._has_diverged = True
            self._warnings.append(_DIVERGED)
        return self._warnings.pop(0) if self._warnings else ""

    def swap(self, candidate: InPlaceUpdate) -> bool:
        """Puts a compiled `update_function` in place of the eager one, if it agrees.

        One update of each, from one state on the newest minibatch (an arbitrary one
        before the first superbatch), must give the same outputs and the same change of
        the state. Minibatches with another number of arrays stay with the eager one.

        Returns:
          Whether it is in place; `swap_refused` says why not.
        """
        minibatch = self._last_minibatch or self.example_arguments()[len(self._state) + 1 :]
        tolerance = self.settings.tolerance
        try:
            with cpu_threads(self.num_threads):
                self.swap_refused = disagreement(
                    candidate, self._eager, self._named_state, minibatch, tolerance
                )
        except Exception as error:  # compiled code fails in any way; the eager one goes on
            self.swap_refused = f"compiled update fails: {type(error).__name__}: {error}"
        if self.swap_refused:
            return False
        self._compiled, self._compiled_arity = candidate, len(minibatch)
        return True

    def scalars(self) -> dict[str, float]:
        """`td_loss`, `q_values` and `grad_norm` of the last update; NaN before the first."""
        return dict(zip(("td_loss", "q_values", "grad_norm"), self._scalars[:3], strict=True))

    def recent_abs_td_errors(self) -> np.ndarray:
        """`[n B]` float32 of the last minibatch in each of the newest n <= 100 superbatches.

        What learning sees now, not the history; all K minibatches would cost more and say
        no more. May be called from another thread.
        """
        return np.concatenate([np.empty(0, np.float32), *tuple(self._recent)])

    def online_vector(self) -> np.ndarray:
        """A copy of the online parameters `[P]`."""
        return _to_numpy(self._named_state["online"])

    def target_vector(self) -> np.ndarray:
        """A copy of the target parameters `[P]`."""
        return _to_numpy(self._named_state["target"])

    def set_parameters(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Starts both networks from parameters by name; optimizer and counters stay.

        Raises:
          ValueError: names or shapes of another network.
        """
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        flat = self.parameters.from_state_dict(tensors)
        assign(self._state[:2], (flat, flat))

    def get_state(self) -> dict[str, Any]:
        """Copies of all that the next update depends on.

        `online`, `target` and the optimizer's slots by name, `[P]` arrays;
        `gradient_steps` and `target_copies`, ints.
        """
        vectors = {name: _to_numpy(vector) for name, vector in self._vectors().items()}
        counts = {"gradient_steps": self.gradient_steps, "target_copies": self.target_copies}
        return vectors | counts

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `get_state()`, bit for bit.

        Raises:
          ValueError: a state of another network or optimizer; this one is unchanged.
        """
        vectors = self._vectors()
        required = {*vectors, "gradient_steps", "target_copies"}
        if state.keys() != required:
            raise ValueError(f"learner state must hold {sorted(required)}, got {sorted(state)}")
        for name, vector in vectors.items():
            if state[name].shape != tuple(vector.shape):
                raise ValueError(
                    f"{name} must be {list(vector.shape)} for this network, "
                    f"got {list(state[name].shape)}"
                )
        for name, vector in vectors.items():
            vector.copy_(torch.from_numpy(np.array(state[name])))
        self.gradient_steps = int(state["gradient_steps"])
        self.target_copies = int(state["target_copies"])
        self._named_state["step"].fill_(self.gradient_steps)

    def _vectors(self) -> dict[str, torch.Tensor]:
        return {name: x for name, x in self._named_state.items() if name != "step"}

    def _note(self, abs_td_errors: np.ndarray, figures: np.ndarray) -> None:
        """Counts and maxima of one superbatch, `[K, B]` and `[K, 4]`, on the host."""
        num_finite = int(np.count_nonzero(np.isfinite(abs_td_errors)))
        self.non_finite += abs_td_errors.size - num_finite
        self._recent.append(abs_td_errors[-1].copy())  # a view would keep all K
        self._scalars = figures[-1].tolist()
        largest = float(figures[:, 3].max())  # NaN if one is, but no comparison would say so
        if math.isnan(largest):
            largest = math.inf
        if not largest <= self.q_abs_max:
            self.q_abs_max = largest

    def _update_target(self) -> None:
        online, target, tau = *self._state[:2], self.settings.target_tau
        if tau == 1.0:
            target.copy_(online)  # target + 1 * (online - target) would round
        else:
            target.lerp_(online, tau)
        self.target_copies += 1

    def _columns(self, batch: ReplayBatch, importance_weights: np.ndarray) -> Columns:
        sizes = (self.settings.batch_size, self._observation, self._num_actions)
        return update_columns(batch, importance_weights, *sizes, dtype=self._dtype)

    def _capture(self, minibatch: Tensors) -> None:
        """Tries a CUDA graph, once; any failure leaves the eager update."""
        self._capture_due = False
        arguments = (*self._state, self._learning_rate, *minibatch)
        try:
            replay = capture_cuda_graph(self._eager, arguments, len(self._state))
        except Exception as error:  # capture fails in many ways, none of them ours to end
            self.swap_refused = f"CUDA graph not captured: {type(error).__name__}: {error}"
        else:
            self.swap(replay)


def _build_update(network: nn.Module, settings: LearnerSettings, state_size: int) -> InPlaceUpdate:
    return in_place(make_update(FlatParameters(network).apply, settings), state_size)


def _arbitrary_obs(
    observation: ObservationSpec, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Observations `[K, B, *obs_shape]` in the stored dtype, indices within their range."""
    shape, dtype = (*size, *observation.obs_shape), np.dtype(observation.dtype)
    if observation.num_categories:
        return rng.integers(observation.num_categories, size=shape).astype(dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(2 if dtype.kind == "b" else 100, size=shape).astype(dtype)


def _to_numpy(vector: torch.Tensor) -> np.ndarray:
    """A copy; `numpy()` alone would be a view of what the next update changes."""
    return vector.cpu().numpy().copy()
