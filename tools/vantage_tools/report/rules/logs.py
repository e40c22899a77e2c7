"""Rules on log lines: new errors, and a client that sends most requests."""

from __future__ import annotations

from collections import defaultdict

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, Findings
from vantage_tools.report.formats import clock, percent, plural


def new_errors(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find errors in an app's log that are new or far more frequent, unless its failing requests were reported."""
    reported = {finding.service for finding in so_far if finding.kind == "errors"}
    for pattern in dataset.patterns:
        service = pattern.service
        if not pattern.is_error or service not in dataset.apps or service in reported:
            continue
        before = dataset.covered(service, "base") or dataset.long - dataset.short
        expected = pattern.base * min(1.0, dataset.short / before)
        if pattern.short >= limit.MIN_ERROR_LINES and pattern.short > limit.ERROR_LINE_GROWTH * expected:
            first = f", the first at {clock(pattern.first)}" if pattern.first else ""
            now, was = plural(pattern.short, "line"), plural(pattern.base, "line")
            text = f"“{pattern.said}”: {now} in the {dataset.last['short']}{first}; before: {was}."
            title = f"{service} logs an error that is new or far more frequent"
            query, traces = pattern.query or dataset.query("patterns@short"), [pattern.trace] if pattern.trace else []
            yield Finding("new_error", "warning", service, title, text, query, "loki", traces=traces)


def one_client(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find a client that sends most requests of a service, and did not before."""
    now, before = _clients(dataset, "short"), _clients(dataset, "base")
    for service, addresses in now.items():
        total, earlier = sum(addresses.values()), before.get(service, {})
        if total < limit.MIN_CLIENT_REQUESTS or not earlier:
            continue
        address, requests = max(addresses.items(), key=lambda item: item[1])
        ratio, was = requests / total, earlier.get(address, 0.0) / sum(earlier.values())
        if ratio >= limit.MIN_CLIENT_SHARE and was <= limit.MAX_CLIENT_SHARE_BEFORE:
            title = f"{address} sends {percent(ratio)} of the requests to {service}"
            text = f"{plural(requests, 'request')} in the {dataset.last['short']}; before, it sent {percent(was)}."
            yield Finding("one_client", "warning", service, title, text, dataset.query("clients@short"), "loki")


def _clients(dataset: Dataset, window: str) -> dict[str, dict[str, float]]:
    """Return service -> address -> requests."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (service, address), number in dataset.values(f"clients@{window}", "service_name", "client_address").items():
        found[service][address] = number
    return found
