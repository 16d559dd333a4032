"""Superbatches on their way to the learner's device.

Minibatch by minibatch through a few slots of memory that stay: pinned on the host and a
stream of their own where the device is a GPU, so that the host fills j + 1 and the bus
carries it while the GPU computes j. On the CPU the slot itself is what is computed on.

    array [K, B, ...] --host fills--> host slot --copy stream--> device slot --> update j
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from distdqn.errors import ResourceError
from distdqn.machine.cpu import cpu_flags
from distdqn.types import ObservationSpec, ReplayBatch

Tensors = tuple[torch.Tensor, ...]
Columns = tuple[tuple[np.ndarray, ...], tuple[torch.dtype, ...]]
_Layout = list[tuple[tuple[int, ...], torch.dtype]]

_SLOTS = 3  # one is filled, one is carried, one is computed on


def choose_device(name: str) -> torch.device:
    """ "cpu", "cuda", or "auto" for cuda where there is one; ResourceError without it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError(
            "learner.device is cuda but PyTorch sees no GPU; use --learner.device cpu, "
            "or check nvidia-smi and the driver"
        )
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself, rather than slowly by other means."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    words = cpu_flags().split()  # x86 says avx512_bf16 or amx_bf16, Arm bf16
    return not words or any("bf16" in word for word in words)


def update_columns(
    batch: ReplayBatch,
    importance_weights: np.ndarray,
    batch_size: int,
    observation: ObservationSpec,
    num_actions: int,
    dtype: torch.dtype,
) -> Columns:
    """A superbatch's arrays `[K, B, ...]` in the update's order, and their dtypes there.

    dtype: of rewards, discounts and weights; observations keep theirs.

    Raises:
      ValueError: shapes that do not fit.
    """
    obs_dtype = torch.from_numpy(np.empty(0, batch.obs_t.dtype)).dtype
    columns = {
        "obs_tm1": (batch.obs_tm1, obs_dtype, observation.obs_shape),
        "a_tm1": (batch.a_tm1, torch.int64, ()),
        "r_t": (batch.r_t, dtype, ()),
        "discount_t": (batch.discount_t, dtype, ()),
        "obs_t": (batch.obs_t, obs_dtype, observation.obs_shape),
        "importance_weights": (importance_weights, dtype, ()),
    }
    if batch.action_mask_t is not None:
        columns["action_mask_t"] = (batch.action_mask_t, torch.bool, (num_actions,))
    for name, (array, _, shape) in columns.items():
        required = [len(batch.r_t), batch_size, *shape]
        if not len(batch.r_t) or list(array.shape) != required:
            raise ValueError(
                f"{name} must be [K, B, ...] = {required} with K >= 1, got {list(array.shape)}"
            )
    arrays, dtypes, _ = zip(*columns.values(), strict=True)
    return arrays, dtypes


def arbitrary_batch(
    observation: ObservationSpec, num_actions: int, size: tuple[int, int], with_action_mask: bool
) -> ReplayBatch:
    """A superbatch of `size` `[K, B]`, made up: indices within their range, all actions allowed."""
    rng = np.random.default_rng(0)

    def observations() -> np.ndarray:
        shape, dtype = (*size, *observation.obs_shape), np.dtype(observation.dtype)
        if dtype.kind == "f":
            return rng.standard_normal(shape).astype(dtype)
        end = observation.num_categories or (2 if dtype.kind == "b" else 100)
        return rng.integers(end, size=shape).astype(dtype)

    return ReplayBatch(
        obs_tm1=observations(),
        a_tm1=rng.integers(num_actions, size=size),
        r_t=rng.standard_normal(size, np.float32),
        discount_t=rng.choice([0.0, 0.99], size).astype(np.float32),
        obs_t=observations(),
        item_ids=np.zeros(size, np.int64),
        probabilities=np.ones(size),
        action_mask_t=np.ones((*size, num_actions), bool) if with_action_mask else None,
    )


class Staging:
    """Hands out minibatches on a device, in memory that is used again and again.

    A minibatch is valid until `num_slots` more have been asked for; what is computed on it must be
    launched, on the current stream, before the next one is asked for. Nothing waits for the GPU but
    the host for a slot whose copy of three minibatches ago is still under way. One thread.

    device: where they go.  num_slots: 1 on the CPU, where nothing overlaps.
    """

    def __init__(self, device: torch.device, num_slots: int | None = None) -> None:
        self._device = device
        self._num_slots = num_slots or (_SLOTS if device.type == "cuda" else 1)
        # torch.cpu has the streams and events of torch.cuda, which do nothing.
        self._streams = torch.get_device_module(device)
        self._stream = self._streams.Stream()
        self._layout: _Layout = []
        self._slots: list[_Slot] = []

    def minibatches(
        self, arrays: Sequence[np.ndarray], dtypes: Sequence[torch.dtype]
    ) -> Iterator[Tensors]:
        """The K minibatches of `arrays`, each `[K, B, ...]`, as tensors `[B, ...]`.

        Read-only arrays will do: they are copied, and nothing refers to them afterwards.
        """
        layout = [(array.shape[1:], dtype) for array, dtype in zip(arrays, dtypes, strict=True)]
        if layout != self._layout:  # new memory: an earlier minibatch may still be looked at
            self._slots = [self.make_slot(layout) for _ in range(self._num_slots)]
            self._layout = layout
        for j in range(len(arrays[0])):
            slot = self._slots[j % self._num_slots]
            slot.copied.synchronize()  # the host must not write over what is being sent
            for host, array in zip(slot.host, arrays, strict=True):
                host.numpy()[...] = array[j]
            if slot.device is not slot.host:
                self._send(slot)
            yield slot.device
            slot.used.record(self._streams.current_stream())

    def _send(self, slot: _Slot) -> None:
        with self._streams.stream(self._stream):
            self._stream.wait_event(slot.used)
            for tensor, host in zip(slot.device, slot.host, strict=True):
                tensor.copy_(host, non_blocking=True)
            slot.copied.record(self._stream)
        self._streams.current_stream().wait_event(slot.copied)

    def make_slot(self, layout: _Layout) -> _Slot:
        on_gpu = self._device.type == "cuda"
        host = tuple(torch.empty(shape, dtype=dtype, pin_memory=on_gpu) for shape, dtype in layout)
        device = tuple(torch.empty_like(x, device=self._device) for x in host) if on_gpu else host
        return _Slot(host, device, self._streams.Event(), self._streams.Event())


@dataclasses.dataclass
class _Slot:
    """Memory of one minibatch; on the CPU `host` and `device` are the same tensors.

    copied: event, `host` has been sent.  used: what was launched on `device` is through.
    """

    host: Tensors
    device: Tensors
    copied: Any
    used: Any
