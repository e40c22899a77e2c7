"""Numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def percent(share: float) -> str:
    """0.213 -> 21 %; small shares keep a digit."""
    value = share * 100
    if 0 < value < 0.1:
        return "< 0.1 %"
    return f"{value:.1f} %" if 0 < value < 9.95 else f"{value:.0f} %"


def seconds(value: float | None) -> str:
    """0.0042 -> 4.2 ms, 1.25 -> 1.25 s; a dash for None."""
    if value is None:
        return "–"
    if value < 0.0095:
        return f"{value * 1000:.1f} ms"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def count(value: float) -> str:
    """1234.6 -> 1,235."""
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """Requests per second with what digits they need."""
    return f"{value:.2f}" if value < 9.995 else f"{value:,.0f}"


def clock(at: float | None, with_date: bool = False) -> str:
    """A time of day, UTC."""
    if at is None:
        return "–"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S" if with_date else "%H:%M:%S")


def listed(items: list[str], most: int = 3) -> str:
    """a, b and c; and 4 more."""
    shown, rest = items[:most], len(items) - most
    if rest > 0:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def times(number: float) -> str:
    """once, twice, 5 times."""
    whole = round(number)
    return {1: "once", 2: "twice"}.get(whole, f"{whole:,} times")
