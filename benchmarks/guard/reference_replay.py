"""A replay as one writes it with numpy alone: the fixed reference, never to be optimised.

Faster or slower, it would shift the ratio that distdqn's replay is held to; change it only
together with the record. (Schaul et al. 2016, "Prioritized Experience Replay", appendix
B.2.1: a binary tree of sums, one leaf a slot.)
"""

from __future__ import annotations

import numpy as np


class ReferenceSampler:
    """Draws slots in proportion to (priority + epsilon)^alpha, from a tree of sums.

    The root is node 1, the children of node k are 2k and 2k + 1, the leaf of slot s is
    `num_leaves + s`.
    """

    def __init__(self, capacity: int, exponent: float, epsilon: float) -> None:
        self.num_leaves = 1 << (capacity - 1).bit_length()
        self.nodes = np.zeros(2 * self.num_leaves)
        self._exponent, self._epsilon = exponent, epsilon

    def update(self, slots: np.ndarray, priorities: np.ndarray) -> None:
        """New priorities `[B]` of `slots [B]`; of equal slots the last wins."""
        nodes = self.num_leaves + slots
        self.nodes[nodes] = (priorities.astype(np.float64) + self._epsilon) ** self._exponent
        while nodes[0] > 1:
            nodes = np.unique(nodes // 2)
            self.nodes[nodes] = self.nodes[2 * nodes] + self.nodes[2 * nodes + 1]

    def sample(self, num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Slots `[num]`, one from each of `num` equal ranges, and their probabilities."""
        total = self.nodes[1]
        rest = (np.arange(num) + rng.random(num)) * (total / num)
        nodes = np.ones(num, np.int64)
        while nodes[0] < self.num_leaves:
            left = self.nodes[2 * nodes]
            goes_right = rest >= left
            rest = np.where(goes_right, rest - left, rest)
            nodes = 2 * nodes + goes_right
        return nodes - self.num_leaves, self.nodes[nodes] / total


class ReferenceReplay:
    """A ring of whole transitions, sampled uniformly or by a `ReferenceSampler`.

    Rows are (obs_tm1, a_tm1, r_t, discount_t, obs_t), each field an array of its own.
    """

    def __init__(
        self, capacity: int, obs_shape: tuple[int, ...], sampler: ReferenceSampler | None = None
    ) -> None:
        self.obs_tm1 = np.zeros((capacity, *obs_shape), np.float32)
        self.obs_t = np.zeros((capacity, *obs_shape), np.float32)
        self.a_tm1 = np.zeros(capacity, np.int64)
        self.r_t = np.zeros(capacity, np.float32)
        self.discount_t = np.zeros(capacity, np.float32)
        self._capacity, self._sampler = capacity, sampler
        self._next = self.size = 0

    def add(
        self,
        obs_tm1: np.ndarray,
        a_tm1: np.ndarray,
        r_t: np.ndarray,
        discount_t: np.ndarray,
        obs_t: np.ndarray,
        priorities: np.ndarray | None = None,
    ) -> None:
        """Copies `[B]` rows in, over the oldest where the ring is full."""
        slots = (self._next + np.arange(len(a_tm1))) % self._capacity
        self.obs_tm1[slots], self.obs_t[slots] = obs_tm1, obs_t
        self.a_tm1[slots], self.r_t[slots], self.discount_t[slots] = a_tm1, r_t, discount_t
        if self._sampler is not None and priorities is not None:
            self._sampler.update(slots, priorities)
        self._next = (self._next + len(a_tm1)) % self._capacity
        self.size = min(self.size + len(a_tm1), self._capacity)

    def sample(
        self, num_batches: int, batch_size: int, rng: np.random.Generator
    ) -> list[tuple[np.ndarray, ...]]:
        """Minibatches, one after the other: the rows, their slots and probabilities."""
        return [self._minibatch(batch_size, rng) for _ in range(num_batches)]

    def _minibatch(self, batch_size: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        if self._sampler is None:
            slots = rng.integers(self.size, size=batch_size)
            probabilities = np.full(batch_size, 1.0 / self.size)
        else:
            slots, probabilities = self._sampler.sample(batch_size, rng)
        columns = (self.obs_tm1, self.a_tm1, self.r_t, self.discount_t, self.obs_t)
        return (*(column[slots] for column in columns), slots, probabilities)


def stacked_pictures(frames: np.ndarray, newest: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Stacks `[B, 4, ...]` of `frames [F, ...]`, oldest first.

    newest: `[B]` position of each stack's newest frame.
    depths: `[B]` how many frames before it belong to the stack; zeros stand for the others.
    """
    before = np.arange(3, -1, -1)
    stacks = frames[np.maximum(newest[:, None] - before, 0)]
    stacks[before > depths[:, None]] = 0
    return stacks
