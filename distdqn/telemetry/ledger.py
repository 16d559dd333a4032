"""Where every transition went, over all workers and shards.

A live worker's acknowledgements are its ledger. For a dead incarnation, collected is
the highest total that any shard or control has seen, accepted and refused are what
the shards recorded, and the rest is lost with the process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Where every transition went; `collected` is the sum of the other four."""

    collected: int = 0
    accepted: int = 0
    refused: int = 0
    in_flight: int = 0
    lost: int = 0

    def plus(self, other: Ledger, times: int = 1) -> Ledger:
        """Field by field; times: -1 subtracts."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Ledger(*(ours + times * theirs for ours, theirs in pairs))


@dataclasses.dataclass(frozen=True, slots=True)
class StreamAccount:
    """What one shard epoch knows of one worker incarnation, in transitions.

    collected, worker_refused: highest running totals seen in its blocks.
    accepted, refused: by this shard epoch.
    """

    collected: int = 0
    worker_refused: int = 0
    accepted: int = 0
    refused: int = 0


def close_stream(reported: Ledger, recorded: Iterable[StreamAccount]) -> Ledger:
    """The ledger of a dead incarnation; its own last report is a lower bound.

    A block that was sent again because its shard died may be recorded twice, by the
    dead shard and by the one that took it: accepted is cut to what was collected.
    """
    recorded = list(recorded)
    collected = max([reported.collected, *(r.collected for r in recorded)])
    own = max([r.worker_refused for r in recorded], default=0)
    refused = max(reported.refused, own + sum(r.refused for r in recorded))
    accepted = max(reported.accepted, sum(r.accepted for r in recorded))
    accepted = min(accepted, collected - refused)
    return Ledger(collected, accepted, refused, 0, collected - accepted - refused)
