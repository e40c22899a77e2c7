"""The access lines that `vantage-serve` writes for an app without `Vantage(app)`."""

from __future__ import annotations

import re

import pytest

from served import Serve, Served

LINE = re.compile(
    r'(?P<address>\S+) - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "(?P<request>[^"]*) HTTP/1\.1" '
    r'(?P<status>\d{3}) (?P<length>\d+|-) "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)" '
    r"(?P<seconds>\d+\.\d{6})"
)


def access_lines(served: Served) -> list[dict[str, str]]:
    served.stop()
    return [found.groupdict() for line in served.errors.splitlines() if (found := LINE.fullmatch(line))]


def test_each_request_is_one_line_with_its_status_and_seconds(serve: Serve) -> None:
    served = serve("busy_app:plain")
    served.request("GET", "/slow?seconds=0.3", Referer="https://example.org/", **{"User-Agent": "probe/1"})
    served.request("GET", "/missing")
    served.request("POST", "/upload", b"x" * 100)
    served.request("GET", "/exit")
    # A line is written after its response was sent: the next request may be faster.
    lines = sorted(access_lines(served), key=lambda line: line["request"])
    assert [(line["request"], line["status"]) for line in lines] == [
        # Left by sys.exit(), and answered by the server.
        ("GET /exit", "500"),
        ("GET /missing", "404"),
        ("GET /slow", "200"),
        ("POST /upload", "200"),
    ]
    slow = lines[2]
    assert slow["length"] == "4"
    assert (slow["address"], slow["referer"], slow["agent"]) == ("127.0.0.1", "https://example.org/", "probe/1")
    assert 0.3 <= float(slow["seconds"]) < 5


def test_refused_request_has_its_line(serve: Serve) -> None:
    served = serve("busy_app:plain", VANTAGE_MAX_BODY_BYTES="100")
    served.request("POST", "/upload", b"x" * 101)
    (refused,) = access_lines(served)
    assert (refused["request"], refused["status"], refused["agent"]) == ("POST /upload", "413", "-")


def test_client_writes_no_line_of_its_own_and_no_query(serve: Serve) -> None:
    served = serve("busy_app:plain")
    agent = {"User-Agent": 'x" 500 "\xe9'}
    served.request("GET", "/a%0A127.0.0.1%22%20500%20%C3%A9?token=secret", **agent)
    (line,) = access_lines(served)
    assert line["request"] == "GET /a%0A127.0.0.1%22%20500%20%C3%A9"
    assert line["agent"] == r"x\" 500 \"\u00e9"
    assert "secret" not in served.errors


def test_probes_and_scrapes_have_no_line(serve: Serve) -> None:
    served = serve("busy_app:plain")
    for path in ("/healthz", "/readyz", "/metrics"):
        served.request("GET", path)
    assert access_lines(served) == []


def test_address_is_that_of_a_trusted_proxys_client(serve: Serve) -> None:
    served = serve("busy_app:plain", VANTAGE_TRUSTED_PROXIES="127.0.0.0/8")
    served.request("GET", "/", **{"X-Forwarded-For": "203.0.113.9"})
    (line,) = access_lines(served)
    assert line["address"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("target", "level"), [("busy_app:plain", "WARNING"), ("busy_app:with_vantage", "INFO")], ids=["level", "vantage"]
)
def test_lines_are_left_out_above_their_level_and_of_an_app_with_its_own(serve: Serve, target: str, level: str) -> None:
    served = serve(target, OTEL_TRACES_EXPORTER="none", VANTAGE_LOG_LEVEL=level)
    served.request("GET", "/")
    assert access_lines(served) == []
