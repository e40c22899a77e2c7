"""RED metrics of the server, and metrics of the extension itself."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache, cached_property
from importlib.metadata import version

from flask import Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

# In seconds: the boundaries that OpenTelemetry recommends for http.server.request.duration, and two below them, since
# many routes of a small app answer within 5 ms.
# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration
DURATION_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip

KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"))
OTHER_METHOD = "_OTHER"

# The label value of a request that matched no route. The raw path is never a label: a scanner would create a new time
# series with each guess.
UNMATCHED_ROUTE = "_unmatched"


def method_label(method: str) -> str:
    """Return `method`, or `_OTHER` for one that OpenTelemetry's conventions do not know."""
    return method if method in KNOWN_METHODS else OTHER_METHOD


class Metrics:
    """The metrics of one registry. Safe to use from any thread.

    Children are cached, because the lookup in prometheus_client costs several times as much. Their number is bounded
    by methods, routes and status codes.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        duration = Histogram(
            "http_server_request_duration_seconds",
            "Time from a request's arrival to its response, in seconds.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._duration: Callable[[str, str, int], Histogram] = cache(duration.labels)
        active = Gauge(
            "http_server_active_requests",
            "Requests that are being answered now.",
            ("http_request_method",),
            registry=registry,
        )
        # The gauge of requests in flight for a `method_label`.
        self.active: Callable[[str], Gauge] = cache(active.labels)
        build_info = Gauge(
            "vantage_build_info",
            "Always 1; the labels hold the versions.",
            ("version", "python_version", "flask_version"),
            registry=registry,
        )
        build_info.labels(_own_version(), platform.python_version(), version("flask")).set(1)
        self.spans_exported = Counter("vantage_spans_exported", "Spans that the collector accepted.", registry=registry)
        dropped = Counter(
            "vantage_spans_dropped",
            "Spans that were lost: the queue was full, or the collector did not take them.",
            ("reason",),
            registry=registry,
        )
        self.spans_dropped_queue_full = dropped.labels("queue_full")
        self.spans_dropped_export_failed = dropped.labels("export_failed")
        self.log_lines_dropped = Counter(
            "vantage_log_lines_dropped",
            "Log lines that were lost: the standard output did not take them.",
            registry=registry,
        )
        self.span_queue_length = Gauge("vantage_span_queue_length", "Spans that wait for export.", registry=registry)

    @cached_property
    def server_threads(self) -> tuple[Gauge, Gauge, Gauge]:
        """The number of threads of vantage-serve, of busy ones, and of requests that wait for one.

        Created by vantage-serve: under another server these would show nothing true.
        """
        names = {
            "vantage_server_threads": "Threads that answer the app's requests.",
            "vantage_server_busy_threads": "Threads that are answering a request now.",
            "vantage_server_waiting_requests": "Requests that wait for a thread.",
        }
        threads, busy, waiting = (Gauge(name, text, registry=self.registry) for name, text in names.items())
        return threads, busy, waiting

    def observe(self, method: str, route: str, status: int, seconds: float, exemplar: dict[str, str] | None) -> None:
        """Count one request that took `seconds`; `exemplar` has the labels trace_id and span_id."""
        self._duration(method, route, status).observe(seconds, exemplar)

    def observe_unmatched(self, method: str, status: int, seconds: float) -> None:
        """Count a request that the server answered itself."""
        self.observe(method_label(method), UNMATCHED_ROUTE, status, seconds, None)

    def response(self, accept: str) -> Response:
        """Answer a scrape: OpenMetrics when the header `accept` asks for it, else plain text."""
        encode, content_type = choose_encoder(accept)
        return Response(encode(self.registry), content_type=content_type)


@cache
def metrics_of(registry: CollectorRegistry) -> Metrics:
    """Return the metrics of `registry`; several apps in one process share them."""
    return Metrics(registry)


def _own_version() -> str:
    try:
        return version("flask-vantage")
    except ModuleNotFoundError:  # run from a source tree that is not installed
        return "unknown"
