"""The account of samples and inserts, and that no order of events deadlocks it."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.rate_limiter import RateLimiter, shard_limit

RATIOS = {0.29: Fraction(29, 100), 1 / 3: Fraction(1, 3), 1.0: Fraction(1), 12.8: Fraction(64, 5)}


def cleanrl_limiter() -> RateLimiter:
    """CleanRL's CartPole: 49,000 updates of 128 for 490,000 counted inserts."""
    return RateLimiter(12.8, 10_000, 25_600, total_env_steps=500_000, batch_size=128)


def test_samples_owed_are_the_published_number_of_updates() -> None:
    limiter = cleanrl_limiter()
    assert limiter.samples_owed(500_000) == 49_000 * 128
    assert limiter.samples_owed(10_009) == 0
    assert limiter.samples_owed(10_010) == 128
    assert limiter.samples_owed(10) == 0


def test_samples_owed_follow_the_decimal_that_the_user_wrote() -> None:
    assert math.floor(0.29 * 100) == 28  # what binary would make of it
    assert RateLimiter(0.29, 1, 10, None, 1).samples_owed(101) == 29
    assert RateLimiter(1 / 3, 1, 10, None, 1).samples_owed(31) == 10


def test_nothing_is_sampled_before_the_minimal_size() -> None:
    limiter = cleanrl_limiter()
    limiter.observe_inserts(9_999)
    assert not limiter.latched and limiter.samples_allowed() == 0
    limiter.observe_inserts(10_000)
    assert limiter.latched and limiter.samples_allowed() == 25_600


def test_the_minimal_size_latches_and_late_reports_are_ignored() -> None:
    limiter = cleanrl_limiter()
    limiter.observe_inserts(10_000)
    limiter.observe_inserts(8_000)
    assert limiter.latched and limiter.inserts == 10_000


def test_inserts_stop_at_the_band_and_samples_release_them() -> None:
    limiter = cleanrl_limiter()
    assert limiter.insert_limit() == 10_000 + 2_000  # 25,600 samples are worth 2,000 inserts
    limiter.observe_inserts(12_000)
    limiter.commit_samples(12_800)
    assert limiter.insert_limit() == 10_000 + 3_000


def test_the_last_samples_are_those_owed_although_the_band_would_allow_more() -> None:
    limiter = RateLimiter(1.0, 10, 1_000, total_env_steps=51, batch_size=2)
    limiter.observe_inserts(51)
    assert limiter.samples_allowed() == limiter.samples_left() == 40
    limiter.commit_samples(40)
    assert limiter.samples_allowed() == 0
    assert limiter.samples_left() == 0
    assert limiter.achieved_samples_per_insert == 40 / 41


def test_the_achieved_ratio_is_unknown_before_the_first_counted_insert() -> None:
    limiter = cleanrl_limiter()
    limiter.observe_inserts(10_000)
    assert math.isnan(limiter.achieved_samples_per_insert)


def test_without_a_total_samples_have_no_end() -> None:
    limiter = RateLimiter(1.0, 10, 100, total_env_steps=None, batch_size=2)
    assert limiter.samples_left() == math.inf and limiter.insert_limit() == 110


def test_a_commit_that_was_not_allowed_is_refused() -> None:
    limiter = cleanrl_limiter()
    with pytest.raises(RuntimeError, match=r"cannot commit 128 samples .* 0 are allowed"):
        limiter.commit_samples(128)
    with pytest.raises(AssertionError, match="-1"):
        limiter.commit_samples(-1)


@pytest.mark.parametrize("name", ["samples_per_insert", "error_band"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_ratio_or_band_that_blocks_everything_is_refused(name: str, value: float) -> None:
    arguments = {"samples_per_insert": 1.0, "error_band": 10.0, name: value}
    with pytest.raises(AssertionError, match=str(value)):
        RateLimiter(min_size_to_sample=1, total_env_steps=None, batch_size=1, **arguments)


def test_an_empty_minimal_size_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"\(1, 0\)"):
        RateLimiter(1.0, 0, 10, None, 1)


def test_a_restored_limiter_goes_on_where_the_saved_one_stopped() -> None:
    limiter = cleanrl_limiter()
    limiter.observe_inserts(20_000)
    limiter.commit_samples(12_800)
    restored = cleanrl_limiter()
    restored.set_state(limiter.get_state())
    assert restored.latched
    assert restored.insert_limit() == limiter.insert_limit()
    assert restored.samples_allowed() == limiter.samples_allowed()


@settings(deadline=None, max_examples=60)
@given(
    ratio=st.sampled_from(sorted(RATIOS)),
    min_size=st.integers(1, 20),
    band=st.integers(1, 60),
    total=st.none() | st.integers(1, 200),
    batch_size=st.integers(1, 5),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=30),
)
def test_the_limiter_does_what_its_formula_says(
    ratio: float,
    min_size: int,
    band: int,
    total: int | None,
    batch_size: int,
    steps: list[tuple[bool, int]],
) -> None:
    limiter = RateLimiter(ratio, min_size, band, total, batch_size)
    inserts = samples = 0
    latched = False

    def deficit(inserts: int, samples: int) -> Fraction:
        return RATIOS[ratio] * (inserts - min_size) - samples

    def allowed(num: int) -> bool:
        owed = None if total is None else deficit(total, 0) // batch_size * batch_size
        within_total = owed is None or samples + num <= max(0, owed)
        return num == 0 or (latched and deficit(inserts, samples + num) >= -band and within_total)

    for is_insert, amount in steps:
        if is_insert:
            inserts += amount
            latched = latched or inserts >= min_size
            limiter.observe_inserts(inserts)
        elif allowed(amount):
            samples += amount
            limiter.commit_samples(amount)
        granted = limiter.samples_allowed()
        assert [n <= granted for n in range(40)] == [allowed(n) for n in range(40)]
        limit = limiter.insert_limit()
        assert deficit(limit, samples) <= band < deficit(limit + 1, samples)
        assert (limiter.inserts, limiter.samples) == (inserts, samples)


def test_the_last_inserts_are_granted_to_fewer_shards_than_there_are() -> None:
    assert shard_limit(shard_inserts=7, inserts=20, insert_limit=21, num_shards=4) == 8
    assert shard_limit(shard_inserts=7, inserts=20, insert_limit=20, num_shards=4) == 7
    assert shard_limit(shard_inserts=7, inserts=25, insert_limit=20, num_shards=4) == 7


@dataclasses.dataclass(frozen=True)
class Parts:
    """Sizes of a system of workers, shards and a learner with prefetch."""

    ratio: float
    min_size: int
    total: int
    num_shards: int
    block: int
    prefetch: int
    superbatch: int
    batch_size: int
    capacity: int  # items per shard
    losses: int = 0  # how many shards may die
    band: float | None = None

    @property
    def smallest_band(self) -> float:
        inserts_step = self.num_shards * self.block * RATIOS[self.ratio]
        samples_step = self.prefetch * self.superbatch * self.batch_size
        return 2 * max(float(inserts_step), float(samples_step))


@dataclasses.dataclass(frozen=True)
class Moment:
    """One state of that system; `reported` is what the learner knows of `inserts`.

    inserts, reported, limits, items: per shard.  requests: (shard, samples) in flight.
    """

    steps_left: int
    inserts: tuple[int, ...]
    reported: tuple[int, ...]
    limits: tuple[int, ...]
    items: tuple[int, ...]
    requests: tuple[tuple[int, int], ...] = ()
    samples: int = 0
    losses: int = 0


def put(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])


@functools.cache
def limiter_of(parts: Parts) -> RateLimiter:
    band = parts.smallest_band if parts.band is None else parts.band
    return RateLimiter(parts.ratio, parts.min_size, band, parts.total, parts.batch_size)


def limiter_at(parts: Parts, now: Moment) -> RateLimiter:
    limiter = limiter_of(parts)
    limiter.set_state({"samples": now.samples, "inserts": sum(now.reported)})
    return limiter


def start(parts: Parts) -> Moment:
    zeros = (0,) * parts.num_shards
    return Moment(parts.total, zeros, zeros, zeros, zeros)


def shard_moves(parts: Parts, now: Moment) -> Iterator[tuple[str, Moment]]:
    """A shard accepts a block, or dies and comes back empty with nothing in flight."""
    for s in range(parts.num_shards):
        if now.steps_left and (now.inserts[s] < now.limits[s] or now.items[s] == 0):
            num = min(parts.block, now.steps_left)
            after = dataclasses.replace(
                now,
                steps_left=now.steps_left - num,
                inserts=put(now.inserts, s, now.inserts[s] + num),
                items=put(now.items, s, min(parts.capacity, now.items[s] + num)),
            )
            yield "add", after
        if now.losses < parts.losses and now.items[s] and now.steps_left:
            kept = tuple(request for request in now.requests if request[0] != s)
            items, losses = put(now.items, s, 0), now.losses + 1
            yield "lose", dataclasses.replace(now, items=items, requests=kept, losses=losses)


def learner_moves(parts: Parts, now: Moment) -> Iterator[tuple[str, Moment]]:
    """The learner requests a superbatch, takes one in, or gives a shard its credit."""
    limiter = limiter_at(parts, now)
    in_flight = sum(num for _, num in now.requests)
    owed = limiter.samples_owed(parts.total) - now.samples - in_flight
    wanted = min(parts.superbatch * parts.batch_size, owed)  # never less before the end
    asks = wanted > 0 and len(now.requests) < parts.prefetch
    if asks and in_flight + wanted <= limiter.samples_allowed():
        for s in range(parts.num_shards):
            if now.items[s]:
                yield "request", dataclasses.replace(now, requests=(*now.requests, (s, wanted)))
    for i, (_, num) in enumerate(now.requests):
        assert num <= limiter.samples_allowed()
        requests = now.requests[:i] + now.requests[i + 1 :]
        yield "deliver", dataclasses.replace(now, requests=requests, samples=now.samples + num)
    for s in range(parts.num_shards):
        reported = put(now.reported, s, now.inserts[s])
        free = sum(reported), limiter.insert_limit()
        limits = put(now.limits, s, shard_limit(now.inserts[s], *free, parts.num_shards))
        if (reported, limits) != (now.reported, now.limits):
            yield "grant", dataclasses.replace(now, reported=reported, limits=limits)


def moves(parts: Parts, now: Moment) -> list[tuple[str, Moment]]:
    """Every event that may come next and changes something."""
    return [*shard_moves(parts, now), *learner_moves(parts, now)]


def assert_finished(parts: Parts, now: Moment) -> None:
    counted = RATIOS[parts.ratio] * (parts.total - parts.min_size)
    owed = counted // parts.batch_size * parts.batch_size
    assert (now.steps_left, now.requests, now.samples) == (0, (), max(0, owed)), now


def reachable_ends(parts: Parts) -> tuple[int, list[Moment]]:
    """How many states the system can be in, and those in which nothing can happen."""
    seen = {start(parts)}
    todo = list(seen)
    ends = []
    while todo:
        now = todo.pop()
        successors = {after for _, after in moves(parts, now)}
        if not successors:
            ends.append(now)
        todo += successors - seen
        seen |= successors
    return len(seen), ends


ONE_SHARD = Parts(1.0, 3, 13, 1, 2, 2, 1, 2, capacity=4, losses=1)
TWO_SHARDS = Parts(1.0, 2, 8, 2, 1, 1, 1, 2, capacity=2, losses=1)


@pytest.mark.parametrize("parts", [ONE_SHARD, TWO_SHARDS], ids=["one shard", "two shards"])
def test_every_order_of_events_ends_with_all_inserts_and_all_samples_owed(parts: Parts) -> None:
    num_states, ends = reachable_ends(parts)
    assert num_states > 1_000
    assert ends
    for end in ends:
        assert_finished(parts, end)


def test_the_search_finds_the_deadlock_of_a_band_that_is_too_small() -> None:
    _, ends = reachable_ends(dataclasses.replace(ONE_SHARD, superbatch=4, band=1.0))
    assert any(end.steps_left > 0 for end in ends)


@settings(deadline=None, max_examples=40)
@given(
    ratio=st.sampled_from(sorted(RATIOS)),
    sizes=st.tuples(*[st.integers(1, 4)] * 3, st.integers(1, 8)),
    batch_size=st.integers(1, 32),
    block=st.integers(1, 16),  # an example of 64 takes 4 s, forty of them a time limit
    min_size=st.integers(1, 100),
    eagerness=st.tuples(*[st.sampled_from([1, 10, 100])] * 4),
    seed=st.integers(0, 1_000),
)
def test_no_random_order_of_events_deadlocks_or_leaves_the_band(
    ratio: float,
    sizes: tuple[int, int, int, int],
    batch_size: int,
    block: int,
    min_size: int,
    eagerness: tuple[int, ...],
    seed: int,
) -> None:
    num_shards, prefetch, losses, superbatch = sizes
    parts = Parts(
        *(ratio, min_size, min_size + 30 * block, num_shards, block, prefetch),
        *(superbatch, batch_size),
        capacity=1 + min_size // num_shards,
        losses=losses,
    )
    band = Fraction(parts.smallest_band).limit_denominator(1_000)  # 76.8 as a float is too little
    weights = dict(zip(("add", "grant", "request", "deliver"), eagerness, strict=True))
    rng = random.Random(seed)
    now = start(parts)
    while options := moves(parts, now):
        _, now = rng.choices(options, [weights.get(kind, 1) for kind, _ in options])[0]
        deficit = RATIOS[ratio] * (sum(now.inserts) - min_size) - now.samples
        assert now.samples == 0 or deficit >= -band
        if num_shards == 1:
            overshoot = block * (1 + now.losses) * RATIOS[ratio]
            assert deficit <= band + overshoot
    assert_finished(parts, now)
