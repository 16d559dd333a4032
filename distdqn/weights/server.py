"""The newest weights: a server that holds them, clients that ask for newer ones.

The server owns what it hands out, so weights and the learner's snapshot outlive the learner.
One question of each client is always under way there, and is answered when something newer is
published: a client never waits in its own loop, it only looks whether the answer has come.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
from typing import Any

import numpy as np
import ray

from distdqn.machine.cpu import give_way
from distdqn.types import BEFORE_ANY, WeightSnapshot, WeightsVersion

_LONG_POLL_S = 5.0
_INLINE_BYTES = 100 * 1024  # above, Ray moves a value through shared memory anyway


class WeightServer:
    """Newest `WeightSnapshot` and newest learner state.

    A vector above 100 KiB is put into shared memory once, when it is published, not once
    per reader; readers need no copy of their own.
    """

    def __init__(self) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        give_way()
        # Its vectors are references perhaps.
        self._newest = WeightSnapshot(BEFORE_ANY, BEFORE_ANY, 0, np.zeros(0, np.float32))
        self._published = asyncio.Condition()
        self._state: dict[str, Any] | None = None

    async def run(self) -> None:
        """Never returns; its failure tells of a death."""
        await asyncio.Event().wait()

    async def publish(self, snapshot: WeightSnapshot) -> None:
        """Takes a snapshot; one without target keeps the target held so far.

        An older version than the one held is dropped: it comes from a dead learner.
        """
        if snapshot.version <= self._newest.version:
            return
        target = self._newest.target if snapshot.target is None else _kept(snapshot.target)
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
                newer = self._published.wait_for(lambda: self._newest.version > version)
                await asyncio.wait_for(newer, timeout_s)
            except asyncio.TimeoutError:  # not the built-in one before Python 3.11
                return None
        is_known = self._newest.target_version <= target_version
        return dataclasses.replace(self._newest, target=None) if is_known else self._newest

    async def save_state(self, state: dict[str, Any]) -> None:
        """Keeps a learner's whole state for its successor and for checkpoints."""
        self._state = state

    async def load_state(self) -> dict[str, Any] | None:
        return self._state


class WeightClient:
    """Asks `server` for weights newer than those it got last.

    Large vectors come as views of shared memory that nobody can write to; they take room
    there for as long as they are held.
    """

    def __init__(self, server: Any):
        self._server = server
        self._version = self._target_version = BEFORE_ANY
        # Ray fulfils the future by itself: a look costs nothing, one by ray.wait 0.1 ms.
        self._asked: concurrent.futures.Future | None = None

    def poll(self, timeout_s: float = 0.0) -> WeightSnapshot | None:
        """A newer snapshot if one has come (within `timeout_s`), else None.

        Raises RayError where the server died.
        """
        if self._asked is None:
            self._asked = self._ask()
        asked = self._asked
        if not (asked.done() or (timeout_s and concurrent.futures.wait([asked], timeout_s).done)):
            return None
        snapshot: WeightSnapshot | None = asked.result()
        if snapshot is not None:
            online, target = _fetched(snapshot.online), _fetched(snapshot.target)
            snapshot = dataclasses.replace(snapshot, online=online, target=target)
            self._version = snapshot.version
            if snapshot.target is not None:
                self._target_version = snapshot.target_version
        self._asked = self._ask()
        return snapshot

    def _ask(self) -> concurrent.futures.Future:
        versions = self._version, self._target_version
        return self._server.newer.remote(*versions, _LONG_POLL_S).future()


def _fetched(vector: Any) -> Any:
    return ray.get(vector) if isinstance(vector, ray.ObjectRef) else vector


def _kept(vector: np.ndarray) -> Any:
    """A copy that belongs to this process: an array, or a reference to shared memory."""
    return ray.put(vector) if vector.nbytes > _INLINE_BYTES else np.array(vector)
