"""What the lines show: errors that are new, and a client that sends most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from vantage_report.analyse import Facts, spoken
from vantage_report.findings import Finding
from vantage_report.words import clock, percent, times

LEAST = 3
# How much more often than before a line must be said to be news.
MORE = 5.0
MANY = 100
MOST = 0.8


def new_errors(facts: Facts, so_far: tuple[Finding, ...]) -> Iterator[Finding]:
    """Errors in an app's log that were rare or unknown before, where no failing requests tell of them."""
    told = {finding.service for finding in so_far if finding.kind == "errors"}
    for pattern in facts.patterns:
        if not pattern.severe or pattern.service not in facts.apps or pattern.service in told or pattern.short < LEAST:
            continue
        before = facts.covered(pattern.service, "base") or facts.long - facts.short
        expected = pattern.base * min(1.0, facts.short / before) if before else 0.0
        if pattern.short <= MORE * expected:
            continue
        since = f", the first at {clock(pattern.first)}" if pattern.first else ""
        yield Finding(
            "new_error", "warning", pattern.service, f"{pattern.service} logs an error that is new or far more frequent",
            f"“{pattern.said}”, {times(pattern.short)} in the last {spoken(facts.short)}{since}; "
            f"{times(pattern.base) if pattern.base else 'not once'} before.",
            ("loki", pattern.query or facts.query("patterns@short")), traces=[pattern.trace] if pattern.trace else [],
        )  # fmt: skip


def one_client(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """One address that sends most of the requests, and did not before."""
    now, before = _clients(facts, "short"), _clients(facts, "base")
    for service, addresses in now.items():
        total, earlier = sum(addresses.values()), before.get(service, {})
        if total < MANY or not earlier:
            continue
        address = max(addresses, key=lambda a: addresses[a])
        share, was = addresses[address] / total, earlier.get(address, 0.0) / sum(earlier.values())
        if share >= MOST and was <= MOST / 2:
            yield Finding(
                "one_client", "warning", service, f"{address} sends {percent(share)} of the requests to {service}",
                f"{times(addresses[address])} in the last {spoken(facts.short)}; before it had {percent(was)}.",
                ("loki", facts.query("clients@short")),
            )  # fmt: skip


def _clients(facts: Facts, window: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for series in facts.data["logs"].get(f"clients@{window}", {}).get("series", []):
        labels = series["metric"]
        found[labels.get("service_name", "")][labels.get("client_address", "")] = float(series["value"][1])
    return dict(found)
