"""The statistics of the rules."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from itertools import accumulate

# Two-sided 99 %: a report makes dozens of comparisons, so every rule also asks for a minimal size of the effect.
Z = 2.576


def wilson(hits: float, total: float) -> tuple[float, float]:
    """Return the confidence interval of a ratio.

    Wilson's score interval: Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if total <= 0:
        return 0.0, 1.0
    ratio = min(max(hits / total, 0.0), 1.0)
    middle = (ratio + Z * Z / (2 * total)) / (1 + Z * Z / total)
    half = Z * math.sqrt(ratio * (1 - ratio) / total + Z * Z / (4 * total * total)) / (1 + Z * Z / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def at_least(hits: float, total: float) -> float:
    """Return the lower bound of the confidence interval of a ratio."""
    return wilson(hits, total)[0]


class Histogram:
    """Cumulative counts of requests by upper bound in seconds, the last infinite."""

    def __init__(self, buckets: Mapping[str, float]) -> None:
        counts = {float(bound): count for bound, count in buckets.items()}
        bounds = sorted(counts)
        # Extrapolated neighbours can differ a little; a cumulative count never falls.
        self.buckets = list(zip(bounds, accumulate((counts[bound] for bound in bounds), max), strict=True))
        self.total = self.buckets[-1][1] if bounds else 0.0

    def quantile(self, quantile: float) -> float | None:
        """Return seconds, interpolated as by Prometheus' histogram_quantile; None without requests."""
        if self.total <= 0:
            return None
        rank, below, low = quantile * self.total, 0.0, 0.0
        for bound, count in (bucket for bucket in self.buckets if not math.isinf(bucket[0])):
            if count >= rank:
                inside = count - below
                return low + (bound - low) * ((rank - below) / inside if inside else 1.0)
            below, low = count, bound
        return low

    def above(self, bound: float) -> float:
        """Return the number of requests beyond one of the bounds."""
        return self.total - next((count for upper, count in self.buckets if upper >= bound), self.total)

    def bound_of(self, ratio: float) -> float | None:
        """Return the smallest finite bound that at least this ratio of requests stays below."""
        least = ratio * self.total
        return next((b for b, count in self.buckets if self.total > 0 and count >= least and not math.isinf(b)), None)


def median(values: Iterable[float]) -> float:
    """Return the middle value, 0 without any."""
    return statistics.median([*values] or [0.0])
