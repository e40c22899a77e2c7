"""vantage-unit, with systemd and Docker replaced by what they would print."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from rendering import ROLES

ACTIVE = "ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n"


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("vantage_unit", str(ROLES / "docker/files/vantage-unit"))
    spec = importlib.util.spec_from_loader("vantage_unit", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    for name in ("UNITS", "CONFIG", "STATE"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(module, name, tmp_path / name)
    (tmp_path / "UNITS/vantage-loki.service").write_text("[X-Vantage]\nImage=loki:1\nReadyUrl=\nReload=false\n")
    (tmp_path / "CONFIG/loki").mkdir()
    (tmp_path / "CONFIG/loki/loki.yml").write_text("a: 1\n")
    answers = {"systemctl show": ACTIVE, "docker image": "sha256:1\n"}

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 0, answers.get(" ".join(argv[:2]), ""), "")

    monkeypatch.setattr(module, "run", run)
    module.answers_of_commands = answers  # type: ignore[attr-defined]
    return module


def started(unit: ModuleType) -> None:
    unit.starting("loki")
    unit.ready("loki")


def test_a_service_that_runs_its_files_has_no_drift(unit: ModuleType) -> None:
    started(unit)
    assert unit.drift("loki") == ""


def test_a_service_that_never_started_is_to_be_started(unit: ModuleType) -> None:
    unit.answers_of_commands["systemctl show"] = "ActiveState=inactive\nUnitFileState=enabled\n"
    assert unit.drift("loki") == "start"


def test_a_service_that_is_not_enabled_is_to_be_started(unit: ModuleType) -> None:
    started(unit)
    unit.answers_of_commands["systemctl show"] = ACTIVE.replace("=enabled", "=disabled")
    assert unit.drift("loki") == "start"


def test_a_changed_config_restarts_or_reloads(unit: ModuleType) -> None:
    started(unit)
    (unit.CONFIG / "loki/loki.yml").write_text("a: 2\n")
    assert unit.drift("loki") == "restart"
    path = unit.UNITS / "vantage-loki.service"
    path.write_text(path.read_text().replace("Reload=false", "Reload=true"))
    unit.starting("loki")
    unit.ready("loki")
    (unit.CONFIG / "loki/loki.yml").write_text("a: 3\n")
    assert unit.drift("loki") == "reload"


def test_a_file_that_changes_during_the_start_is_drift(unit: ModuleType) -> None:
    unit.starting("loki")
    (unit.CONFIG / "loki/loki.yml").write_text("a: 2\n")
    unit.ready("loki")
    assert unit.drift("loki") == "restart"


def test_a_tag_that_moved_restarts(unit: ModuleType) -> None:
    started(unit)
    unit.answers_of_commands["docker image"] = "sha256:2\n"
    assert unit.drift("loki") == "restart"


def test_an_operators_drop_in_restarts(unit: ModuleType) -> None:
    started(unit)
    folder = unit.UNITS / "vantage-loki.service.d"
    folder.mkdir()
    (folder / "memory.conf").write_text("[Service]\n")
    assert unit.drift("loki") == "restart"


def test_a_missing_unit_is_named(unit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        unit.settings("nobody")
    assert "vantage-nobody.service does not exist" in capsys.readouterr().err


class Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"not yet")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize(("status", "problem"), [(200, ""), (503, "answered 503: not yet")])
def test_readiness_is_what_the_url_answers(unit: ModuleType, status: int, problem: str) -> None:
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Answer,), {"status": status}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        assert unit.answers(f"http://127.0.0.1:{server.server_port}/ready") == problem
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_nobody_listening_is_a_problem_with_words(unit: ModuleType) -> None:
    assert "refused" in unit.answers("http://127.0.0.1:9/").lower()


def test_a_service_that_runs_its_files_and_is_not_ready_yet_is_waited_for(unit: ModuleType) -> None:
    unit.starting("loki")
    unit.answers_of_commands["systemctl show"] = ACTIVE.replace("=active", "=activating")
    assert unit.drift("loki") == "wait"


def test_a_wait_restarts_nothing_and_records_that_it_is_ready(
    unit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    unit.starting("loki")
    unit.apply("loki")
    assert "waited for" in capsys.readouterr().out
    assert unit.drift("loki") == ""


def test_a_start_that_took_longer_than_its_unit_waited_is_no_failure(
    unit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The unit's own wait runs out without a word of readiness; a moment later the service answers."""
    run = unit.run

    def starts(*argv: str) -> subprocess.CompletedProcess[str]:
        if argv[:2] == ("systemctl", "restart"):
            unit.starting("loki")
        return run(*argv)

    monkeypatch.setattr(unit, "run", starts)
    assert unit.drift("loki") == "restart"
    unit.apply("loki")
    assert "loki restarted" in capsys.readouterr().out
    assert unit.drift("loki") == ""


def test_a_start_that_never_becomes_ready_fails_and_stays_unrecorded(
    unit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = unit.run

    def starts(*argv: str) -> subprocess.CompletedProcess[str]:
        if argv[:2] == ("systemctl", "restart"):
            unit.starting("loki")
        return run(*argv)

    monkeypatch.setattr(unit, "run", starts)
    monkeypatch.setattr(unit, "wait_ready", lambda _: "http://127.0.0.1:3100/ready was not ready within 120 s")
    assert unit.drift("loki") == "restart"
    with pytest.raises(SystemExit):
        unit.apply("loki")
    assert "loki did not come up: http://127.0.0.1:3100/ready was not ready" in capsys.readouterr().err
    assert unit.drift("loki") == "wait"


def test_retire_removes_what_its_owner_no_longer_wants_and_nothing_else(
    unit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, owner in (("old", "flask_app"), ("kept", "flask_app"), ("grafana", "grafana")):
        (unit.UNITS / f"vantage-{name}.service").write_text(f"[X-Vantage]\nOwner={owner}\n")
    unit.retire("flask_app", ["kept"], check=True)
    assert "old removed" in capsys.readouterr().out
    assert (unit.UNITS / "vantage-old.service").exists()
    unit.retire("flask_app", ["kept"], check=False)
    left = {path.name for path in unit.UNITS.glob("*.service")}
    assert left == {"vantage-loki.service", "vantage-kept.service", "vantage-grafana.service"}


def replica(unit: ModuleType) -> Path:
    path = Path(unit.UNITS / "vantage-hello-2.service")
    path.write_text("[X-Vantage]\nOwner=flask_app\nReplicaOf=hello\nImage=hello:1\nReadyUrl=\nReload=false\n")
    return path


def test_a_replica_that_goes_leaves_no_trace(unit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    path = replica(unit)
    unit.starting("hello-2")
    unit.retire("flask_app", ["hello"], check=False)
    assert capsys.readouterr().out == "hello-2, a replica of hello, removed\n"
    assert not path.exists()
    assert not unit.read_state("hello-2")


def test_a_new_secret_of_an_app_restarts_its_replicas_too(unit: ModuleType) -> None:
    replica(unit)
    unit.starting("hello-2")
    unit.ready("hello-2")
    assert unit.drift("hello-2") == ""
    (unit.CONFIG / "secrets/hello").mkdir(parents=True)
    (unit.CONFIG / "secrets/hello/token").write_text("new")
    assert unit.drift("hello-2") == "restart"


def test_a_network_with_another_subnet_is_refused_with_the_way_out(
    unit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    unit.answers_of_commands["docker network"] = "10.0.0.0/24 10.0.0.1\n"
    with pytest.raises(SystemExit):
        unit.engine("172.29.238.0/24", "172.29.238.1")
    said = capsys.readouterr().err
    assert "10.0.0.0/24" in said
    assert "docker network rm vantage" in said


def test_a_service_between_two_tries_is_started_anew(unit: ModuleType) -> None:
    started(unit)
    unit.answers_of_commands["systemctl show"] = (
        "ActiveState=activating\nSubState=auto-restart\nUnitFileState=enabled\n"
    )
    assert unit.drift("loki") == "start"


def test_a_failure_is_explained_by_the_lines_of_this_start(unit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        asked.append(argv)
        said = (
            "0123abcd\n"
            if "--property=InvocationID" in argv
            else "the port is taken\n"
            if argv[0] == "journalctl"
            else ""
        )
        return subprocess.CompletedProcess(argv, 0, said, "")

    monkeypatch.setattr(unit, "run", run)
    assert "the port is taken" in unit.explain("loki", "its process has ended")
    assert [argv[-1] for argv in asked if argv[0] == "journalctl"] == ["_SYSTEMD_INVOCATION_ID=0123abcd"]


def test_status_fails_while_a_service_is_not_ready(
    unit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started(unit)
    monkeypatch.setattr(unit, "answers", lambda url: "answered 503: not yet")
    path = unit.UNITS / "vantage-loki.service"
    path.write_text(re.sub(r"ReadyUrl=.*", "ReadyUrl=http://127.0.0.1:9/", path.read_text()))
    with pytest.raises(SystemExit) as left:
        unit.status()
    assert left.value.code == 1
    assert "NOT READY: answered 503" in capsys.readouterr().out
    monkeypatch.setattr(unit, "answers", lambda url: "")
    unit.status()
