"""Histograms of bounded size, mergeable, with quantiles."""

from __future__ import annotations

import copy
import math

import numpy as np

_NUM_COUNTS = 1024


class CountHistogram:
    """Counts of small non-negative integers, the last bin open.

    Bounded whatever is observed; `quantile` is exact below 1,023.
    """

    def __init__(self, counts: np.ndarray | None = None):
        self.counts = np.zeros(_NUM_COUNTS, np.int64) if counts is None else counts

    def observe(self, value: int, weight: int = 1) -> None:
        self.counts[min(max(value, 0), len(self.counts) - 1)] += weight

    def quantile(self, q: float) -> float:
        """Smallest value with at least the share `q` of the counts at or below it."""
        total = self.counts.sum()
        if not total:
            return math.nan
        return float(np.searchsorted(np.cumsum(self.counts), q * total))


class LogHistogram:
    """Counts of non-negative numbers in bins a factor 2^(1/4) wide, from 1e-6 to 1e6.

    What lies below shares one bin with 0, what lies above another, and so do infinity and NaN: a
    histogram that dropped them would look healthy. Counts may be fractions, as after `scaled`.

    counts: `[162]` float64, the first and last bin open.
    largest: of all observed, exactly; NaN before any, infinite once one was NaN.
    """

    EDGES = 1e-6 * 2.0 ** (np.arange(161) / 4)  # the last is 1.07e6

    def __init__(self, values: np.ndarray | None = None):
        """values: `[B]` to begin with."""
        self.counts = np.zeros(len(self.EDGES) + 1)
        self.largest = math.nan
        if values is not None and len(values):
            values = np.where(np.isnan(values), math.inf, values)
            bins = np.searchsorted(self.EDGES, values, side="right")
            self.counts += np.bincount(bins, minlength=len(self.counts))
            self.largest = float(values.max())

    @property
    def total(self) -> float:
        return float(self.counts.sum())

    def scaled(self, total: float) -> LogHistogram:
        """The same shape with counts that sum to `total`: a sample stands for all."""
        scaled = copy.copy(self)
        if self.total:
            scaled.counts = self.counts * (total / self.total)
        return scaled

    def merged(self, other: LogHistogram) -> LogHistogram:
        merged = LogHistogram()
        merged.counts = self.counts + other.counts
        merged.largest = float(np.fmax(self.largest, other.largest))
        return merged

    def quantile(self, q: float) -> float:
        """Geometric middle of the bin that `q` falls into, 9 percent off at most; never
        above `largest`. 0 in the lowest bin, `largest` in the highest, NaN without values.
        """
        if not self.total:
            return math.nan
        reached = np.cumsum(self.counts)
        index = int(np.searchsorted(reached, q * reached[-1]))
        if index == 0:
            return 0.0
        if index >= len(self.EDGES):
            return self.largest
        return float(min(self.EDGES[index] * 2.0**-0.125, self.largest))

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts `[n]` and their edges `[n + 1]`, from the first bin in use to the last.

        The edges are finite: the lowest bin begins at 0, the highest ends at `largest`, or
        at twice its lower edge where that is infinite. Both are empty without values.
        """
        used = np.flatnonzero(self.counts)
        if not len(used):
            return np.zeros(0), np.zeros(0)
        top = max(self.EDGES[-1] * 2.0, self.largest if math.isfinite(self.largest) else 0.0)
        edges = np.concatenate([[0.0], self.EDGES, [top]])
        first, last = used[0], used[-1] + 1
        return self.counts[first:last], edges[first : last + 1]
