from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from prometheus_client import CollectorRegistry

from conftest import ReadLines
from flask_vantage import Settings, Vantage, logs, writer
from flask_vantage.logs import MAX_LINE_BYTES, encode_line
from flask_vantage.writer import LineWriter


def test_request_has_one_flat_line_with_its_ids(client: FlaskClient, lines: ReadLines) -> None:
    response = client.get("/things/3", headers={"X-Request-ID": "abc-1"})
    (line,) = lines()
    assert line.pop("duration_ms") > 0
    assert line.pop("timestamp").endswith("+00:00")
    assert len(line.pop("span_id")) == 16
    assert line == {
        "level": "info",
        "message": "GET /things/3 200",
        "logger": "flask_vantage.access",
        "service": "ordinary",
        "trace_id": response.headers["X-Trace-Id"],
        "request_id": "abc-1",
        "http_request_method": "GET",
        "http_route": "/things/<int:thing>",
        "url_path": "/things/3",
        "http_response_status_code": 200,
        "client_address": "127.0.0.1",
    }


def test_unexpected_exception_is_one_error_line_with_the_stack_trace(client: FlaskClient, lines: ReadLines) -> None:
    client.get("/broken")
    (line,) = lines()
    assert line["level"] == "error"
    assert line["http_response_status_code"] == 500
    assert line["exception_type"] == "LookupError"
    assert line["exception_message"] == "the secret of the cellar"
    assert "in broken\n" in line["exception_stacktrace"]


def test_stack_trace_has_no_values_of_variables(app: Flask, lines: ReadLines) -> None:
    @app.get("/leak")
    def leak() -> str:
        password = "hunter" + "2"
        raise ValueError(len(password))

    app.test_client().get("/leak")
    (line,) = lines()
    assert "hunter2" not in json.dumps(line)


def test_stream_that_fails_is_one_error_line_with_its_exception(app: Flask, lines: ReadLines) -> None:
    @app.get("/stream")
    def stream() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("broken off")

    response = app.test_client().get("/stream", buffered=False)
    with pytest.raises(ValueError, match="broken off"):
        response.get_data()
    response.close()
    (line,) = lines()
    assert (line["level"], line["http_response_status_code"]) == ("error", 200)
    assert line["exception_message"] == "broken off"


def test_client_error_is_logged_at_info(client: FlaskClient, lines: ReadLines) -> None:
    client.get("/nowhere")
    (line,) = lines()
    assert (line["level"], line["http_route"]) == ("info", "_unmatched")


def test_probes_are_not_logged_at_the_default_level(client: FlaskClient, lines: ReadLines) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        client.get(path)
    assert lines() == []


def test_lines_of_the_view_have_the_ids_of_the_request(app: Flask, lines: ReadLines) -> None:
    @app.get("/talk")
    def talk() -> str:
        logger.info("from loguru")
        logging.getLogger("theirs.module").warning("from the %s library", "standard")
        app.logger.error("from {flask}")
        return ""

    response = app.test_client().get("/talk")
    *own, access = lines()
    assert [(o["level"], o["logger"], o["message"]) for o in own] == [
        ("info", __name__, "from loguru"),
        ("warning", "theirs.module", "from the standard library"),
        ("error", "ordinary", "from {flask}"),
    ]
    for line in [*own, access]:
        assert line["trace_id"] == response.headers["X-Trace-Id"]
        assert line["request_id"] == response.headers["X-Request-ID"]


def test_lines_outside_a_request_have_no_ids(app: Flask, lines: ReadLines) -> None:
    logger.info("idle")
    (line,) = lines()
    assert "trace_id" not in line
    assert "request_id" not in line


def test_newline_in_message_or_path_stays_in_one_line(client: FlaskClient, lines: ReadLines) -> None:
    logger.info("first\nsecond\r\nthird")
    client.get("/a%0Alevel=error%0D%0A{x}%22")
    written = lines()
    assert len(written) == 2
    assert written[0]["message"] == "first\nsecond\r\nthird"
    assert written[1]["url_path"] == '/a\nlevel=error\r\n{x}"'


def test_field_of_the_caller_does_not_replace_a_standard_field(app: Flask, lines: ReadLines) -> None:
    logger.bind(level="silly", service="x", order=7).info("hello")
    (line,) = lines()
    assert (line["level"], line["service"]) == ("info", "ordinary")
    assert (line["extra_level"], line["order"]) == ("silly", 7)


def test_invalid_arguments_of_a_log_call_do_not_raise(app: Flask, lines: ReadLines) -> None:
    # Handed over directly, because pytest's own handler does raise.
    record = logging.LogRecord("theirs", logging.WARNING, __file__, 1, "%d pieces", ("many",), None)
    logs.InterceptHandler().handle(record)
    assert "%d pieces" in lines()[0]["message"]


def test_logged_exceptions_have_their_stack_trace(app: Flask, lines: ReadLines) -> None:
    try:
        raise KeyError("k")
    except KeyError:
        logging.getLogger("theirs").exception("caught")
        logger.exception("caught")
    first, second = lines()
    for line in (first, second):
        assert line["exception_type"] == "KeyError"
        assert "Traceback" in line["exception_stacktrace"]


def test_warnings_become_lines(app: Flask, lines: ReadLines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings put the original back in place; capture again as configure() does.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old ways" in lines()[0]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"message": "m" * 200_000},
        {"message": "ok", "exception_stacktrace": "HEAD" + "s" * 500_000 + "TAIL"},
        {"message": "ok", "mine": {"deep": ["x" * 300_000]}},
        {"message": "ok", **{f"k{i}": "v" * 1900 for i in range(500)}},
        {"message": "\U0001f600" * 50_000, "exception_stacktrace": "\x00" * 100_000},
    ],
)
def test_line_is_shorter_than_the_limit_of_journald(fields: dict[str, Any]) -> None:
    line = encode_line({"trace_id": "t", **fields})
    assert len(line) <= MAX_LINE_BYTES < 48 * 1024
    read = json.loads(line)
    assert read["truncated"] is True
    assert read["trace_id"] == "t"
    assert "message" in read


def test_shortened_stack_trace_keeps_both_ends() -> None:
    line = json.loads(encode_line({"exception_stacktrace": "HEAD" + "s" * 500_000 + "TAIL"}))
    assert line["exception_stacktrace"].startswith("HEAD")
    assert line["exception_stacktrace"].endswith("TAIL")
    assert "characters cut" in line["exception_stacktrace"]


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"\xff", object(), {1: 2}, {(1,): 2}, _Unprintable()])
def test_values_without_json_form_are_written_as_text(value: object) -> None:
    line = encode_line({"message": "m", "value": value})
    json.loads(line, parse_constant=lambda name: pytest.fail(f"not JSON: {name}"))


def test_key_that_is_not_text_is_written_as_text() -> None:
    fields: Any = {"message": "m" * MAX_LINE_BYTES, (1,): 2}
    assert json.loads(encode_line(fields))["(1,)"] == 2


def test_structure_that_contains_itself_is_written() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert json.loads(encode_line({"message": "m", "loop": loop}))["message"] == "m"


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
            max_leaves=8,
        ),
        max_size=8,
    )
)
def test_any_fields_give_one_line_of_json(fields: dict[str, Any]) -> None:
    line = encode_line(fields)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    json.loads(line)


def test_lone_surrogates_survive() -> None:
    assert json.loads(encode_line({"message": "a\udc80b"}))["message"] == "a\udc80b"


def test_blocked_stdout_drops_lines_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "QUEUE_LINES", 10)
    released = threading.Event()
    written: list[bytes] = []

    def stalled(data: bytes) -> None:
        released.wait(10)
        written.append(data)

    lost: list[int] = []
    line_writer = LineWriter(stalled)
    line_writer.count_dropped = lost.append
    line_writer.put(b"first\n")
    while line_writer._lines:  # until the thread has taken it
        pass
    for number in range(25):
        line_writer.put(b"%d\n" % number)
    assert sum(lost) == 15
    assert line_writer.flush(0.05) is False
    released.set()
    assert line_writer.flush(5)
    assert b"".join(written) == b"first\n" + b"".join(b"%d\n" % n for n in range(10))


def test_closed_stdout_drops_lines_without_raising() -> None:
    def closed(_: bytes) -> None:
        raise BrokenPipeError

    lost: list[int] = []
    line_writer = LineWriter(closed)
    line_writer.count_dropped = lost.append
    line_writer.put(b"x\n")
    assert line_writer.flush(5)
    assert sum(lost) == 1


def test_second_configure_does_not_duplicate_lines(lines: ReadLines) -> None:
    for _ in range(3):
        logs.configure("again", "INFO", "again")
    logger.info("once")
    logging.getLogger("theirs").warning("once")
    assert len(lines()) == 2


def test_stream_handler_that_would_duplicate_lines_is_removed() -> None:
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    logs.configure("again", "INFO", "again")
    assert handler not in logging.getLogger().handlers


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 129, "-starts-with-punctuation", "é", 'a"b', "a\tb"])
def test_malformed_request_id_is_replaced(client: FlaskClient, given_id: str) -> None:
    answered = client.get("/things/1", headers={"X-Request-ID": given_id}).headers["X-Request-ID"]
    assert answered != given_id
    assert len(answered) == 32


def test_access_line_is_the_same_with_and_without_loguru(client: FlaskClient, lines: ReadLines) -> None:
    client.get("/things/1")
    (direct,) = lines()
    own_sink: list[str] = []
    handler = logger.add(own_sink.append, format="{name} {message}")
    client.get("/things/1")
    logger.remove(handler)
    (through,) = lines()
    assert list(direct) == list(through)
    # The application's own sink gets the access lines as well.
    assert own_sink == ["flask_vantage.access GET /things/1 200\n"]


def test_access_lines_respect_the_log_level(registry: CollectorRegistry, lines: ReadLines) -> None:
    app = Flask("quiet")
    Vantage(app, settings=Settings(log_level="ERROR"), registry=registry)
    app.add_url_rule("/fails", view_func=lambda: ("no", 500))
    app.test_client().get("/nowhere")
    app.test_client().get("/fails")
    assert [line["message"] for line in lines()] == ["GET /fails 500"]


def test_probes_are_logged_at_debug(registry: CollectorRegistry, lines: ReadLines) -> None:
    app = Flask("chatty")
    Vantage(app, settings=Settings(log_level="DEBUG"), registry=registry)
    app.test_client().get("/healthz")
    assert [(line["level"], line["url_path"]) for line in lines()] == [("debug", "/healthz")]


def test_repeated_opentelemetry_message_passes_once_a_minute(app: Flask, lines: ReadLines) -> None:
    for _ in range(3):
        logging.getLogger("opentelemetry.exporter.test").warning("retry %s", 1)
        logging.getLogger("ordinary.module").warning("retry %s", 1)
    loggers = [line["logger"] for line in lines()]
    assert loggers.count("opentelemetry.exporter.test") == 1
    assert loggers.count("ordinary.module") == 3


def test_extra_of_the_standard_library_becomes_fields(app: Flask, lines: ReadLines) -> None:
    @app.get("/order")
    def order() -> str:
        extra = {"order_id": 5, "customer": {"name": "ada"}, "request_id": "theirs", "service": "x", "self": 1}
        logging.getLogger("theirs").info("order", extra=extra)
        return ""

    response = app.test_client().get("/order")
    line, _ = lines()
    assert (line["order_id"], line["customer"], line["self"]) == (5, {"name": "ada"}, 1)
    assert (line["service"], line["extra_service"]) == ("ordinary", "x")
    assert (line["request_id"], line["extra_request_id"]) == (response.headers["X-Request-ID"], "theirs")


def test_record_without_extra_has_only_the_standard_fields(app: Flask, lines: ReadLines) -> None:
    logging.getLogger("theirs").info("plain")
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "message", "logger", "service"]


def test_stack_info_is_a_field(app: Flask, lines: ReadLines) -> None:
    logging.getLogger("theirs").info("here", stack_info=True)
    assert "test_stack_info_is_a_field" in lines()[0]["stack_info"]


def test_malformed_baggage_is_logged_once_a_minute(client: FlaskClient, lines: ReadLines) -> None:
    for _ in range(3):
        client.get("/things/1", headers={"baggage": "=,;" * 10})
    messages = [line["message"] for line in lines() if line["level"] == "warning"]
    assert len(messages) == len(set(messages))


def test_levels_of_the_app_stay(app: Flask) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel(logging.ERROR)
        logs.configure("again", "INFO", "again")
        assert root.level == logging.ERROR
    finally:
        root.setLevel(before)
