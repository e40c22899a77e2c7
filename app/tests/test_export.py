"""The OTLP export over HTTP and gRPC, each to a real receiver in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from collector import Collector, GrpcCollector
from flask_vantage import Settings, SettingsError
from flask_vantage.tracing import span_exporter

GRPC_EXPORTER = "opentelemetry.exporter.otlp.proto.grpc"


@pytest.fixture
def http_collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


@pytest.fixture
def grpc_collector() -> Iterator[GrpcCollector]:
    running = GrpcCollector()
    yield running
    running.close()


def export(environment: dict[str, str]) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "till"}), shutdown_on_exit=False)
    exporter = span_exporter(Settings.from_environment(environment))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("test").start_span("sale").end()
    provider.shutdown()


@pytest.mark.parametrize(
    ("variable", "path", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "", "/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/base/", "/base/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/own", "/own"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "/"),
    ],
)
def test_http_is_the_default_and_its_path_follows_the_specification(
    http_collector: Collector, variable: str, path: str, expected: str
) -> None:
    export({variable: http_collector.url + path})
    assert [span.name for span in http_collector.spans] == ["sale"]
    assert http_collector.services == {"till"}
    assert http_collector.paths == [expected]
    assert http_collector.content_types == ["application/x-protobuf"]


@pytest.mark.parametrize("signal", ["", "TRACES_"])
def test_grpc_reaches_a_grpc_collector(grpc_collector: GrpcCollector, signal: str) -> None:
    export(
        {
            f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL": "grpc",
            f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT": grpc_collector.url,
        }
    )
    assert [span.name for span in grpc_collector.spans] == ["sale"]
    assert grpc_collector.services == {"till"}


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_grpc_without_its_package_names_variable_value_and_package(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    # None in sys.modules makes an import fail as if the package were not there.
    for name in [GRPC_EXPORTER, *(name for name in sys.modules if name.startswith(f"{GRPC_EXPORTER}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv(variable, "grpc")
    with pytest.raises(SettingsError) as caught:
        span_exporter(Settings.from_environment())
    assert caught.value.variable == variable
    for word in ("'grpc'", "http/protobuf", "opentelemetry-exporter-otlp"):
        assert word in caught.value.reason
    assert "flask-vantage[grpc]" in caught.value.fix
