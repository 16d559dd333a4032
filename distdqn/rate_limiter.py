"""Keeps samples and inserts in a fixed ratio.

One account for all shards, kept by the learner; it never waits itself, it only says
what may be done now. The invariant is that of Reverb's RateLimiter, on totals.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

SMALLEST = 1e-6  # ratio; what is below could not be told from 0 as a fraction


def exact(value: float) -> Fraction:
    """The fraction of small numbers that a user writes as this float."""
    return Fraction(value).limit_denominator(round(1 / SMALLEST))


class RateLimiter:
    """The account of inserts and samples, held within a band around their ratio.

    With the totals `inserts` (items added to any shard) and `samples` (items drawn, the
    batch size per gradient step), and

        deficit = samples_per_insert * (inserts - min_size_to_sample) - samples,

    a caller that asks before it acts keeps

        -error_band <= deficit <= error_band     once latched,

    and at the end `samples = samples_owed(inserts)`. Inserts only grow, so `latched`
    turns true for good: neither eviction nor a lost shard takes it back. Blocks that
    shards accept together may overshoot the upper bound.

    Sampling: ask `samples_allowed`, count everything in flight, and commit on
    arrival. A superbatch that dies with its shard then was never counted, and a commit
    always passes because inserts only grow.

    The ratio is calculated with as a fraction of small numbers, 29/100 for 0.29: in
    binary floor(0.29 * 100) is 28, and an update would be missing at the end.
    """

    def __init__(
        self,
        samples_per_insert: float,
        min_size_to_sample: int,
        error_band: float,
        total_env_steps: int | None,
        batch_size: int,
    ) -> None:
        """total_env_steps: inserts at which workers stop, or None if not known.

        The configuration refuses what would let nothing happen.
        """
        assert min(samples_per_insert, error_band) >= SMALLEST, (samples_per_insert, error_band)
        assert min(batch_size, min_size_to_sample) >= 1, (batch_size, min_size_to_sample)
        self.samples = self.inserts = 0
        self._ratio, self._band = exact(samples_per_insert), exact(error_band)
        self._min_size, self._batch_size = min_size_to_sample, batch_size
        self._total = total_env_steps

    @property
    def latched(self) -> bool:
        """Whether inserts have reached `min_size_to_sample`."""
        return self.inserts >= self._min_size

    @property
    def achieved_samples_per_insert(self) -> float:
        """samples / (inserts - min_size_to_sample); NaN before the first counted insert."""
        counted = self.inserts - self._min_size
        return self.samples / counted if counted > 0 else math.nan

    def observe_inserts(self, total: int) -> None:
        """Takes note of the total of inserts over all shards.

        A total below one seen before is ignored: replies may overtake each other.
        """
        self.inserts = max(self.inserts, int(total))

    def samples_allowed(self) -> int:
        """Samples (those in flight included) that may follow the committed ones, at least 0.

        While latched as many as leave deficit >= -error_band and do not exceed those owed for
        `total_env_steps`. Near the end it falls below a whole superbatch: the last is shorter.
        """
        if not self.latched:
            return 0
        deficit = self._ratio * (self.inserts - self._min_size) - self.samples
        return max(0, int(min(math.floor(deficit + self._band), self.samples_left())))

    def samples_left(self) -> float:
        """Samples still to come until those owed for `total_env_steps`; inf if not known."""
        return math.inf if self._total is None else self.samples_owed(self._total) - self.samples

    def commit_samples(self, num: int) -> None:
        """Adds `num` samples; raises RuntimeError where they are more than allowed."""
        assert num >= 0, num
        if num > self.samples_allowed():
            raise RuntimeError(
                f"cannot commit {num} samples after {self.samples} samples and {self.inserts} "
                f"inserts: {self.samples_allowed()} are allowed; ask samples_allowed first"
            )
        self.samples += num

    def insert_limit(self) -> int:
        """The total of inserts that shards may reach now; never falls.

        The largest at which deficit <= error_band. `total_env_steps` bounds it through the
        samples alone: the workers' allowances hold the inserts to it, and an insert that
        was counted twice after a death must not keep an honest one out.
        """
        return math.floor(self._min_size + (self.samples + self._band) / self._ratio)

    def samples_owed(self, inserts_final: int) -> int:
        """The samples in all, from the first on, that belong to a final total of inserts.

        floor(samples_per_insert * (inserts_final - min_size_to_sample) / batch_size) whole
        batches, at least 0. What remains to be done is this minus `samples`.
        """
        batches = self._ratio * (int(inserts_final) - self._min_size) / self._batch_size
        return max(0, math.floor(batches)) * self._batch_size

    def get_state(self) -> dict[str, Any]:
        return {"samples": self.samples, "inserts": self.inserts}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.samples, self.inserts = int(state["samples"]), int(state["inserts"])


def shard_limit(shard_inserts: int, inserts: int, insert_limit: int, num_shards: int) -> int:
    """The inserts that one shard may reach: it gets an even part of those still free.

    shard_inserts, inserts: of this shard and of all, as last reported.

    A shard accepts a whole block while its inserts are below its limit, or while it is
    empty: had every item been lost at the limit, inserts would wait for samples and
    samples for items. The part is rounded up: with fewer inserts free than shards, none
    could take the last ones. Together with unused parts of older grants the parts may
    exceed the limit; the account then is ahead by that much, and newer grants smaller.
    """
    remaining = max(0, insert_limit - inserts)
    return shard_inserts + -(-remaining // num_shards)
