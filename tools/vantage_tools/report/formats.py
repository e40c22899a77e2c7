"""Numbers, times and lists as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime


def percent(ratio: float) -> str:
    """0.213 -> 21 %; small ratios keep a digit."""
    value = ratio * 100
    if 0 < value < 0.1:
        return "< 0.1 %"
    return f"{value:.1f} %" if 0 < value < 9.95 else f"{value:.0f} %"


def seconds(value: float | None) -> str:
    """0.0042 -> 4.2 ms, 1.25 -> 1.25 s; a dash for None."""
    if value is None:
        return "–"
    if value < 0.9995:
        return f"{value * 1000:.{1 if value < 0.0095 else 0}f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def format_duration(seconds: float) -> str:
    """90 -> 90 s, 300 -> 5 min, 23400 -> 6 h 30 min."""
    if seconds < 120 and seconds % 60:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600 and seconds % 3600:
        return f"{round(seconds / 60)} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def count(value: float) -> str:
    """1234.6 -> 1,235."""
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """2.0 -> 2.00, 1234.6 -> 1,235."""
    return f"{value:.2f}" if value < 9.995 else count(value)


def clock(at: float | None, pattern: str = "%H:%M:%S") -> str:
    """Return the time of day in UTC; a dash for None."""
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime(pattern)


def listed(items: Iterable[str], most: int = 3) -> str:
    """a, b and c; or a, b, c and 4 more."""
    found = list(items)
    if len(found) > most:
        return f"{', '.join(found[:most])} and {len(found) - most} more"
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def with_counts(items: Iterable[tuple[str, float]]) -> str:
    """GET / (12) and POST /orders (3)."""
    return listed(f"{name} ({count(number)})" for name, number in items)


def times(number: float) -> str:
    """once, twice, 5 times."""
    whole = round(number)
    return {1: "once", 2: "twice"}.get(whole, f"{whole:,} times")


def plural(number: float, noun: str) -> str:
    """1 request, 2 requests, no requests."""
    return f"{count(number) if number >= 0.5 else 'no'} {noun}{'' if round(number) == 1 else 's'}"


def clip(text: str, most: int = 600) -> str:
    """Return the beginning of a long text and its length."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters)"


def escape(text: object) -> str:
    """Return text for Markdown, outside of code."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(str(text).split()))
