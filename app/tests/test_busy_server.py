"""The server answers probes and scrapes whatever holds its threads and connections, with real sockets."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from collector import Collector
from served import Serve, Served

PROBES = ("/healthz", "/readyz", "/metrics")


def open_request(served: Served, path: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", served.port), 10)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def ask(served: Served, path: str, timeout: float = 1.0) -> int:
    """Return the status of a GET that is answered within `timeout` seconds."""
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=timeout)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def statuses(served: Served) -> list[int]:
    return [ask(served, path) for path in PROBES]


def answers_within(served: Served, path: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError):
            if ask(served, path) == 200:
                return True
        time.sleep(0.05)
    return False


def metric(served: Served, name: str) -> float:
    text = served.request("GET", "/metrics")[2].decode()
    values = [float(value) for value in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)]
    assert len(values) == 1, (name, values)
    return values[0]


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("path", ["/events", "/quiet-events", "/slow"])
def test_probes_answer_while_all_threads_are_busy(serve: Serve, held: ExitStack, path: str) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none", VANTAGE_THREADS="8")
    for _ in range(8):
        held.enter_context(open_request(served, path))
    time.sleep(0.5)
    with pytest.raises(TimeoutError):
        ask(served, "/")
    assert statuses(served) == [200, 200, 200]
    assert metric(served, "vantage_server_threads") == 8
    assert metric(served, "vantage_server_busy_threads") == 8


@pytest.mark.parametrize("path", ["/events", "/quiet-events", "/slow"])
def test_threads_of_clients_that_left_are_replaced(serve: Serve, path: str) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none", VANTAGE_THREADS="2")
    for _ in range(3):
        for connection in [open_request(served, path) for _ in range(2)]:
            time.sleep(0.2)
            connection.close()
        assert answers_within(served, "/", 4)
    # The server looks for clients that left once a second.
    deadline = time.monotonic() + 4
    while (busy := metric(served, "vantage_server_busy_threads")) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert busy <= 1


def test_client_that_closes_its_sending_half_gets_its_response(serve: Serve) -> None:
    served = serve("busy_app:plain")
    with open_request(served, "/slow?seconds=2") as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"done")


def test_header_and_body_of_a_response_are_sent_together(serve: Serve) -> None:
    served = serve("busy_app:plain")
    with open_request(served, "/slow?seconds=0") as connection:
        for _ in range(20):
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"done")
            connection.sendall(b"GET /slow?seconds=0 HTTP/1.1\r\nHost: x\r\n\r\n")


def test_idle_connections_make_room(serve: Serve, held: ExitStack) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none", VANTAGE_CONNECTION_LIMIT="200")
    for _ in range(260):
        connection = held.enter_context(closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)))
        connection.request("GET", "/")
        assert connection.getresponse().read()
    time.sleep(1.1)
    for _ in range(5):
        assert [*statuses(served), ask(served, "/")] == [200, 200, 200, 200]


def test_idle_connections_stay_few_enough_for_the_event_loop(serve: Serve, held: ExitStack) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none")
    connections = []
    for _ in range(250):
        connections.append(held.enter_context(open_request(served, "/")))
        connections[-1].recv(65536)
    time.sleep(1.1)
    for _ in range(60):
        ask(served, "/")
    time.sleep(0.2)
    closed = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            while connection.recv(65536):
                continue
            closed += 1
        except BlockingIOError:
            continue
    assert closed >= 50


def test_slow_uploads_make_room(serve: Serve, held: ExitStack) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none", VANTAGE_CONNECTION_LIMIT="200")
    uploads = []
    for _ in range(260):
        upload = held.enter_context(socket.create_connection(("127.0.0.1", served.port), 10))
        upload.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        uploads.append(upload)
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.5):
            for upload in uploads:
                try:
                    upload.sendall(b"x")
                except OSError:
                    continue

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        for _ in range(5):
            time.sleep(0.3)
            assert statuses(served) == [200, 200, 200]
            # While all uploads have just sent a byte, none of them is slow, and the request is told to come again.
            assert answers_within(served, "/", 2.0)
    finally:
        stop.set()
        sender.join()
    uploads[0].settimeout(5)
    assert uploads[0].recv(65536).startswith(b"HTTP/1.1 408 ")


def test_requests_above_the_limit_are_refused_and_probes_answered(serve: Serve, held: ExitStack) -> None:
    served = serve(
        "busy_app:with_vantage", OTEL_TRACES_EXPORTER="none", VANTAGE_THREADS="2", VANTAGE_CONNECTION_LIMIT="20"
    )
    for _ in range(20):
        held.enter_context(open_request(served, "/slow"))
    time.sleep(0.5)
    for _ in range(5):
        assert statuses(served) == [200, 200, 200]
        status, headers, body = served.request("GET", "/")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert b"VANTAGE_CONNECTION_LIMIT" in body
    assert metric(served, "vantage_server_waiting_requests") == 18
    refused = (
        "http_server_request_duration_seconds_count"
        '{http_request_method="GET",http_response_status_code="503",http_route="_unmatched"}'
    )
    assert metric(served, refused) == 5


def test_busy_threads_are_one_line_with_their_requests(serve: Serve, held: ExitStack) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none", VANTAGE_THREADS="2")
    held.enter_context(open_request(served, "/events"))
    held.enter_context(open_request(served, "/slow"))
    held.enter_context(open_request(served, "/slow"))
    time.sleep(8)
    served.stop()
    (line,) = [line for line in served.lines() if "busy_since" in line]
    assert (line["level"], line["threads"], line["requests_waiting"]) == ("warning", 2, 1)
    assert line["busy_seconds"] in (5, 6, 7)
    assert "GET /events (1)" in line["message"]
    assert "VANTAGE_THREADS" in line["message"]


@pytest.mark.parametrize("target", ["busy_app:with_vantage", "busy_app:plain"])
def test_exit_in_a_view_is_a_500_and_closes_the_connection(serve: Serve, target: str) -> None:
    served = serve(target, OTEL_TRACES_EXPORTER="none", VANTAGE_CONNECTION_LIMIT="5")
    for _ in range(12):
        with open_request(served, "/exit") as connection:
            connection.settimeout(5)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 500 ")
    assert ask(served, "/") == 200
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 4
    if target == "busy_app:plain":
        assert served.errors.count("SystemExit: 3") == 12
    else:
        lines = [line for line in served.lines() if line.get("exception_type") == "SystemExit"]
        assert [line["level"] for line in lines] == ["error"] * 12


def test_exit_in_a_stream_closes_the_connection(serve: Serve) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none")
    with open_request(served, "/exit-in-stream") as connection:
        connection.settimeout(5)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"begun" in answer
    # The end of a chunked body is missing, so the client sees that it is incomplete.
    assert not answer.endswith(b"0\r\n\r\n")
    served.stop()
    (line,) = [line for line in served.lines() if "exception_type" in line]
    assert (line["level"], line["exception_type"]) == ("error", "SystemExit")


def test_exception_of_the_app_is_not_called_a_rejection(serve: Serve) -> None:
    served = serve("busy_app:propagating")
    status, _, body = served.request("GET", "/broken")
    assert status == 500
    assert b"reject" not in body
    served.stop()
    assert "reject" not in served.errors
    assert "LookupError: not found in the cellar" in served.errors
    assert "ERROR" in served.errors


def test_websocket_is_refused_with_the_way_out(serve: Serve) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none")
    headers: dict[str, Any] = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    status, _, body = served.request("GET", "/", **headers)
    assert status == 501
    assert b"gunicorn -k gthread" in body
    served.stop()
    (line,) = [line for line in served.lines() if line.get("http_response_status_code") == 501]
    assert (line["level"], line["url_path"]) == ("warning", "/")


def test_open_streams_delay_the_stop_by_seconds(serve: Serve, collector: Collector, held: ExitStack) -> None:
    served = serve("busy_app:with_vantage", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="600000")
    for path in ("/events", "/events", "/quiet-events"):
        held.enter_context(open_request(served, path))
    upload = held.enter_context(socket.create_connection(("127.0.0.1", served.port), 10))
    upload.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    short = held.enter_context(open_request(served, "/slow?seconds=2"))
    time.sleep(0.5)
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 7
    assert short.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert upload.recv(65536).startswith(b"HTTP/1.1 503 ")
    assert sorted(span.name for span in collector.spans) == ["GET /events", "GET /events", "GET /slow"]
    lines = served.lines()
    assert sorted(line["http_route"] for line in lines if "http_route" in line) == ["/events", "/events", "/slow"]
    (line,) = [line for line in lines if "requests_unfinished" in line]
    assert line["requests_unfinished"] == 1
    assert "GET /quiet-events (1)" in line["message"]
