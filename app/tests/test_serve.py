"""`vantage-serve` as a real process, with a real span collector beside it."""

from __future__ import annotations

import concurrent.futures
import gc
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flask import Flask

from collector import Collector
from flask_vantage import Settings, SettingsError
from flask_vantage.serve import Server, TargetError, load_app
from served import Serve, environment, free_port


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_request_in_flight_is_answered_and_its_span_exported(
    serve: Serve, collector: Collector, tmp_path: Path, number: int
) -> None:
    # The next scheduled export is far away, so the span can only come from the flush at the end.
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


def test_readyz_fails_before_connections_are_refused(serve: Serve, tmp_path: Path) -> None:
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


def test_slow_request_does_not_delay_the_stop(serve: Serve, tmp_path: Path) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none", VANTAGE_STOP_TIMEOUT="6")
    mark = tmp_path / "begun"
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", f"/slow?seconds=25&mark={mark}")
    wait_for(mark)
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 6
    connection.close()
    assert [line["requests_unfinished"] for line in served.lines() if "requests_unfinished" in line] == [1]


def test_idle_keep_alive_connections_do_not_delay_the_stop(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 5
    connection.close()


def test_dead_collector_delays_nothing_and_is_counted(serve: Serve) -> None:
    # The exporter retries until its timeout.
    served = serve(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}", OTEL_EXPORTER_OTLP_TIMEOUT="1")
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
            line for line in text.splitlines() if line.startswith('vantage_spans_dropped_total{reason="export_failed"}')
        )
        dropped = "" if dropped.endswith(" 0.0") else dropped
        time.sleep(0.2)
    assert dropped
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 10
    assert len([line for line in served.lines() if "spans_lost" in line]) == 1


def test_collector_that_never_answers_delays_nothing(serve: Serve) -> None:
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


def test_full_stdout_pipe_delays_no_request(serve: Serve) -> None:
    # The pipe holds 64 KiB and the test reads it only at the end.
    served = serve(OTEL_TRACES_EXPORTER="none")
    started = time.monotonic()
    for _ in range(300):
        assert served.request("GET", f"/{'x' * 500}")[0] == 404
    assert time.monotonic() - started < 20
    assert served.stop() == 0
    access = [line for line in served.lines() if line["message"].startswith("GET /x")]
    assert len(access) == 300


def test_huge_stack_trace_is_one_shortened_line(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    assert served.request("GET", "/broken")[0] == 500
    served.stop()
    assert served._output is not None
    assert max(len(line.encode()) for line in served._output.split("\n")) < 48 * 1024
    (line,) = [line for line in served.lines() if line.get("url_path") == "/broken"]
    assert line["exception_type"] == "LookupError"
    assert line["truncated"] is True


def test_body_up_to_the_limit_passes_and_a_larger_one_is_413(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none", VANTAGE_MAX_BODY_BYTES="100000")
    status, _, body = served.request("POST", "/echo", b"x" * 100_000)
    assert (status, json.loads(body)) == (200, {"length": 100_000})
    status, headers, body = served.request("POST", "/echo", b"x" * 100_001)
    assert status == 413
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["status"] == 413


def test_client_that_keeps_sending_a_large_body_can_read_the_413(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none", VANTAGE_MAX_BODY_BYTES="1000000")
    for _ in range(3):
        status, _, body = served.request("POST", "/echo", b"x" * 8_000_000)
        assert (status, json.loads(body)["status"]) == (413, 413)
    # The half-open connections do not delay the stop.
    started = time.monotonic()
    assert served.stop() == 0
    assert time.monotonic() - started < 4


def test_much_too_large_body_is_413_before_it_is_sent(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none", VANTAGE_MAX_BODY_BYTES="1000000")
    with socket.create_connection(("127.0.0.1", served.port), 10) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


def test_malformed_request_is_a_problem_and_one_log_line(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    request_ids = []
    for request_bytes in (
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", served.port), 10) as connection:
            connection.sendall(request_bytes)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head, request_bytes[:40]
        assert b"Server:" not in head
        assert json.loads(body)["status"] in (400, 431)
        request_ids.append(json.loads(body)["request_id"])
    assert served.stop() == 0
    rejected = [line for line in served.lines() if "request_id" in line and "http_route" not in line]
    assert [line["request_id"] for line in rejected] == request_ids


def test_response_has_no_server_header(serve: Serve) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none")
    assert "Server" not in served.request("GET", "/stream")[1]


@pytest.mark.parametrize(("value", "threshold"), [("on", 20_000), ("off", gc.get_threshold()[0])])
def test_garbage_collector_is_tuned_unless_switched_off(serve: Serve, value: str, threshold: int) -> None:
    served = serve(OTEL_TRACES_EXPORTER="none", VANTAGE_TUNE_GC=value)
    assert json.loads(served.request("GET", "/gc")[2])[0] == threshold


def test_app_without_telemetry_stops_cleanly(serve: Serve) -> None:
    served = serve(VANTAGE_TELEMETRY="off")
    assert served.request("GET", "/metrics")[0] == 404
    status, headers, _ = served.request("GET", "/readyz")
    assert status == 200
    assert "X-Request-ID" not in headers
    assert served.stop() == 0


@pytest.mark.parametrize(
    ("settings", "target", "words"),
    [
        ({"PORT": "http"}, "slow_app:create_app", ("PORT", "'http'", "1 to 65535")),
        ({}, "slow_app", ("'slow_app'", "module:attribute")),
        ({}, "nowhere.at.all:app", ("'nowhere'", "PYTHONPATH")),
        ({}, "slow_app:nothing", ("'nothing'", "'slow_app'")),
        ({}, "slow_app:__name__", ("'slow_app:__name__'", "(str)")),
        (
            {"WAREHOUSE_DATABASE": "/nowhere/w.db"},
            "shop.warehouse:create_app",
            ("WAREHOUSE_DATABASE", "'/nowhere/w.db'"),
        ),
        ({"WAREHOUSE_URL": "x"}, "shop.storefront:create_app", ("WAREHOUSE_URL", "'x'")),
    ],
)
def test_invalid_start_is_one_line_and_exit_status_2(
    settings: dict[str, str], target: str, words: tuple[str, ...]
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
    assert [word for word in words if word not in result.stderr] == []
    assert result.stderr.startswith("vantage-serve: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_taken_port_is_exit_status_2(serve: Serve) -> None:
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


def test_host_with_two_addresses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with pytest.raises(OSError, match="'twohosts'"):
        Server(Flask("ordinary"), Settings(host="twohosts", port=0))


def test_failing_import_inside_the_app_is_not_a_target_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import a_missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_missing_dependency"):
        load_app("half_installed:app")
    with pytest.raises(TargetError):
        load_app("not_installed:app")


def test_target_may_be_an_attribute_of_an_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dash keeps its Flask app in `server`."""
    (tmp_path / "dashboard.py").write_text(
        "from types import SimpleNamespace\nfrom flask import Flask\napp = SimpleNamespace(server=Flask('dash'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_app("dashboard:app.server").name == "dash"
    with pytest.raises(TargetError, match=r"app\.missing"):
        load_app("dashboard:app.missing.server")


def test_target_may_be_an_app_or_a_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_FAULTS", "maybe")
    with pytest.raises(SettingsError):
        load_app("shop.storefront:create_app")
    monkeypatch.delenv("SHOP_FAULTS")
    assert load_app("shop.storefront:create_app").name == "shop.storefront"
