"""One shard's replay: a ring of transitions and a sampler over its slots.

Transitions refer to frames by number, so each frame is stored once, and observations are
put together when a batch is drawn; item ids are never reused, so a late priority update
cannot hit a newcomer.
"""

import math
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np

from distdqn.replay.blocks import BlockVersions, check_block
from distdqn.replay.frame_ring import FrameRing
from distdqn.replay.layout import COLUMNS, FRAMES_PER_ITEM, ITEM, visits_shape
from distdqn.replay.sampling import Sampler
from distdqn.replay.saved_state import live_frames, live_items, rng_words, set_rng_words
from distdqn.types import ObservationSpec, PriorityUpdate, ReplayBatch, TransitionBlock

IDS_PER_EPOCH = 2**40
_COUNTERS = ("inserts", "size", "dropped_updates", "refused_priorities")


class Replay:
    """The last `capacity` transitions, drawn by `sampler`.

    Item number c (from 0, in order of arrival) has the id `epoch * 2**40 + c` and lies
    in slot c % capacity. The newest `size` items are live; each further one evicts the
    oldest. `epoch` sets the ids of a shard's incarnations apart, and with `seed` its
    draws: give a restarted or restored shard a new one. An id is live if and only if
    it lies in `[epoch * 2**40 + inserts - size, epoch * 2**40 + inserts)`.

    Frames are planned for `frames_per_item` per item: above 1 because blocks repeat frames at their
    borders (stack - 1 + n for each env) and an episode has one more than transitions. With
    `compression` ("lz4") each is kept compressed. Where that is too little (short episodes, small
    blocks) the frame ring grows; items are never evicted early.

    items: `[capacity]` records (`ITEM`), by slot.  frames: the ring that they refer to.
    versions: which weights acted in the live items.
    inserts: items ever added.  size: items live.
    dropped_updates: priority updates for items that were evicted or of another epoch.
    refused_priorities: negative or non-finite priorities, new and updated.
    visits: `[S, A]` int64, how often each (obs_tm1, a_tm1) was ever added, where the
      observations are indices and S x A is at most 2**20; else None.
    """

    def __init__(
        self,
        capacity: int,
        observation: ObservationSpec,
        num_actions: int,
        sampler: Sampler,
        seed: int,
        epoch: int = 0,
        frames_per_item: float = FRAMES_PER_ITEM,
        compression: str = "none",
    ) -> None:
        assert 1 <= capacity == sampler.capacity, "the slots of replay and sampler must match"
        assert epoch >= 0, f"ids would be negative in epoch {epoch}"
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
        self.items = np.zeros(self.capacity, ITEM)
        num_frames = math.ceil(self.capacity * frames_per_item)
        self.frames = FrameRing(num_frames, observation, num_actions, compression)
        self.versions = BlockVersions()
        shape = visits_shape(observation, num_actions)
        self.visits = None if shape is None else np.zeros(shape, np.int64)

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
        """Of items, frames, sampler and visits as allocated now."""
        visits = 0 if self.visits is None else self.visits.nbytes
        return self.items.nbytes + self.frames.nbytes + self._sampler.nbytes + visits

    def add(self, block: TransitionBlock) -> None:
        """Copies a block's transitions in, evicting the oldest beyond the capacity.

        Of a block larger than the capacity only the last `capacity` items stay; all are
        counted as inserts. Raises ValueError, with nothing changed, for a block that
        contradicts itself or the observation spec.
        """
        check_block(block, self._observation, self._num_actions)
        num_new = block.num_transitions
        if num_new == 0:
            return
        num_kept = min(num_new, self.capacity)
        num_evicted = max(0, self.size + num_kept - self.capacity)
        self._sampler.remove(self._slots(self.inserts - self.size, num_evicted))
        self.size -= num_evicted
        first_frame = self.frames.append(block.frames, block.action_mask, self._oldest_frame())
        self.inserts += num_new
        self.size += num_kept
        slots = self._slots(self.inserts - num_kept, num_kept)
        self.items["block_frame"][slots] = first_frame
        for name in COLUMNS:
            self.items[name][slots] = getattr(block, name)[-num_kept:]
        priorities = None if block.priorities is None else block.priorities[-num_kept:]
        self.refused_priorities += self._sampler.insert(slots, priorities)
        self.versions.append(self.inserts, block.weights_version)
        self.versions.evict(self.inserts - self.size)
        if self.visits is not None:
            np.add.at(self.visits, (block.frames[block.tm1], block.a_tm1), 1)

    def sample(self, num_batches: int, batch_size: int) -> ReplayBatch:
        """Draws `num_batches` minibatches, each by itself a sample of all live items.

        Uniform: independent draws with replacement. Prioritized: stratified within each
        minibatch. Fifo is the exception: the next items, each once. Raises RuntimeError
        while the replay is empty, and with fifo while too few are left.
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
        item_ids, frames, depths, a_tm1, r_t, discount_t = _gather_items(
            self.items, slots, self.inserts, first_id
        )
        obs = self.frames.gather(frames, depths)  # [2, K * B, *obs_shape]
        mask_t = self.frames.gather_masks(frames[1])

        def split(array: np.ndarray) -> np.ndarray:  # [K * B, ...] -> [K, B, ...]
            return array.reshape(num_batches, batch_size, *array.shape[1:])

        return ReplayBatch(
            obs_tm1=split(obs[0]),
            a_tm1=split(a_tm1),
            r_t=split(r_t),
            discount_t=split(discount_t),
            obs_t=split(obs[1]),
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
        items = self.items[self._slots(self.inserts - self.size, self.size)]
        if np.any(np.diff(items["block_frame"]) < 0):
            return False, "the blocks' frames are not in the order of the items"
        oldest = self._oldest_frame()
        for name in ("tm1", "t"):
            numbers = items["block_frame"] + items[name]
            depths = items[f"{name}_depth"]
            if np.any((numbers - depths < oldest) | (numbers >= self.frames.next_number)):
                return False, f"an item's {name} is not among the frames"
            if np.any(depths >= self._observation.stack):
                return False, f"an item's {name} has more frames than are stacked"
        valid, why = self.frames.check_valid(oldest)
        return self._sampler.check_valid() if valid else (False, why)

    def priorities(self, max_items: int) -> np.ndarray:
        """Unexponentiated priorities of at most `max_items` live items, evenly spaced.

        For diagnostics: no random number is drawn. Empty where there are no priorities,
        with uniform and fifo sampling and with a `priority_exponent` of 0.
        """
        count = min(self.size, max_items)
        if count == 0:
            return np.empty(0)
        numbers = self.inserts - self.size + np.arange(count) * self.size // count
        return self._sampler.priorities(self._wrap(numbers))

    def get_state(self, first_item: int = 0, first_frame: int = 0) -> dict[str, Any]:
        """Everything that later samples depend on, as `codec` takes it.

        first_item, first_frame: numbers from which items and frames are given; those before are in
          the segments of earlier states, up to their "inserts" and "next_frame".

        "segments" is a list with the one segment of this state: the live items and frames
        from those numbers on, oldest first, which never change. The other entries are
        small but for the sampler's: as many float64 as the capacity, if prioritized.

        Raises ValueError for numbers that were not given out yet.
        """
        if first_item > self.inserts or first_frame > self.frames.next_number:
            raise ValueError(
                f"first_item and first_frame must be at most {self.inserts} and "
                f"{self.frames.next_number}, got {first_item} and {first_frame}: an earlier "
                "state of this replay cannot end there"
            )
        first_item = max(first_item, self.inserts - self.size)
        items = self.items[self._slots(first_item, self.inserts - first_item)]
        frames = self.frames.get_state(max(first_frame, self._oldest_frame()))
        columns = {name: items[name].copy() for name in ("block_frame", *COLUMNS)}
        return {
            "capacity": self.capacity,
            "epoch": self.epoch,
            **{name: getattr(self, name) for name in _COUNTERS},
            "oldest_frame": self._oldest_frame(),
            "next_frame": self.frames.next_number,
            "rng": rng_words(self._rng),
            "sampler": self._sampler.get_state(),
            "versions": self.versions.get_state(),
            "visits": None if self.visits is None else self.visits.copy(),
            "segments": [{"first_item": first_item, **columns, **frames}],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `get_state` gave; the next samples are bit-identical.

        state: with the segments of this state and of earlier ones, oldest first. What
          they hold twice or is evicted counts once or not at all.

        The epoch stays the constructor's: with a new one the items get new ids, as ids
        that were given out after the state was saved would otherwise come again. With the
        epoch of the state the ids are as before. Raises ValueError, with nothing changed,
        when the capacity or the frames differ or a segment is missing.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(
                f"capacity must be that of the state, {state['capacity']}, got {self.capacity}: "
                "the sampler's slots would not match"
            )
        items, frames = live_items(state, ("block_frame", *COLUMNS)), live_frames(state)
        self.frames.check_state(frames)
        for name in ("tm1_depth", "t_depth"):
            if (deepest := int(items[name].max(initial=0))) >= self._observation.stack:
                raise ValueError(
                    f"{name} of the state must be below the stack of {self._observation.stack}, "
                    f"got {deepest}: more frames were stacked when it was saved"
                )
        for name in _COUNTERS:
            setattr(self, name, int(state[name]))
        set_rng_words(self._rng, state["rng"])
        first_item = self.inserts - self.size
        slots = self._slots(first_item, self.size)
        for name, column in items.items():
            self.items[name][slots] = column
        self.frames.set_state(int(state["oldest_frame"]), frames)
        self.versions.set_state(state["versions"], first_item)
        self._sampler.set_state(state["sampler"])
        if self.visits is not None:
            self.visits[:] = state["visits"]

    def _slots(self, first: int, count: int) -> np.ndarray:
        """The slots `[count]` of the items with numbers from `first` on."""
        return self._wrap(np.arange(first, first + count))

    def _wrap(self, numbers: np.ndarray) -> np.ndarray:
        """The slots `[B]`, numbers % capacity, of items among the newest `capacity`."""
        slots = numbers - (self.inserts - 1) // self.capacity * self.capacity
        slots += self.capacity * (slots < 0)  # of the lap before; int64 remainders are slow
        return slots

    def _oldest_frame(self) -> int:
        """Number of the first frame of the oldest live item's block.

        Frames before it can go. Frames of that block may already be without an item:
        they stay until the whole block is evicted, at most one block too long.
        """
        if self.size == 0:
            return self.frames.next_number
        return int(self.items["block_frame"][(self.inserts - self.size) % self.capacity])


@numba.njit(cache=True)
def _gather_items(
    items: np.ndarray, slots: np.ndarray, inserts: int, first_id: int
) -> tuple[np.ndarray, ...]:
    """Ids, frame numbers and depths `[2, B]` of tm1 and t, actions, rewards, discounts.

    slots: `[B]`.
    """
    count = slots.shape[0]
    capacity = items.shape[0]
    newest = (inserts - 1) % capacity  # the slot of item number inserts - 1
    item_ids = np.empty(count, np.int64)
    frames = np.empty((2, count), np.int64)
    depths = np.empty((2, count), np.uint8)
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
        depths[0, i] = item.tm1_depth
        depths[1, i] = item.t_depth
        a_tm1[i] = item.a_tm1
        r_t[i] = item.r_t
        discount_t[i] = item.discount_t
    return item_ids, frames, depths, a_tm1, r_t, discount_t
