"""One shard's replay: a ring of transitions and a sampler over its slots.

Transitions refer to observations by frame number, so each observation is stored
once; item ids are never reused, so a late priority update cannot hit a newcomer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np

from distdqn.frame_ring import FrameRing
from distdqn.replay_memory import FRAMES_PER_ITEM, ITEM
from distdqn.sampling import PrioritizedSampler, UniformSampler
from distdqn.types import ObservationSpec, PriorityUpdate, ReplayBatch, TransitionBlock

IDS_PER_EPOCH = 2**40
_COLUMNS = ("tm1", "t", "a_tm1", "r_t", "discount_t")


class Replay:
    """The last `capacity` transitions, drawn by `sampler`.

    Item number c (from 0, in order of arrival) has the id `epoch * 2**40 + c` and lies
    in slot c % capacity. The newest `size` items are live; each further one evicts the
    oldest. `epoch` sets the ids of a shard's incarnations apart, and with `seed` its
    draws: give a restarted or restored shard a new one. An id is live if and only if
    it lies in `[epoch * 2**40 + inserts - size, epoch * 2**40 + inserts)`.

    Frames are planned for `frames_per_item` per item: above 1 because blocks repeat
    frames at their borders and an episode has one more than transitions. Where that
    is too little (short episodes, small blocks) the frame ring grows; items are never
    evicted early.

    inserts: items ever added.  size: items live.
    dropped_updates: priority updates for items that were evicted or of another epoch.
    refused_priorities: negative or non-finite priorities, new and updated.
    """

    def __init__(
        self,
        capacity: int,
        observation: ObservationSpec,
        num_actions: int,
        sampler: UniformSampler | PrioritizedSampler,
        seed: int,
        epoch: int = 0,
        frames_per_item: float = FRAMES_PER_ITEM,
    ) -> None:
        if capacity < 1 or capacity != sampler.capacity:
            raise ValueError(
                f"capacity must be at least 1 and that of the sampler, {sampler.capacity}, got "
                f"{capacity}: slots would not match"
            )
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}: ids would be negative")
        self.capacity = int(capacity)
        self.epoch = int(epoch)
        self.inserts = 0
        self.size = 0
        self.dropped_updates = 0
        self.refused_priorities = 0
        self._observation = observation
        self._num_actions = int(num_actions)
        self._sampler = sampler
        self._rng = np.random.Generator(np.random.PCG64([seed, epoch]))
        self._items = np.zeros(self.capacity, ITEM)
        num_frames = math.ceil(self.capacity * frames_per_item)
        self._frames = FrameRing(num_frames, observation, num_actions)

    @property
    def mass(self) -> float:
        """The weight of this shard among shards: items if uniform, else sum of p^alpha."""
        return self._sampler.mass

    @property
    def priority_max(self) -> float:
        """The largest priority seen, 1 at first; NaN with uniform sampling."""
        return self._sampler.priority_max

    @property
    def nbytes(self) -> int:
        """Of all storage as allocated now."""
        return self._items.nbytes + self._frames.nbytes + self._sampler.nbytes

    def add(self, block: TransitionBlock) -> None:
        """Copies a block's transitions in, evicting the oldest beyond the capacity.

        Of a block larger than the capacity only the last `capacity` items stay; all are
        counted as inserts. Raises ValueError, with nothing changed, for a block that
        contradicts itself or the observation spec.
        """
        _check_block(block, self._observation, self._num_actions)
        num_new = block.num_transitions
        if num_new == 0:
            return
        num_kept = min(num_new, self.capacity)
        num_evicted = max(0, self.size + num_kept - self.capacity)
        self._sampler.remove(self._slots(self.inserts - self.size, num_evicted))
        self.size -= num_evicted
        first_frame = self._frames.append(block.frames, block.action_mask, self._oldest_frame())
        self.inserts += num_new
        self.size += num_kept
        slots = self._slots(self.inserts - num_kept, num_kept)
        self._items["block_frame"][slots] = first_frame
        for name in _COLUMNS:
            self._items[name][slots] = getattr(block, name)[-num_kept:]
        priorities = None if block.priorities is None else block.priorities[-num_kept:]
        self.refused_priorities += self._sampler.insert(slots, priorities)

    def sample(self, num_batches: int, batch_size: int) -> ReplayBatch:
        """Draws `num_batches` minibatches, each by itself a sample of all live items.

        Uniform: independent draws with replacement. Prioritized: stratified within each
        minibatch. Raises RuntimeError while the replay is empty.
        """
        if num_batches < 1 or batch_size < 1:
            raise ValueError(
                f"num_batches and batch_size must be at least 1, got {num_batches} and "
                f"{batch_size}: nothing would be drawn"
            )
        if self.size == 0:
            raise RuntimeError(
                f"cannot sample: 0 of {self.capacity} items are held, add a block first"
            )
        slots, probabilities = self._sampler.sample(batch_size, self._rng, num_batches)
        first_id = self.epoch * IDS_PER_EPOCH
        item_ids, frames, a_tm1, r_t, discount_t = _gather_items(
            self._items, slots, self.inserts, first_id
        )
        obs = self._frames.gather(frames.ravel())  # [2 * K * B, *obs]: first tm1, then t
        mask_t = self._frames.gather_masks(frames[1])

        def split(array: np.ndarray) -> np.ndarray:  # [K * B, ...] -> [K, B, ...]
            return array.reshape(num_batches, batch_size, *array.shape[1:])

        return ReplayBatch(
            obs_tm1=split(obs[: len(slots)]),
            a_tm1=split(a_tm1),
            r_t=split(r_t),
            discount_t=split(discount_t),
            obs_t=split(obs[len(slots) :]),
            item_ids=split(item_ids),
            probabilities=split(probabilities),
            action_mask_t=None if mask_t is None else split(mask_t),
        )

    def update_priorities(self, update: PriorityUpdate) -> None:
        """Gives live items new priorities; of equal ids the last wins.

        Ids of evicted items and of other epochs are dropped and counted in
        `dropped_updates`, priorities that are negative or not finite in
        `refused_priorities`; neither changes anything else.
        """
        item_ids, priorities = np.asarray(update.item_ids), np.asarray(update.priorities)
        if item_ids.shape != priorities.shape:
            raise ValueError(
                f"item_ids and priorities must be of one shape, got {item_ids.shape} and "
                f"{priorities.shape}: a priority would have no item"
            )
        # An id of another epoch lies at least 2^40 away, outside the live range.
        numbers = item_ids.ravel() - self.epoch * IDS_PER_EPOCH
        priorities = priorities.ravel()
        live = (numbers >= self.inserts - self.size) & (numbers < self.inserts)
        num_live = int(np.count_nonzero(live))
        if num_live < len(numbers):
            self.dropped_updates += len(numbers) - num_live
            numbers, priorities = numbers[live], priorities[live]
        self.refused_priorities += self._sampler.update(self._wrap(numbers), priorities)

    def check_valid(self) -> tuple[bool, str]:
        """(True, "") if ring, frames and sampler agree with each other, else (False, why)."""
        if not 0 <= self.size <= min(self.capacity, self.inserts):
            return False, f"size is {self.size} after {self.inserts} inserts"
        if self._sampler.size != self.size:
            return False, f"the sampler has {self._sampler.size} live slots, the ring {self.size}"
        items = self._live_items()
        if np.any(np.diff(items["block_frame"]) < 0):
            return False, "the blocks' frames are not in the order of the items"
        oldest = self._oldest_frame()
        for name in ("tm1", "t"):
            numbers = items["block_frame"] + items[name]
            if np.any((numbers < oldest) | (numbers >= self._frames.next_number)):
                return False, f"an item's {name} is not among the frames"
        valid, why = self._frames.check_valid(oldest)
        return self._sampler.check_valid() if valid else (False, why)

    def get_state(self) -> dict[str, Any]:
        """Everything that later samples depend on: numpy arrays and ints, in one level.

        Items and frames run from the oldest to the newest. Sampler entries have the
        prefix "sampler_".
        """
        items = self._live_items()
        state: dict[str, Any] = {
            "capacity": self.capacity,
            "epoch": self.epoch,
            "inserts": self.inserts,
            "dropped_updates": self.dropped_updates,
            "refused_priorities": self.refused_priorities,
            "rng": _rng_words(self._rng),
            **{name: items[name].copy() for name in ("block_frame", *_COLUMNS)},
            **self._frames.get_state(self._oldest_frame()),
        }
        return state | {f"sampler_{name}": v for name, v in self._sampler.get_state().items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `get_state` gave; the next samples are bit-identical.

        The epoch stays the constructor's, as ids that were given out after the state was
        saved would otherwise come again: with a new epoch the items get new ids. Raises
        ValueError when the capacity differs.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(
                f"capacity must be that of the state, {state['capacity']}, got {self.capacity}: "
                "the sampler's slots would not match"
            )
        self.inserts = int(state["inserts"])
        self.size = len(state["block_frame"])
        self.dropped_updates = int(state["dropped_updates"])
        self.refused_priorities = int(state["refused_priorities"])
        _set_rng_words(self._rng, state["rng"])
        slots = self._slots(self.inserts - self.size, self.size)
        for name in ("block_frame", *_COLUMNS):
            self._items[name][slots] = state[name]
        self._frames.set_state(state)
        prefix = "sampler_"
        sampler_state = {k.removeprefix(prefix): state[k] for k in state if k.startswith(prefix)}
        self._sampler.set_state(sampler_state)

    def _slots(self, first: int, count: int) -> np.ndarray:
        """The slots `[count]` of the items with numbers from `first` on."""
        return self._wrap(np.arange(first, first + count))

    def _wrap(self, numbers: np.ndarray) -> np.ndarray:
        """The slots `[B]`, numbers % capacity, of items among the newest `capacity`."""
        slots = numbers - (self.inserts - 1) // self.capacity * self.capacity
        slots += self.capacity * (slots < 0)  # of the lap before; int64 remainders are slow
        return slots

    def _live_items(self) -> np.ndarray:
        """The live items `[size]`, oldest first."""
        return self._items[self._slots(self.inserts - self.size, self.size)]

    def _oldest_frame(self) -> int:
        """Number of the first frame of the oldest live item's block.

        Frames before it can go. Frames of that block may already be without an item:
        they stay until the whole block is evicted, at most one block too long.
        """
        if self.size == 0:
            return self._frames.next_number
        return int(self._items["block_frame"][(self.inserts - self.size) % self.capacity])


@numba.njit(cache=True)
def _gather_items(
    items: np.ndarray, slots: np.ndarray, inserts: int, first_id: int
) -> tuple[np.ndarray, ...]:
    """Ids, frame numbers `[2, B]` of tm1 and t, actions, rewards, discounts of `slots [B]`."""
    count = slots.shape[0]
    capacity = items.shape[0]
    newest = (inserts - 1) % capacity  # the slot of item number inserts - 1
    item_ids = np.empty(count, np.int64)
    frames = np.empty((2, count), np.int64)
    a_tm1 = np.empty(count, np.int64)
    r_t = np.empty(count, np.float32)
    discount_t = np.empty(count, np.float32)
    for i in range(count):
        slot = slots[i]
        age = newest - slot
        if age < 0:
            age += capacity
        item = items[slot]
        item_ids[i] = first_id + inserts - 1 - age
        frames[0, i] = item.block_frame + item.tm1
        frames[1, i] = item.block_frame + item.t
        a_tm1[i] = item.a_tm1
        r_t[i] = item.r_t
        discount_t[i] = item.discount_t
    return item_ids, frames, a_tm1, r_t, discount_t


def _check_block(block: TransitionBlock, observation: ObservationSpec, num_actions: int) -> None:
    """Raises ValueError if a later sample could be wrong because of the block."""
    num_frames, num_new = len(block.frames), block.num_transitions
    shapes: dict[str, tuple[int, ...]] = {"frames": (num_frames, *observation.shape)}
    shapes |= dict.fromkeys((*_COLUMNS, "priorities"), (num_new,))
    shapes["action_mask"] = (num_frames, num_actions)
    for name, shape in shapes.items():
        array = getattr(block, name)
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{name} of a block must have shape {shape}, got {array.shape}: the block of "
                f"worker {block.worker} is refused"
            )
    if block.frames.dtype != np.dtype(observation.dtype):
        raise ValueError(
            f"frames of a block must be {observation.dtype}, got {block.frames.dtype}: a cast "
            "could change the observations"
        )
    for name, bound in (("tm1", num_frames), ("t", num_frames), ("a_tm1", num_actions)):
        array = getattr(block, name)
        if num_new and not (array.min() >= 0 and array.max() < bound):
            worst = array.min() if array.min() < 0 else array.max()
            raise ValueError(
                f"{name} of a block must be in [0, {bound}), got {worst}: it would point at "
                "another block's frame or at no action"
            )


def _rng_words(rng: np.random.Generator) -> np.ndarray:
    """The state of a PCG64 generator as `[6]` uint64: its integers are of 128 bits."""
    state = rng.bit_generator.state
    words = []
    for value in (state["state"]["state"], state["state"]["inc"]):
        words += [value & (2**64 - 1), value >> 64]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def _set_rng_words(rng: np.random.Generator, words: np.ndarray) -> None:
    """The inverse of `_rng_words`."""
    low, high, inc_low, inc_high, has_uint32, uinteger = (int(word) for word in words)
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": low | high << 64, "inc": inc_low | inc_high << 64},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
