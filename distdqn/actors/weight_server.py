"""Holds the newest weights; answers "newer than v".

It owns what it hands out, so weights and the learner's snapshot outlive the learner.
Who asks waits here, not in its own loop, until something newer is published.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
import ray

from distdqn.actors.niceness import give_way
from distdqn.types import BEFORE_ANY, WeightSnapshot, WeightsVersion

_INLINE_BYTES = 100 * 1024  # above, Ray moves a value through shared memory anyway


class WeightServer:
    """Newest `WeightSnapshot` and newest learner state.

    A vector above 100 KiB is put into shared memory once per publication, not once
    per reader.
    """

    def __init__(self) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        give_way()
        self._newest: WeightSnapshot | None = None
        self._replies: dict[bool, Any] = {}  # with and without the target vector
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
        target = snapshot.target
        if target is None and held is not None:
            target = held.target
        self._newest = WeightSnapshot(
            snapshot.version,
            snapshot.target_version,
            snapshot.env_steps,
            np.array(snapshot.online),
            None if target is None else np.array(target),
        )
        self._replies = {}
        async with self._published:
            self._published.notify_all()

    async def newer(
        self, version: WeightsVersion, target_version: WeightsVersion, timeout_s: float
    ) -> WeightSnapshot | list | None:
        """The newest snapshot if newer than `version`, else None after `timeout_s`.

        The target vector comes only where the caller's is older. A large snapshot
        comes as a one-element list with a reference to it.
        """
        async with self._published:
            try:
                await asyncio.wait_for(
                    self._published.wait_for(lambda: self._version > version), timeout_s
                )
            except TimeoutError:
                return None
        assert self._newest is not None
        return self._reply(with_target=self._newest.target_version > target_version)

    async def save_state(self, state: dict[str, Any]) -> None:
        """Keeps a learner's whole state for its successor and for checkpoints."""
        self._state = state

    async def load_state(self) -> dict[str, Any] | None:
        return self._state

    @property
    def _version(self) -> WeightsVersion:
        return BEFORE_ANY if self._newest is None else self._newest.version

    def _reply(self, with_target: bool) -> WeightSnapshot | list:
        if with_target not in self._replies:
            newest = self._newest
            assert newest is not None
            if not with_target:
                newest = WeightSnapshot(
                    newest.version, newest.target_version, newest.env_steps, newest.online
                )
            large = newest.online.nbytes > _INLINE_BYTES
            self._replies[with_target] = [ray.put(newest)] if large else newest
        return self._replies[with_target]
