from __future__ import annotations

import re

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flask_vantage import Vantage

COUNT = "http_server_request_duration_seconds_count"


def count(registry: CollectorRegistry, method: str, route: str, status: str) -> float | None:
    labels = {
        "http_request_method": method,
        "http_route": route,
        "http_response_status_code": status,
    }
    return registry.get_sample_value(COUNT, labels)


def test_request_is_counted_under_its_route_template(client: FlaskClient, registry: CollectorRegistry) -> None:
    client.get("/things/1")
    client.get("/things/2")
    assert count(registry, "GET", "/things/<int:thing>", "200") == 2


def test_unmatched_paths_share_one_label_value(client: FlaskClient, registry: CollectorRegistry) -> None:
    for path in ("/a", "/b/%00", "/things/x"):
        assert client.get(path).status_code == 404
    assert count(registry, "GET", "_unmatched", "404") == 3
    assert "/things/x" not in client.get("/metrics").get_data(as_text=True)


def test_unknown_methods_share_one_label_value(client: FlaskClient, registry: CollectorRegistry) -> None:
    for method in ("BREW", "X" * 1000, "get"):
        client.open("/things/1", method=method)
    assert count(registry, "_OTHER", "_unmatched", "405") == 2
    assert "BREW" not in client.get("/metrics").get_data(as_text=True)


def test_unexpected_exception_counts_as_500(client: FlaskClient, registry: CollectorRegistry) -> None:
    client.get("/broken")
    assert count(registry, "GET", "/broken", "500") == 1


def test_route_is_known_when_before_request_ends_the_request(app: Flask, registry: CollectorRegistry) -> None:
    @app.before_request
    def locked() -> Response:
        return Response("no", 401)

    app.test_client().get("/things/1")
    assert count(registry, "GET", "/things/<int:thing>", "401") == 1


def test_probes_and_scrapes_are_not_counted(client: FlaskClient, registry: CollectorRegistry) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        client.get(path)
    text = client.get("/metrics").get_data(as_text=True)
    assert COUNT not in text


def test_no_request_is_active_after_all_responses(client: FlaskClient, registry: CollectorRegistry) -> None:
    for path in ("/things/1", "/broken", "/nowhere"):
        client.get(path)
    labels = {"http_request_method": "GET"}
    assert registry.get_sample_value("http_server_active_requests", labels) == 0


def test_streamed_response_counts_at_its_end(app: Flask, registry: CollectorRegistry) -> None:
    @app.get("/stream")
    def stream() -> Response:
        return Response(iter([b"a", b"b"]))

    response = app.test_client().get("/stream", buffered=False)
    assert count(registry, "GET", "/stream", "200") is None
    assert response.get_data() == b"ab"
    response.close()
    assert count(registry, "GET", "/stream", "200") == 1


def test_stream_that_the_client_aborts_is_counted_once(app: Flask, registry: CollectorRegistry) -> None:
    @app.get("/stream")
    def stream() -> Response:
        return Response(iter([b"a", b"b"]))

    app.test_client().get("/stream", buffered=False).close()
    assert count(registry, "GET", "/stream", "200") == 1


def test_plain_text_is_the_default_format(client: FlaskClient) -> None:
    client.get("/things/1")
    response = client.get("/metrics")
    assert response.content_type.startswith("text/plain")
    assert list(parse_text(response.get_data(as_text=True)))


def test_openmetrics_has_the_trace_of_the_request_as_exemplar(
    client: FlaskClient,
) -> None:
    trace_id = client.get("/things/1").headers["X-Trace-Id"]
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.content_type.startswith("application/openmetrics-text; version=1.0.0")
    exemplars = [
        sample.exemplar
        for family in parse_openmetrics(response.get_data(as_text=True))
        for sample in family.samples
        if sample.exemplar
    ]
    assert [exemplar.labels["trace_id"] for exemplar in exemplars] == [trace_id]
    assert re.fullmatch("[0-9a-f]{16}", exemplars[0].labels["span_id"])


def test_unsampled_request_has_no_exemplar(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: TracerProvider(sampler=ALWAYS_OFF))
    app = Flask("unsampled")
    Vantage(app, registry=registry)
    client = app.test_client()
    # The trace id is still there, so that the log lines of one request can be found together.
    assert client.get("/x").headers["X-Trace-Id"]
    text = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).get_data(
        as_text=True
    )
    assert COUNT in text
    assert "trace_id" not in text


def test_build_info_has_the_versions(registry: CollectorRegistry, client: FlaskClient) -> None:
    assert 'vantage_build_info{flask_version="3.' in client.get("/metrics").get_data(as_text=True)


def test_two_apps_in_one_process_share_a_registry(registry: CollectorRegistry) -> None:
    for name in ("one", "two"):
        app = Flask(name)
        Vantage(app, registry=registry)
        app.test_client().get("/x")
    assert count(registry, "GET", "_unmatched", "404") == 2


def test_second_setup_of_an_app_is_an_error(app: Flask) -> None:
    with pytest.raises(RuntimeError, match="'ordinary'"):
        Vantage(app)
