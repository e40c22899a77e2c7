"""What Promtail makes of log lines, by the program of the image that will run."""

from __future__ import annotations

import functools
import re
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import programs
import pytest
import yaml
from rendering import ROLES, Host

DEADLINE_SECONDS = 20
ENTRY = re.compile(r"(\d{4}-\d\d-\d\dT\S+)\t\{(.*?)\}(.*)", re.DOTALL)

PROXIES = (
    # nginx, Apache and gunicorn as they are; gunicorn and nginx with seconds; Werkzeug's, which may be coloured; uvicorn.
    '10.0.0.1 - - [01/Dec/2026:00:50:12 +0000] "GET /posts/1?q=level=error HTTP/1.1" 200 512 "-" "curl/8.5"',
    '10.0.0.1 - bob [01/Dec/2026:00:50:12 +0000] "POST /posts HTTP/2.0" 502 - "-" "a \\"quoted\\" 1.5" 0.25',
    '127.0.0.1 - - [01/Dec/2026 00:50:12] "\x1b[33mGET /missing HTTP/1.1\x1b[0m" 404 -',
    'INFO:     10.0.0.1:1234 - "BREW /pot HTTP/1.1" 200 OK',
)  # fmt: skip
OTHERS = (
    '{"level": "info", "message": "asked \\"GET / HTTP/1.1\\" 200"}',
    "GET / HTTP/1.1",
    'the client sent "GET /x HTTP/1.1", which is odd',
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def program() -> Path:
    found = programs.find("promtail", "promtail")
    if subprocess.run([found, "-version"], capture_output=True, check=False).returncode:
        pytest.skip("Promtail needs libsystemd0")
    return found


@functools.cache
def pipeline() -> list[dict[str, Any]]:
    """The stages of a host, which reads its journal."""
    text = Host("promtail").render(ROLES / "promtail/templates/promtail.yml.j2")
    return list(yaml.safe_load(text)["scrape_configs"][0]["pipeline_stages"])


class Promtail:
    """The pipeline of a host, fed by standard input; it prints what it would send."""

    def __init__(self, program: Path, folder: Path, unit: str = "vantage-blog.service") -> None:
        name = unit.removeprefix("vantage-").removesuffix(".service")
        labels = {"host": "vm", "unit": unit, "service_name": name}
        self.port = free_port()
        config = {
            "server": {"http_listen_address": "127.0.0.1", "http_listen_port": self.port, "grpc_listen_port": 0},
            "positions": {"filename": str(folder / "positions.yml")},
            "clients": [{"url": "http://127.0.0.1:1/loki/api/v1/push"}],
            "scrape_configs": [
                {
                    "job_name": "journal",
                    "static_configs": [{"targets": ["localhost"], "labels": labels}],
                    "pipeline_stages": pipeline(),
                }
            ],
        }
        path = folder / "promtail.yml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.process = subprocess.Popen(
            [program, "-dry-run", "-stdin", f"-config.file={path}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def write(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def metrics(self, lines: int) -> dict[str, float]:
        """Return the metrics of access lines, when there are `lines` of them."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            text = ""
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            found = {}
            for series in re.findall(r"^promtail_custom_(http_server_.+) (\S+)$", text, re.MULTILINE):
                found[series[0]] = float(series[1])
            if sum(value for name, value in found.items() if "_requests_total" in name) >= lines:
                return found
            assert time.monotonic() < deadline, found or text[:500]
            time.sleep(0.1)

    def entries(self) -> list[tuple[str, dict[str, str], str]]:
        """End it; return time, labels and text of each entry."""
        output, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        found = []
        for entry in re.split(r"^(?=\d{4}-\d\d-\d\dT)", output, flags=re.MULTILINE):
            if match := ENTRY.fullmatch(entry.rstrip("\n")):
                labels = dict(re.findall(r'(\w+)="(.*?)"', match[2]))
                found.append((match[1], labels, match[3]))
        return found


@pytest.fixture
def promtail(program: Path, tmp_path: Path):
    started: list[Promtail] = []

    def start(**given: str) -> Promtail:
        started.append(Promtail(program, tmp_path, **given))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def labels_of(series: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="(.*?)"', series))


def test_access_lines_are_counted_by_method_and_status_and_by_nothing_of_the_client(promtail) -> None:
    running = promtail()
    running.write(*PROXIES, *OTHERS)
    metrics = running.metrics(len(PROXIES))
    counted = [labels_of(name) | {"n": str(int(n))} for name, n in metrics.items() if "_requests_total" in name]
    common = {"host": "vm", "unit": "vantage-blog.service", "service_name": "blog", "n": "1"}
    expected = [("GET", "200"), ("GET", "404"), ("POST", "502"), ("_OTHER", "200")]
    assert sorted(counted, key=lambda labels: sorted(labels.items())) == sorted(
        (
            common | {"http_request_method": method, "http_response_status_code": status}
            for method, status in expected
        ),
        key=lambda labels: sorted(labels.items()),
    )
    # Of the four lines, one says how long it took.
    (seconds,) = [value for name, value in metrics.items() if "_duration_seconds_sum" in name]
    assert seconds == 0.25


def test_level_of_an_access_line_is_that_of_its_status(promtail) -> None:
    running = promtail()
    running.write(*PROXIES)
    running.metrics(len(PROXIES))
    entries = running.entries()
    assert [labels["level"] for _, labels, _ in entries] == ["info", "error", "info", "info"]
    assert {name for _, labels, _ in entries for name in labels} == {"host", "unit", "service_name", "level"}


def test_lines_of_vantage_serve_are_access_lines(promtail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "app/src"))
    access = pytest.importorskip("flask_vantage.access")
    lines: list[bytes] = []
    log = access.AccessLog(lines.append)
    log.write("GET", "/a\n b\"", "200 OK", 0.012, "10.0.0.1", 5, "", 'x" 500 "')
    log.write("", "", "400", 0.5)
    running = promtail()
    running.write(*(line.decode().rstrip("\n") for line in lines))
    metrics = running.metrics(2)
    counted = {
        (labels["http_request_method"], labels["http_response_status_code"])
        for labels in (labels_of(name) for name in metrics if "_requests_total" in name)
    }
    assert counted == {("GET", "200"), ("_OTHER", "400")}
    assert sum(value for name, value in metrics.items() if "_duration_seconds_count" in name) == 2


def test_lines_of_other_units_are_not_counted(promtail) -> None:
    running = promtail(unit="ssh.service")
    running.write(*PROXIES)
    assert len(running.entries()) == len(PROXIES)
