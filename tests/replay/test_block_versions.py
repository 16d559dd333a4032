"""Versions of the live items against a plain list with one entry an item."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.replay.blocks import BlockVersions
from distdqn.types import BEFORE_ANY, WeightsVersion

VERSIONS = st.builds(WeightsVersion, st.integers(0, 3), st.integers(0, 30))


def behind_of(version: WeightsVersion, newest: WeightsVersion) -> int:
    """How many versions at least lie between the two."""
    if version.incarnation < newest.incarnation:
        return newest.counter
    return newest.counter - version.counter if version.incarnation == newest.incarnation else 0


@settings(deadline=None, max_examples=80)
@given(
    blocks=st.lists(st.tuples(st.integers(1, 9), VERSIONS, st.booleans()), max_size=40),
    capacity=st.integers(5, 40),
    newest=VERSIONS,
)
def test_the_stale_share_is_that_of_a_plain_list(
    blocks: list[tuple[int, WeightsVersion, bool]], capacity: int, newest: WeightsVersion
) -> None:
    versions, items = BlockVersions(), list[WeightsVersion]()
    for num, version, restores in blocks:
        items += [version] * num
        first = max(0, len(items) - capacity)
        versions.append(len(items), version)
        versions.evict(first)
        live = items[first:]
        for behind in (0, 3, 10):
            stale = [behind_of(v, newest) > behind for v in live]
            assert versions.stale_fraction(newest, behind) == sum(stale) / len(stale)
        if restores:
            restored = BlockVersions()
            restored.set_state(versions.get_state(), first)
            versions = restored


def test_weights_before_any_are_as_old_as_the_newest_version_counts() -> None:
    versions = BlockVersions()
    assert math.isnan(versions.stale_fraction(WeightsVersion(1, 5), 0))
    versions.append(10, BEFORE_ANY)
    assert versions.stale_fraction(WeightsVersion(1, 10), 10) == 0.0
    assert versions.stale_fraction(WeightsVersion(1, 11), 10) == 1.0
    versions.append(40, WeightsVersion(1, 900))
    versions.append(50, WeightsVersion(2, 3))
    assert versions.stale_fraction(WeightsVersion(2, 3), 2) == 0.8  # both older incarnations


def test_rows_are_bounded_by_the_live_blocks_and_shared_by_neighbours() -> None:
    versions = BlockVersions()
    for block in range(10_000):
        versions.append(10 * block + 10, WeightsVersion(1, block))
        versions.evict(10 * max(0, block - 99) + 5)  # in the midst of a block
        assert len(versions) == min(block + 1, 100)
    assert versions.get_state().dtype == np.int64
    same = BlockVersions()
    for block in range(1_000):
        same.append(10 * block + 10, BEFORE_ANY)
    assert len(same) == 1
