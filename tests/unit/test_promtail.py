"""What Promtail makes of log lines, by the program of the image that will run."""

from __future__ import annotations

import functools
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import programs
import pytest
import yaml
from rendering import ROLES, Host

DEADLINE_SECONDS = 20
ENTRY = re.compile(r"(\d{4}-\d\d-\d\dT\S+)\t\{(.*?)\}\t(.*)", re.DOTALL)

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
        # A file, because Promtail does not wait at its end until a pipe has taken everything.
        self.output = folder / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [program, "-dry-run", "-stdin", f"-config.file={path}"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        # What it prints at its start would be between the entries otherwise.
        self.wait_for(lambda: bool(self.scrape()))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (self.output.read_text(), self.scrape()[:500])
            time.sleep(0.1)

    def scrape(self) -> str:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
        return ""

    def write(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def metrics(self, lines: int) -> dict[str, float]:
        """Return the metrics of access lines, when there are `lines` of them."""
        found: dict[str, float] = {}

        def are_counted() -> bool:
            series = re.findall(r"^promtail_custom_(http_server_.+) (\S+)$", self.scrape(), re.MULTILINE)
            found.update((name, float(value)) for name, value in series)
            return sum(value for name, value in found.items() if "_requests_total" in name) >= lines

        self.wait_for(are_counted)
        return found

    def entries(self, count: int) -> list[tuple[str, dict[str, str], str]]:
        """Return time, labels and text of each entry, when there are `count` of them."""

        def read() -> list[tuple[str, dict[str, str], str]]:
            parts = re.split(r"(?=\d{4}-\d\d-\d\dT\S+\t\{)", self.output.read_text(encoding="utf-8"))
            matches = [match for part in parts if (match := ENTRY.fullmatch(part.rstrip("\n")))]
            return [(match[1], dict(re.findall(r'(\w+)="(.*?)"', match[2])), match[3]) for match in matches]

        self.wait_for(lambda: len(read()) >= count)
        # One too many, or the rest of the last one, would come within this time.
        time.sleep(1)
        found = read()
        assert len(found) == count, found
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
        (common | {"http_request_method": method, "http_response_status_code": status} for method, status in expected),
        key=lambda labels: sorted(labels.items()),
    )
    # Of the four lines, one says how long it took.
    (seconds,) = [value for name, value in metrics.items() if "_duration_seconds_sum" in name]
    assert seconds == 0.25


def test_level_of_an_access_line_is_that_of_its_status(promtail) -> None:
    running = promtail()
    running.write(*PROXIES)
    running.metrics(len(PROXIES))
    entries = running.entries(len(PROXIES))
    assert [labels["level"] for _, labels, _ in entries] == ["info", "error", "info", "info"]
    assert {name for _, labels, _ in entries for name in labels} == {"host", "unit", "service_name", "level"}


def test_lines_of_vantage_serve_are_access_lines(promtail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "app/src"))
    access = pytest.importorskip("flask_vantage.access")
    lines: list[bytes] = []
    log = access.AccessLog(lines.append)
    log.write("GET", '/a\n b"', "200 OK", 0.012, "10.0.0.1", 5, "", 'x" 500 "')
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
    running.entries(len(PROXIES))
    assert "promtail_custom_http_server" not in running.scrape()


TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/app.py", line 10, in boom
    log(level="info", numbers=deep(30))
    ~~~^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/app.py", line 8, in deep
    return 1 / 0
  [Previous line repeated 29 more times]"""
RECORD = "[2026-12-01 01:00:00,000] ERROR in app: Exception on /boom [GET]"
EXCEPTION = "ZeroDivisionError: division by zero"


def read(running: Promtail, lines: int) -> list[tuple[str, str]]:
    """Return level and text of each entry, when there are `lines` of them."""
    return [(labels["level"], text) for _, labels, text in running.entries(lines)]


def test_frames_of_a_traceback_are_one_error_and_all_of_it_is_in_order(promtail) -> None:
    running = promtail()
    running.write("started", RECORD, *TRACEBACK.split("\n"), EXCEPTION, "    done")
    assert read(running, 4) == [
        ("unknown", "started"),
        ("error", RECORD),
        ("error", TRACEBACK),
        ("error", f"{EXCEPTION}\n    done"),
    ]


def test_data_with_a_level_inside_and_pieces_of_a_long_line_stay_as_they_are(promtail) -> None:
    running = promtail()
    data, piece = "{'level': 'error', 'error': None, 'rows': ['a', 'b']}", "y" * 49_152
    running.write(data, piece, piece)
    assert read(running, 3) == [("unknown", data), ("unknown", piece), ("unknown", piece)]


def test_indented_line_that_comes_later_is_an_entry_of_its_own_time_and_level(promtail) -> None:
    running = promtail()
    running.write("started", "    step 1", '10.0.0.1 - - [-] "GET / HTTP/1.1" 500 -')
    running.metrics(1)
    time.sleep(1.5)
    before = datetime.now(UTC)
    running.write("    step 2")
    first, access, late = running.entries(3)
    assert (first[2], first[1]["level"]) == ("started\n    step 1", "unknown")
    assert access[1]["level"] == "error"
    assert (late[2], late[1]["level"]) == ("    step 2", "unknown")
    assert abs((datetime.fromisoformat(late[0]) - before).total_seconds()) < 0.5
    assert (before - datetime.fromisoformat(access[0])).total_seconds() > 1


def test_json_and_logfmt_are_not_held_back(promtail) -> None:
    running = promtail()
    running.write("plain", '{"level": "info", "message": "x"}', "level=info msg=x", "    follows plain")
    assert read(running, 3) == [
        ("info", '{"level": "info", "message": "x"}'),
        ("info", "level=info msg=x"),
        ("unknown", "plain\n    follows plain"),
    ]
