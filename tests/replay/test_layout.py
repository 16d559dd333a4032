"""What a replay takes, as figures and as one line, and what is refused before the start."""

from __future__ import annotations

import dataclasses
import importlib.util
import math

import pytest

from distdqn.config import Config
from distdqn.errors import ConfigError
from distdqn.replay.layout import (
    ITEM,
    check_compression,
    memory_budget,
    planned_frames_per_item,
    replay_bytes,
)
from distdqn.run.factory import Factory
from distdqn.types import ObservationSpec

ATARI = ObservationSpec((84, 84), "uint8", stack=4)


def factory_of(observation: ObservationSpec, **replay: object) -> Factory:
    config = Config()
    config = dataclasses.replace(
        config,
        replay=dataclasses.replace(config.replay, kind="uniform", **replay),  # type: ignore[arg-type]
        workers=dataclasses.replace(config.workers, envs_per_worker=8, block_transitions=512),
        learner=dataclasses.replace(config.learner, n_step=3),
    )
    return Factory(config, observation, 4, 0, None)


def test_an_item_fits_into_half_a_cache_line() -> None:
    assert ITEM.itemsize == 32


def test_the_budget_of_atari_is_counted_by_hand_and_fits_in_a_line() -> None:
    budget = memory_budget([100_000], ATARI, 4, prioritized=False, frames_per_item=1.125)
    assert budget.in_all == budget.per_shard == 100_000 * 32 + 112_500 * 7_056
    assert budget.per_transition == 32 + 7_938
    assert budget.line() == (
        "replay: 7,970 bytes per transition (56,448 as plain copies), 760 MiB per shard, "
        "760 MiB in all"
    )


def test_shards_of_unequal_size_add_up() -> None:
    spec = ObservationSpec((4,), "float32")
    budget = memory_budget([4, 3, 3], spec, 2, prioritized=True, frames_per_item=2.0)
    sizes = [replay_bytes(items, spec, 2, True, 2.0) for items in (4, 3, 3)]
    assert (budget.in_all, budget.per_shard) == (sum(sizes), sizes[0])
    assert budget.per_transition_copied == 32


def test_compressed_frames_are_said_to_be_bounded() -> None:
    budget = memory_budget([5 * 10**6] * 2, ATARI, 4, False, 1.0, compression="lz4")
    assert budget.line().endswith("33 GiB per shard, 66 GiB in all, at most: lz4 needs less")


def test_atari_blocks_of_64_steps_stay_below_the_promise() -> None:
    for capacity in (200_000, 1_000_000):
        factory = factory_of(ATARI, capacity=capacity)
        repeated = (4 - 1 + 3) / 64
        # A game of 200 steps has a frame more than transitions; so has a block not yet gone.
        needed = (1 + repeated + 1 / 200) * (capacity + 512)
        planned = factory.frames_per_item() * capacity
        assert needed < planned
        assert factory.memory_budget().per_transition <= 7_900
        assert factory.memory_budget().in_all == factory.replay_bytes()


def test_frames_are_planned_by_hand() -> None:
    # Blocks of 512, 8 envs: 3 + 3 frames each are repeated, and two blocks are held of one.
    assert planned_frames_per_item(512, 4, 3, 8, 512) == pytest.approx((1.01 + 48 / 512) * 2)
    # One env, single frames, n = 1: one repeated, one in five for episodes' ends.
    assert planned_frames_per_item(1_000, 1, 1, 1, 10) == pytest.approx((1.2 + 0.1) * 1.01)


def test_with_compression_only_what_cannot_fit_is_refused() -> None:
    plain, small = (factory_of(ATARI, capacity=10**6, compression=x) for x in ("none", "lz4"))
    num_frames = math.ceil(10**6 * small.frames_per_item())
    # A twenty-fifth of the picture, and 72 bytes for the object that holds it.
    expected = 10**6 * 32 + num_frames * (0.04 * 84 * 84 + 72)
    assert small.replay_bytes() == pytest.approx(expected, abs=1)
    assert small.memory_budget().in_all == plain.memory_budget().in_all


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_compression("none", ATARI)
    with pytest.raises(ConfigError, match=r"lz4 \(extra compression\).* pip install ") as caught:
        check_compression("lz4", ATARI)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [((4,), "float32", "16"), ((10, 10, 4), "uint8", "400"), ((1_023,), "uint8", "1,023")],
)
def test_small_frames_are_not_compressed(shape: tuple[int, ...], dtype: str, size: str) -> None:
    small = ObservationSpec(shape, dtype)
    check_compression("none", small)
    with pytest.raises(ConfigError, match=f"at least 1,024 bytes, got {size}: .* none$") as caught:
        check_compression("lz4", small)
    assert "\n" not in str(caught.value)


def test_a_frame_of_the_least_size_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    check_compression("lz4", ObservationSpec((256,), "float32"))
