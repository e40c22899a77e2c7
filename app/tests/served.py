"""A running `vantage-serve`, and a collector for its spans: the fixtures `serve` and `collector`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from collector import Collector

TESTS = Path(__file__).parent
SOURCES = f"{TESTS.parent / 'src'}{os.pathsep}{TESTS.parent / 'examples' / 'shop'}"


class Served:
    """A running `vantage-serve`."""

    def __init__(self, process: subprocess.Popen[str], port: int, errors: IO[str]) -> None:
        self.process = process
        self.port = port
        self._output: str | None = None
        self._errors = errors

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

    def close(self) -> None:
        self._errors.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        self._output, _ = self.process.communicate(timeout=30)
        return self.process.returncode

    @property
    def errors(self) -> str:
        """Return what an app without Vantage has logged."""
        self._errors.seek(0)
        return self._errors.read()

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
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open until the process ends
        process = subprocess.Popen(
            [sys.executable, "-m", "flask_vantage.serve", target],
            env=environment(PORT=str(port), **settings),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        served = Served(process, port, errors)
        started.append(served)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError):
                # Any answer: an app without Vantage has no health check.
                served.request("GET", "/healthz")
                return served
            time.sleep(0.05)
        raise AssertionError(f"the server did not start: {process.poll()}")

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()
        served.close()
