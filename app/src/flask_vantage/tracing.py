"""OpenTelemetry tracing, with an export that neither blocks nor fails a request."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from threading import Lock, Thread
from typing import Any

from loguru import logger
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from flask_vantage.metrics import Metrics
from flask_vantage.settings import Settings, SettingsError

# A collector that is down for a night must not fill the log.
_SECONDS_BETWEEN_WARNINGS = 60.0


class CountingExporter(SpanExporter):
    """Passes batches to `inner`, counts exported and lost spans and logs failures at most once a minute."""

    def __init__(self, inner: SpanExporter, metrics: Metrics, endpoint: str) -> None:
        self._inner = inner
        self._metrics = metrics
        self._endpoint = endpoint
        self._lock = Lock()
        # Spans that were admitted and not yet handed to `inner`.
        self.waiting = 0
        self._lost = 0
        self._next_warning = 0.0

    def admit(self, limit: int) -> bool:
        """Reserve a place in the queue; returns False, and counts a lost span, when `limit` are waiting."""
        with self._lock:
            if self.waiting < limit:
                self.waiting += 1
                return True
        self._metrics.spans_dropped_queue_full.inc()
        return False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self.waiting -= len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            # In a finally clause, because spans are lost as well when the exporter raises.
            self._report(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def _report(self, count: int, exported: bool) -> None:
        # The processor exports one batch at a time, so this needs no lock.
        if exported:
            self._metrics.spans_exported.inc(count)
            if self._lost:
                self._bind().info("The trace collector takes spans again.")
            self._lost, self._next_warning = 0, 0.0
            return
        self._metrics.spans_dropped_export_failed.inc(count)
        self._lost += count
        if time.monotonic() >= self._next_warning:
            self._next_warning = time.monotonic() + _SECONDS_BETWEEN_WARNINGS
            self._bind().warning(
                "The trace collector takes no spans; requests are served as usual. "
                "Check that it runs and that OTEL_EXPORTER_OTLP_ENDPOINT and _PROTOCOL fit it."
            )

    def _bind(self) -> Any:
        return logger.bind(spans_lost=self._lost, endpoint=self._endpoint)

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._inner.force_flush(timeout_millis)


class BoundedSpanProcessor(BatchSpanProcessor):
    """A batch processor whose full queue drops the newest span and counts it.

    The SDK's own queue drops spans without a metric, and logs in the thread that serves the request.
    """

    def __init__(self, exporter: CountingExporter, settings: Settings) -> None:
        super().__init__(
            exporter,
            max_queue_size=settings.span_queue_size,
            schedule_delay_millis=settings.span_schedule_delay_ms,
            max_export_batch_size=settings.span_batch_size,
        )
        self._exporter = exporter
        self._limit = settings.span_queue_size

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context and context.trace_flags.sampled and self._exporter.admit(self._limit):
            super().on_end(span)


def span_exporter(settings: Settings) -> SpanExporter:
    """Return the exporter for the protocol in `settings`; raises `SettingsError` when its package is missing."""
    if settings.export_protocol == "grpc":
        try:
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc
        except ModuleNotFoundError:
            traces = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
            raise SettingsError(
                traces if os.environ.get(traces) else "OTEL_EXPORTER_OTLP_PROTOCOL",
                "package opentelemetry-exporter-otlp is not installed: 'grpc' (http/protobuf works without it)",
                "Install flask-vantage[grpc] or opentelemetry-exporter-otlp, or use http/protobuf",
            ) from None
        exporter: SpanExporter = grpc.OTLPSpanExporter(
            endpoint=settings.export_endpoint,
            # The scheme decides, as the specification asks; OTEL_EXPORTER_OTLP_INSECURE is for hosts without one.
            insecure=settings.export_endpoint.startswith("http://"),
            timeout=settings.export_timeout,
        )
        return exporter
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    return http.OTLPSpanExporter(endpoint=settings.export_endpoint, timeout=settings.export_timeout)


def obtain_provider(settings: Settings, metrics: Metrics, app_name: str) -> trace.TracerProvider:
    """Return the process's tracer provider; without one, create it from `settings` and set it.

    A process has one provider, so the first app decides `service.name`; a provider that the application has set is
    used unchanged.
    """
    current = trace.get_tracer_provider()
    if isinstance(current, TracerProvider):
        return current
    # Resource.create adds OTEL_RESOURCE_ATTRIBUTES; the sampler reads OTEL_TRACES_SAMPLER itself.
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: settings.service_name or app_name}))
    if settings.export_spans:
        exporter = CountingExporter(span_exporter(settings), metrics, settings.export_endpoint)
        metrics.span_queue_length.set_function(lambda: exporter.waiting)
        provider.add_span_processor(BoundedSpanProcessor(exporter, settings))
    trace.set_tracer_provider(provider)
    return provider


def shut_down(timeout: float) -> bool:
    """Export the queued spans; returns False when that takes longer than `timeout` seconds."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return True
    # The SDK's own shutdown waits up to 30 s for a collector that does not answer, hence the thread.
    worker = Thread(target=provider.shutdown, name="vantage-span-flush", daemon=True)
    worker.start()
    worker.join(timeout)
    return not worker.is_alive()
