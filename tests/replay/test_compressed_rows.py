"""Compressed rows give what plain ones give, and count what they take."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from distdqn.replay.frame_ring import CompressedRows, FrameRing, Rows, decompressed
from distdqn.types import ObservationSpec

lz4_block = pytest.importorskip("lz4.block")

PICTURE = ObservationSpec((20, 20), "uint8", stack=4)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Dark but for a random square, so that they shrink."""
    rng, frames = np.random.default_rng(seed), np.zeros((count, 20, 20), np.uint8)
    for frame, (x, y) in zip(frames, rng.integers(0, 16, (count, 2)), strict=True):
        frame[x : x + 4, y : y + 4] = rng.integers(0, 256, (4, 4))
    return frames


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
def test_rows_come_back_as_from_plain_ones(dtype: str) -> None:
    rng = np.random.default_rng(1)
    rows = [kind(13, dtype, (3, 5)) for kind in (Rows, CompressedRows)]
    written = rng.integers(0, 200, (13, 3, 5)).astype(dtype)
    for one in rows:
        one.write(4, written[:9])
        one.write(0, written[9:])
    for numbers in (rng.integers(91, 104, 30), rng.integers(91, 104, (2, 5, 3))):
        plain, compressed = (one.gather(numbers, 100) for one in rows)
        np.testing.assert_array_equal(plain, compressed)
        assert plain.dtype == compressed.dtype


def test_bytes_are_those_of_the_objects_held() -> None:
    rows, frames = CompressedRows(50, "uint8", (20, 20)), pictures(70)
    rows.write(0, frames[:50])
    rows.write(10, frames[50:])  # in place of twenty
    held = np.concatenate([frames[:10], frames[50:], frames[30:50]])
    sizes = [sys.getsizeof(lz4_block.compress(frame, store_size=False)) for frame in held]
    assert sum(sizes) + 50 * 8 <= rows.nbytes <= sum(sizes) + 50 * (8 + 24)
    assert rows.nbytes < held.nbytes / 2


def test_a_ring_with_compression_wraps_and_grows_like_a_plain_one() -> None:
    frames, rng = pictures(200), np.random.default_rng(2)
    rings = [FrameRing(30, PICTURE, 2, compression) for compression in ("none", "lz4")]
    for first in range(0, 200, 20):
        for ring in rings:
            assert ring.append(frames[first : first + 20], None, max(0, first - 30)) == first
        newest = rng.integers(max(3, first - 27), first + 20, (2, 15))
        depths = rng.integers(0, 4, (2, 15)).astype(np.uint8)
        first_given, second = (ring.gather(newest, depths) for ring in rings)
        np.testing.assert_array_equal(first_given, second)
    assert rings[0].capacity == rings[1].capacity > 30
    assert rings[1].nbytes < rings[0].nbytes / 2
    assert rings[1].check_valid(oldest=170) == (True, "")


@pytest.mark.parametrize("kept", ["none", "lz4"])
@pytest.mark.parametrize("restored", ["none", "lz4"])
def test_frames_move_between_plain_and_compressed_rings(kept: str, restored: str) -> None:
    frames = pictures(40)
    ring, other = (FrameRing(50, PICTURE, 2, compression) for compression in (kept, restored))
    ring.append(frames, None, oldest=0)
    state = ring.get_state(first=7)
    given = state["frames"]
    if "frame_sizes" in state:
        ends = np.cumsum(state["frame_sizes"])
        starts = ends - state["frame_sizes"]
        given = [given[a:b].tobytes() for a, b in zip(starts, ends, strict=True)]
        assert (decompressed(given[:1], "uint8", (20, 20)) == frames[7:8]).all()
    other.set_state(7, [(given, None)])
    np.testing.assert_array_equal(other.gather(np.arange(7, 40)), frames[7:])
    assert other.next_number == 40
