"""docker-compose.yml on this machine: its ports, its state, and the file for the user's own settings."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import fake_program
from rendering import ROOT
from typer.testing import CliRunner
from vantage_tools import compose
from vantage_tools.cli import app
from vantage_tools.errors import UserError
from vantage_tools.paths import cache_dir


@pytest.fixture
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file in a folder of the test, an empty cache, and nothing remembered."""
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compose, "SETTINGS", tmp_path / "local.yml")
    monkeypatch.setattr(compose, "BUILD", tmp_path / "build")
    monkeypatch.setattr(compose, "program", lambda: ("docker", "compose"))
    return tmp_path / "local.yml"


def test_own_settings_have_a_file_of_their_own(own_settings: Path) -> None:
    own_settings.write_text("grafana_port: 3999\n")
    # Until it is rendered, the committed file is the one that runs: make compose-down must find its containers.
    assert not [word for word in compose.compose("ps") if word.startswith("--file")]
    file = own_settings.parent / "build/docker-compose.yml"
    file.parent.mkdir()
    file.write_text("{}")
    assert f"--file={file}" in compose.compose("ps")
    own_settings.rename(own_settings.with_name("set-aside.yml"))
    assert not [word for word in compose.compose("ps") if word.startswith("--file")]
    own_settings.with_name("set-aside.yml").rename(own_settings)
    assert compose.extra_vars() == [own_settings]


def test_made_images_come_before_own_settings(own_settings: Path) -> None:
    made = own_settings.parent / "cache/images/vars.yml"
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    own_settings.write_text("{}")
    (own_settings.parent / "cache/compose-images-made").touch()
    assert compose.extra_vars() == [made, own_settings]


@pytest.mark.parametrize(("shown", "user"), [("vantage", "container vantage"), ("", "a program outside Docker")])
def test_port_in_use_is_named_with_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, user: str
) -> None:
    fake_program(tmp_path / "bin", "docker", f"printf '%s\\n' '{shown}'", monkeypatch)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        services = {"loki": {"ports": [{"host_ip": "127.0.0.1", "published": str(port)}]}, "promtail": {}}
        (line,) = compose.ports_in_use({"services": services})
    assert f"127.0.0.1:{port} (loki) " in line and user in line
    assert compose.ports_in_use({"services": services}) == [], "the port is free again"


@pytest.mark.parametrize(("running", "started"), [("loki", True), ("jaeger", False)])
def test_port_of_a_running_service_may_be_in_use(monkeypatch: pytest.MonkeyPatch, running: str, started: bool) -> None:
    calls: list[tuple[object, ...]] = []

    def run(*argv: object) -> None:
        calls.append(argv)
        if "up" in argv:
            raise KeyboardInterrupt

    def in_use(wanted: dict[str, Any]) -> list[str]:
        return [name for name in wanted["services"] if name == "loki"]

    monkeypatch.setattr(compose.engine, "ensure_engine", lambda: None)
    monkeypatch.setattr(compose, "get_images", lambda: None)
    monkeypatch.setattr(compose, "document", lambda: {"services": {"loki": {}, "jaeger": {}}})
    monkeypatch.setattr(compose, "running_services", lambda: [running])
    monkeypatch.setattr(compose, "ports_in_use", in_use)
    monkeypatch.setattr(compose, "compose", lambda *argv: argv)
    monkeypatch.setattr(compose, "run", run)
    with pytest.raises(KeyboardInterrupt if started else UserError):
        compose.up()
    assert any("up" in call for call in calls) is started


def test_port_that_docker_chooses_is_free() -> None:
    services = {"loki": {"ports": [{"host_ip": "127.0.0.1", "published": "8000-8010"}, {"target": 3100}]}}
    assert compose.ports_in_use({"services": services}) == []


def test_service_that_has_ended_is_named(own_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a service that another one awaits may have ended."""
    awaited = {"prepare": {"condition": "service_completed_successfully"}, "jaeger": {"condition": "service_started"}}
    services = {"prepare": {}, "loki": {"depends_on": awaited}, "jaeger": {}}
    monkeypatch.setattr(compose, "document", lambda: {"services": services})
    monkeypatch.setattr(compose, "output", lambda *argv: "jaeger\n")
    with pytest.raises(UserError, match="loki") as error:
        compose.verify()
    assert not {"prepare", "jaeger"} & set(error.value.problem.replace(".", "").split())


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers /ready with 200 and everything else with 503."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 503)
        self.end_headers()
        self.wfile.write(b"warming up")

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_service_that_is_not_ready_is_named_with_its_answer(server: str) -> None:
    problems = compose.wait_until_ready({"loki": f"{server}/ready", "jaeger": f"{server}/health"}, 0)
    assert list(problems) == ["jaeger"]
    assert "503" in problems["jaeger"] and "warming up" in problems["jaeger"]


def test_missing_password_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "PASSWORD", tmp_path / "admin_password")
    with pytest.raises(UserError) as refused:
        CliRunner().invoke(app, ["compose", "password"], catch_exceptions=False)
    assert refused.value.fix == "make compose-up"
    (tmp_path / "admin_password").write_text("secret\n")
    assert CliRunner().invoke(app, ["compose", "password"]).output == "secret\n"


def compose_program() -> list[str]:
    """Compose, where Docker has it or `vantage images tool compose` made it; nothing elsewhere."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    made = sorted((cache_dir() / "tools").glob("compose-*/docker-compose"))
    return [str(made[-1])] if made else []


def test_compose_accepts_the_file() -> None:
    if not (program := compose_program()):
        pytest.skip("docker compose is not installed; `vantage images tool compose` makes it")
    command = [*program, f"--project-directory={ROOT}", f"--file={ROOT}/docker-compose.yml", "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)
    # The page of an engine, not its readiness port.
    places = compose.endpoints(resolved)
    assert places["jaeger"] == "http://127.0.0.1:16686"
    assert places["grafana"] == "http://127.0.0.1:3000"
    assert set(places) == set(resolved["services"]) - {"traffic", "prepare"}
