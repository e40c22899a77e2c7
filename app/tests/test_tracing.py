from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from werkzeug.middleware.proxy_fix import ProxyFix

from conftest import ReadLines
from flask_vantage import Settings, Vantage
from flask_vantage.metrics import Metrics
from flask_vantage.tracing import BoundedSpanProcessor, CountingExporter

Spans = Callable[[], tuple[ReadableSpan, ...]]

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def test_request_is_one_server_span_with_semantic_conventions(client: FlaskClient, spans: Spans) -> None:
    client.get("/things/7", headers={"User-Agent": "pytest"})
    (span,) = spans()
    assert span.name == "GET /things/<int:thing>"
    assert span.kind is SpanKind.SERVER
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "url.path": "/things/7",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "user_agent.original": "pytest",
        "http.response.status_code": 200,
        "http.route": "/things/<int:thing>",
    }


@pytest.mark.parametrize("first", ["app", "vantage"])
def test_client_address_is_that_of_proxy_fix(
    registry: CollectorRegistry, spans: Spans, lines: ReadLines, first: str
) -> None:
    app = Flask("proxied")

    def fix() -> None:
        app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]

    if first == "app":
        fix()
    Vantage(app, registry=registry)
    if first == "vantage":
        fix()
    app.test_client().get("/", headers={"X-Forwarded-For": "203.0.113.9"})
    (span,), (line,) = spans(), lines()
    assert span.attributes is not None
    assert span.attributes["client.address"] == line["client_address"] == "203.0.113.9"


def test_incoming_traceparent_is_continued(client: FlaskClient, spans: Spans) -> None:
    response = client.get("/things/1", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    (span,) = spans()
    assert response.headers["X-Trace-Id"] == TRACE
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f"ff-{TRACE}-{PARENT}-01",
    ],
)
def test_malformed_traceparent_starts_a_new_trace(client: FlaskClient, spans: Spans, header: str) -> None:
    response = client.get("/things/1", headers={"traceparent": header})
    assert response.status_code == 200
    (span,) = spans()
    assert span.parent is None
    assert response.headers["X-Trace-Id"] != TRACE


def test_unsampled_parent_is_respected(client: FlaskClient, spans: Spans) -> None:
    client.get("/things/1", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert spans() == ()


def test_unexpected_exception_is_recorded_on_the_span(client: FlaskClient, spans: Spans) -> None:
    client.get("/broken")
    (span,) = spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "LookupError"
    (event,) = span.events
    assert event.name == "exception"


def test_client_error_leaves_the_span_status_unset(client: FlaskClient, spans: Spans) -> None:
    client.get("/nowhere")
    (span,) = spans()
    assert span.name == "GET"
    assert span.status.status_code is StatusCode.UNSET
    assert "http.route" not in (span.attributes or {})


def test_unknown_method_follows_the_semantic_conventions(client: FlaskClient, spans: Spans) -> None:
    client.open("/nowhere", method="BREW")
    (span,) = spans()
    assert span.name == "HTTP"
    assert span.attributes is not None
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


def test_probes_and_scrapes_are_not_traced(client: FlaskClient, spans: Spans) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert "X-Trace-Id" not in client.get(path).headers
    assert spans() == ()


def test_one_trace_spans_both_services_and_the_database(shop: FlaskClient, spans: Spans) -> None:
    trace_id = shop.get("/products").headers["X-Trace-Id"]
    by_id = {s.context.span_id: s for s in spans() if s.context is not None}
    assert {f"{s.context.trace_id:032x}" for s in by_id.values() if s.context} == {trace_id}
    path = []
    span = next(s for s in by_id.values() if s.name == "SELECT products")
    while True:
        path.append((span.kind.name, span.name))
        if span.parent is None:
            break
        span = by_id[span.parent.span_id]
    assert path == [
        ("CLIENT", "SELECT products"),
        ("SERVER", "GET /products"),
        ("CLIENT", "GET"),
        ("SERVER", "GET /products"),
    ]


def test_client_span_uses_the_stable_attribute_names(shop: FlaskClient, spans: Spans) -> None:
    shop.get("/products")
    (span,) = [s for s in spans() if s.name == "GET"]
    assert span.attributes is not None
    assert span.attributes["http.request.method"] == "GET"
    assert "http.method" not in span.attributes
    # A service graph needs the called host by itself.
    assert span.attributes["server.address"] == urlsplit(str(span.attributes["url.full"])).hostname


class _Collector(SpanExporter):
    """Takes spans, or fails with `answer`."""

    def __init__(self, answer: SpanExportResult | Exception) -> None:
        self.answer = answer
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if isinstance(self.answer, Exception):
            raise self.answer
        self.taken += len(spans)
        return self.answer


def _value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("failure", [SpanExportResult.FAILURE, RuntimeError("broken")])
def test_spans_that_the_collector_rejects_are_counted_and_logged_once(
    app: Flask,
    registry: CollectorRegistry,
    lines: ReadLines,
    failure: SpanExportResult | Exception,
) -> None:
    metrics = Metrics(CollectorRegistry())
    collector = _Collector(failure)
    processor = BoundedSpanProcessor(
        CountingExporter(collector, metrics, "http://collector"),
        Settings(span_schedule_delay_ms=600_000),
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    for _ in range(3):
        tracer.start_span("x").end()
        processor.force_flush()
    dropped = _value(metrics.registry, "vantage_spans_dropped_total", reason="export_failed")
    assert dropped == 3
    assert _value(metrics.registry, "vantage_spans_exported_total") == 0
    warnings = [line for line in lines() if "spans_lost" in line]
    assert [(line["level"], line["spans_lost"]) for line in warnings] == [("warning", 1)]
    assert warnings[0]["endpoint"] == "http://collector"

    collector.answer = SpanExportResult.SUCCESS
    tracer.start_span("x").end()
    processor.force_flush()
    assert _value(metrics.registry, "vantage_spans_exported_total") == 1
    (recovery,) = [line for line in lines() if "spans_lost" in line]
    assert (recovery["level"], recovery["spans_lost"]) == ("info", 3)
    provider.shutdown()


def test_full_queue_drops_and_counts_without_waiting() -> None:
    released = threading.Event()

    class Blocked(_Collector):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            released.wait(10)
            return super().export(spans)

    metrics = Metrics(CollectorRegistry())
    exporter = CountingExporter(Blocked(SpanExportResult.SUCCESS), metrics, "")
    settings = Settings(span_queue_size=8, span_batch_size=8, span_schedule_delay_ms=600_000)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BoundedSpanProcessor(exporter, settings))
    tracer = provider.get_tracer("test")
    # A full batch starts an export, which then never ends.
    for _ in range(8):
        tracer.start_span("x").end()
    deadline = time.monotonic() + 5
    while exporter.waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    started = time.monotonic()
    for _ in range(20):
        tracer.start_span("x").end()
    assert time.monotonic() - started < 1.0
    assert exporter.waiting == 8
    assert _value(metrics.registry, "vantage_spans_dropped_total", reason="queue_full") == 12
    released.set()
    provider.shutdown()
    assert _value(metrics.registry, "vantage_spans_exported_total") == 16
    assert exporter.waiting == 0
