"""What the collected answers say: traffic by service and route in each window, traces, patterns, and what is thin."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vantage_report.spans import Trace
from vantage_report.stats import Histogram

WINDOWS = ("short", "base", "long")
# Below this many requests a percentile is a guess.
FEW = 20


@dataclass
class Traffic:
    """Requests of a service or a route in one window."""

    seconds: float = 0.0
    by_status: dict[str, float] = field(default_factory=dict)
    histogram: Histogram = field(default_factory=lambda: Histogram([], []))

    def count(self, first_digit: str = "") -> float:
        """Requests whose status begins so."""
        return sum(number for status, number in self.by_status.items() if status.startswith(first_digit))

    @property
    def requests(self) -> float:
        return self.count()

    @property
    def rate(self) -> float:
        """Requests per second, over the time in which there was anybody to count them."""
        return self.requests / self.seconds if self.seconds else 0.0

    def share(self, first_digit: str) -> float:
        return self.count(first_digit) / self.requests if self.requests else 0.0

    def quantile(self, share: float) -> float | None:
        return self.histogram.quantile(share)


Route = tuple[str, str]


@dataclass
class Service:
    """An app in all windows."""

    name: str
    all: dict[str, Traffic] = field(default_factory=lambda: {window: Traffic() for window in WINDOWS})
    routes: dict[Route, dict[str, Traffic]] = field(default_factory=dict)

    def route(self, route: Route) -> dict[str, Traffic]:
        return self.routes.setdefault(route, {window: Traffic() for window in WINDOWS})


@dataclass
class Pattern:
    """What lines of one kind say, digits masked; times in seconds since 1970."""

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
    def severe(self) -> bool:
        return self.level in ("error", "critical", "fatal")


@dataclass
class Slo:
    """One objective of one service."""

    service: str
    kind: str
    objective: float
    threshold: float | None
    left: float | None
    burn: dict[str, float]


class Facts:
    """The collected data, read."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.meta = data["meta"]
        self.short, self.long, self.end = (float(self.meta[key]) for key in ("short", "long", "end"))
        self.engines: dict[str, dict[str, Any]] = data["engines"]

    # Answers

    def series(self, name: str) -> list[dict[str, Any]]:
        """The series of a query to Prometheus."""
        return list(self.data["metrics"].get(name, {}).get("series", []))

    def values(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The values of an instant query by some labels."""
        found: dict[tuple[str, ...], float] = {}
        for series in self.series(name):
            key = tuple(series["metric"].get(label, "") for label in labels)
            found[key] = found.get(key, 0.0) + float(series["value"][1])
        return found

    def by_service(self, name: str) -> dict[str, float]:
        return {key[0]: value for key, value in self.values(name, "service_name").items()}

    @cached_property
    def instances(self) -> dict[str, list[str]]:
        """service -> the instances of each app, of which replicas are several."""
        found: dict[str, list[str]] = {}
        for metric in (s["metric"] for s in self.series("up")):
            if metric.get("job") == "apps":
                found.setdefault(metric.get("service_name", ""), []).append(metric.get("instance", ""))
        return found

    def query(self, name: str) -> str:
        """The query behind a name, of whichever engine."""
        for kind in ("metrics", "logs"):
            if name in self.data[kind]:
                return str(self.data[kind][name]["query"])
        return ""

    def begin(self, window: str) -> float:
        return self.end - (self.short if window == "short" else self.long)

    def timeline(self, name: str, window: str) -> dict[str, list[tuple[float, float]]]:
        """service -> points (time, value) of a plot; what is no number is left out."""
        found: dict[str, list[tuple[float, float]]] = {}
        for series in self.series(f"{name}~{window}"):
            points = [(float(at), float(value)) for at, value in series["values"]]
            kept = [(at, value) for at, value in points if value == value]
            if kept:
                found[series["metric"].get("service_name", "")] = kept
        return dict(sorted(found.items()))

    def step(self, window: str) -> float:
        return float(self.data["metrics"].get(f"rate~{window}", {}).get("step", 15))

    # Services

    @cached_property
    def services(self) -> dict[str, Service]:
        """Every app that Prometheus knows, by name."""
        names = {s["metric"].get("service_name", "") for s in self.series("up") if s["metric"].get("job") == "apps"}
        found = {name: Service(name) for name in sorted(names) if name}
        for window in WINDOWS:
            buckets: dict[tuple[str, Route], list[dict[str, Any]]] = defaultdict(list)
            for series in self.series(f"requests@{window}"):
                name, route = _of(series)
                if name:
                    service = found.setdefault(name, Service(name))
                    number = float(series["value"][1])
                    status = series["metric"].get("http_response_status_code", "")
                    for traffic in (service.all[window], service.route(route)[window]):
                        traffic.by_status[status] = traffic.by_status.get(status, 0.0) + number
            for series in self.series(f"buckets@{window}"):
                buckets[_of(series)].append(series)
            for name, service in found.items():
                of_service = [s for (owner, _), many in buckets.items() if owner == name for s in many]
                service.all[window].histogram = Histogram.of(of_service)
                for route, traffics in service.routes.items():
                    traffics[window].histogram = Histogram.of(buckets.get((name, route), []))
                for traffic in (service.all[window], *(traffics[window] for traffics in service.routes.values())):
                    traffic.seconds = self.covered(name, window)
        return dict(sorted(found.items()))

    def covered(self, service: str, window: str) -> float:
        """Seconds of a window since the service was scraped first."""
        first = self.first_seen.get(service, self.begin(window))
        end = self.end - (self.short if window == "base" else 0)
        return max(0.0, end - max(first, self.begin("short" if window == "short" else "long")))

    @cached_property
    def first_seen(self) -> dict[str, float]:
        """service -> the first scrape within the long window."""
        return self.by_service("first_seen")

    @property
    def apps(self) -> list[str]:
        """Services that serve requests, by metrics or by traces."""
        traced = {span.service for trace in self.sample("short") + self.sample("base") for span in trace.spans}
        return sorted({*self.services, *traced})

    # Traces

    @cached_property
    def traces(self) -> dict[str, list[Trace]]:
        return {name: [Trace(spans) for spans in traces] for name, traces in self.data["traces"].items()}

    def sample(self, window: str) -> list[Trace]:
        """Traces taken without regard to what happened in them."""
        return self.traces.get(window, [])

    def chosen(self, kind: str, window: str) -> list[Trace]:
        """`slow` or `failed` traces of a window."""
        return self.traces.get(f"{kind}@{window}", [])

    @cached_property
    def by_id(self) -> dict[str, Trace]:
        return {trace.id: trace for traces in self.traces.values() for trace in traces}

    # Logs

    @cached_property
    def patterns(self) -> list[Pattern]:
        """What was said above info, what was said most first; errors before warnings."""
        found: dict[tuple[str, str, str], Pattern] = {}
        for window in ("short", "base"):
            for series in self.data["logs"].get(f"patterns@{window}", {}).get("series", []):
                labels = series["metric"]
                key = (labels.get("service_name", ""), labels.get("level", ""), labels.get("said", ""))
                pattern = found.setdefault(key, Pattern(*key))
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
        return sorted(found.values(), key=lambda p: (p.service not in self.apps, not p.severe, -p.count))

    def lines(self, name: str) -> list[tuple[float, str, dict[str, str]]]:
        """Sample lines as (seconds since 1970, line, labels), newest first."""
        found = self.data["logs"].get(name, {}).get("lines", [])
        return [(nanoseconds / 1e9, line, labels) for nanoseconds, line, labels in found]

    def volume(self, window: str) -> dict[tuple[str, str], int]:
        """(service, level) -> lines."""
        series = self.data["logs"].get(f"volume@{window}", {}).get("series", [])
        return {
            (s["metric"].get("service_name", ""), s["metric"].get("level", "")): round(float(s["value"][1]))
            for s in series
        }

    # Objectives

    @cached_property
    def slos(self) -> list[Slo]:
        values: dict[tuple[str, str], float] = {}
        for series in self.series("slo"):
            metric = series["metric"]
            values[(metric.get("service_name", ""), metric["__name__"])] = float(series["value"][1])
        found = []
        for service in sorted({service for service, _ in values}):
            for kind in ("availability", "latency"):
                prefix = f"service_name:slo_{kind}"
                objective = values.get((service, f"{prefix}_objective:ratio"))
                if objective is None:
                    continue
                burn = {
                    window: values[(service, f"{prefix}_burn:rate{window}")]
                    for window in ("5m", "30m", "1h", "6h", "3d")
                    if (service, f"{prefix}_burn:rate{window}") in values
                }
                found.append(
                    Slo(
                        service, kind, objective,
                        values.get((service, "service_name:slo_latency_threshold:seconds")) if kind == "latency" else None,
                        values.get((service, f"{prefix}_error_budget_left:ratio")), burn,
                    )
                )  # fmt: skip
        return found

    def patience(self, service: str) -> float:
        """Seconds that a request of the service may take by its objective, 0.5 where it has none."""
        return next((slo.threshold for slo in self.slos if slo.service == service and slo.threshold), 0.5)

    # What is thin

    def thin(self) -> Iterator[str]:
        """Sentences on what the figures do not rest on enough."""
        for name, engine in self.engines.items():
            if not engine["ok"]:
                yield f"{name.capitalize()} did not answer ({engine['error']}): what it would tell is missing."
        yield from (f"{problem}." for problem in self.data["problems"][:5])
        first = min(self.first_seen.values(), default=None)
        if first is not None and first - self.begin("long") > max(120.0, 0.02 * self.long):
            yield (
                f"Prometheus has data of the last {spoken(self.end - first)} only, so the {spoken(self.long)} are "
                f"those {spoken(self.end - first)}."
            )
        if self.engines["prometheus"]["ok"]:
            for name, service in self.services.items():
                for window in ("short", "long"):
                    number = service.all[window].requests
                    if number < FEW:
                        shown = (
                            "no requests"
                            if number < 0.5
                            else f"{number:.0f} request{'s' if number >= 1.5 else ''} only"
                        )
                        yield f"{name} had {shown} in the last {spoken(getattr(self, window))}: percentiles mean little."
                        break
            silent = sorted(set(self.apps) - set(self.services))
            if silent:
                yield f"{', '.join(silent)}: traces, but no request metrics; rates and percentiles are missing for it."
        if self.engines["jaeger"]["ok"]:
            for window, shown in (("short", f"last {spoken(self.short)}"), ("base", "time before")):
                number = len(self.sample(window))
                if number < FEW:
                    yield f"The {shown} gave {number or 'no'} trace{'' if number == 1 else 's'}: shares of time mean little."


def _of(series: dict[str, Any]) -> tuple[str, Route]:
    metric = series["metric"]
    return metric.get("service_name", ""), (metric.get("http_request_method", ""), metric.get("http_route", ""))


def spoken(seconds: float) -> str:
    """A length of time as people say it: 90 s, 5 min, 6 h."""
    if seconds < 120 and seconds % 60:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600 and seconds % 3600:
        return f"{round(seconds / 60)} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
