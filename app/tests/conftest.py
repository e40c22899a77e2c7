"""Shared fixtures: a clean environment, the spans and log lines of a test, an app, both services."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from werkzeug.serving import make_server

from flask_vantage import Vantage, logs
from flask_vantage.writer import LineWriter
from served import collector, serve  # noqa: F401 - fixtures
from shop import storefront, warehouse

APP = Path(__file__).parent.parent

# The log goes here instead of to the output of pytest; test_serve.py reads a real one.
_written: list[bytes] = []
logs._writer = LineWriter(_written.append)

ReadLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "VANTAGE_", "SHOP_", "WAREHOUSE_")) or name == "PORT":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _exporter() -> InMemorySpanExporter:
    # A process has one provider. Vantage uses one that is set already, which is tested this way too.
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture(autouse=True)
def spans(_exporter: InMemorySpanExporter) -> Callable[[], tuple[ReadableSpan, ...]]:
    """Return a function that returns the spans that ended in this test."""
    _exporter.clear()
    return _exporter.get_finished_spans


@pytest.fixture
def lines() -> ReadLines:
    """Return a function that returns the log lines since its last call."""

    def read() -> list[dict[str, Any]]:
        assert logs.flush()
        written = b"".join(_written)
        _written.clear()
        # Not splitlines(): only \n ends a line, as for journald.
        return [json.loads(line) for line in written.split(b"\n") if line]

    read()
    return read


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def app(registry: CollectorRegistry) -> Flask:
    """Return an ordinary app with one line added."""
    app = Flask("ordinary")
    Vantage(app, registry=registry)

    @app.get("/things/<int:thing>")
    def thing(thing: int) -> dict[str, int]:
        return {"thing": thing}

    @app.post("/things")
    def add() -> Any:
        from flask import request

        return request.get_json()

    @app.get("/broken")
    def broken() -> str:
        raise LookupError("the secret of the cellar")

    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def serve_in_thread(app: Flask) -> tuple[str, Callable[[], None]]:
    """Serve `app` on a free port; return its URL and a function that stops it."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return f"http://127.0.0.1:{server.server_port}", stop


@pytest.fixture
def warehouse_app(tmp_path: Path) -> Iterator[Flask]:
    app = warehouse.create_app(str(tmp_path / "warehouse.db"))
    yield app
    app.extensions["store"].connection.close()


@pytest.fixture
def storefront_app(warehouse_app: Flask) -> Iterator[Flask]:
    """Return a storefront with a warehouse that listens on a real port."""
    url, stop = serve_in_thread(warehouse_app)
    app = storefront.create_app(url)
    yield app
    app.extensions["warehouse"].pool.close()
    stop()


@pytest.fixture
def shop(storefront_app: Flask) -> FlaskClient:
    return storefront_app.test_client()


def assert_problem(response: Any, status: int, *fields: str) -> dict[str, Any]:
    """Assert that `response` is a problem of `status` that names `fields`; return it."""
    body: dict[str, Any] = json.loads(response.get_data(as_text=True))
    assert response.status_code == status, body
    assert response.content_type == "application/problem+json"
    assert body["status"] == status
    assert {"type", "title", "detail", "trace_id", "request_id"} <= body.keys()
    assert [error["field"] for error in body.get("errors", [])] == list(fields), body
    return body
