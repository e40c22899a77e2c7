"""The exception of a request that failed is in its line and span, whether or not a handler answered it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, abort, got_request_exception
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

from conftest import ReadLines
from flask_vantage import Vantage
from test_guest import restx
from test_metrics import count

Spans = Callable[[], tuple[ReadableSpan, ...]]


class _Records(logging.Handler):
    """An error tracker."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def assert_failed_with(spans: Spans, lines: ReadLines, name: str, status: int) -> dict[str, Any]:
    """Assert that the one line and the one span have an exception `name`; return the line."""
    (line,) = lines()
    assert (line["level"], line["exception_type"]) == ("error", name)
    assert line["http_response_status_code"] == status
    assert "Traceback" in line["exception_stacktrace"]
    (span,) = spans()
    assert span.attributes is not None
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == name
    assert [event.name for event in span.events] == ["exception"]
    return line


@pytest.mark.parametrize("first", ["app", "vantage"])
@pytest.mark.parametrize("handled", [Exception, LookupError, 500])
def test_exception_that_a_handler_made_a_5xx(
    first: str, handled: type[Exception] | int, registry: CollectorRegistry, spans: Spans, lines: ReadLines
) -> None:
    app = Flask("tidy")
    app.add_url_rule("/broken", view_func=lambda: {}["key"])
    if first == "vantage":
        Vantage(app, registry=registry)
    app.register_error_handler(handled, lambda _: ({"error": "tidy"}, 503))
    if first == "app":
        Vantage(app, registry=registry)
    response = app.test_client().get("/broken")
    assert (response.status_code, response.get_json()) == (503, {"error": "tidy"})
    assert_failed_with(spans, lines, "KeyError", 503)


def test_exception_that_a_handler_made_a_4xx_is_no_error(app: Flask, spans: Spans, lines: ReadLines) -> None:
    app.register_error_handler(LookupError, lambda _: ("unknown", 404))
    assert app.test_client().get("/broken").status_code == 404
    (line,) = lines()
    assert (line["level"], "exception_type" in line) == ("info", False)
    (span,) = spans()
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_aborted_request_has_no_exception(app: Flask, spans: Spans, lines: ReadLines) -> None:
    app.add_url_rule("/busy", view_func=lambda: abort(503))
    assert app.test_client().get("/busy").status_code == 503
    (line,) = lines()
    assert (line["level"], "exception_type" in line) == ("error", False)
    (span,) = spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "503"


def test_unhandled_exception_is_an_error_whatever_its_page_says(app: Flask, lines: ReadLines) -> None:
    app.register_error_handler(500, lambda _: ("all is well", 200))
    assert app.test_client().get("/broken").status_code == 200
    (line,) = lines()
    assert (line["level"], line["exception_type"]) == ("error", "LookupError")


def test_handler_that_fails(app: Flask, spans: Spans, lines: ReadLines) -> None:
    @app.errorhandler(LookupError)
    def handler(_: LookupError) -> Response:
        raise OSError("handler")

    assert app.test_client().get("/broken").status_code == 500
    line = assert_failed_with(spans, lines, "OSError", 500)
    assert "LookupError" in line["exception_stacktrace"]


# after_request fails once more for the page of the error, which Flask logs with a line of its own.
@pytest.mark.parametrize("hook", ["before_request", "teardown_request", "teardown_appcontext"])
def test_hook_that_fails(app: Flask, registry: CollectorRegistry, spans: Spans, lines: ReadLines, hook: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("the session could not be closed")

    getattr(app, hook)(fail)
    client = app.test_client()
    if hook.startswith("teardown"):
        # Flask lets it through to the server.
        with pytest.raises(OSError, match="session"):
            client.get("/things/1")
    else:
        assert client.get("/things/1").status_code == 500
    line = assert_failed_with(spans, lines, "OSError", 500)
    assert line["http_route"] == "/things/<int:thing>"
    assert count(registry, "GET", "/things/<int:thing>", "500") == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("any")])
def test_exception_that_is_no_error_of_python_is_a_500(
    app: Flask, registry: CollectorRegistry, spans: Spans, lines: ReadLines, error: BaseException
) -> None:
    @app.get("/exit")
    def leave() -> str:
        raise error

    with pytest.raises(type(error)):
        app.test_client().get("/exit")
    line = assert_failed_with(spans, lines, type(error).__name__, 500)
    assert "in leave\n" in line["exception_stacktrace"]
    assert count(registry, "GET", "/exit", "500") == 1
    # The server need not log it again.
    assert error.is_logged  # type: ignore[attr-defined]


@pytest.mark.parametrize("logger_name", ["", "ordinary"])
def test_handlers_of_the_app_get_the_line_of_flask(app: Flask, lines: ReadLines, logger_name: str) -> None:
    tracker, signals = _Records(), []
    logging.getLogger(logger_name).addHandler(tracker)

    def receive(_: Flask, exception: BaseException) -> None:
        signals.append(exception)

    got_request_exception.connect(receive, app)
    try:
        app.test_client().get("/broken")
    finally:
        logging.getLogger(logger_name).removeHandler(tracker)
    (record,) = tracker.records
    assert record.exc_info is not None
    assert [record.exc_info[1]] == signals
    assert len(lines()) == 1


def test_own_log_exception_goes_on_working(registry: CollectorRegistry, lines: ReadLines) -> None:
    class Tracked(Flask):
        def log_exception(self, exc_info: Any) -> None:
            self.logger.error("tracked", extra={"ticket": 7}, exc_info=exc_info)

    app = Tracked("tracked")
    Vantage(app, registry=registry)
    app.add_url_rule("/broken", view_func=lambda: {}["key"])
    app.test_client().get("/broken")
    own, access = lines()
    assert (own["message"], own["ticket"]) == ("tracked", 7)
    assert own["request_id"] == access["request_id"]
    assert own["exception_type"] == access["exception_type"] == "KeyError"


def test_exception_that_the_app_logs_itself_keeps_its_line(app: Flask, lines: ReadLines) -> None:
    @app.errorhandler(LookupError)
    def handler(error: LookupError) -> tuple[str, int]:
        app.logger.exception("looked up in vain")
        return "sorry", 500

    app.test_client().get("/broken")
    assert [line["message"] for line in lines()] == ["looked up in vain", "GET /broken 500"]


@pytest.mark.parametrize("first", ["app", "vantage"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_errors_that_restx_answers(first: str, registry: CollectorRegistry, lines: ReadLines) -> None:
    # It sends got_request_exception for a 404 too, and may call log_exception without the signal.
    app = Flask("todo")
    if first == "app":
        restx(app)
    Vantage(app, registry=registry)
    if first == "vantage":
        restx(app)
    client = app.test_client()
    for method, path in (("GET", "/todos/2"), ("DELETE", "/todos/1"), ("PUT", "/todos/1")):
        client.open(path, method=method).close()
    found = [(line["http_response_status_code"], line["level"], line.get("exception_type")) for line in lines()]
    assert found == [(404, "info", None), (500, "error", "LookupError"), (503, "error", "ZeroDivisionError")]


# Streams.


def test_stream_that_breaks_is_an_error_with_its_exception(app: Flask, spans: Spans, lines: ReadLines) -> None:
    @app.get("/export")
    def export() -> Response:
        def rows() -> Iterator[bytes]:
            yield b"a,b\n"
            raise OSError("disk went away")

        return Response(rows(), headers={"Content-Length": "8"})

    response = app.test_client().get("/export", buffered=False)
    with pytest.raises(OSError, match="disk"):
        response.get_data()
    response.close()
    assert_failed_with(spans, lines, "OSError", 200)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_stream_that_exits_is_an_error(app: Flask, spans: Spans, lines: ReadLines, error: BaseException) -> None:
    @app.get("/export")
    def export() -> Response:
        def rows() -> Iterator[bytes]:
            yield b"a"
            raise error

        return Response(rows())

    response = app.test_client().get("/export", buffered=False)
    with pytest.raises(type(error)):
        response.get_data()
    response.close()
    assert_failed_with(spans, lines, type(error).__name__, 200)


def test_client_that_leaves_is_no_error(app: Flask, spans: Spans, lines: ReadLines) -> None:
    closed: list[bool] = []

    @app.get("/events")
    def events() -> Response:
        def parts() -> Iterator[bytes]:
            try:
                while True:
                    yield b"data: x\n\n"
            finally:
                closed.append(True)

        return Response(parts(), mimetype="text/event-stream")

    app.test_client().get("/events", buffered=False).close()
    assert closed == [True]
    (line,) = lines()
    assert (line["level"], line["http_response_status_code"]) == ("info", 200)
    (span,) = spans()
    assert span.status.status_code is StatusCode.UNSET


def test_failing_end_of_a_stream_is_an_error(app: Flask, spans: Spans, lines: ReadLines) -> None:
    @app.get("/events")
    def events() -> Response:
        def parts() -> Iterator[bytes]:
            try:
                yield b"data: x\n\n"
            finally:
                raise OSError("cannot roll back")

        return Response(parts())

    response = app.test_client().get("/events", buffered=False)
    with pytest.raises(OSError, match="roll back"):
        response.close()
    assert_failed_with(spans, lines, "OSError", 200)
