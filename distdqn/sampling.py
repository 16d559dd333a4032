"""Which slots of the ring are drawn, and how likely.

A sampler knows slots and priorities, never transitions: it returns slots and the
probability of each, and the storage gathers. Importance weights are the learner's,
because N and the maximum are over all shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distdqn.sum_tree import SumTree


class UniformSampler:
    """Every live slot with probability 1 / size, independently, with replacement.

    A ring inserts and evicts in order, so its live slots are one arc of `size` slots
    from `first` on: two integers, no index. `insert` must continue the arc and
    `remove` take from its start; an empty arc starts anywhere. Priorities are ignored.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}: nothing to draw")
        self.capacity = int(capacity)
        self.size = 0
        self._first = 0

    @property
    def mass(self) -> float:
        """The weight of this shard among shards: its number of items."""
        return float(self.size)

    @property
    def priority_max(self) -> float:
        """NaN: there are no priorities."""
        return float("nan")

    @property
    def nbytes(self) -> int:
        return 0

    def insert(self, slots: np.ndarray, priorities: np.ndarray | None = None) -> int:
        """Makes `slots [B]` live, which follow on the arc; 0 priorities refused."""
        if len(slots):
            if self.size == 0:
                self._first = int(slots[0])
            assert slots[0] == (self._first + self.size) % self.capacity, "not the next slot"
            assert self.size + len(slots) <= self.capacity, "more slots than the ring has"
            self.size += len(slots)
        return 0

    def remove(self, slots: np.ndarray) -> None:
        """Ends the life of `slots [B]`, the oldest ones."""
        if len(slots):
            assert slots[0] == self._first, "not the oldest slot"
            assert len(slots) <= self.size, "more slots than are live"
            self._first = (self._first + len(slots)) % self.capacity
            self.size -= len(slots)

    def update(self, slots: np.ndarray, priorities: np.ndarray) -> int:
        """Does nothing; 0 priorities refused."""
        return 0

    def sample(
        self, num: int, rng: np.random.Generator, num_batches: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws `num_batches` minibatches of `num` slots.

        Returns slots `[num_batches * num]` int64 and their probabilities, likewise,
        float64. Raises RuntimeError when no slot is live.
        """
        if self.size == 0:
            raise RuntimeError("cannot sample: no slot is live, insert some first")
        slots = rng.integers(self.size, size=num_batches * num)
        if self._first and self.size < self.capacity:  # a full ring needs no turning
            slots = (slots + self._first) % self.capacity
        return slots, np.full(num_batches * num, 1.0 / self.size)

    def check_valid(self) -> tuple[bool, str]:
        """(True, "") if the arc fits the ring, else (False, why)."""
        if not (0 <= self.size <= self.capacity and 0 <= self._first < self.capacity):
            return False, f"arc of {self.size} from {self._first} in {self.capacity} slots"
        return True, ""

    def get_state(self) -> dict[str, Any]:
        return {"first": self._first, "size": self.size}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._first, self.size = int(state["first"]), int(state["size"])


class PrioritizedSampler:
    """Proportional prioritization, P(i) = v_i / sum_k v_k with v_i = (p_i + epsilon)^alpha.

    (Schaul et al. 2016, "Prioritized Experience Replay", equation 1 and section 3.3.)
    p_i is the unexponentiated |TD error| of item i, alpha the `priority_exponent` (0:
    uniform), epsilon the `priority_epsilon`, which keeps an item drawable whose TD
    error is 0. An item without a priority of its own gets the largest seen so far
    (1 at first). A priority that is negative or not finite is refused and counted,
    never stored: it would spoil the sums of the whole shard.

    Numeric hazard: one priority 1e16 times larger than the rest absorbs their sum in
    float64, and they are no longer drawn until it is updated.
    """

    def __init__(self, capacity: int, priority_exponent: float, priority_epsilon: float) -> None:
        if not 0.0 <= priority_exponent <= 1.0:
            raise ValueError(
                f"priority_exponent must be in [0, 1], got {priority_exponent}: sampling goes "
                "from uniform (0) to proportional (1)"
            )
        if not 0.0 < priority_epsilon < float("inf"):
            raise ValueError(
                f"priority_epsilon must be finite and above 0, got {priority_epsilon}: an item "
                "whose TD error is 0 would never be drawn again"
            )
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
        if priorities is None:
            accepted, refused = np.full(len(slots), self.priority_max), 0
        else:
            accepted = np.array(priorities, np.float64)
            valid = _valid(accepted)
            refused = len(slots) - int(np.count_nonzero(valid))
            self.priority_max = float(np.max(accepted, initial=self.priority_max, where=valid))
            accepted[~valid] = self.priority_max
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
        valid = _valid(priorities)
        refused = len(slots) - int(np.count_nonzero(valid))
        if refused:
            slots, priorities = slots[valid], priorities[valid]
        self._tree.set(slots, self._values(priorities))
        self.priority_max = float(np.max(priorities, initial=self.priority_max))
        return refused

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
        if self.size == 0:
            raise RuntimeError("cannot sample: no slot is live, insert some first")
        total = self._tree.total
        targets = rng.random((num_batches, num))
        targets += np.arange(num)
        targets *= total / num
        np.minimum(targets, total, out=targets)  # the product may round up to just above it
        slots = self._tree.find(targets.ravel())
        return slots, self._tree.get(slots) / total

    def check_valid(self) -> tuple[bool, str]:
        """(True, "") if the tree is valid and counts the live slots, else (False, why)."""
        valid, why = self._tree.check_valid()
        if not valid:
            return False, why
        positive = int(np.count_nonzero(self._tree.get(np.arange(self.capacity))))
        if positive != self.size:
            return False, f"{self.size} slots are live, {positive} have a value above 0"
        return True, ""

    def get_state(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "priority_max": np.array(self.priority_max),
            **self._tree.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `get_state` gave; raises ValueError if the capacity differs."""
        self._tree.set_state(state)
        self.size = int(state["size"])
        self.priority_max = float(state["priority_max"])

    def _values(self, priorities: np.ndarray) -> np.ndarray:
        return (priorities + self._epsilon) ** self._exponent


def _valid(priorities: np.ndarray) -> np.ndarray:
    return np.isfinite(priorities) & (priorities >= 0.0)
