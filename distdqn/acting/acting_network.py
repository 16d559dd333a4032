"""The network as an env worker uses it.

Small dense networks act through numpy (`dense_forward`); any other acts through PyTorch as it is:
with 8 stacked pictures, the `nature` torso and one thread 2.4 ms, nearly all of it inside the
layers. Weights packed beforehand by operators that PyTorch does not document would take 0.3 ms off.

Symbols: `N` envs, `B` transitions of a block, `A` actions, `P` parameters, `H` features.
"""

import functools
import warnings

import numpy as np
import torch
from torch import nn

from distdqn.acting.dense_forward import dense_forward
from distdqn.types import BEFORE_ANY, ObservationSpec, TransitionBlock, WeightSnapshot
from distdqn.value_learning import double_q_learning, q_learning
from distdqn.weights.flat_parameters import FlatParameters

# What a piece of a block's observations may take, as stored; the network's activations
# are some ten times as large.
PIECE_BYTES = 2**23

_ALIGNMENT = 64  # bytes, of PyTorch's allocations and of Ray's shared memory


class ActingNetwork:
    """Action values of the newest weights, and |TD errors| of finished transitions.

    Life: its own initial parameters act until `set` brings others. The module becomes
    this object's: its parameters are views of one vector from then on.

    version: of the weights that act.
    """

    def __init__(self, network: nn.Module, num_envs: int, double: bool):
        """double: whether `priorities` are those of double Q-learning."""
        self.version = BEFORE_ANY
        self._network, self._double = network, double
        self._parameters = FlatParameters(network)
        self._target: torch.Tensor | None = None  # [P]; the online one until one comes
        network.requires_grad_(False)
        self._own = self._parameters.flatten()  # [P]
        self._act_from(self._own)
        dense = dense_forward(network, num_envs)
        self._reads_own = dense is not None  # and nothing else, whatever the parameters are
        self._forward = dense or self._torch_forward

    def set(self, snapshot: WeightSnapshot) -> None:
        """Takes online and, where there are, target parameters.

        Copies them; but a network that acts through PyTorch uses vectors in shared memory
        that nobody can write to where they lie: many workers then share them in the caches.

        Raises ValueError: a vector belongs to another network.
        """
        for vector in (snapshot.online, snapshot.target):
            if vector is not None and vector.shape != self._own.shape:
                raise ValueError(
                    f"weights of another network: {len(self._own)} parameters here, "
                    f"got {list(vector.shape)}"
                )
        if self._reads_own or not _can_stay(snapshot.online):
            self._own.numpy()[:] = snapshot.online
            self._act_from(self._own)
        else:
            self._act_from(_view(snapshot.online))
        if (target := snapshot.target) is not None:
            self._target = _view(target) if _can_stay(target) else torch.from_numpy(target.copy())
        self.version = snapshot.version

    def q_values(self, obs: np.ndarray) -> np.ndarray:
        """`[N, A]` of the observations `[N, *obs_shape]`."""
        return self._forward(obs)

    def priorities(self, block: TransitionBlock, observation: ObservationSpec) -> np.ndarray:
        """`[B]` float32 |TD error| of each transition.

        One forward pass per network over what the transitions refer to, each observation
        once, in pieces that keep the memory bounded.
        """
        with torch.inference_mode():
            q, q_value, tm1, t = self._block_values(block, observation)
            a_tm1 = torch.from_numpy(block.a_tm1).long()
            r_t, discount_t = (
                torch.from_numpy(x).to(q.dtype) for x in (block.r_t, block.discount_t)
            )
            mask = None
            if block.action_mask is not None:
                mask = torch.from_numpy(block.action_mask.take(block.t, axis=0))
            if self._double:
                td_errors = double_q_learning(
                    q[tm1], a_tm1, r_t, discount_t, q_value[t], q[t], mask
                )
            else:
                td_errors = q_learning(q[tm1], a_tm1, r_t, discount_t, q_value[t], mask)
            return td_errors.abs().float().numpy()

    def _act_from(self, online: torch.Tensor) -> None:
        """Makes the module's parameters views of `online [P]`; a call then passes none in."""
        views = self._parameters.views(online)
        for parameter, view in zip(self._network.parameters(), views, strict=True):
            parameter.data = view

    def _block_values(
        self, block: TransitionBlock, observation: ObservationSpec
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values `[O, A]` of the O observations by both networks, and the rows of each
        transition's source and arrival `[B]`.

        A frame is two observations where a life is lost: with the frames before it, and
        as the first of what follows.
        """
        positions, depths = np.append(block.tm1, block.t), np.append(block.tm1_depth, block.t_depth)
        keys = positions.astype(np.int64) * observation.stack + depths
        keys, rows = np.unique(keys, return_inverse=True)
        positions, depths = np.divmod(keys, observation.stack)
        frames_at = functools.partial(block.frames.take, axis=0)
        q, q_value = [], []
        obs_bytes = observation.stack * observation.frame_bytes
        num_pieces = max(-(-len(keys) * obs_bytes // PIECE_BYTES), 1)
        for piece in np.array_split(np.arange(len(keys)), num_pieces):
            obs = observation.stacked(frames_at, positions[piece], depths[piece])
            inputs = torch.from_numpy(obs)
            q.append(self._network(inputs))
            if self._target is not None:
                q_value.append(self._parameters.apply(self._target, inputs))
        tm1, t = torch.from_numpy(rows).split(len(block.tm1))
        return torch.cat(q), torch.cat(q_value or q), tm1, t

    def _torch_forward(self, obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self._network(torch.from_numpy(obs)).numpy()


def _can_stay(vector: np.ndarray) -> bool:
    """Whether a vector will not change, and lies as PyTorch's own memory does.

    Libraries choose their loops by alignment too: results must not depend on where it lies.
    """
    return not vector.flags.writeable and vector.ctypes.data % _ALIGNMENT == 0


def _view(vector: np.ndarray) -> torch.Tensor:
    """The vector `[P]` without a copy; nobody may write to it."""
    with warnings.catch_warnings():  # PyTorch does not know arrays that are read only
        warnings.simplefilter("ignore")
        return torch.from_numpy(vector)
