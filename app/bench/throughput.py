"""Measure what full telemetry costs: the storefront's cheapest route, bare and instrumented.

Both servers run at the same time and are measured in turns, round by round, so that other load on the machine affects
both. Spans go to a receiver in this script. Prints median and range of the requests per second, the server's CPU time
per request in µs, and the two ratios. The servers run this checkout's code, with the Python that runs this script.

    python bench/throughput.py [--rounds 7] [--seconds 3] [--connections 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

REQUEST = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_APP = Path(__file__).resolve().parent.parent
_SOURCES = f"{_APP / 'src'}{os.pathsep}{_APP / 'examples' / 'shop'}"


@dataclass
class Variant:
    """One way to run the app, and its measurements."""

    name: str
    environment: dict[str, str]
    port: int = 0
    pid: int = 0
    rates: list[float] = field(default_factory=list)
    cpu_microseconds: list[float] = field(default_factory=list)


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        return


def _receive(port: int, ready: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = ThreadingHTTPServer(("127.0.0.1", port), _Receiver)
    ready.set()
    server.serve_forever()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def receiver(port: int) -> Iterator[None]:
    """Run an OTLP receiver that drops everything, in a process of its own."""
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=_receive, args=(port, ready), daemon=True)
    process.start()
    ready.wait(10)
    try:
        yield
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def server(variant: Variant) -> Iterator[None]:
    """Run the storefront as `variant` says until the block ends."""
    variant.port = free_port()
    command = [sys.executable, "-m", "flask_vantage.serve", "shop.storefront:create_app"]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "VANTAGE_", "SHOP_"))},
        "VANTAGE_HOST": "127.0.0.1",
        "PORT": str(variant.port),
        "OTEL_SERVICE_NAME": "bench",
        "PYTHONPATH": _SOURCES,
        "PYTHONDONTWRITEBYTECODE": "1",
        **variant.environment,
    }
    # Shown only if the server does not start.
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        variant.pid = process.pid
        try:
            if not _is_alive(variant.port, process):
                errors.seek(0)
                ended = process.poll()
                raise SystemExit(f"{errors.read()}\nserver did not start: exit status {ended}")
            yield
        finally:
            process.terminate()
            process.wait(30)


def _is_alive(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; False if it exited or did not answer within 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                connection.close()
                return True
        time.sleep(0.05)
    return False


def drive(port: int, connections: int, seconds: float) -> tuple[int, float]:
    """Send requests over keep-alive connections, one at a time each; return responses and seconds."""
    selector = selectors.DefaultSelector()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    answers = 0
    started = time.perf_counter()
    end = started + seconds
    for connection in sockets:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        connection.sendall(REQUEST)
    try:
        while time.perf_counter() < end:
            for key, _ in selector.select(1.0):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                data = ready.recv(65536)
                # Headers and body come in one piece or in two; either way the body ends it.
                if not data.endswith(b"pong\n"):
                    if not data.startswith(b"HTTP/1.1 200"):
                        raise SystemExit(f"unexpected response: {data[:200]!r}")
                    continue
                answers += 1
                ready.sendall(REQUEST)
    finally:
        for connection in sockets:
            connection.close()
        selector.close()
    return answers, time.perf_counter() - started


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the process in seconds, all threads together (Linux)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def measure(variant: Variant, connections: int, seconds: float) -> None:
    """Add one round's measurements to `variant`."""
    before = cpu_seconds(variant.pid)
    answers, elapsed = drive(variant.port, connections, seconds)
    # Wait for the last spans and lines, which belong to this round.
    time.sleep(1.2)
    variant.rates.append(answers / elapsed)
    variant.cpu_microseconds.append((cpu_seconds(variant.pid) - before) / answers * 1e6)


def summary(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    collector = free_port()
    endpoint = f"http://127.0.0.1:{collector}"
    variants = [
        Variant("bare", {"VANTAGE_TELEMETRY": "off"}),
        Variant("full telemetry", {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(receiver(collector))
        for variant in variants:
            stack.enter_context(server(variant))
            drive(variant.port, options.connections, 1.0)  # warm up
        for _ in range(options.rounds):
            for variant in variants:
                measure(variant, options.connections, options.seconds)
    report(variants, options.json)
    return 0


def report(variants: list[Variant], path: str | None) -> None:
    """Print the table, and write it as JSON to `path` when one is given."""
    bare, full = variants
    # Round by round, since the two runs of a round had the same load beside them.
    ratios = [f / b for f, b in zip(full.rates, bare.rates, strict=True)]
    cpu_ratios = [b / f for f, b in zip(full.cpu_microseconds, bare.cpu_microseconds, strict=True)]
    print(f"{'GET /ping':<16}{'requests/s':>12}{'spread':>16}{'CPU µs/request':>18}{'spread':>14}")
    for variant in variants:
        rate, cpu = summary(variant.rates), summary(variant.cpu_microseconds)
        print(
            f"{variant.name:<16}{rate['median']:>12.0f}"
            f"{rate['min']:>9.0f}-{rate['max']:<6.0f}"
            f"{cpu['median']:>18.0f}{cpu['min']:>8.0f}-{cpu['max']:<5.0f}"
        )
    rate, cpu = summary(ratios), summary(cpu_ratios)
    print(
        f"full/bare throughput {rate['median']:.2f} ({rate['min']:.2f}-{rate['max']:.2f}), "
        f"by CPU time {cpu['median']:.2f} ({cpu['min']:.2f}-{cpu['max']:.2f}); "
        "target: 0.50 or better"
    )
    if path:
        figures: dict[str, Any] = {
            v.name: {
                "requests_per_second": summary(v.rates),
                "cpu_microseconds_per_request": summary(v.cpu_microseconds),
            }
            for v in variants
        }
        figures["ratio"] = rate
        figures["cpu_ratio"] = cpu
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    sys.exit(main())
