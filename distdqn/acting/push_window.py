"""A worker's blocks under way to the shards: a bounded window.

Blocks go by value to the next shard of a rotation; shards that are dead or whose add
is still waiting for credit are passed over while another one is free. A block stays
here until it is acknowledged, so a shard that dies costs no block.
"""

import dataclasses
import time

import ray
from ray.exceptions import ActorUnavailableError, RayActorError

from distdqn.types import ShardMap, TransitionBlock


@dataclasses.dataclass(slots=True)
class _Sent:
    block: TransitionBlock
    shard: int
    epoch: int


class PushWindow:
    """At most `max_in_flight` unacknowledged blocks.

    first_shard: where the rotation starts; workers start at different ones.
    accepted, refused: transitions acknowledged so far.
    """

    def __init__(self, max_in_flight: int, first_shard: int):
        self._max_in_flight, self._first = max_in_flight, first_shard
        self._map = ShardMap()
        self._num_sent: list[int] = []
        self._sent: dict[ray.ObjectRef, _Sent] = {}
        self._homeless: list[TransitionBlock] = []
        self._dead: set[tuple[int, int]] = set()  # (shard, epoch)
        self.accepted = self.refused = 0

    @property
    def generation(self) -> int:
        return self._map.generation

    @property
    def in_flight(self) -> int:
        """Transitions not yet acknowledged."""
        sent = sum(s.block.num_transitions for s in self._sent.values())
        return sent + sum(block.num_transitions for block in self._homeless)

    @property
    def full(self) -> bool:
        return len(self._sent) + len(self._homeless) >= self._max_in_flight

    def set_shards(self, shard_map: ShardMap) -> None:
        self._map = shard_map
        self._num_sent = [0] * len(shard_map.handles)  # a revived shard need not catch up
        self._send_homeless()

    def push(self, block: TransitionBlock) -> None:
        """Sends `block`; the caller made room first."""
        assert not self.full, "push into a full window"
        self._homeless.append(block)
        self._send_homeless()

    def collect(self, timeout_s: float = 0.0) -> None:
        """Takes the acknowledgements that have come, or waits up to `timeout_s` for one."""
        if self._sent:
            refs = list(self._sent)
            ready, rest = ray.wait(refs, num_returns=1, timeout=timeout_s, fetch_local=True)
            if ready and rest:
                ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
            for ref in ready:
                self._acknowledge(ref)
        elif timeout_s:
            time.sleep(min(timeout_s, 0.05))  # nowhere to send to until a new shard map comes

    def _acknowledge(self, ref: ray.ObjectRef) -> None:
        sent = self._sent.pop(ref)
        try:
            accepted = ray.get(ref)
        except RayActorError as error:  # dead, or out of reach for now
            if not isinstance(error, ActorUnavailableError):
                self._dead.add((sent.shard, sent.epoch))
            self._homeless.append(sent.block)
            self._send_homeless()
            return
        if accepted:
            self.accepted += sent.block.num_transitions
        else:
            self.refused += sent.block.num_transitions

    def _send_homeless(self) -> None:
        while self._homeless and (shard := self._choose()) is not None:
            block = self._homeless.pop(0)
            ref = self._map.handles[shard].add.remote(block)
            self._sent[ref] = _Sent(block, shard, self._map.epochs[shard])

    def _choose(self) -> int | None:
        """The living shard without a waiting block, if there is one, that was sent least."""
        epochs = self._map.epochs
        rotation = [(self._first + i) % len(epochs) for i in range(len(epochs))]
        living = [s for s in rotation if (s, epochs[s]) not in self._dead]
        if not living:
            return None
        waiting = {sent.shard for sent in self._sent.values()}
        shard = min(living, key=lambda s: (s in waiting, self._num_sent[s]))
        self._num_sent[shard] += 1
        return shard
