"""`vantage-serve` as a real process, with a real collector of spans beside it."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from conftest import SOURCES
from flask_vantage import SettingsError
from flask_vantage.serve import TargetError, load_app

TESTS = Path(__file__).parent


class Collector:
    """A tiny OTLP/HTTP receiver that keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for attribute in resource.resource.attributes:
                        if attribute.key == "service.name":
                            collector.services.add(attribute.value.string_value)
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Served:
    """A running `vantage-serve`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self._output: str | None = None

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        self._output, _ = self.process.communicate(timeout=30)
        return self.process.returncode

    def lines(self) -> list[dict[str, Any]]:
        assert self._output is not None, "read the lines after the process has ended"
        return [json.loads(line) for line in self._output.split("\n") if line]


Serve = Callable[..., Served]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**settings: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{SOURCES}{os.pathsep}{TESTS}",
        "VANTAGE_HOST": "127.0.0.1",
        "OTEL_SERVICE_NAME": "slow",
        **settings,
    }


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Served] = []

    def start(target: str = "slow_app:create_app", **settings: str) -> Served:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "flask_vantage.serve", target],
            env=environment(PORT=str(port), **settings),
            stdout=subprocess.PIPE,
            text=True,
        )
        served = Served(process, port)
        started.append(served)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError):
                if served.request("GET", "/healthz")[0] == 200:
                    return served
            time.sleep(0.05)
        raise AssertionError(f"the server did not start: {process.poll()}")

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_answered_and_its_span_exported(
    serve: Serve, collector: Collector, tmp_path: Path, number: int
) -> None:
    # The schedule is far away, so the span can only come from the flush at the end.
    served = serve(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="600000")
    mark = tmp_path / "begun"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(served.request, "GET", f"/slow?seconds=1.5&mark={mark}")
        wait_for(mark)
        started = time.monotonic()
        assert served.stop(number) == 0
        assert time.monotonic() - started < 20
        status, headers, body = answer.result()
    assert (status, body) == (200, b"done")
    assert headers["Connection"] == "close"
    assert [span.name for span in collector.spans] == ["GET /slow"]
    assert collector.spans[0].trace_id.hex() == headers["X-Trace-Id"]
    assert collector.services == {"slow"}
    access = [line for line in served.lines() if line.get("http_route") == "/slow"]
    assert [line["trace_id"] for line in access] == [headers["X-Trace-Id"]]


def test_not_ready_is_said_before_connections_are_refused(serve: Serve, tmp_path: Path) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    mark = tmp_path / "begun"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(served.request, "GET", f"/slow?seconds=1.5&mark={mark}")
        wait_for(mark)
        served.process.send_signal(signal.SIGTERM)
        seen: list[int | str] = []
        while not answer.done():
            try:
                seen.append(served.request("GET", "/readyz")[0])
            except OSError:
                seen.append("refused")
            time.sleep(0.02)
        assert answer.result()[0] == 200
    assert 503 in seen
    assert seen[-1] == "refused"
    # Once refused, never accepted again; a 200 can only come before the first 503.
    order = {200: 0, 503: 1, "refused": 2}
    assert [order[s] for s in seen] == sorted(order[s] for s in seen)
    assert served.wait() == 0


def test_a_request_that_takes_too_long_does_not_hold_the_stop(serve: Serve, tmp_path: Path) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none", VANTAGE_STOP_TIMEOUT="6")
    mark = tmp_path / "begun"
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", f"/slow?seconds=25&mark={mark}")
    wait_for(mark)
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 6
    connection.close()
    assert "Stopping with 1 requests unfinished." in [line["message"] for line in served.lines()]


def test_idle_keep_alive_connections_do_not_hold_the_stop(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 5
    connection.close()


def test_a_dead_collector_slows_nothing_and_is_counted(serve: Serve) -> None:
    served = serve(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    slowest = 0.0
    for _ in range(100):
        started = time.monotonic()
        assert served.request("GET", "/nowhere")[0] == 404
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(0.005)
    assert slowest < 1.0
    deadline = time.monotonic() + 20
    dropped = ""
    while time.monotonic() < deadline and not dropped:
        text = served.request("GET", "/metrics")[2].decode()
        dropped = next(
            line
            for line in text.splitlines()
            if line.startswith('vantage_spans_dropped_total{reason="export_failed"}')
        )
        dropped = "" if dropped.endswith(" 0.0") else dropped
        time.sleep(0.2)
    assert dropped
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 10
    complaints = [
        line for line in served.lines() if line["message"].startswith("The trace collector")
    ]
    assert len(complaints) == 1


def test_a_collector_that_hangs_slows_neither_requests_nor_the_stop(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        served = serve(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
            OTEL_BSP_SCHEDULE_DELAY="50",
        )
        started = time.monotonic()
        for _ in range(50):
            assert served.request("GET", "/nowhere")[0] == 404
        assert time.monotonic() - started < 5
        started = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - started < 10


def test_an_output_that_nobody_reads_slows_no_request(serve: Serve) -> None:
    # The pipe holds 64 KiB and the test reads it only at the end.
    served = serve(OTEL_TRACES_EXPORTER="none")
    started = time.monotonic()
    for _ in range(300):
        assert served.request("GET", f"/{'x' * 500}")[0] == 404
    assert time.monotonic() - started < 20
    assert served.stop() == 0
    access = [line for line in served.lines() if line["message"].startswith("GET /x")]
    assert len(access) == 300


def test_a_huge_stack_trace_stays_one_bounded_line(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    assert served.request("GET", "/broken")[0] == 500
    served.stop()
    assert served._output is not None
    assert max(len(line.encode()) for line in served._output.split("\n")) < 48 * 1024
    (line,) = [line for line in served.lines() if line.get("url_path") == "/broken"]
    assert line["exception_type"] == "LookupError"
    assert line["truncated"] is True


def test_bodies_up_to_the_limit_pass_and_larger_ones_are_a_413_problem(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none", VANTAGE_MAX_BODY_BYTES="100000")
    status, _, body = served.request("POST", "/echo", b"x" * 100_000)
    assert (status, json.loads(body)) == (200, {"length": 100_000})
    status, headers, body = served.request("POST", "/echo", b"x" * 100_001)
    assert status == 413
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["status"] == 413


def test_a_client_that_sends_a_large_body_regardless_can_read_the_refusal(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    for _ in range(3):
        status, _, body = served.request("POST", "/echo", b"x" * 8_000_000)
        assert (status, json.loads(body)["status"]) == (413, 413)
    # The refused connections do not linger for long, and do not hold the stop.
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 4


def test_a_far_too_large_body_is_refused_without_being_read(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    with socket.create_connection(("127.0.0.1", served.port), 10) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_problem_and_one_line(serve: Serve, request_bytes: bytes) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    with socket.create_connection(("127.0.0.1", served.port), 10) as connection:
        connection.sendall(request_bytes)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"Server:" not in head
    assert json.loads(body)["status"] in (400, 431)
    assert served.stop() == 0
    assert len([line for line in served.lines() if "refused" in line["message"]]) == 1


def test_the_server_does_not_say_what_it_is(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    assert "Server" not in served.request("GET", "/stream")[1]


def test_a_bare_app_has_no_telemetry_and_still_stops_cleanly(serve: Serve) -> None:
    served = serve(VANTAGE_TELEMETRY="off")
    assert served.request("GET", "/metrics")[0] == 404
    status, headers, _ = served.request("GET", "/readyz")
    assert status == 200
    assert "X-Request-ID" not in headers
    assert served.stop() == 0


@pytest.mark.parametrize(
    ("settings", "target", "text"),
    [
        ({"PORT": "http"}, "slow_app:create_app", "PORT: 'http' is not a whole number"),
        ({}, "slow_app", "'slow_app' is not module:attribute"),
        ({}, "nowhere.at.all:app", "there is no module 'nowhere'"),
        ({}, "slow_app:nothing", "has no 'nothing'"),
        ({}, "slow_app:__name__", "not a Flask app"),
        (
            {"WAREHOUSE_DATABASE": "/nowhere/w.db"},
            "shop.warehouse:create_app",
            "WAREHOUSE_DATABASE: '/nowhere/w.db' cannot be opened",
        ),
        ({"WAREHOUSE_URL": "x"}, "shop.storefront:create_app", "WAREHOUSE_URL: 'x' is not an"),
    ],
)
def test_a_wrong_start_says_what_is_wrong_in_one_line(
    settings: dict[str, str], target: str, text: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "flask_vantage.serve", target],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2
    assert text in result.stderr
    assert result.stderr.startswith("vantage-serve: ")
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_named(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = subprocess.run(
            [sys.executable, "-m", "flask_vantage.serve", "slow_app:create_app"],
            env=environment(PORT=str(taken.getsockname()[1])),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert result.returncode == 2
    assert "Address already in use" in result.stderr
    assert "PORT" in result.stderr


def test_an_import_that_fails_inside_the_app_is_not_mistaken_for_a_wrong_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import a_missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_missing_dependency"):
        load_app("half_installed:app")
    with pytest.raises(TargetError):
        load_app("not_installed:app")


def test_an_app_or_a_factory_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_FAULTS", "maybe")
    with pytest.raises(SettingsError):
        load_app("shop.storefront:create_app")
    monkeypatch.delenv("SHOP_FAULTS")
    assert load_app("shop.storefront:create_app").name == "shop.storefront"
