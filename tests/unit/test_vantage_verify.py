"""The check of each minute: what it asks of services and stores, and the metrics it writes."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import follow_request
import pytest
import vantage_unit
import vantage_verify
from follow_request import Row
from host_programs import FakeHost
from rendering import ROLES, Host

# Before a test replaces it.
RUN = vantage_unit.run
UNIT = "[Unit]\n[X-Vantage]\nOwner={owner}\nReplicaOf={replica_of}\nReadyUrl={url}\nReadyBelow={below}\n"


class Server(http.server.ThreadingHTTPServer):
    """Answers /NUMBER with that status, and keeps what was posted; /hang is answered when the test ends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[Any] = []
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/hang":
            self.server.ended.wait(20)
        number = re.search(r"^/(\d+)$", self.path)
        self.send_response(int(number[1]) if number else 200)
        if number and number[1] == "302":
            self.send_header("Location", "/200")
        self.end_headers()

    def do_POST(self) -> None:
        self.server.posted += json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.ended.set()
    found.shutdown()
    found.server_close()


@pytest.fixture
def check(host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host without services, whose settings name no store."""
    monkeypatch.setattr(vantage_verify, "SETTINGS", tmp_path / "settings.json")
    monkeypatch.setattr(vantage_verify, "METRICS", tmp_path / "metrics/verify.prom")
    monkeypatch.setattr(vantage_verify, "DATA", tmp_path / "data")
    monkeypatch.setattr(vantage_verify, "PROBE_TIMEOUT", 0.3)
    monkeypatch.setattr(vantage_verify, "PROBE_SECONDS", 0.0)
    vantage_verify.SETTINGS.write_text("{}")
    return host


def write(
    host: FakeHost, service: str, url: str, owner: str = "flask_app", replica_of: str = "", below: str = ""
) -> None:
    host.write_unit(service, UNIT.format(owner=owner, replica_of=replica_of, url=url, below=below))


def metrics() -> dict[str, float]:
    lines = vantage_verify.METRICS.read_text().splitlines()
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def ready(service: str, app: str = "") -> str:
    return f'vantage_service_ready{{name="vantage-{service}.service"' + (f',app="{app}"}}' if app else "}")


def test_every_service_is_asked_also_replicas_and_engines(check: FakeHost, server: Server) -> None:
    write(check, "blog", f"{server.url}/200")
    write(check, "blog-2", f"{server.url}/503", replica_of="blog")
    write(check, "loki", f"{server.url}/204", owner="loki")
    write(check, "traffic", "", owner="traffic")
    vantage_verify.run()
    found = {key: value for key, value in metrics().items() if key.startswith("vantage_service_ready{")}
    assert found == {ready("blog", "blog"): 1, ready("blog-2", "blog"): 0, ready("loki"): 1}


@pytest.mark.parametrize(
    ("path", "below", "value"),
    [("/hang", "", 0), ("/302", "", 0), ("/404", "", 0), ("/404", "500", 1), ("/500", "500", 0)],
)
def test_service_that_hangs_or_is_not_ready_is_told(
    check: FakeHost, server: Server, path: str, below: str, value: float
) -> None:
    write(check, "blog", server.url + path, below=below)
    vantage_verify.run()
    assert metrics()[ready("blog", "blog")] == value


def test_service_that_restarts_is_asked_again(check: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["refused", "refused", ""])
    monkeypatch.setattr(vantage_verify, "PROBE_SECONDS", 20.0)
    monkeypatch.setattr(vantage_verify, "probe", lambda *_: next(answers))
    monkeypatch.setattr("vantage_verify.time.sleep", lambda _: None)
    write(check, "blog", "http://x/")
    vantage_verify.run()
    assert metrics()[ready("blog", "blog")] == 1


def test_data_of_each_service_is_measured_with_what_it_takes_on_disk(
    check: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jaeger", "loki"):
        (vantage_verify.DATA / name).mkdir(parents=True)
    with (vantage_verify.DATA / "jaeger/000001.vlog").open("wb") as sparse:
        sparse.truncate(2**31)
    (vantage_verify.DATA / "loki/chunk").write_bytes(b"x" * 500_000)
    monkeypatch.setattr(vantage_unit, "run", RUN)
    found = {sample.labels["name"]: sample.value for sample in vantage_verify.sizes()}
    assert 0 <= found.pop("jaeger") < 100_000
    assert 500_000 <= found.pop("loki") < 600_000
    assert not found


STORES = {"prometheus": "http://p", "loki": "http://l", "jaeger": "http://j", "app": "blog", "log_service": "verify"}


@pytest.fixture
def rows(check: FakeHost, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """What is found at the hops."""
    found: list[Row] = []

    def run(self: follow_request.Verification) -> list[str]:
        self.rows = found
        return [row.problem for row in found if row.problem]

    monkeypatch.setattr(follow_request.Verification, "run", run)
    vantage_verify.SETTINGS.write_text(json.dumps(STORES))
    return found


def test_outcome_and_seconds_of_each_hop_are_metrics(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    rows += [
        Row("log", 1.25, "1 line"),
        Row("trace", 20.0, "FAILED", "verify failed at hop 'trace'"),
        Row("x", 0, "- (no)"),
    ]
    vantage_verify.run()
    found = metrics()
    last = found.pop("vantage_verify_last_run_timestamp_seconds")
    assert last > 1.7e9
    assert found == {
        'vantage_verify_hop_success{app="blog",hop="log"}': 1,
        'vantage_verify_hop_success{app="blog",hop="trace"}': 0,
        'vantage_verify_hop_seconds{app="blog",hop="log"}': 1.25,
        'vantage_verify_hop_seconds{app="blog",hop="trace"}': 20,
    }
    sent, problem = capsys.readouterr().out.splitlines()
    assert re.search(r"[0-9a-f]{32}$", sent)
    assert problem == "<3>verify failed at hop 'trace'"


@pytest.mark.parametrize(
    ("sub_state", "restarts", "is_told"),
    [
        ("start-post", 0, False),
        ("start-post", 1, True),
        ("auto-restart", 0, True),
        ("running", 0, True),
        ("dead", 0, True),
    ],
)
def test_app_that_starts_is_not_told_as_one_that_hangs(
    rows: list[Row], check: FakeHost, sub_state: str, restarts: int, is_told: bool
) -> None:
    rows += [Row("app", 20.0, "FAILED", "verify failed at hop 'app'"), Row("grafana", 0.1, "healthy")]
    write(check, "blog", "http://127.0.0.1:1/")
    check.answers["systemctl show vantage-blog.service"] = f"SubState={sub_state}\nNRestarts={restarts}\n"
    vantage_verify.run()
    found = metrics()
    assert (ready("blog", "blog") in found) is is_told
    assert ('vantage_verify_hop_success{app="blog",hop="app"}' in found) is is_told
    assert found['vantage_verify_hop_success{app="blog",hop="grafana"}'] == 1


def test_file_is_replaced_whole_and_readable(rows: list[Row]) -> None:
    vantage_verify.run()
    assert vantage_verify.METRICS.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in vantage_verify.METRICS.parent.iterdir()] == ["verify.prom"]
    for line in vantage_verify.METRICS.read_text().splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) vantage_\w+ .+|vantage_\w+(\{.+\})? [\d.]+", line)


def test_prometheus_that_does_not_answer_is_told_to_alertmanager(rows: list[Row], server: Server) -> None:
    vantage_verify.SETTINGS.write_text(json.dumps(STORES | {"alertmanager": server.url}))
    rows += [Row("prometheus", 20.0, "FAILED", "verify failed at hop 'prometheus': timed out")]
    vantage_verify.run()
    (alert,) = server.posted
    assert alert["labels"]["alertname"] == "VerifyFails"
    assert alert["labels"]["hop"] == "prometheus"
    assert alert["startsAt"] < alert["endsAt"]
    assert "timed out" in alert["annotations"]["description"]


# The timer -------------------------------------------------------------------------------------------------------------

TIMER = "vantage-verify.timer"
RUNS = "ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n"


@pytest.mark.parametrize(
    ("state", "shown", "changes"),
    [
        ("on", RUNS, []),
        ("on", RUNS.replace("=active", "=inactive"), ["daemon-reload", f"enable {TIMER}", f"restart {TIMER}"]),
        ("on", RUNS.replace("=no", "=yes"), ["daemon-reload", f"enable {TIMER}", f"restart {TIMER}"]),
        ("off", RUNS, [f"disable --now {TIMER}"]),
        ("off", "ActiveState=inactive\nUnitFileState=disabled\n", []),
    ],
)
@pytest.mark.parametrize("is_check", [False, True])
def test_timer_is_made_to_run_or_not(
    check: FakeHost, capsys: pytest.CaptureFixture[str], state: str, shown: str, changes: list[str], is_check: bool
) -> None:
    check.answers[f"systemctl show {TIMER}"] = check.answers["systemctl show vantage-verify.service"] = shown
    assert vantage_verify.main([*(["--check"] if is_check else []), "schedule", state]) == 0
    assert check.commands == [f"systemctl {change}" for change in changes if not is_check]
    assert bool(capsys.readouterr().out) is bool(changes)


def test_results_are_removed_with_the_timer(check: FakeHost) -> None:
    check.answers["systemctl show"] = RUNS
    vantage_verify.run()
    vantage_verify.main(["schedule", "off"])
    assert not vantage_verify.METRICS.exists()


def test_node_exporter_reads_the_file_and_does_not_count_the_check_as_a_unit() -> None:
    command = Host("node_exporter").value(Host("node_exporter").variables["__node_exporter_service"])["command"]
    assert f"--collector.textfile.directory=/host{vantage_verify.METRICS.parent}" in command
    assert "--collector.systemd.unit-exclude=vantage-verify\\.service" in command


def test_alerts_about_checks_exist_only_where_they_run() -> None:
    names = {"VerifyFails", "VerifyMissing", "AppNotResponding"}

    def alerts(**given: Any) -> set[str]:
        text = Host("prometheus", **given).render(ROLES / "prometheus/templates/rules.yml.j2")
        return names & set(re.findall(r"alert: (\w+)", text))

    assert alerts() == names
    assert alerts(verify_timer_enabled="false") == alerts(vantage_runtime="compose") == set()


def test_unit_sections_without_vantage_are_left_alone(check: FakeHost) -> None:
    check.write_unit("verify", "[Service]\nType=oneshot\n")
    assert vantage_unit.installed_units() == []


@pytest.mark.parametrize(("interval", "seconds"), [("15s", 150), ("1m", 240), ("2m", 360)])
def test_a_check_is_missed_only_when_scrapes_cannot_be_the_reason(interval: str, seconds: int) -> None:
    text = Host("prometheus", prometheus_scrape_interval=interval).render(ROLES / "prometheus/templates/rules.yml.j2")
    assert f"time() - vantage_verify_last_run_timestamp_seconds > {seconds}\n" in text
