"""The limits of the request body are the app's; a refused request names the setting and is counted."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from served import Serve, environment

TARGETS = ("busy_app:with_vantage", "busy_app:plain")


def chunked(size: int) -> object:
    return (b"x" * 10_000 for _ in range(size // 10_000))


@pytest.mark.parametrize("target", TARGETS)
def test_without_a_limit_of_the_app_there_is_none(serve: Serve, target: str) -> None:
    served = serve(target, OTEL_TRACES_EXPORTER="none")
    status, _, body = served.request("POST", "/upload", b"x" * 20_000_000)
    assert (status, json.loads(body)) == (200, {"length": 20_000_000})


@pytest.mark.parametrize("target", TARGETS)
def test_limit_of_the_app_is_answered_by_the_app(serve: Serve, target: str) -> None:
    served = serve(target, OTEL_TRACES_EXPORTER="none", APP_MAX_CONTENT_LENGTH="3000000")
    assert served.request("POST", "/upload", b"x" * 3_000_000)[0] == 200
    for body in (b"x" * 3_000_001, b"x" * 12_000_000, chunked(4_000_000)):
        status, _, answer = served.request("POST", "/upload", body)  # type: ignore[arg-type]
        assert (status, answer) == (413, b"the app's own page")
    # As with any server, a view that does not read the body need not care.
    assert served.request("POST", "/ignore", b"x" * 4_000_000)[0] == 200
    if target == "busy_app:with_vantage":
        text = served.request("GET", "/metrics")[2].decode()
        assert 'status_code="413",http_route="/upload"} 3.0' in text


def test_limit_of_the_server_names_its_setting_and_is_counted(serve: Serve) -> None:
    served = serve("busy_app:with_vantage", OTEL_TRACES_EXPORTER="none", VANTAGE_MAX_BODY_BYTES="100000")
    assert served.request("POST", "/upload", b"x" * 100_000)[0] == 200
    status, headers, body = served.request("POST", "/upload", b"x" * 100_001)
    assert (status, headers["Content-Type"]) == (413, "application/problem+json")
    assert b"VANTAGE_MAX_BODY_BYTES" in body
    text = served.request("GET", "/metrics")[2].decode()
    assert 'http_request_method="POST",http_response_status_code="413",http_route="_unmatched"} 1.0' in text
    served.stop()
    (line,) = [line for line in served.lines() if line.get("http_response_status_code") == 413]
    assert "VANTAGE_MAX_BODY_BYTES" in line["message"]
    assert (line["url_path"], line["request_id"]) == ("/upload", json.loads(body)["request_id"])


@pytest.mark.parametrize("target", TARGETS)
def test_body_without_room_is_a_507_that_names_the_remedy(serve: Serve, target: str) -> None:
    served = serve(target, OTEL_TRACES_EXPORTER="none", APP_LARGEST_FILE="1000000")
    status, _, body = served.request("POST", "/upload", b"x" * 5_000_000)
    assert status == 507
    assert b"TMPDIR" in body
    assert served.request("POST", "/upload", b"x" * 500_000)[0] == 200


def serve_and_fail(target: str, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Return how `vantage-serve` ended that cannot start."""
    return subprocess.run(
        [sys.executable, "-m", "flask_vantage.serve", target],
        env=settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("raise OSError(30, 'Read-only file system', 'logs')", ("'logs'", "read-only", "flask_app_data")),
        ("raise PermissionError(13, 'Permission denied', '/logs')", ("'/logs'", "flask_app_user")),
        ("open('/nowhere/settings.toml')", ("'/nowhere/settings.toml'", "path")),
        ("raise ConnectionRefusedError(111, 'Connection refused')", ("Connection refused", "service")),
        ("raise OSError('No username set in the environment')", ("username", "USER", "HOME")),
    ],
)
def test_error_of_the_apps_start_has_traceback_file_and_fix(
    tmp_path_factory: pytest.TempPathFactory, statement: str, words: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.mktemp("app")
    (folder / "failing_app.py").write_text(f"def create_app():\n    {statement}\n")
    settings = environment()
    settings["PYTHONPATH"] += f":{folder}"
    result = serve_and_fail("failing_app:create_app", settings)
    assert result.returncode == 1
    assert "failing_app.py" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("vantage-serve: ")
    assert [word for word in words if word not in last] == []
    assert "PORT" not in last


def test_app_without_vantage_needs_no_opentelemetry(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("app")
    (folder / "opentelemetry").mkdir()
    (folder / "opentelemetry" / "__init__.py").write_text("raise ImportError('another version')\n")
    (folder / "prometheus_client.py").write_text("raise ImportError('another version')\n")
    (folder / "small_app.py").write_text("import flask\napp = flask.Flask('small')\n")
    settings = environment(PORT="1", VANTAGE_HOST="192.0.2.1", OTEL_TRACES_EXPORTER="console")
    settings["PYTHONPATH"] = f"{folder}:{settings['PYTHONPATH']}"
    result = serve_and_fail("small_app:app", settings)
    # It gets as far as the address, which this machine does not have.
    assert "Cannot assign requested address" in result.stderr
    assert "another version" not in result.stderr
