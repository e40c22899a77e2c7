"""vantage_canary.py, with systemd and Docker replaced by recorded answers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import vantage_canary
import vantage_unit
from fakes import fake_program
from host_programs import BEFORE_START, COMMAND, FakeHost, app_unit, before_start_runs
from vantage_app import main
from vantage_unit import Unit, UnitError


@pytest.fixture(autouse=True)
def no_chown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vantage_canary.shutil, "chown", lambda *_: None)


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """The unit file of a new version."""
    path = tmp_path / "candidate"
    path.write_text(app_unit("hello:2"))
    return path


def test_canary_runs_without_ports_alias_and_data_of_the_running_version(host: FakeHost, tmp_path: Path) -> None:
    assert vantage_canary.canary_arguments(Unit("hello", app_unit("hello:2")), tmp_path) == [
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
    found = vantage_canary.canary_arguments(Unit("hello", app_unit("hello:2", volumes=volumes)), tmp_path)
    assert [word for word in found if word.startswith("--volume=/")] == [
        "--volume=/a:/b:ro,z",
        "--volume=/c:/d:z,ro",
        f"--volume={tmp_path}/0:/e",
        f"--volume={tmp_path}/1:/f",
        "--volume=/etc/vantage/secrets/hello:/run/secrets:ro",
    ]


def test_canary_keeps_the_arguments_of_the_app(tmp_path: Path) -> None:
    command = ["--name=web", "--volume=/in/the/app", "--publish=x", "--rm"]
    unit = Unit("hello", app_unit("hello:2").replace("  hello:2\n", f"  hello:2 {' '.join(command)}\n"))
    found = vantage_canary.canary_arguments(unit, tmp_path)
    assert found[found.index("hello:2") + 1 :] == command


@pytest.mark.parametrize("reason", ["no app runs", "the app opts out"])
def test_no_canary_starts_where_it_is_not_needed(host: FakeHost, candidate: Path, reason: str) -> None:
    if reason == "no app runs":
        host.write_unit("loki", app_unit("loki:1", owner="loki"))
    else:
        host.write_unit("hello", app_unit("hello:1"))
        candidate.write_text(app_unit("hello:2") + "Canary=no\n")
    assert main(["canary", "hello", str(candidate)]) == 0
    assert host.commands == []


def test_a_canary_that_ends_is_refused_and_removed(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", app_unit("hello:1"))
    monkeypatch.setattr(vantage_canary, "container_log", lambda _: "no such module")
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
    host.write_unit("hello", app_unit("hello:1"))
    host.answers["docker container inspect"] = "running 0 false 7\n"
    host.answers["docker container inspect --format {{range"] = "127.0.0.1\n"
    monkeypatch.setattr(vantage_unit, "listening_addresses", lambda _: ["0.0.0.0:8000"])
    monkeypatch.setattr(vantage_unit, "HOPELESS_SECONDS", 0.1)
    monkeypatch.setattr(vantage_canary, "container_log", lambda _: "")
    candidate.write_text(app_unit("hello:2").replace(":5000", ":9").replace("ReadySeconds=1", "ReadySeconds=60"))
    assert main(["canary", "hello", str(candidate)]) == 1
    printed = capsys.readouterr().err
    for word in ("Port 9 is closed", "8000", "container_port"):
        assert word in printed


@pytest.mark.parametrize("error", [UnitError("no"), SystemExit(143), ValueError("a bug")])
def test_whatever_fails_in_a_canary_it_is_removed_with_its_data(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    host.write_unit("hello", app_unit("hello:1"))

    def fail(_: Unit) -> str:
        assert (vantage_canary.canary_folder("hello") / "0").is_dir()
        raise error

    monkeypatch.setattr(vantage_canary, "wait_for_canary", fail)
    with contextlib.suppress(SystemExit):
        assert main(["canary", "hello", str(candidate)]) == 1
    assert host.commands[-1] == "docker rm --force --volumes vantage-hello-canary"
    assert not vantage_canary.canary_folder("hello").exists()


def test_what_a_killed_run_left_of_a_canary_is_not_its_data(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_unit("hello", app_unit("hello:1"))
    left = vantage_canary.canary_folder("hello") / "0/database"
    left.parent.mkdir(parents=True)
    left.touch()
    monkeypatch.setattr(vantage_canary, "wait_for_canary", lambda _: "" if not left.exists() else "it is there")
    assert main(["canary", "hello", str(candidate)]) == 0


def refusal(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log: str
) -> str:
    host.write_unit("hello", app_unit("hello:1"))
    host.answers["docker image inspect --format {{.Config.WorkingDir}}"] = "/srv/app\n"
    monkeypatch.setattr(vantage_canary, "container_log", lambda _: log)
    monkeypatch.setattr(vantage_canary, "wait_for_canary", lambda _: "GET / answered 500")
    assert main(["canary", "hello", str(candidate)]) == 1
    return capsys.readouterr().err


def test_a_canary_says_that_it_has_no_data(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(host, candidate, monkeypatch, capsys, "something\n")
    for word in ("before_start", "health_path", "trial", "empty"):
        assert word in said
    candidate.write_text(app_unit("hello:2", volumes="--volume=/a:/b:ro"))
    assert "before_start" not in refusal(host, candidate, monkeypatch, capsys, "something\n")


def test_a_refusal_says_what_mends_it_once_and_after_the_log(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(host, candidate, monkeypatch, capsys, "sqlite3.OperationalError: no such table: post\n")
    assert said.count("before_start:") == 1
    assert said.index("no such table") < said.index("Set before_start")
    assert "trial" not in said


def test_the_log_comes_before_the_port_where_nothing_listens(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers["docker container inspect"] = "running 0 false 7\n"
    monkeypatch.setattr(vantage_unit, "listening_addresses", lambda _: [])
    said = refusal(host, candidate, monkeypatch, capsys, "waiting for the database\n")
    assert said.index("waiting for the database") < said.index("0.0.0.0:5000")


def test_a_log_that_is_not_utf8_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "docker", r"printf 'Datenbank f\344llt aus\n' >&2", monkeypatch)
    assert vantage_canary.container_log("any") == "Datenbank f\N{REPLACEMENT CHARACTER}llt aus"


def test_before_start_runs_for_the_canary_with_its_own_data(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_unit("hello", app_unit("hello:1"))
    candidate.write_text(app_unit("hello:2") + BEFORE_START)
    host.answers["docker wait"] = "0\n"
    monkeypatch.setattr(vantage_canary, "wait_for_canary", lambda _: "")
    assert main(["canary", "hello", str(candidate)]) == 0
    (run,) = before_start_runs(host)
    assert run[-5:] == ("--name=vantage-hello-before-start", "--entrypoint=/bin/sh", "hello:2", "-c", COMMAND)
    data = f"--volume={vantage_canary.canary_folder('hello')}/0:/data"
    for word in (data, "--volume=/etc/vantage/secrets/hello:/run/secrets:ro", "--user=10001:10001", "--read-only"):
        assert word in run
    canary = next(argv for argv in host.changes if "--name=vantage-hello-canary" in argv)
    assert data in canary
