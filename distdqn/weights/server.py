"""Holds the newest weights; answers "newer than v".

It owns what it hands out, so weights and the learner's snapshot outlive the learner.
Who asks waits here, not in its own loop, until something newer is published.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import Any

import numpy as np
import ray

from distdqn.machine.cpu_time import give_way
from distdqn.types import BEFORE_ANY, WeightSnapshot, WeightsVersion

_INLINE_BYTES = 100 * 1024  # above, Ray moves a value through shared memory anyway


class WeightServer:
    """Newest `WeightSnapshot` and newest learner state.

    A vector above 100 KiB is put into shared memory once, when it is published, not once
    per reader; readers need no copy of their own.
    """

    def __init__(self) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        give_way()
        self._newest: WeightSnapshot | None = None  # its vectors perhaps references
        self._published = asyncio.Condition()
        self._state: dict[str, Any] | None = None

    async def run(self) -> None:
        """Never returns; its failure tells of a death."""
        await asyncio.Event().wait()

    async def publish(self, snapshot: WeightSnapshot) -> None:
        """Takes a snapshot; one without target keeps the target held so far.

        An older version than the one held is dropped: it comes from a dead learner.
        """
        held = self._newest
        if held is not None and snapshot.version <= held.version:
            return
        target = held.target if held is not None else None
        if snapshot.target is not None:
            target = _kept(snapshot.target)
        self._newest = dataclasses.replace(snapshot, online=_kept(snapshot.online), target=target)
        async with self._published:
            self._published.notify_all()

    async def newer(
        self, version: WeightsVersion, target_version: WeightsVersion, timeout_s: float
    ) -> WeightSnapshot | None:
        """The newest snapshot if newer than `version`, else None after `timeout_s`.

        A large vector is a reference to shared memory. The target comes only where the
        caller's is older.
        """
        async with self._published:
            try:
                await asyncio.wait_for(
                    self._published.wait_for(lambda: self._version > version), timeout_s
                )
            except TimeoutError:
                return None
        newest = self._newest
        assert newest is not None
        is_known = newest.target_version <= target_version
        return dataclasses.replace(newest, target=None) if is_known else newest

    async def save_state(self, state: dict[str, Any]) -> None:
        """Keeps a learner's whole state for its successor and for checkpoints."""
        self._state = state

    async def load_state(self) -> dict[str, Any] | None:
        return self._state

    @property
    def _version(self) -> WeightsVersion:
        return BEFORE_ANY if self._newest is None else self._newest.version


def _kept(vector: np.ndarray) -> Any:
    """A copy that belongs to this process: an array, or a reference to shared memory."""
    return ray.put(vector) if vector.nbytes > _INLINE_BYTES else np.array(vector)
