"""The collected data: requests by service and route in each time range, traces, log patterns and objectives."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vantage_tools.report.formats import format_duration, seconds
from vantage_tools.report.spans import Trace
from vantage_tools.report.stats import Histogram
from vantage_tools.report.thresholds import DEFAULT_LATENCY_THRESHOLD

# `base` is the long range without the short one.
WINDOWS = ("short", "base", "long")
ERROR_LEVELS = ("error", "critical", "fatal")
# The method and the path's template.
Route = tuple[str, str]
Points = list[tuple[float, float]]


@dataclass
class Traffic:
    """Requests of a service or a route in `seconds`, which begin when the service was first scraped."""

    seconds: float = 0.0
    by_status: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def count(self, first_digit: str = "") -> float:
        """Return the number of requests whose status begins with this digit."""
        return sum(number for status, number in self.by_status.items() if status.startswith(first_digit))

    @property
    def requests(self) -> float:
        return self.count()

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    def ratio(self, first_digit: str) -> float:
        return self.count(first_digit) / self.requests if self.requests else 0.0

    @cached_property
    def histogram(self) -> Histogram:
        return Histogram(self.buckets)

    def quantile(self, quantile: float) -> float | None:
        """Return the latency in seconds."""
        return self.histogram.quantile(quantile)


ByWindow = dict[str, Traffic]


def _by_window() -> ByWindow:
    return {window: Traffic() for window in WINDOWS}


@dataclass
class Service:
    """An app with its traffic in all time ranges; `of_spans` if it has no metrics of its own, but spans."""

    name: str
    of_spans: bool = False
    all: ByWindow = field(default_factory=_by_window)
    routes: dict[Route, ByWindow] = field(default_factory=lambda: defaultdict(_by_window))

    @property
    def of_lines(self) -> bool:
        """Whether its requests are known by its access lines alone, which name no route."""
        return any(route == "_unknown" for _, route in self.routes)


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
    trace: str = ""
    query: str = ""

    @property
    def is_error(self) -> bool:
        return self.level in ERROR_LEVELS


@dataclass
class Slo:
    """One objective of one service; `threshold` in seconds, `left` the ratio of the error budget."""

    service: str
    kind: str
    objective: float
    threshold: float | None
    left: float | None
    burn: dict[str, float]

    @property
    def goal(self) -> str:
        how = "without failure" if self.kind == "availability" else f"within {seconds(self.threshold)}"
        return f"{self.objective * 100:g} % of requests {how}"

    def burns(self, threshold: float, *windows: str) -> bool:
        """Whether the burn rate is above the threshold in each of the windows."""
        return all(self.burn.get(window, 0.0) > threshold for window in windows)


class Dataset:
    """The collected data of one report."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        meta = data["meta"]
        self.short, self.long, self.end = (float(meta[key]) for key in ("short", "long", "end"))
        self.last = {window: f"last {format_duration(float(meta[window]))}" for window in ("short", "long")}
        self.host, self.grafana = str(meta.get("host") or ""), str(meta.get("grafana") or "").rstrip("/")
        self.engines: dict[str, dict[str, Any]] = data["engines"]

    def begin(self, window: str) -> float:
        """Return when a time range begins."""
        return self.end - (self.short if window == "short" else self.long)

    # -- Answers

    def _answer(self, name: str) -> dict[str, Any]:
        return self.data["metrics"].get(name) or self.data["logs"].get(name) or {}

    def values(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of an instant query, summed by some labels."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for series in self._answer(name).get("series", []):
            found[tuple(series["metric"].get(label, "") for label in labels)] += float(series["value"][1])
        return dict(found)

    def by_label(self, name: str, label: str = "service_name") -> dict[str, float]:
        """Return the values of an instant query, summed by one label."""
        return {key: value for (key,), value in self.values(name, label).items()}

    def query(self, name: str) -> str:
        """Return the query behind a name."""
        return str(self._answer(name).get("query", ""))

    def timeline(self, name: str, window: str) -> dict[str, Points]:
        """Return the points (time, value) of a plot by service, without NaN."""
        found: dict[str, Points] = {}
        for series in self._answer(f"{name}~{window}").get("series", []):
            points = [(float(at), float(value)) for at, value in series["values"]]
            found[series["metric"].get("service_name", "")] = [(at, value) for at, value in points if value == value]
        return dict(sorted(found.items()))

    def step(self, window: str) -> float:
        """Return the seconds between the points of a plot."""
        return float(self._answer(f"rate~{window}").get("step", 15))

    # -- Services

    @cached_property
    def targets(self) -> dict[tuple[str, ...], float]:
        """Return whether each target (service, job, instance) is up."""
        return self.values("up", "service_name", "job", "instance")

    @cached_property
    def instances(self) -> dict[str, list[str]]:
        """Return the instances of each app, one a replica."""
        found: dict[str, list[str]] = defaultdict(list)
        for service, job, instance in self.targets:
            if job == "apps":
                found[service].append(instance)
        return dict(found)

    @cached_property
    def services(self) -> dict[str, Service]:
        """Return every app that Prometheus knows, by name."""
        found = {name: Service(name) for name in self.instances}
        labels = ("service_name", "http_request_method", "http_route")
        for window in WINDOWS:
            for query, label in (("requests", "http_response_status_code"), ("buckets", "le")):
                for (name, method, route, key), number in self.values(f"{query}@{window}", *labels, label).items():
                    service = found.setdefault(name, Service(name))
                    for traffic in (service.all[window], service.routes[method, route][window]):
                        (traffic.by_status if query == "requests" else traffic.buckets)[key] += number
            for (name, method, route, key), number in self.values(f"span_buckets@{window}", *labels, "le").items():
                service = found.setdefault(name, Service(name))
                service.of_spans = True
                for traffic in (service.all[window], service.routes[method, route][window]):
                    traffic.buckets[str(float(key) / 1000)] += number  # Jaeger's are in milliseconds
        found.pop("", None)
        for name, service in found.items():
            for traffics in (service.all, *service.routes.values()):
                for window, traffic in traffics.items():
                    traffic.seconds = self.covered(name, window)
        return dict(sorted(found.items()))

    def covered(self, service: str, window: str) -> float:
        """Return the seconds of a time range since the service was first scraped."""
        begin = max(self.first_seen.get(service, 0.0), self.begin(window))
        return max(0.0, self.end - (self.short if window == "base" else 0) - begin)

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

    def sample(self, name: str) -> list[Trace]:
        """Return the traces of a search: `short` and `base` regardless of what happened, `slow@short`, `failed@short`."""
        return self.traces.get(name, [])

    # -- Logs

    @cached_property
    def patterns(self) -> list[Pattern]:
        """Return the patterns above info: of apps first, then errors, then the most frequent."""
        found: dict[tuple[str, ...], Pattern] = {}
        for window in ("short", "base"):
            for key, number in self.values(f"patterns@{window}", "service_name", "level", "said").items():
                service, level, said = key
                setattr(found.setdefault(key, Pattern(service, level, said)), window, round(number))
        for text, entry in self.data["logs"].get("examples", {}).get("patterns", {}).items():
            if example := found.get(tuple(json.loads(text))):
                example.query = entry["query"]
                for which in ("first", "last"):
                    for nanoseconds, _, labels in entry.get(which, []):
                        setattr(example, which, nanoseconds / 1e9)
                        example.trace = labels.get("trace_id", "")
        return sorted(found.values(), key=lambda p: (p.service not in self.apps, not p.is_error, -p.short - p.base))

    def lines(self, name: str) -> list[tuple[float, str, str]]:
        """Return lines as (seconds since 1970, service, line), newest first."""
        lines = self._answer(name).get("lines", [])
        return [(nanoseconds / 1e9, labels.get("service_name", ""), line) for nanoseconds, line, labels in lines]

    @property
    def filtered(self) -> str:
        """Return the name of the lines that `parsed_lines` reads: of failed requests, or of all when none failed."""
        return "failed" if self.lines("failed") else "raw"

    def parsed_lines(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """Yield the lines that are JSON as (seconds since 1970, fields), newest first."""
        for at, _, line in self.lines(self.filtered):
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if isinstance(fields, dict):
                yield at, fields

    # -- Objectives

    @cached_property
    def slos(self) -> list[Slo]:
        """Return the objectives of all services."""
        values: dict[str, dict[str, float]] = defaultdict(dict)
        for (service, name), value in sorted(self.values("slo", "service_name", "__name__").items()):
            values[service][name.removeprefix("service_name:slo_")] = value
        return [
            Slo(
                service,
                kind,
                own[f"{kind}_objective:ratio"],
                own.get("latency_threshold:seconds") if kind == "latency" else None,
                own.get(f"{kind}_error_budget_left:ratio"),
                {name.partition("rate")[2]: v for name, v in own.items() if name.startswith(f"{kind}_burn:rate")},
            )
            for service, own in values.items()
            for kind in ("availability", "latency")
            if f"{kind}_objective:ratio" in own
        ]

    def latency_threshold(self, service: str) -> float:
        """Return the seconds that a request may take by the service's objective."""
        thresholds = (slo.threshold for slo in self.slos if slo.service == service and slo.threshold)
        return next(thresholds, DEFAULT_LATENCY_THRESHOLD)
