"""vantage_unit.py through its command line, with systemd and Docker replaced by recorded answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import vantage_unit
from host_programs import ACTIVE, FakeHost
from rendering import ROLES
from vantage_unit import main

LOKI = """
[Service]
ExecStart=/usr/bin/docker run --rm --pull=never --log-driver=none \\
  --name=vantage-loki --hostname=loki \\
  --network=vantage --network-alias=loki \\
  --publish=127.0.0.1:3100:3100 \\
  --publish=[::1]:3101:9095 \\
  loki:1 \\
  --publish=not:an:option
[X-Vantage]
Owner=loki
Image=loki:1
ReadyUrl={url}
ReadySeconds=0
StopSeconds=60
Reload={reload}
"""
REPLICA = "[X-Vantage]\nOwner=flask_app\nReplicaOf=hello\nImage=hello:1\nReadyUrl=\nReload=false\n"
DEAD = "http://127.0.0.1:9/"
# The real one; each test has a fake in its place.
RUN = vantage_unit.run


@pytest.fixture(autouse=True)
def loki(host: FakeHost) -> FakeHost:
    """A host with Loki's unit and config."""
    write_loki(host)
    (host.root / "CONFIG/loki").mkdir()
    write_config(host, "a: 1\n")
    return host


def write_loki(host: FakeHost, url: str = "", reload: str = "false") -> None:
    host.write_unit("loki", LOKI.format(url=url, reload=reload))


def write_config(host: FakeHost, text: str) -> None:
    (host.root / "CONFIG/loki/loki.yml").write_text(text)


def start(service: str = "loki") -> None:
    """What systemd runs when it starts a unit."""
    assert main(["pre-start", service]) == 0
    assert main(["ready", service]) == 0


@pytest.fixture
def pending(host: FakeHost, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """What `--check apply` prints of a service, without its name."""

    def look(service: str = "loki") -> str:
        capsys.readouterr()
        assert main(["--check", "apply", service]) == 0
        return capsys.readouterr().out.removeprefix(f"{service} ").strip()

    return look


# Drift


def test_a_service_that_runs_its_files_has_no_drift(pending) -> None:
    start()
    assert pending() == ""


@pytest.mark.parametrize(
    ("properties", "action"),
    [
        ("ActiveState=inactive\nUnitFileState=enabled\n", "start"),
        (ACTIVE.replace("=enabled", "=disabled"), "start"),
        ("ActiveState=activating\nSubState=auto-restart\nUnitFileState=enabled\n", "start"),
        (ACTIVE.replace("NeedDaemonReload=no", "NeedDaemonReload=yes"), "restart"),
    ],
    ids=["never started", "not enabled", "between two tries", "unit file newer than loaded"],
)
def test_state_of_the_unit_decides_what_to_do(host: FakeHost, pending, properties: str, action: str) -> None:
    start()
    host.answers["systemctl show"] = properties
    assert pending() == action


def test_a_stopped_unit_is_started_without_asking_docker(host: FakeHost, pending) -> None:
    """The client would wake a stopped Docker through its socket."""
    host.answers["systemctl show"] = "ActiveState=inactive\n"
    assert pending() == "start"
    assert not [argv for argv in host.calls if argv[0] == "docker"]


@pytest.mark.parametrize(("reload", "action"), [("false", "restart"), ("true", "reload")])
def test_a_changed_config_restarts_or_reloads(host: FakeHost, pending, reload: str, action: str) -> None:
    write_loki(host, reload=reload)
    start()
    write_config(host, "a: 2\n")
    assert pending() == action


def test_a_file_that_changes_during_the_start_is_drift(host: FakeHost, pending) -> None:
    main(["pre-start", "loki"])
    write_config(host, "a: 2\n")
    main(["ready", "loki"])
    assert pending() == "restart"


def test_a_tag_that_moved_restarts(host: FakeHost, pending) -> None:
    start()
    host.answers["docker image inspect --format {{.Id}} loki:1"] = "sha256:2\n"
    assert pending() == "restart"


def test_a_drop_in_restarts(host: FakeHost, pending) -> None:
    start()
    folder = host.units / "vantage-loki.service.d"
    folder.mkdir()
    (folder / "memory.conf").write_text("[Service]\n")
    assert pending() == "restart"


def test_a_new_secret_of_an_app_restarts_its_replicas_too(host: FakeHost, pending) -> None:
    host.write_unit("hello-2", REPLICA)
    start("hello-2")
    assert pending("hello-2") == ""
    (host.root / "CONFIG/secrets/hello").mkdir(parents=True)
    (host.root / "CONFIG/secrets/hello/token").write_text("new")
    assert pending("hello-2") == "restart"


def test_state_of_earlier_releases_is_read(host: FakeHost, pending) -> None:
    start()
    path = host.root / "STATE/loki.json"
    state = json.loads(path.read_text())
    assert state["ready"] is True
    path.write_text(json.dumps(state | {"ready": "yes"}))
    assert pending() == ""
    path.write_text(json.dumps(state | {"ready": ""}))
    assert pending() == "wait"


def test_a_missing_unit_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ready", "nobody"]) == 1
    assert "vantage-nobody.service does not exist" in capsys.readouterr().err


# Readiness


class Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        status = 200 if self.path == "/login" else self.status
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/login")
        self.end_headers()
        self.wfile.write(b"not yet")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that answers with the status given as parameter."""
    http = HTTPServer(("127.0.0.1", 0), type("Handler", (Answer,), {"status": request.param}))
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/ready"
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.mark.parametrize(("server", "code", "problem"), [(200, 0, ""), (503, 1, "503: not yet")], indirect=["server"])
def test_ready_waits_for_what_the_url_answers(
    host: FakeHost, capsys: pytest.CaptureFixture[str], server: str, code: int, problem: str
) -> None:
    write_loki(host, url=server)
    main(["pre-start", "loki"])
    assert main(["ready", "loki"]) == code
    assert problem in capsys.readouterr().err
    assert vantage_unit.read_state("loki")["ready"] is (code == 0)


@pytest.mark.parametrize("server", [302], indirect=True)
def test_a_redirect_to_a_page_that_answers_is_not_ready(server: str) -> None:
    problem = vantage_unit.probe(server)
    assert "302" in problem
    assert "/login" in problem


@pytest.mark.parametrize(
    ("server", "is_ready"), [(302, True), (401, True), (404, True), (500, False), (503, False)], indirect=["server"]
)
def test_any_answer_below_500_is_ready_where_the_unit_says_so(host: FakeHost, server: str, is_ready: bool) -> None:
    host.write_unit("loki", LOKI.format(url=server, reload="false") + "ReadyBelow=500\n")
    assert (main(["ready", "loki"]) == 0) is is_ready


def test_a_wait_of_the_unit_is_not_waited_a_second_time(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    write_loki(host, url=DEAD)
    host.answers["systemctl show vantage-loki.service --property=MainPID"] = "7\n"
    main(["pre-start", "loki"])
    assert main(["ready", "loki"]) == 1
    monkeypatch.setattr(vantage_unit, "wait_until_ready", lambda _: pytest.fail("it waits again"))
    with pytest.raises(vantage_unit.UnitError, match="within 0 s"):
        vantage_unit.record_ready("loki")


def test_the_next_run_waits_from_the_beginning(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    write_loki(host, url=DEAD)
    host.answers["systemctl show vantage-loki.service --property=MainPID"] = "7\n"
    main(["pre-start", "loki"])
    main(["ready", "loki"])
    monkeypatch.setattr(vantage_unit, "wait_until_ready", lambda _: "")
    assert main(["apply", "loki"]) == 0
    assert vantage_unit.read_state("loki")["ready"] is True


HELLO = """
[Service]
ExecStart=/usr/bin/docker run --name=vantage-hello --publish=127.0.0.1:9:8000 hello:1
[X-Vantage]
Owner=flask_app
Image=hello:1
ReadyUrl={url}
ReadySeconds=60
"""


@pytest.mark.parametrize(
    ("listening", "words"),
    [
        (["0.0.0.0:5000"], ["8000 is closed", "5000", "container_port"]),
        (["127.0.0.1:8000"], ["127.0.0.1:8000", "0.0.0.0:8000"]),
        (["127.0.0.1:5000"], ["127.0.0.1:5000", "0.0.0.0:8000"]),
    ],
)
def test_an_app_on_a_wrong_port_is_told_before_its_time_is_over(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, listening: list[str], words: list[str]
) -> None:
    host.write_unit("hello", HELLO.format(url=DEAD))
    monkeypatch.setattr(vantage_unit, "HOPELESS_SECONDS", 0.1)
    monkeypatch.setattr(vantage_unit, "listening_addresses", lambda _: listening)
    problem = vantage_unit.wait_until_ready("hello")
    for word in words:
        assert word in problem


@pytest.mark.parametrize("server", [404], indirect=True)
def test_a_wrong_health_path_is_told_before_its_time_is_over(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    host.write_unit("hello", HELLO.format(url=server))
    monkeypatch.setattr(vantage_unit, "HOPELESS_SECONDS", 0.1)
    problem = vantage_unit.wait_until_ready("hello")
    assert "404" in problem
    assert "health_path" in problem


def test_output_that_is_not_utf8_is_read() -> None:
    done = RUN("printf", r"Datenbank f\344llt aus")
    assert done.stdout == "Datenbank f\N{REPLACEMENT CHARACTER}llt aus"


def test_a_unit_file_that_is_not_utf8_is_listed(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    (host.units / "vantage-old.service").write_bytes(b"# f\xe4llt\n[X-Vantage]\nOwner=old\n")
    assert main(["list", "--json", "--no-probe"]) == 0
    assert [one["service"] for one in json.loads(capsys.readouterr().out)] == ["loki", "old"]


def test_a_closed_port_is_reported_as_refused() -> None:
    assert "refused" in vantage_unit.probe(DEAD).lower()


def test_a_service_that_runs_its_files_and_is_not_ready_yet_is_waited_for(
    host: FakeHost, pending, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["pre-start", "loki"])
    host.answers["systemctl show"] = ACTIVE.replace("=active", "=activating")
    assert pending() == "wait"
    host.calls.clear()
    assert main(["apply", "loki"]) == 0
    assert capsys.readouterr().out == "loki wait\n"
    assert host.commands == ["systemctl daemon-reload"]
    assert pending() == ""


# Apply


@pytest.fixture
def starting(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """`systemctl restart` runs the unit's ExecStartPre; its ExecStartPost ended before the service was ready."""

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        if argv[:2] == ("systemctl", "restart"):
            main(["pre-start", argv[2].removeprefix("vantage-").removesuffix(".service")])
        return host.run(*argv)

    monkeypatch.setattr(vantage_unit, "run", run)


@pytest.mark.usefixtures("starting")
def test_a_start_that_took_longer_than_its_unit_waited_is_no_failure(
    host: FakeHost, pending, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["apply", "loki"]) == 0
    assert capsys.readouterr().out == "loki restart\n"
    assert host.commands == [
        "systemctl daemon-reload",
        "docker rm --force vantage-loki",
        "systemctl restart vantage-loki.service",
    ]
    assert pending() == ""


@pytest.mark.usefixtures("starting")
def test_a_start_that_never_becomes_ready_fails_and_is_not_recorded(
    host: FakeHost, pending, capsys: pytest.CaptureFixture[str]
) -> None:
    write_loki(host, url=DEAD)
    host.answers["systemctl show vantage-loki.service --property=MainPID"] = "7\n"
    assert main(["apply", "loki"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    for word in ("loki", DEAD, "within 0 s"):
        assert word in printed.err
    assert pending() == "wait"


def test_start_enables_the_unit(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    host.calls.clear()
    host.answers["systemctl show"] = "ActiveState=inactive\n"
    assert main(["apply", "loki"]) == 0
    assert host.commands == [
        "systemctl daemon-reload",
        "systemctl enable vantage-loki.service",
        "systemctl restart vantage-loki.service",
    ]


def test_a_failure_shows_the_journal_of_this_start(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.failing.add("systemctl restart")
    host.answers["systemctl show vantage-loki.service --property=InvocationID --value"] = "0123abcd\n"
    host.answers["journalctl"] = "the port is taken\n"
    assert main(["apply", "loki"]) == 1
    assert "the port is taken" in capsys.readouterr().err
    assert [argv for argv in host.calls if argv[0] == "journalctl"] == [
        ("journalctl", "--lines=30", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID=0123abcd")
    ]


def test_stop_gives_the_container_its_seconds(host: FakeHost) -> None:
    assert main(["stop", "loki"]) == 0
    assert host.commands == ["docker stop --time=60 vantage-loki"]


def test_reload_sends_a_signal_and_records_the_config(host: FakeHost, pending) -> None:
    write_loki(host, reload="true")
    start()
    write_config(host, "a: 2\n")
    host.calls.clear()
    assert main(["reload", "loki"]) == 0
    assert host.commands == ["docker kill --signal=HUP vantage-loki"]
    assert pending() == ""


# Remove


def test_remove_takes_what_its_owner_does_not_keep_and_nothing_else(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, owner in (("old", "flask_app"), ("kept", "flask_app"), ("grafana", "grafana")):
        host.write_unit(name, f"[X-Vantage]\nOwner={owner}\n")
    assert main(["remove", "flask_app", "kept"]) == 0
    assert capsys.readouterr().out == "old remove\n"
    assert {path.name for path in host.units.glob("*.service")} == {
        "vantage-loki.service",
        "vantage-kept.service",
        "vantage-grafana.service",
    }
    assert host.commands == [
        "systemctl disable --now vantage-old.service",
        "systemctl daemon-reload",
        "systemctl reset-failed vantage-old.service",
    ]


def test_a_removed_replica_leaves_neither_unit_nor_state(host: FakeHost) -> None:
    path = host.write_unit("hello-2", REPLICA + "NoProxy=10.0.0.0/8\n")
    start("hello-2")
    assert [*(host.root / "STATE").glob("hello-2.*")]
    assert main(["remove", "flask_app", "hello"]) == 0
    assert not path.exists()
    assert [*(host.root / "STATE").glob("hello-2.*")] == []


@pytest.mark.parametrize(
    "argv", [["stop", "loki", "grafana"], ["apply"], ["ensure-docker", "10.0.0.0/24"], ["list", "loki"]]
)
def test_wrong_number_of_names_is_a_usage_error(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


# Docker

NETWORK = ("172.29.238.0/24", "172.29.238.1")


def test_the_network_is_created_once(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ensure-docker", *NETWORK]) == 0
    assert capsys.readouterr().out == "network create\n"
    assert host.commands == [
        "docker network create --subnet=172.29.238.0/24 --gateway=172.29.238.1 "
        "--opt=com.docker.network.bridge.name=vantage0 vantage"
    ]
    host.answers["docker network inspect"] = " ".join(NETWORK) + "\n"
    host.calls.clear()
    assert main(["ensure-docker", *NETWORK]) == 0
    assert capsys.readouterr().out == ""
    assert host.commands == []


def test_a_network_with_another_subnet_fails_with_the_way_out(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers["docker network inspect"] = "10.0.0.0/24 10.0.0.1\n"
    assert main(["ensure-docker", *NETWORK]) == 1
    printed = capsys.readouterr().err
    assert "10.0.0.0/24" in printed
    assert "docker network rm vantage" in printed


def test_a_network_that_cannot_be_created_fails_with_the_settings(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.failing.add("docker network create")
    assert main(["ensure-docker", *NETWORK]) == 1
    printed = capsys.readouterr().err
    for word in ("it failed", "vantage_network_subnet", "vantage_network_gateway", *NETWORK):
        assert word in printed


def test_docker_restarts_only_for_newer_settings(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = host.root / "daemon.json"
    daemon.write_text("{}")
    monkeypatch.setattr(vantage_unit, "DAEMON", daemon)
    host.answers["systemctl show docker --property=MainPID --value"] = f"{os.getpid()}\n"
    host.answers["docker network inspect"] = " ".join(NETWORK) + "\n"
    os.utime(daemon, (1, 1))
    assert main(["ensure-docker", *NETWORK]) == 0
    assert host.commands == []
    os.utime(daemon, (2**32, 2**32))
    assert main(["ensure-docker", *NETWORK]) == 0
    assert capsys.readouterr().out == "docker restart\n"
    assert host.commands == ["systemctl restart docker"]


def test_docker_is_enabled_and_started(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.answers["docker network inspect"] = " ".join(NETWORK) + "\n"
    host.failing |= {"systemctl is-enabled", "systemctl is-active docker"}
    assert main(["ensure-docker", *NETWORK]) == 0
    assert capsys.readouterr().out == "vantage.target enable\ndocker enable\ndocker start\n"
    assert host.commands == ["systemctl enable vantage.target", "systemctl enable docker", "systemctl start docker"]


def test_check_mode_does_not_start_a_stopped_docker(host: FakeHost) -> None:
    host.failing.add("systemctl is-active docker")
    assert main(["--check", "ensure-docker", *NETWORK]) == 0
    assert not [argv for argv in host.calls if argv[0] == "docker"]


# List and status


def test_list_describes_each_unit(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    write_loki(host, url=DEAD)
    host.write_unit("hello", REPLICA.replace("ReplicaOf=hello\n", ""))
    host.write_unit("hello-2", REPLICA)
    host.write_unit("foreign", "[Service]\nExecStart=/bin/true\n")
    start("hello")
    start("hello-2")
    assert main(["list", "--json"]) == 0
    hello, replica, loki = json.loads(capsys.readouterr().out)
    problem = loki["readiness"].pop("problem")
    assert "refused" in problem.lower()
    assert loki == {
        "service": "loki",
        "unit": "vantage-loki.service",
        "owner": "loki",
        "app": None,
        "replica": None,
        "image": "loki:1",
        "ports": [
            {"address": "127.0.0.1", "host": 3100, "container": 3100},
            {"address": "::1", "host": 3101, "container": 9095},
        ],
        "readiness": {"url": DEAD, "ready": False},
        "state": {"active": "active", "sub": "running", "restarts": 0},
        "pending": "restart",
        "rollback": "",
    }
    assert (hello["service"], hello["app"], hello["replica"], hello["pending"]) == ("hello", "hello", 1, None)
    assert (replica["service"], replica["app"], replica["replica"]) == ("hello-2", "hello", 2)
    assert replica["readiness"] == {"url": None, "ready": None, "problem": ""}


def test_list_without_probe_has_no_readiness_and_pending(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    write_loki(host, url=DEAD)
    assert main(["list", "--json", "--no-probe"]) == 0
    (loki,) = json.loads(capsys.readouterr().out)
    assert loki["readiness"] == {"url": DEAD, "ready": None, "problem": ""}
    assert loki["pending"] is None


def test_a_service_on_the_hosts_network_has_the_port_it_listens_on(host: FakeHost) -> None:
    host.write_unit(
        "node-exporter",
        "[Service]\nExecStart=/usr/bin/docker run --network=host node:1 \\\n  --web.listen-address=172.29.238.1:9100\n"
        "[X-Vantage]\nImage=node:1\n",
    )
    assert vantage_unit.Unit.load("node-exporter").ports == [
        {"address": "172.29.238.1", "host": 9100, "container": 9100}
    ]


@pytest.mark.parametrize(("server", "code", "word"), [(200, 0, "ready"), (503, 1, "NOT READY")], indirect=["server"])
def test_status_fails_while_a_service_is_not_ready(
    host: FakeHost, capsys: pytest.CaptureFixture[str], server: str, code: int, word: str
) -> None:
    write_loki(host, url=server)
    assert main(["status"]) == code
    line = capsys.readouterr().out
    for part in ("loki", "active", word, "restarts 0", "pending: restart"):
        assert part in line


def test_status_aligns_its_columns_whatever_the_length_of_a_name(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("a-service-with-a-long-name", REPLICA.replace("ReplicaOf=hello\n", ""))
    main(["status"])
    assert len({line.index("restarts") for line in capsys.readouterr().out.splitlines()}) == 1


def test_status_fails_while_a_unit_is_not_active(host: FakeHost) -> None:
    host.answers["systemctl show"] = "ActiveState=failed\nNRestarts=3\n"
    assert main(["status"]) == 1


# Check mode

CHANGING = {
    "pre-start": ["loki"],
    "ready": ["loki"],
    "stop": ["loki"],
    "reload": ["loki"],
    "apply": ["loki", "hello-2"],
    "remove": ["flask_app"],
    "ensure-docker": [*NETWORK],
}
READING = {"status": [], "list": ["--json"]}


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("command", CHANGING)
def test_check_mode_changes_nothing(
    host: FakeHost, capsys: pytest.CaptureFixture[str], command: str, position: str
) -> None:
    host.write_unit("hello-2", REPLICA)
    before = host.files()
    words = [command, *CHANGING[command]]
    assert main(["--check", *words] if position == "before" else [*words, "--check"]) == 0
    assert host.changes == []
    assert host.files() == before
    assert capsys.readouterr().out
    # Without the option the same command does change something.
    main(words)
    assert host.changes or host.files() != before


def test_every_command_is_covered_by_the_check_mode_test() -> None:
    """Of the real program, as it is run on a host."""
    program = ROLES / "container_service/files/vantage_unit.py"
    shown = subprocess.run([sys.executable, program, "--help"], check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"^    ([a-z]\S*)", shown, re.MULTILINE)) == {*CHANGING, *READING}


# Proxies of Docker's client config -------------------------------------------------------------------------------------

PROXIED = """ExecStart=/usr/bin/docker run --rm --env=NO_PROXY --env=no_proxy blog:1

[X-Vantage]
Image=blog:1
NoProxy=172.29.238.0/24,10.0.0.9
"""


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ('{"proxies": {"default": {"httpProxy": "http://p", "noProxy": "localhost, .example.org"}}}', ".example.org"),
        ('{"auths": {}}', "127.0.0.1"),
        ("{broken", "127.0.0.1"),
        (None, "127.0.0.1"),
    ],
)
def test_services_of_the_network_are_reached_without_a_proxy(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, config: str | None, first: str
) -> None:
    monkeypatch.setattr(vantage_unit, "CLIENT", host.root / "config.json")
    if config:
        vantage_unit.CLIENT.write_text(config)
    for name in ("jaeger", "shop-2"):
        host.write_unit(name, "\n[X-Vantage]\nImage=x\n")
    host.write_unit("blog", PROXIED)
    vantage_unit.pre_start("blog")
    text = (vantage_unit.STATE / "blog.env").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines())
    assert values["NO_PROXY"] == values["no_proxy"]
    entries = values["NO_PROXY"].strip('"').split(",")
    assert {"localhost", "jaeger", "blog", "shop-2", "vantage-shop-2", "172.29.238.0/24", "10.0.0.9"} < set(entries)
    assert entries[1] == first
    assert len(entries) == len(set(entries))
    # The canary gets the same: its `docker run` has no environment file.
    assert f"--env=NO_PROXY={','.join(entries)}" in vantage_unit.Unit.load("blog").docker_arguments


def test_exception_for_everything_stands_alone(host: FakeHost) -> None:
    host.write_unit("blog", PROXIED.replace("NoProxy=", "NoProxy=*,"))
    assert vantage_unit.no_proxy(vantage_unit.Unit.load("blog")) == "*"


def test_service_without_proxies_needs_no_environment_file(host: FakeHost) -> None:
    host.write_unit("loki", "\n[X-Vantage]\nImage=x\n")
    vantage_unit.pre_start("loki")
    assert not (vantage_unit.STATE / "loki.env").exists()
