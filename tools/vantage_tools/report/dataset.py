"""The collected data: requests by service and route in each time range, traces, log patterns and objectives."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vantage_tools.report.spans import Trace
from vantage_tools.report.stats import Histogram
from vantage_tools.report.thresholds import DEFAULT_LATENCY_THRESHOLD

# `base` is the long range without the short one.
WINDOWS = ("short", "base", "long")
ERROR_LEVELS = ("error", "critical", "fatal")


@dataclass
class Traffic:
    """Requests of a service or a route in one time range."""

    seconds: float = 0.0
    by_status: dict[str, float] = field(default_factory=dict)
    histogram: Histogram = field(default_factory=lambda: Histogram([], []))

    def count(self, first_digit: str = "") -> float:
        """Return the number of requests whose status begins with this digit."""
        return sum(number for status, number in self.by_status.items() if status.startswith(first_digit))

    @property
    def requests(self) -> float:
        return self.count()

    @property
    def rate(self) -> float:
        """Return requests per second since the service was first scraped."""
        return self.requests / self.seconds if self.seconds else 0.0

    def ratio(self, first_digit: str) -> float:
        """Return the ratio of requests whose status begins with this digit."""
        return self.count(first_digit) / self.requests if self.requests else 0.0

    def quantile(self, quantile: float) -> float | None:
        """Return the latency in seconds."""
        return self.histogram.quantile(quantile)


Route = tuple[str, str]
ByWindow = dict[str, Traffic]


def _by_window() -> ByWindow:
    return {window: Traffic() for window in WINDOWS}


@dataclass
class Service:
    """An app with its traffic in all time ranges."""

    name: str
    all: ByWindow = field(default_factory=_by_window)
    routes: dict[Route, ByWindow] = field(default_factory=lambda: defaultdict(_by_window))


@dataclass
class Pattern:
    """Log lines that differ only in their numbers; times in seconds since 1970."""

    service: str
    level: str
    said: str
    short: int = 0
    base: int = 0
    first: float | None = None
    last: float | None = None
    example: str = ""
    trace: str = ""
    query: str = ""

    @property
    def count(self) -> int:
        return self.short + self.base

    @property
    def is_error(self) -> bool:
        return self.level in ERROR_LEVELS


@dataclass
class Slo:
    """One objective of one service."""

    service: str
    kind: str
    objective: float
    threshold: float | None
    left: float | None
    burn: dict[str, float]

    def burns(self, threshold: float, *windows: str) -> bool:
        """Whether the burn rate is above the threshold in each of the windows."""
        return all(self.burn.get(window, 0.0) > threshold for window in windows)


def series_key(labels: dict[str, str]) -> tuple[str, Route]:
    """Return the service and route of a series."""
    return labels.get("service_name", ""), (labels.get("http_request_method", ""), labels.get("http_route", ""))


class Dataset:
    """The collected data of one report."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.meta = data["meta"]
        self.short, self.long, self.end = (float(self.meta[key]) for key in ("short", "long", "end"))
        self.engines: dict[str, dict[str, Any]] = data["engines"]

    def begin(self, window: str) -> float:
        """Return when a time range begins."""
        return self.end - (self.short if window == "short" else self.long)

    # -- Answers

    def series(self, name: str) -> list[dict[str, Any]]:
        """Return the series of a query to Prometheus."""
        return list(self.data["metrics"].get(name, {}).get("series", []))

    def values(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of an instant query, summed by some labels."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for series in self.series(name):
            found[tuple(series["metric"].get(label, "") for label in labels)] += float(series["value"][1])
        return dict(found)

    def by_label(self, name: str, label: str = "service_name") -> dict[str, float]:
        """Return the values of an instant query, summed by one label."""
        return {key: value for (key,), value in self.values(name, label).items()}

    def query(self, name: str) -> str:
        """Return the query behind a name."""
        return str((self.data["metrics"].get(name) or self.data["logs"].get(name) or {}).get("query", ""))

    def timeline(self, name: str, window: str) -> dict[str, list[tuple[float, float]]]:
        """Return the points (time, value) of a plot by service, without NaN."""
        found: dict[str, list[tuple[float, float]]] = {}
        for series in self.series(f"{name}~{window}"):
            points = [(float(at), float(value)) for at, value in series["values"]]
            if kept := [(at, value) for at, value in points if value == value]:
                found[series["metric"].get("service_name", "")] = kept
        return dict(sorted(found.items()))

    def step(self, window: str) -> float:
        """Return the seconds between the points of a plot."""
        return float(self.data["metrics"].get(f"rate~{window}", {}).get("step", 15))

    # -- Services

    @cached_property
    def instances(self) -> dict[str, list[str]]:
        """Return the instances of each app, one a replica."""
        found: dict[str, list[str]] = {}
        for labels in (series["metric"] for series in self.series("up")):
            if labels.get("job") == "apps":
                found.setdefault(labels.get("service_name", ""), []).append(labels.get("instance", ""))
        return found

    @cached_property
    def services(self) -> dict[str, Service]:
        """Return every app that Prometheus knows, by name."""
        found = {name: Service(name) for name in sorted(self.instances) if name}
        for window in WINDOWS:
            self._count_requests(found, window)
            buckets: dict[tuple[str, Route], list[dict[str, Any]]] = defaultdict(list)
            for series in self.series(f"buckets@{window}"):
                buckets[series_key(series["metric"])].append(series)
            for name, service in found.items():
                own = [series for (owner, _), many in buckets.items() if owner == name for series in many]
                service.all[window].histogram = Histogram.of(own)
                for route, traffics in service.routes.items():
                    traffics[window].histogram = Histogram.of(buckets.get((name, route), []))
                for traffic in (service.all[window], *(traffics[window] for traffics in service.routes.values())):
                    traffic.seconds = self.covered(name, window)
        return dict(sorted(found.items()))

    def _count_requests(self, found: dict[str, Service], window: str) -> None:
        for series in self.series(f"requests@{window}"):
            name, route = series_key(series["metric"])
            if name:
                service = found.setdefault(name, Service(name))
                status = series["metric"].get("http_response_status_code", "")
                for traffic in (service.all[window], service.routes[route][window]):
                    traffic.by_status[status] = traffic.by_status.get(status, 0.0) + float(series["value"][1])

    def covered(self, service: str, window: str) -> float:
        """Return the seconds of a time range since the service was first scraped."""
        first = self.first_seen.get(service, self.begin(window))
        end = self.end - (self.short if window == "base" else 0)
        return max(0.0, end - max(first, self.begin(window)))

    @cached_property
    def first_seen(self) -> dict[str, float]:
        """Return the first scrape of each service within the long range."""
        return self.by_label("first_seen")

    @cached_property
    def apps(self) -> list[str]:
        """Return the services that serve requests, by metrics or by traces."""
        traced = {service for trace in self.sample("short") + self.sample("base") for service in trace.services}
        return sorted({*self.services, *traced})

    # -- Traces

    @cached_property
    def traces(self) -> dict[str, list[Trace]]:
        """Return all traces, by the search that found them."""
        return {name: [Trace(spans) for spans in traces] for name, traces in self.data["traces"].items()}

    def sample(self, window: str) -> list[Trace]:
        """Return traces that were taken regardless of what happened in them."""
        return self.traces.get(window, [])

    def extremes(self, kind: str, window: str) -> list[Trace]:
        """Return the `slow` or `failed` traces of a time range."""
        return self.traces.get(f"{kind}@{window}", [])

    def failed_traces(self, service: str) -> list[Trace]:
        """Return the traces of the short range in which the service failed."""
        failed = self.extremes("failed", "short")
        return [trace for trace in failed if any(s.service == service and s.failed for s in trace.spans)]

    # -- Logs

    def log_series(self, name: str) -> list[dict[str, Any]]:
        """Return the series of a count of lines."""
        return list(self.data["logs"].get(name, {}).get("series", []))

    @cached_property
    def patterns(self) -> list[Pattern]:
        """Return the patterns above info: of apps first, then errors, then the most frequent."""
        found: dict[tuple[str, str, str], Pattern] = {}
        for window in ("short", "base"):
            for series in self.log_series(f"patterns@{window}"):
                service, level, said = (series["metric"].get(label, "") for label in ("service_name", "level", "said"))
                pattern = found.setdefault((service, level, said), Pattern(service, level, said))
                setattr(pattern, window, getattr(pattern, window) + round(float(series["value"][1])))
        for text, entry in self.data["logs"].get("examples", {}).get("patterns", {}).items():
            example = found.get(tuple(json.loads(text)))
            if example is None:
                continue
            example.query = entry["query"]
            for which in ("first", "last"):
                for nanoseconds, line, labels in entry.get(which, []):
                    setattr(example, which, nanoseconds / 1e9)
                    example.example, example.trace = line, labels.get("trace_id", "")
        return sorted(found.values(), key=lambda p: (p.service not in self.apps, not p.is_error, -p.count))

    def lines(self, name: str) -> list[tuple[float, str, dict[str, str]]]:
        """Return lines as (seconds since 1970, line, labels), newest first."""
        found = self.data["logs"].get(name, {}).get("lines", [])
        return [(nanoseconds / 1e9, line, labels) for nanoseconds, line, labels in found]

    def parsed_lines(self) -> list[tuple[float, dict[str, Any]]]:
        """Return the JSON lines of failed requests, or of all requests when none failed."""
        found = []
        for at, line, _ in self.lines("failed") or self.lines("raw"):
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if isinstance(fields, dict):
                found.append((at, fields))
        return found

    @property
    def filtered_query(self) -> str:
        """Return the query behind `parsed_lines`."""
        return self.query("failed" if self.lines("failed") else "raw")

    # -- Objectives

    @cached_property
    def slos(self) -> list[Slo]:
        """Return the objectives of all services."""
        values: dict[str, dict[str, float]] = defaultdict(dict)
        for series in self.series("slo"):
            labels = series["metric"]
            name = labels["__name__"].removeprefix("service_name:slo_")
            values[labels.get("service_name", "")][name] = float(series["value"][1])
        return [
            Slo(
                service,
                kind,
                own[f"{kind}_objective:ratio"],
                own.get("latency_threshold:seconds") if kind == "latency" else None,
                own.get(f"{kind}_error_budget_left:ratio"),
                {name.partition("rate")[2]: v for name, v in own.items() if name.startswith(f"{kind}_burn:rate")},
            )
            for service, own in sorted(values.items())
            for kind in ("availability", "latency")
            if f"{kind}_objective:ratio" in own
        ]

    def latency_threshold(self, service: str) -> float:
        """Return the seconds that a request may take by the service's objective."""
        thresholds = (slo.threshold for slo in self.slos if slo.service == service and slo.threshold)
        return next(thresholds, DEFAULT_LATENCY_THRESHOLD)
