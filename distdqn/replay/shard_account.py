"""What a replay shard tells of itself, whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distdqn.telemetry.histograms import LogHistogram
from distdqn.telemetry.reports import ReplayDiagnostics
from distdqn.types import WeightsVersion

if TYPE_CHECKING:  # the driver, which places shards, needs no numba
    from distdqn.replay.replay import Replay

_SAMPLED_PRIORITIES = 10_000


def diagnose(replay: Replay, newest: WeightsVersion) -> ReplayDiagnostics:
    """Of a replay now; newest: weights. At most 10,000 items' priorities stand for all."""
    sample = LogHistogram(replay.priorities(_SAMPLED_PRIORITIES))
    return ReplayDiagnostics(
        priorities=sample.scaled(replay.size),
        stale_fraction_10=replay.stale_fraction(newest, 10),
        stale_fraction_100=replay.stale_fraction(newest, 100),
    )
