"""The statistics of the rules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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


@dataclass
class Histogram:
    """Cumulative counts of requests by upper bound in seconds, the last infinite."""

    bounds: list[float]
    counts: list[float]

    @classmethod
    def of(cls, series: Iterable[dict[str, Any]]) -> Histogram:
        """Return the sum of Prometheus' series with the label `le`."""
        total: dict[float, float] = {}
        for one in series:
            bound = float(one["metric"]["le"])
            total[bound] = total.get(bound, 0.0) + float(one["value"][1])
        bounds = sorted(total)
        # Extrapolated neighbours can differ a little; a cumulative count never falls.
        counts, largest = [], 0.0
        for bound in bounds:
            largest = max(largest, total[bound])
            counts.append(largest)
        return cls(bounds, counts)

    @property
    def total(self) -> float:
        return self.counts[-1] if self.counts else 0.0

    def quantile(self, quantile: float) -> float | None:
        """Return seconds, interpolated as by Prometheus' histogram_quantile; None without requests."""
        if self.total <= 0:
            return None
        rank, below, low = quantile * self.total, 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= rank:
                if math.isinf(bound):
                    return low
                inside = count - below
                return low + (bound - low) * ((rank - below) / inside if inside else 1.0)
            below, low = count, bound
        return low

    def above(self, bound: float) -> float:
        """Return the number of requests beyond one of the bounds."""
        return self.total - next((c for b, c in zip(self.bounds, self.counts, strict=True) if b >= bound), self.total)

    def bound_of(self, ratio: float) -> float | None:
        """Return the smallest finite bound that at least this ratio of requests stays below."""
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if self.total > 0 and count >= ratio * self.total and not math.isinf(bound):
                return bound
        return None


def median(values: Iterable[float]) -> float:
    """Return the middle value, 0 without any."""
    found = sorted(values)
    half = len(found) // 2
    if not found:
        return 0.0
    return found[half] if len(found) % 2 else (found[half - 1] + found[half]) / 2
