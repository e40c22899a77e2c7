"""Measure what full telemetry costs: the storefront's cheapest route, bare and instrumented.

Both servers run at the same time and are measured in turns, round by round, so that other load on the machine affects
both. Spans go to a receiver in this script. Prints median and range of the requests per second, the server's CPU time
per request in µs, and the two ratios. The servers run this checkout's code, with the Python that runs this script.

    python bench/throughput.py [--rounds 7] [--seconds 3] [--connections 8]
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REQUEST = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_APP = Path(__file__).resolve().parent.parent


class _Receiver(BaseHTTPRequestHandler):
    """An OTLP receiver that drops everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        return


class Server:
    """A running storefront, and its measurements."""

    def __init__(self, name: str, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "VANTAGE_", "SHOP_"))},
            "VANTAGE_HOST": "127.0.0.1",
            "PORT": str(self._port),
            "OTEL_SERVICE_NAME": "bench",
            "PYTHONPATH": f"{_APP / 'src'}{os.pathsep}{_APP / 'examples' / 'shop'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            **settings,
        }
        command = [sys.executable, "-m", "flask_vantage.serve", "shop.storefront:create_app"]
        self.name = name
        # Shown only if the server does not start.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open until the process ends
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=self._errors)
        self.rates: list[float] = []
        self.cpu_microseconds: list[float] = []

    def wait_until_ready(self) -> None:
        """Return when the server accepts connections; raises SystemExit when it has ended."""
        while self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            time.sleep(0.05)
        self._errors.seek(0)
        raise SystemExit(f"{self._errors.read()}\nserver did not start: exit status {self.process.returncode}")

    def drive(self, connections: int, seconds: float) -> tuple[int, float]:
        """Send requests over keep-alive connections, one at a time each; return responses and seconds."""
        selector = selectors.DefaultSelector()
        answers = 0
        with contextlib.ExitStack() as stack:
            started = time.perf_counter()
            for _ in range(connections):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", self._port)))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, connection)
                connection.sendall(REQUEST)
            while time.perf_counter() < started + seconds:
                for key, _ in selector.select(1.0):
                    data = key.data.recv(65536)
                    # Headers and body come in one piece or in two; either way the body ends it.
                    if data.endswith(b"pong\n"):
                        answers += 1
                        key.data.sendall(REQUEST)
                    elif not data.startswith(b"HTTP/1.1 200"):
                        raise SystemExit(f"unexpected response: {data[:200]!r}")
            return answers, time.perf_counter() - started

    def measure(self, connections: int, seconds: float) -> None:
        """Add the measurements of one round."""
        before = self._cpu_seconds()
        answers, elapsed = self.drive(connections, seconds)
        # Wait for the last spans and lines, which belong to this round.
        time.sleep(1.2)
        self.rates.append(answers / elapsed)
        self.cpu_microseconds.append((self._cpu_seconds() - before) / answers * 1e6)

    def _cpu_seconds(self) -> float:
        """Return the process's CPU time, all threads together (Linux)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    # In a process of its own: its work must not slow down the one that sends the requests.
    multiprocessing.get_context("fork").Process(target=receiver.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{receiver.server_port}"
    servers = [Server("bare", VANTAGE_TELEMETRY="off"), Server("full telemetry", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)]
    try:
        for server in servers:
            server.wait_until_ready()
            server.drive(options.connections, 1.0)  # warm up
        for _ in range(options.rounds):
            for server in servers:
                server.measure(options.connections, options.seconds)
    finally:
        for server in servers:
            server.process.terminate()
            server.process.wait(30)
    report(*servers)


def report(bare: Server, full: Server) -> None:
    """Print the table and the ratios."""
    print(f"{'GET /ping':<16}{'requests/s':>12}{'spread':>16}{'CPU µs/request':>18}{'spread':>14}")
    for server in (bare, full):
        rates, cpu = server.rates, server.cpu_microseconds
        print(
            f"{server.name:<16}{statistics.median(rates):>12.0f}{min(rates):>9.0f}-{max(rates):<6.0f}"
            f"{statistics.median(cpu):>18.0f}{min(cpu):>8.0f}-{max(cpu):<5.0f}"
        )
    # Round by round, since the two runs of a round had the same load beside them.
    ratios = [f / b for f, b in zip(full.rates, bare.rates, strict=True)]
    cpu_ratios = [b / f for f, b in zip(full.cpu_microseconds, bare.cpu_microseconds, strict=True)]
    print(
        f"full/bare throughput {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}), "
        f"by CPU time {statistics.median(cpu_ratios):.2f} ({min(cpu_ratios):.2f}-{max(cpu_ratios):.2f}); "
        "target: 0.50 or better"
    )


if __name__ == "__main__":
    main()
