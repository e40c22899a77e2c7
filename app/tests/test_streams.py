"""Inside a body that is generated while it is sent, the request is still the current one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import urllib3
from flask import Flask, Response, request, stream_with_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from prometheus_client import CollectorRegistry

from conftest import ReadLines, serve_in_thread
from flask_vantage import current_request_id, current_trace_id
from flask_vantage.context import current_request

Spans = Callable[[], tuple[ReadableSpan, ...]]


@pytest.mark.parametrize("length", [{}, {"Content-Length": "4"}])
@pytest.mark.parametrize("with_context", [True, False])
def test_lines_of_a_generator_have_the_ids_of_the_request(
    app: Flask, lines: ReadLines, length: dict[str, str], with_context: bool
) -> None:
    @app.get("/report")
    def report() -> Response:
        def rows() -> Iterator[bytes]:
            for _ in range(2):
                app.logger.warning("%s %s", current_request_id(), current_trace_id())
                yield b"ab"
            app.logger.warning("last")

        return Response(stream_with_context(rows()) if with_context else rows(), headers=length)

    with app.test_client().get("/report", buffered=False) as response:
        assert response.get_data() == b"abab"
    written = lines()
    ids = response.headers["X-Request-ID"], response.headers["X-Trace-Id"]
    assert len(written) == 4
    assert {(line["request_id"], line["trace_id"]) for line in written} == {ids}
    assert written[0]["message"] == " ".join(ids)
    assert current_request.get() is None
    assert not trace.get_current_span().get_span_context().is_valid


def test_client_spans_of_a_generator_are_children_of_the_request(app: Flask, spans: Spans) -> None:
    other = Flask("other")
    other.add_url_rule("/", view_func=lambda: "ok")
    url, stop = serve_in_thread(other)
    pool = urllib3.PoolManager()

    @app.get("/report")
    def report() -> Response:
        def rows() -> Iterator[bytes]:
            yield b"first"
            pool.request("GET", url)
            yield b"second"

        return Response(rows())

    try:
        with app.test_client().get("/report", buffered=False) as response:
            response.get_data()
    finally:
        pool.clear()
        stop()
    (call,) = [span for span in spans() if span.name == "GET"]
    (server,) = [span for span in spans() if span.name == "GET /report"]
    assert call.parent is not None
    assert server.context is not None
    assert call.parent.span_id == server.context.span_id


def test_span_that_a_generator_keeps_open_stays_current_in_it(app: Flask, spans: Spans) -> None:
    tracer = trace.get_tracer("theirs")

    @app.get("/report")
    def report() -> Response:
        def rows() -> Iterator[bytes]:
            with tracer.start_as_current_span("export"):
                yield b"first"
                tracer.start_span("page").end()
                yield b"second"

        return Response(rows())

    with app.test_client().get("/report", buffered=False) as response:
        response.get_data()
    by_name = {span.name: span for span in spans()}
    parents = {name: span.parent.span_id for name, span in by_name.items() if span.parent}
    ids = {name: span.context.span_id for name, span in by_name.items() if span.context}
    assert parents == {"page": ids["export"], "export": ids["GET /report"]}


@pytest.mark.parametrize("length", [{}, {"Content-Length": "4"}])
def test_duration_is_that_to_the_last_byte(
    app: Flask, registry: CollectorRegistry, lines: ReadLines, length: dict[str, str]
) -> None:
    @app.get("/slow")
    def slow() -> Response:
        def rows() -> Iterator[bytes]:
            for _ in range(4):
                time.sleep(0.02)
                yield b"x"

        return Response(rows(), headers=length)

    with app.test_client().get("/slow", buffered=False) as response:
        response.get_data()
    (line,) = lines()
    assert line["duration_ms"] >= 80
    labels = {"http_request_method": "GET", "http_route": "/slow", "http_response_status_code": "200"}
    assert (registry.get_sample_value("http_server_request_duration_seconds_sum", labels) or 0) >= 0.08


def test_work_on_close_belongs_to_the_request(app: Flask, lines: ReadLines) -> None:
    @app.get("/late")
    def late() -> Response:
        response = Response("ok")
        response.call_on_close(lambda: app.logger.warning("closing"))
        return response

    with app.test_client().get("/late", buffered=False):
        pass
    closing, access = lines()
    assert closing["message"] == "closing"
    assert closing["request_id"] == access["request_id"]


def test_request_of_flask_is_still_there_with_its_context(app: Flask) -> None:
    @app.get("/report")
    def report() -> Response:
        @stream_with_context
        def rows() -> Iterator[str]:
            yield request.path
            yield request.args["x"]

        return Response(rows())

    assert app.test_client().get("/report?x=1").data == b"/report1"


def test_body_that_is_complete_is_handed_over_unchanged(app: Flask, lines: ReadLines) -> None:
    app.test_client().get("/things/1", buffered=False)
    # Without the client closing it.
    assert len(lines()) == 1


def test_file_is_handed_over_to_the_server_unchanged(app: Flask) -> None:
    class Wrapper:
        """What a server that sends files by itself gives to an app."""

        def __init__(self, *_: object) -> None:
            self.close = lambda: None

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"file"])

    def view() -> Response:
        return Response(request.environ["wsgi.file_wrapper"](), direct_passthrough=True)

    app.add_url_rule("/file", view_func=view)
    with app.test_request_context("/file") as context:
        environ = {**context.request.environ, "wsgi.file_wrapper": Wrapper}
    assert type(app(environ, lambda *_: lambda _: None)) is Wrapper


def test_websocket_that_ends_under_gunicorn_is_no_error(app: Flask, lines: ReadLines, spans: Spans) -> None:
    class Used(Response):
        """The connection was used as a WebSocket: no response follows."""

        def __call__(self, *_: object) -> list[bytes]:
            raise StopIteration

    @app.get("/socket")
    def websocket() -> Response:
        return Used()

    with pytest.raises(StopIteration):
        app.test_client().get("/socket")
    (line,) = lines()
    assert (line["level"], line["http_response_status_code"], line["http_route"]) == ("info", 101, "/socket")
    assert "exception_type" not in line
    (span,) = spans()
    assert span.status.is_ok
