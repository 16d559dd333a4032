"""Fetches superbatches ahead of the training thread.

One thread keeps `prefetch` superbatches requested or queued, takes whichever answer
is ready, and keeps the only account of samples and inserts: a request goes out when
the rate limiter allows it, and every request carries new insert credit to its shard.
"""

import collections
import dataclasses
import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, ObjectLostError, RayActorError

from distdqn.learning.shard_draw import draw_shard
from distdqn.rate_limiter import RateLimiter, shard_limit
from distdqn.types import (
    BEFORE_ANY,
    PriorityUpdate,
    ReplayBatch,
    SampleReply,
    ShardCounters,
    ShardMap,
)

_MAX_PRIORITY_UPDATES = 16  # unacknowledged calls at most
_GRANT_PERIOD_S = 0.01
_IDLE_S = 0.05
_SETTLE_TIMEOUT_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Superbatch:
    """A batch, and what importance weights need of the other shards.

    shard_probability: of drawing this shard; times P(item | shard) it gives P(item).
    num_items: in all shards.
    """

    batch: ReplayBatch
    shard: int
    shard_probability: float
    num_items: int


@dataclasses.dataclass(slots=True)
class _Request:
    shard: int
    epoch: int
    num_batches: int = 0  # 0: a grant without a sample
    shard_probability: float = 1.0
    num_items: int = 0


class Prefetcher:
    """The sampling side of the learner.

    limiter: the account; only the prefetch thread changes it.
    superbatch, batch_size: K and B.  prefetch: superbatches in flight or queued.
    gone_inserts: made by shard epochs that have died.

    The training thread sets:
    shards: the newest map.
    newest: the weights version that shards measure staleness against.
    collection_finished: no more inserts will come; only the samples still owed are drawn.
    """

    def __init__(
        self, limiter: RateLimiter, superbatch: int, batch_size: int, prefetch: int, seed: int
    ):
        self.limiter = limiter
        self._superbatch, self._batch_size, self._prefetch = superbatch, batch_size, prefetch
        self._rng = np.random.default_rng(seed)
        self._queue: queue.Queue[Superbatch] = queue.Queue()
        self._priorities: collections.deque[tuple[int, PriorityUpdate]] = collections.deque(
            maxlen=_MAX_PRIORITY_UPDATES  # beyond, the oldest are dropped
        )
        self._requests: dict[ray.ObjectRef, _Request] = {}
        self._updates: collections.deque[ray.ObjectRef] = collections.deque()
        self._counters: dict[int, ShardCounters] = {}
        self.gone_inserts = 0
        self._gone: set[tuple[int, int]] = set()  # (shard, epoch) that are dead
        self._map = self.shards = ShardMap()
        self._living: dict[int, Any] = {}  # handles of the map's shards that have not died
        self._next_grant = 0.0
        self.newest, self.collection_finished = BEFORE_ANY, False
        self._final = self._met_all = self._exhausted = False
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, daemon=True, name="prefetch")

    def start(self) -> None:
        self._thread.start()

    # Called by the training thread.

    def get(self, timeout_s: float) -> Superbatch | None:
        """The next superbatch, or None where none came in time."""
        if self._error is not None:
            raise self._error
        try:
            superbatch = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._wake.set()
        return superbatch

    def send_priorities(self, shard: int, update: PriorityUpdate) -> None:
        self._priorities.append((shard, update))

    @property
    def exhausted(self) -> bool:
        """Collection is over and every owed sample has been taken from the queue."""
        return self._exhausted and self._queue.empty()

    def get_state(self) -> dict[str, int]:
        """The inserts, for a successor. Not the samples: what is queued here is never learned."""
        return {"inserts": self.limiter.inserts, "gone_inserts": self.gone_inserts}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `get_state()`, with "samples" of the updates made. Call before `start`."""
        self.limiter.set_state(state)
        self.gone_inserts = state["gone_inserts"]

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=10)

    # The thread.

    def _loop(self) -> None:
        try:
            while not self._stopped.is_set():
                self._adopt_map()
                self._send_priority_updates()
                self._request_samples()
                self._request_grants()
                self._take_answers()
                self._settle()
        except BaseException as error:  # handed to the training thread
            self._error = error

    def _adopt_map(self) -> None:
        newest = self.shards
        if newest.generation > self._map.generation:
            self._map = newest
            self._note_deaths()

    def _note_deaths(self) -> None:
        """A dead shard's inserts stay counted, its items are not drawn any more."""
        members = enumerate(zip(self._map.handles, self._map.epochs, strict=True))
        self._living = {s: handle for s, (handle, e) in members if (s, e) not in self._gone}
        for shard, counters in list(self._counters.items()):
            if shard not in self._living or self._map.epochs[shard] != counters.epoch:
                self.gone_inserts += counters.inserts
                self._gone.add((shard, counters.epoch))
                del self._counters[shard]

    def _send_priority_updates(self) -> None:
        while self._updates and ray.wait([self._updates[0]], timeout=0)[0]:
            self._updates.popleft()
        while self._priorities and len(self._updates) < _MAX_PRIORITY_UPDATES:
            shard, update = self._priorities.popleft()
            if shard in self._living:
                self._updates.append(self._living[shard].update_priorities.remote(update))

    def _request_samples(self) -> None:
        pending = sum(request.num_batches for request in self._in_flight()) * self._batch_size
        while len(self._in_flight()) + self._queue.qsize() < self._prefetch:
            num_batches = self._allowed_batches(pending)
            drawn = self._draw_shard() if num_batches else None
            if drawn is None:
                return
            shard, probability, num_items = drawn
            ref = self._living[shard].sample.remote(
                num_batches, self._batch_size, self._limit(shard), self.newest
            )
            self._requests[ref] = _Request(
                shard, self._map.epochs[shard], num_batches, probability, num_items
            )
            pending += num_batches * self._batch_size

    def _allowed_batches(self, pending: int) -> int:
        """Minibatches that may be drawn now: a whole superbatch, or the last ones."""
        limiter, size = self.limiter, self._batch_size
        if self._final:
            owed = limiter.samples_owed(limiter.inserts) - limiter.samples
            allowed = int(min(owed, limiter.samples_left())) - pending
        else:
            allowed = limiter.samples_allowed() - pending
            if allowed < min(self._superbatch * size, limiter.samples_left() - pending):
                return 0  # few large messages: wait until a whole superbatch may go
        return min(self._superbatch, max(allowed, 0) // size)

    def _draw_shard(self) -> tuple[int, float, int] | None:
        """See `draw_shard`; None until every shard has answered once."""
        self._met_all = self._met_all or len(self._counters) == len(self._map.handles)
        if not self._met_all:  # the first batches are from all shards, too
            return None
        return draw_shard(list(self._counters.values()), self._rng)

    def _request_grants(self) -> None:
        """Credit for shards that no sample request reaches at the moment."""
        now = time.monotonic()
        if now < self._next_grant:
            return
        # With enough fetched nobody waits for an answer. At 100 calls a second the shard took a
        # tenth of a core from updates that use all of them.
        is_full = self._queue.qsize() >= self._prefetch
        self._next_grant = now + (_IDLE_S if is_full else _GRANT_PERIOD_S)
        reached = {request.shard for request in self._requests.values()}
        for shard, handle in self._living.items():
            if shard not in reached:
                ref = handle.grant.remote(self._limit(shard), self.newest)
                self._requests[ref] = _Request(shard, self._map.epochs[shard])

    def _limit(self, shard: int) -> int:
        """Inserts this shard may reach."""
        known = self._counters.get(shard)
        return shard_limit(
            known.inserts if known else 0,
            self.limiter.inserts,
            self.limiter.insert_limit(),
            num_shards=max(len(self._living), 1),
        )

    def _take_answers(self) -> None:
        if not self._requests:  # the queue is full, until the training thread takes from it
            self._wake.wait(_IDLE_S if self._queue.qsize() >= self._prefetch else _GRANT_PERIOD_S)
            self._wake.clear()
            return
        refs = list(self._requests)
        for ref in ray.wait(refs, num_returns=1, timeout=_GRANT_PERIOD_S, fetch_local=True)[0]:
            request = self._requests.pop(ref)
            try:
                self._take(request, ray.get(ref))
            except RayActorError as error:
                self._lose(request.shard, request.epoch, error)
            except ObjectLostError:
                pass  # the answer was on a node that died; it was never counted

    def _take(self, request: _Request, answer: SampleReply | ShardCounters) -> None:
        batch = answer.batch if isinstance(answer, SampleReply) else None
        counters = answer.counters if isinstance(answer, SampleReply) else answer
        self._observe(counters)
        if batch is not None:
            self.limiter.commit_samples(request.num_batches * self._batch_size)
            self._queue.put(
                Superbatch(batch, request.shard, request.shard_probability, request.num_items)
            )

    def _observe(self, counters: ShardCounters) -> None:
        identity = (counters.shard, counters.epoch)
        if identity in self._gone or self._map.epochs[counters.shard] != counters.epoch:
            return
        known = self._counters.get(counters.shard)
        if known is None or known.inserts <= counters.inserts:
            self._counters[counters.shard] = counters
        inserts = self.gone_inserts + sum(c.inserts for c in self._counters.values())
        self.limiter.observe_inserts(inserts)

    def _lose(self, shard: int, epoch: int, error: RayActorError) -> None:
        """Stops asking a shard that is dead; one that is cut off for now is asked again."""
        if isinstance(error, ActorUnavailableError):
            time.sleep(_GRANT_PERIOD_S)
            return
        self._gone.add((shard, epoch))
        self._note_deaths()

    def _settle(self) -> None:
        """After collection: learns the final inserts once, then notices the last sample."""
        if self.collection_finished and not self._final:
            for shard, handle in list(self._living.items()):
                ref = handle.grant.remote(self._limit(shard), self.newest)
                try:
                    self._observe(ray.get(ref, timeout=_SETTLE_TIMEOUT_S))
                except RayActorError as error:
                    self._lose(shard, self._map.epochs[shard], error)
                except GetTimeoutError:
                    return  # cut off for now; asked again in the next turn
            self._final = True
        if not self._final or self._in_flight():
            return
        if not self._allowed_batches(0) or self._draw_shard() is None:
            self._exhausted = True

    def _in_flight(self) -> list[_Request]:
        return [request for request in self._requests.values() if request.num_batches]
