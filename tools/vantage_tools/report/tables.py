"""The report's tables, as rows of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from vantage_tools.report.dataset import ERROR_LEVELS, Dataset
from vantage_tools.report.formats import clip, clock, count, percent, rate, seconds
from vantage_tools.report.spans import by_operation, self_us
from vantage_tools.report.thresholds import FAST_BURN_RATE, MIN_REQUESTS

CHANGE_FACTOR, ERROR_CHANGE_FACTOR = 1.25, 1.5
MAX_ROUTES, MAX_OPERATIONS, MAX_LINES = 14, 12, 12


@dataclass
class Table:
    """Headings and rows; `numbers` are the columns that are aligned right, `empty` is shown without rows."""

    head: list[str]
    rows: list[list[str]]
    numbers: range
    empty: str


def by_service(dataset: Dataset) -> Table:
    """Return requests, errors and latency of each service in both time ranges."""
    rows = []
    for name, service in dataset.services.items():
        for window, last in dataset.last.items():
            traffic = service.all[window]
            latencies = [seconds(traffic.quantile(q)) for q in (0.5, 0.95, 0.99)]
            ratios = [percent(traffic.ratio("5")), percent(traffic.ratio("4"))]
            rows.append([name, last, count(traffic.requests), rate(traffic.rate), *ratios, *latencies])
    head = ["Service", "Time range", "Requests", "Per second", "Errors (5xx)", "Refused (4xx)", "p50", "p95", "p99"]
    return Table(head, rows, range(2, 9), "No service has request metrics in this time.")


def by_route(dataset: Dataset) -> Table:
    """Return the routes with the most requests, in the short range and before."""
    found = [
        (traffics["short"], traffics["base"], name, route)
        for name, service in dataset.services.items()
        for route, traffics in service.routes.items()
    ]
    found.sort(key=lambda item: -(item[0].requests + item[1].requests))
    rows = []
    for now, before, name, route in found[:MAX_ROUTES]:
        ratios = [percent(traffic.ratio("5")) if traffic.requests >= 0.5 else "–" for traffic in (now, before)]
        latencies = [seconds(traffic.quantile(0.95)) for traffic in (now, before)]
        rows.append([name, " ".join(route), count(now.requests), *ratios, *latencies])
    last = dataset.last["short"]
    head = ["Service", "Route", f"Requests, {last}", f"Errors, {last}", "before", f"p95, {last}", "before"]
    return Table(head, rows, range(2, 7), "No route has request metrics in this time.")


def differences(dataset: Dataset) -> list[str]:
    """Return a sentence for each service on how the short range differs from the long one."""
    found = []
    for name, service in dataset.services.items():
        now, long = service.all["short"], service.all["long"]
        if long.requests < MIN_REQUESTS:
            continue
        parts = [_difference("requests/s", now.rate, long.rate, rate, CHANGE_FACTOR)]
        if now.requests >= 1:
            parts.append(_difference("errors", now.ratio("5"), long.ratio("5"), percent, ERROR_CHANGE_FACTOR))
            for quantile in (50, 95):
                new, old = (traffic.quantile(quantile / 100) or 0.0 for traffic in (now, long))
                parts.append(_difference(f"p{quantile}", new, old, seconds, CHANGE_FACTOR))
        found.append(f"{name}: {'; '.join(parts)}.")
    return found


def _difference(what: str, now: float, before: float, shown: Callable[[float], str], factor: float) -> str:
    is_same = shown(now) == shown(before) or (before and 1 / factor < now / before < factor)
    change = "no change" if is_same else f"{'up' if now > before else 'down'} from {shown(before)}"
    return f"{what} {shown(now)} ({change})"


def self_time(dataset: Dataset) -> Table:
    """Return the self time of the sampled traces by service and operation."""
    now, before = (by_operation(dataset.sample(window)) for window in ("short", "base"))
    totals = [self_us(span for spans in sample.values() for span in spans) or 1 for sample in (now, before)]
    rows = []
    # Without recent traces, the time before is shown.
    for key, spans in sorted((now or before).items(), key=lambda item: -self_us(item[1]))[:MAX_OPERATIONS]:
        columns = [(now.get(key, []), totals[0]), (before.get(key, []), totals[1])]
        operation = key[1] + (" (database)" if any(span.database for span in spans) else "")
        row = [key[0], operation, count(len(spans))]
        row += [percent(self_us(some) / total) if some else "–" for some, total in columns]
        rows.append([*row, *(seconds(self_us(some) / len(some) / 1e6 if some else None) for some, _ in columns)])
    head = ["Service", "Operation", "Spans", "Share of self time", "before", "Self time per span", "before"]
    return Table(head, rows, range(2, 7), "There are no traces of this time.")


def patterns(dataset: Dataset) -> Table:
    """Return the most frequent patterns of log lines, those of apps first."""
    head = ["Service", "Level", "Message, numbers masked by #", *map(str.capitalize, dataset.last.values())]
    head += ["First", "Last", "Trace"]
    rows = []
    for p in (p for p in dataset.patterns if p.last):
        numbers = [count(p.short), count(p.short + p.base)]
        rows.append([p.service, p.level, clip(p.said, 200), *numbers, clock(p.first), clock(p.last), p.trace])
    return Table(head, rows, range(3, 5), "None.")


def slos(dataset: Dataset) -> Table:
    """Return the objectives with their error budgets and burn rates."""
    rows = []
    for slo in dataset.slos:
        burns = [f"{slo.burn[window]:.1f}" if window in slo.burn else "–" for window in ("5m", "1h", "6h")]
        left, state = "–", "unknown"
        if slo.left is not None:
            state = "spent" if slo.left < 0 else "burning fast" if slo.burns(FAST_BURN_RATE, "5m", "1h") else "met"
            left = percent(slo.left) if slo.left >= 0 else f"overspent by {percent(-slo.left)}"
        rows.append([slo.service, slo.goal, left, *burns, state])
    head = ["Service", "Objective", "Error budget left", "Burn rate 5 min", "1 h", "6 h", "State"]
    return Table(head, rows, range(2, 6), "Prometheus has no objectives.")


def log_volume(dataset: Dataset) -> Table:
    """Return the number of lines, warnings and errors by service in both time ranges."""
    found: dict[str, list[float]] = defaultdict(lambda: [0] * 6)
    head = ["Service"]
    for column, window in ((0, "short"), (3, "long")):
        head += [f"Lines, {dataset.last[window]}", "warnings", "errors"]
        for (service, level), number in dataset.values(f"volume@{window}", "service_name", "level").items():
            for offset, is_counted in enumerate((True, level.startswith("warn"), level in ERROR_LEVELS)):
                found[service][column + offset] += number * is_counted
    rows = [[service, *map(count, cells)] for service, cells in sorted(found.items())]
    return Table(head, rows, range(1, 7), "There are no log lines of this time.")


def filtered(dataset: Dataset) -> Table:
    """Return the JSON lines of failed requests by field, or of all requests when none failed."""
    names = ("level", "service", "http_request_method", "http_route", "http_response_status_code", "duration_ms")
    rows = []
    for at, fields in islice(dataset.parsed_lines(), MAX_LINES):
        level, service, method, route, *rest = (str(fields.get(name, "")) for name in (*names, "trace_id"))
        rows.append([clock(at), level, service, f"{method} {route}".strip(), *rest])
    head = ["Time (UTC)", "Level", "Service", "Route", "Status", "Duration, ms", "Trace"]
    return Table(head, rows, range(4, 6), "There are no JSON lines of requests.")
