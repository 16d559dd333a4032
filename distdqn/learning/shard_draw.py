"""Which shard the next superbatch comes from."""

from collections.abc import Sequence

import numpy as np

from distdqn.types import ShardCounters


def draw_shard(
    counters: Sequence[ShardCounters], rng: np.random.Generator
) -> tuple[int, float, int] | None:
    """A shard with probability in proportion to its mass, that, and the items of all.

    None where no shard has anything to give.
    """
    mass = np.array([c.mass for c in counters])
    if not mass.sum() > 0:
        return None
    probabilities = mass / mass.sum()
    i = int(rng.choice(len(mass), p=probabilities))
    return counters[i].shard, float(probabilities[i]), sum(c.size for c in counters)
