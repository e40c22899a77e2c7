"""The little statistics that findings stand on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Two-sided 99 %: with a few dozen comparisons a report, one in a hundred wrong would be wrong too often already;
# every rule therefore asks for a minimal size of the effect as well.
Z = 2.576


def wilson(hits: float, of: float) -> tuple[float, float]:
    """The interval that holds the true share, from `hits` of so many.

    Wilson's score interval: Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if of <= 0:
        return 0.0, 1.0
    share = min(max(hits / of, 0.0), 1.0)
    middle = (share + Z * Z / (2 * of)) / (1 + Z * Z / of)
    half = Z * math.sqrt(share * (1 - share) / of + Z * Z / (4 * of * of)) / (1 + Z * Z / of)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass
class Histogram:
    """Counts of requests up to each bound, in seconds, the last being infinite."""

    bounds: list[float]
    counts: list[float]

    @classmethod
    def of(cls, series: Iterable[dict[str, Any]]) -> Histogram:
        """The sum of Prometheus' series with the label `le`."""
        total: dict[float, float] = {}
        for one in series:
            bound = float(one["metric"]["le"])
            total[bound] = total.get(bound, 0.0) + float(one["value"][1])
        bounds = sorted(total)
        # Extrapolation makes neighbours differ by a hair; a cumulative count never falls.
        counts, largest = [], 0.0
        for bound in bounds:
            largest = max(largest, total[bound])
            counts.append(largest)
        return cls(bounds, counts)

    @property
    def total(self) -> float:
        return self.counts[-1] if self.counts else 0.0

    def quantile(self, share: float) -> float | None:
        """Seconds, interpolated in the bucket as Prometheus' histogram_quantile does; None without requests."""
        if self.total <= 0:
            return None
        rank, below, low = share * self.total, 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= rank:
                if math.isinf(bound):
                    return low
                inside = count - below
                return low + (bound - low) * ((rank - below) / inside if inside else 1.0)
            below, low = count, bound
        return low

    def above(self, bound: float) -> float:
        """How many took longer than one of the bounds."""
        return self.total - next((c for b, c in zip(self.bounds, self.counts, strict=True) if b >= bound), self.total)

    def bound_of(self, share: float) -> float | None:
        """The smallest finite bound that at least this share stays below."""
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if self.total > 0 and count >= share * self.total and not math.isinf(bound):
                return bound
        return None


def median(values: Iterable[float]) -> float:
    """The middle value, 0 without any."""
    found = sorted(values)
    if not found:
        return 0.0
    half = len(found) // 2
    return found[half] if len(found) % 2 else (found[half - 1] + found[half]) / 2
