"""Which slots of the ring are drawn, and how likely.

A sampler knows slots and priorities, never transitions: it returns slots and the
probability of each, and the storage gathers. Importance weights are the learner's,
because N and the maximum are over all shards.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distdqn.replay.sum_tree import SumTree


class PlainSampler:
    """Live slots without priorities: drawn uniformly, or each once in order.

    The live slots are an arc of the ring, `size` of them from `first` on: `insert` must
    continue it and `remove` take from its start; an empty arc starts anywhere.

    Uniform: every live slot with probability 1 / size, independently, with replacement.
    `in_order`: every slot once, in the order of insertion (learning without a memory); one
    that is evicted before it was drawn is never drawn. The probabilities are one constant,
    so that importance weights are 1.

    size: live slots.  drawn: of these, the oldest, those drawn if `in_order`, else 0.
    priority_max: NaN: there are no priorities, and those given are ignored.
    """

    priority_max = float("nan")
    nbytes = 0

    def __init__(self, capacity: int, in_order: bool = False) -> None:
        assert capacity >= 1, f"nothing to draw from a capacity of {capacity}"
        self.capacity = int(capacity)
        self.first = self.size = self.drawn = 0
        self._in_order = in_order

    @property
    def mass(self) -> float:
        """The weight of this shard among shards: its slots, those already drawn left out."""
        return float(self.size - self.drawn)

    def insert(self, slots: np.ndarray, priorities: np.ndarray | None = None) -> int:
        """Makes `slots [B]` live, which follow on the arc; 0 priorities refused."""
        if len(slots):
            if self.size == 0:
                self.first = int(slots[0])
            assert slots[0] == (self.first + self.size) % self.capacity, "not the next slot"
            assert self.size + len(slots) <= self.capacity, "more slots than the ring has"
            self.size += len(slots)
        return 0

    def remove(self, slots: np.ndarray) -> None:
        """Ends the life of `slots [B]`, the oldest ones."""
        if len(slots):
            assert slots[0] == self.first, "not the oldest slot"
            assert len(slots) <= self.size, "more slots than are live"
            self.first = (self.first + len(slots)) % self.capacity
            self.size -= len(slots)
            self.drawn = max(0, self.drawn - len(slots))

    def update(self, slots: np.ndarray, priorities: np.ndarray) -> int:
        """Does nothing; 0 priorities refused."""
        return 0

    def priorities(self, slots: np.ndarray) -> np.ndarray:
        """`[0]`: there are none."""
        return np.empty(0)

    def sample(
        self, num: int, rng: np.random.Generator, num_batches: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws `num_batches` minibatches of `num` slots; in order without `rng`.

        Returns slots `[num_batches * num]` int64 and 1 / `mass` before the draw for each,
        float64. Raises RuntimeError when no slot is live, or in order fewer are left.
        """
        if self._in_order:
            return self._next(num_batches * num)
        if self.size == 0:
            raise RuntimeError("cannot sample: no slot is live, insert some first")
        slots = rng.integers(self.size, size=num_batches * num)
        if self.first and self.size < self.capacity:  # a full ring needs no turning
            slots = (slots + self.first) % self.capacity
        return slots, np.full(num_batches * num, 1.0 / self.size)

    def _next(self, num: int) -> tuple[np.ndarray, np.ndarray]:
        left = self.size - self.drawn
        if num > left:
            raise RuntimeError(
                f"cannot sample: {num} slots are required that were not drawn yet, {left} are "
                "left; insert some first"
            )
        slots = (self.first + self.drawn + np.arange(num)) % self.capacity
        self.drawn += num
        return slots, np.full(num, 1.0 / max(left, 1))

    def check_valid(self) -> tuple[bool, str]:
        """(True, "") if the arc fits the ring and the drawn slots the arc, else (False, why)."""
        if not (0 <= self.size <= self.capacity and 0 <= self.first < self.capacity):
            return False, f"arc of {self.size} from {self.first} in {self.capacity} slots"
        if not 0 <= self.drawn <= self.size:
            return False, f"{self.drawn} of {self.size} live slots are drawn"
        return True, ""

    def get_state(self) -> dict[str, Any]:
        return {"first": self.first, "size": self.size, "drawn": self.drawn}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.first, self.size = int(state["first"]), int(state["size"])
        self.drawn = int(state.get("drawn", 0))


class PrioritizedSampler:
    """Proportional prioritization, P(i) = v_i / sum_k v_k with v_i = (p_i + epsilon)^alpha.

    (Schaul et al. 2016, "Prioritized Experience Replay", equation 1 and section 3.3.) p_i is the
    unexponentiated |TD error| of item i, alpha the `priority_exponent` (0: uniform), epsilon the
    `priority_epsilon`, which keeps an item drawable whose TD error is 0. An item without a priority
    of its own gets the largest seen so far (1 at first). A priority that is negative or not finite
    is refused and counted, never stored: it would spoil the sums of the whole shard.

    Numeric hazard: one priority 1e16 times larger than the rest absorbs their sum in
    float64, and they are no longer drawn until it is updated.
    """

    def __init__(self, capacity: int, priority_exponent: float, priority_epsilon: float) -> None:
        assert 0.0 <= priority_exponent <= 1.0, priority_exponent
        assert 0.0 < priority_epsilon < float("inf"), priority_epsilon
        self.capacity = int(capacity)
        self.size = 0
        self.priority_max = 1.0
        self._exponent = float(priority_exponent)
        self._epsilon = float(priority_epsilon)
        self._tree = SumTree(capacity)

    @property
    def mass(self) -> float:
        """The weight of this shard among shards: the sum of v_i."""
        return self._tree.total

    @property
    def nbytes(self) -> int:
        return self._tree.nbytes

    def insert(self, slots: np.ndarray, priorities: np.ndarray | None = None) -> int:
        """Makes `slots [B]` live; returns how many priorities were refused.

        priorities: `[B]`, or None. An item whose priority is refused, or that has
        none, gets `priority_max`, that of this very block included.
        """
        assert self.size + len(slots) <= self.capacity, "more slots than the ring has"
        accepted, refused = np.full(len(slots), self.priority_max), 0
        if priorities is not None:
            priorities = np.asarray(priorities, np.float64)
            valid, refused = _valid(priorities)
            self.priority_max = float(np.max(priorities, initial=self.priority_max, where=valid))
            accepted = np.where(valid, priorities, self.priority_max)
        self._tree.set(slots, self._values(accepted))
        self.size += len(slots)
        return refused

    def remove(self, slots: np.ndarray) -> None:
        """Ends the life of `slots [B]`, which must be live and differ."""
        assert len(slots) <= self.size, "more slots than are live"
        self._tree.set(slots, np.zeros(len(slots)))
        self.size -= len(slots)

    def update(self, slots: np.ndarray, priorities: np.ndarray) -> int:
        """Gives live `slots [B]` new priorities `[B]`; returns how many were refused.

        Of equal slots the last wins. An item whose priority is refused keeps its old one.
        """
        priorities = np.asarray(priorities, np.float64)
        valid, refused = _valid(priorities)
        if refused:
            slots, priorities = slots[valid], priorities[valid]
        self._tree.set(slots, self._values(priorities))
        self.priority_max = float(np.max(priorities, initial=self.priority_max))
        return refused

    def priorities(self, slots: np.ndarray) -> np.ndarray:
        """The priorities p_i `[B]` of live `slots [B]`, from their v_i; `[0]` if alpha is 0."""
        if self._exponent == 0.0:
            return np.empty(0)
        return np.maximum(self._tree.values[slots] ** (1.0 / self._exponent) - self._epsilon, 0.0)

    def sample(
        self, num: int, rng: np.random.Generator, num_batches: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws `num_batches` minibatches of `num` slots, each stratified by itself.

        A minibatch divides [0, sum_k v_k) into `num` equal ranges and draws uniformly
        from each (appendix B.2.1), so its slots come in ascending order.

        Returns slots `[num_batches * num]` int64 and their probabilities P(i),
        likewise, float64: within a minibatch, the mean over its draws of the chance
        that a draw yields i. Raises RuntimeError when no slot is live.
        """
        total = self._tree.total
        targets = rng.random((num_batches, num))
        targets += np.arange(num)
        targets *= total / num
        np.minimum(targets, total, out=targets)  # the product may round up to just above it
        slots = self._tree.find(targets.ravel())
        return slots, self._tree.values[slots] / total

    def check_valid(self) -> tuple[bool, str]:
        """(True, "") if the tree is valid and counts the live slots, else (False, why)."""
        valid, why = self._tree.check_valid()
        if not valid:
            return False, why
        positive = int(np.count_nonzero(self._tree.values))
        if positive != self.size:
            return False, f"{self.size} slots are live, {positive} have a value above 0"
        return True, ""

    def get_state(self) -> dict[str, Any]:
        own = {"size": self.size, "priority_max": self.priority_max}
        return {**own, **self._tree.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `get_state` gave; raises ValueError if the capacity differs."""
        # A copy: a read-only array would have numba compile the tree's kernels once more.
        self._tree.set_state({"values": np.array(state["values"])})
        self.size = int(state["size"])
        self.priority_max = float(state["priority_max"])

    def _values(self, priorities: np.ndarray) -> np.ndarray:
        return (priorities + self._epsilon) ** self._exponent


def _valid(priorities: np.ndarray) -> tuple[np.ndarray, int]:
    """Which `[B]` can be stored, and how many cannot."""
    valid = np.isfinite(priorities) & (priorities >= 0.0)
    return valid, len(valid) - int(np.count_nonzero(valid))


Sampler = PlainSampler | PrioritizedSampler
