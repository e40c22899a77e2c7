"""vantage_app.py, with systemd and Docker replaced by recorded answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import vantage_app
import vantage_unit
from ansible.template import trust_as_template
from host_programs import FakeHost
from rendering import Host
from vantage_app import main
from vantage_unit import Unit, UnitError

VOLUME = "--volume=/var/lib/vantage/hello:/data"


def text(image: str, port: int = 8000, owner: str = "flask_app", volumes: str = VOLUME) -> str:
    return (
        "[Service]\n"
        "ExecStart=/usr/bin/docker run --rm --pull=never --log-driver=none \\\n"
        "  --name=vantage-hello --hostname=hello \\\n"
        f"  --network=vantage --network-alias=hello \\\n  --user=10001:10001 --read-only \\\n"
        f"  --publish=127.0.0.1:{port}:5000 \\\n"
        f"  {volumes} \\\n  --volume=/etc/vantage/secrets/hello:/run/secrets:ro \\\n"
        '  --env="GREETING=50%% of $$1 \\"each\\"" \\\n'
        f"  {image}\n"
        f"[X-Vantage]\nOwner={owner}\nImage={image}\nReadyUrl=http://127.0.0.1:{port}/health\nReadySeconds=1\n"
    )


@pytest.fixture(autouse=True)
def no_chown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vantage_app.shutil, "chown", lambda *_: None)


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """The unit file of a new version."""
    path = tmp_path / "candidate"
    path.write_text(text("hello:2"))
    return path


# Canary


def test_canary_runs_without_ports_alias_and_data_of_the_running_version(host: FakeHost, tmp_path: Path) -> None:
    assert vantage_app.canary_arguments(Unit("hello", text("hello:2")), tmp_path) == [
        "--detach",
        "--log-driver=local",
        "--pull=never",
        "--name=vantage-hello-canary",
        "--hostname=hello",
        "--network=vantage",
        "--user=10001:10001",
        "--read-only",
        f"--volume={tmp_path}/0:/data",
        "--volume=/etc/vantage/secrets/hello:/run/secrets:ro",
        '--env=GREETING=50% of $1 "each"',
        "hello:2",
    ]


def test_canary_mounts_only_read_only_volumes(tmp_path: Path) -> None:
    volumes = " ".join(f"--volume={one}" for one in ("/a:/b:ro,z", "/c:/d:z,ro", "/ro:/e:rw,z", "/ro:/f"))
    found = vantage_app.canary_arguments(Unit("hello", text("hello:2", volumes=volumes)), tmp_path)
    assert [word for word in found if word.startswith("--volume=/")] == [
        "--volume=/a:/b:ro,z",
        "--volume=/c:/d:z,ro",
        f"--volume={tmp_path}/0:/e",
        f"--volume={tmp_path}/1:/f",
        "--volume=/etc/vantage/secrets/hello:/run/secrets:ro",
    ]


@pytest.mark.parametrize("reason", ["no app runs", "the app opts out"])
def test_no_canary_starts_where_it_is_not_needed(host: FakeHost, candidate: Path, reason: str) -> None:
    if reason == "no app runs":
        host.write_unit("loki", text("loki:1", owner="loki"))
    else:
        host.write_unit("hello", text("hello:1"))
        candidate.write_text(text("hello:2") + "Canary=no\n")
    assert main(["canary", "hello", str(candidate)]) == 0
    assert host.commands == []


def test_a_canary_that_ends_is_refused_and_removed(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:1"))
    monkeypatch.setattr(vantage_app, "last_log_lines", lambda _: "no such module")
    host.answers["docker container inspect"] = "exited 2 false 0\n"
    assert main(["canary", "hello", str(candidate)]) == 1
    printed = capsys.readouterr().err
    for word in ("hello", "hello:2", "status 2", "no such module"):
        assert word in printed
    remove, run, removed = host.changes
    assert run[:4] == ("docker", "run", "--detach", "--log-driver=local")
    assert run[-1] == "hello:2"
    assert remove == removed == ("docker", "rm", "--force", "--volumes", "vantage-hello-canary")


def test_canary_on_another_port_is_refused_with_that_port(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:1"))
    host.answers["docker container inspect"] = "running 0 false 7\n"
    host.answers["docker container inspect --format {{range"] = "127.0.0.1\n"
    monkeypatch.setattr(vantage_app, "listening_addresses", lambda _: ["0.0.0.0:8000"])
    monkeypatch.setattr(vantage_app, "last_log_lines", lambda _: "")
    candidate.write_text(text("hello:2").replace(":5000", ":9").replace("ReadySeconds=1", "ReadySeconds=0.1"))
    assert main(["canary", "hello", str(candidate)]) == 1
    printed = capsys.readouterr().err
    for word in ("Port 9 is closed", "8000", "container_port"):
        assert word in printed


# Rollback and deployment


def test_rollback_restores_units_written_before_a_refused_one(host: FakeHost) -> None:
    installed = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    vantage_app.save_snapshot("world")
    installed.write_text(text("hello:2"))
    new = host.write_unit("world", text("world:1"))
    assert main(["rollback"]) == 0
    assert installed.read_text() == text("hello:1")
    assert not new.exists()
    assert host.commands == ["systemctl disable --now vantage-world.service", "systemctl daemon-reload"]


def test_a_snapshot_of_an_interrupted_run_is_kept(host: FakeHost) -> None:
    installed = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    installed.write_text(text("hello:2"))
    vantage_app.save_snapshot("hello")
    assert vantage_app.snapshot_path("hello").read_text() == text("hello:1")


@pytest.fixture
def applied(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services that were applied, each with its image; version 2 of hello does not start."""
    found: list[str] = []

    def apply(service: str, check: bool = False) -> None:
        found.append(f"{service} {Unit.load(service).image}")
        if found[-1] == "hello hello:2":
            raise UnitError("hello did not start")

    monkeypatch.setattr(vantage_unit, "apply", apply)
    return found


def test_a_deployment_that_fails_restores_all(
    host: FakeHost, applied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = host.write_unit("shop", text("shop:1"))
    hello = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    hello.write_text(text("hello:2"))
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert shop.read_text() == text("shop:1")
    assert hello.read_text() == text("hello:1")
    assert applied == ["hello hello:2", "hello hello:1", "shop shop:1"]
    printed = capsys.readouterr().err
    for word in ("hello did not start", "Rolled back", "shop"):
        assert word in printed


def test_a_rollback_that_fails_names_the_services_that_are_lost(
    host: FakeHost, applied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:2"))
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert "Rollback incomplete: hello" in capsys.readouterr().err


def test_a_rollback_restores_the_image_that_a_tag_pointed_to(host: FakeHost, applied: list[str]) -> None:
    host.write_unit("hello", text("hello:2"))
    host.answers["docker container inspect"] = "sha256:old\n"
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert "docker tag sha256:old hello:2" in host.commands


def test_a_deployment_releases_ports_before_others_take_them(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, old, new in (("one", 8000, 8001), ("two", 8001, 8000)):
        host.write_unit(name, text(f"{name}:1", old))
        vantage_app.save_snapshot(name)
        host.write_unit(name, text(f"{name}:1", new))
    monkeypatch.setattr(vantage_unit, "apply", lambda service, check=False: host.run("apply", service))
    assert main(["deploy", "flask_app", "one", "two"]) == 0
    assert host.commands == [
        "systemctl stop vantage-one.service",
        "systemctl stop vantage-two.service",
        "apply one",
        "apply two",
    ]


def test_a_deployment_without_drift_asks_docker_for_image_ids_alone(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:1"))
    vantage_unit.pre_start("hello")
    vantage_unit.write_state("hello", vantage_unit.read_state("hello") | {"ready": True})
    host.calls.clear()
    assert main(["deploy", "flask_app", "hello"]) == 0
    assert capsys.readouterr().out == ""
    assert [argv for argv in host.calls if argv[0] == "docker"] == [
        ("docker", "image", "inspect", "--format", "{{.Id}}", "hello:1")
    ]
    assert host.commands == []


def test_only_builds_that_no_unit_needs_are_removed(host: FakeHost) -> None:
    host.write_unit("hello", text("hello:1-0123456789ab"))
    host.answers["docker image ls"] = "hello:1-0123456789ab\nhello:1-ba9876543210\nhello:1\n"
    vantage_app.prune_builds([])
    assert host.commands == ["docker image rm hello:1-ba9876543210"]


# Check mode


@pytest.mark.parametrize("command", ["canary", "deploy", "rollback"])
def test_check_mode_changes_nothing(
    host: FakeHost, candidate: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    hello = host.write_unit("hello", text("hello:1"))
    host.write_unit("old", text("old:1"))
    vantage_app.save_snapshot("hello")
    hello.write_text(text("hello:2"))
    before = host.files()
    words = {"canary": ["hello", str(candidate)], "deploy": ["flask_app", "hello"], "rollback": []}[command]
    assert main(["--check", command, *words]) == 0
    assert host.changes == []
    assert host.files() == before
    printed = {"canary": "hello canary\n", "deploy": "old remove\nhello restart\n", "rollback": "hello rollback\n"}
    assert capsys.readouterr().out == printed[command]


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("shop:1", "shop:1-0123456789ab"),
        ("registry.example.org:5000/shop", "registry.example.org:5000/shop:0123456789ab"),
        ("vantage/hello", "vantage/hello:0123456789ab"),
    ],
)
def test_a_build_is_named_after_its_source(image: str, tag: str) -> None:
    host = Host("flask_app", image=image)
    assert host.value(trust_as_template("{{ image | built_tag('0123456789abcdef') }}")) == tag
