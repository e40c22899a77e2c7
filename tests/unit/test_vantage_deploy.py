"""vantage_deploy.py and vantage_snapshots.py, with systemd and Docker replaced by recorded answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import vantage_canary
import vantage_deploy
import vantage_snapshots
import vantage_unit
from ansible.template import trust_as_template
from host_programs import BEFORE_START, COMMAND, VOLUME, FakeHost, app_unit, before_start_runs
from rendering import ROLES, Host
from vantage_app import main
from vantage_snapshots import save_snapshot
from vantage_unit import Unit


def test_restore_restores_units_written_before_a_refused_one(host: FakeHost) -> None:
    installed = host.write_unit("hello", app_unit("hello:1"))
    save_snapshot("hello")
    save_snapshot("world")
    installed.write_text(app_unit("hello:2"))
    new = host.write_unit("world", app_unit("world:1"))
    assert main(["restore"]) == 0
    assert installed.read_text() == app_unit("hello:1")
    assert not new.exists()
    assert host.commands == ["systemctl disable --now vantage-world.service", "systemctl daemon-reload"]


def test_a_snapshot_of_an_interrupted_run_is_kept(host: FakeHost) -> None:
    installed = host.write_unit("hello", app_unit("hello:1"))
    save_snapshot("hello")
    installed.write_text(app_unit("hello:2"))
    save_snapshot("hello")
    assert vantage_snapshots.snapshot_path("hello").read_text() == app_unit("hello:1")


def test_a_deployment_that_fails_restores_all(
    host: FakeHost, applied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = host.write_unit("shop", app_unit("shop:1"))
    hello = host.write_unit("hello", app_unit("hello:1"))
    save_snapshot("hello")
    hello.write_text(app_unit("hello:2"))
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert shop.read_text() == app_unit("shop:1")
    assert hello.read_text() == app_unit("hello:1")
    assert applied == ["hello hello:2", "hello hello:1", "shop shop:1"]
    printed = capsys.readouterr().err
    for word in ("hello did not start", "Rolled back", "shop"):
        assert word in printed


def test_a_rollback_that_fails_names_the_services_that_are_lost(
    host: FakeHost, applied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", app_unit("hello:2"))
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert "Rollback incomplete: hello" in capsys.readouterr().err


def test_a_rollback_restores_the_image_that_a_tag_pointed_to(host: FakeHost, applied: list[str]) -> None:
    host.write_unit("hello", app_unit("hello:2"))
    host.answers["docker container inspect"] = "sha256:old\n"
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert "docker tag sha256:old hello:2" in host.commands


def test_a_deployment_releases_ports_before_others_take_them(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, old, new in (("one", 8000, 8001), ("two", 8001, 8000)):
        host.write_unit(name, app_unit(f"{name}:1", old))
        save_snapshot(name)
        host.write_unit(name, app_unit(f"{name}:1", new))
    monkeypatch.setattr(vantage_unit, "apply", lambda service, check=False: host.run("apply", service))
    assert main(["deploy", "flask_app", "one", "two"]) == 0
    assert host.commands[0] == "systemctl stop vantage-probation.service"
    assert host.commands[1:5] == [
        "systemctl stop vantage-one.service",
        "systemctl stop vantage-two.service",
        "apply one",
        "apply two",
    ]


def test_a_deployment_without_drift_asks_docker_for_image_ids_alone(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", app_unit("hello:1"))
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
    host.write_unit("hello", app_unit("hello:1-0123456789ab"))
    host.answers["docker image ls"] = "hello:1-0123456789ab\nhello:1-ba9876543210\nhello:1\n"
    vantage_deploy.prune_builds([])
    assert host.commands == ["docker image rm hello:1-ba9876543210"]


def test_packages_are_kept_for_the_next_build_until_their_app_is_removed(host: FakeHost) -> None:
    host.write_unit("hello", app_unit("vantage/hello:0123456789ab"))
    host.answers["docker image ls"] = "".join(
        f"{tag}\n" for tag in ("vantage/hello:packages-0123456789ab", "vantage/gone:packages-0123456789ab")
    )
    vantage_deploy.prune_builds([])
    assert host.commands == ["docker image rm vantage/gone:packages-0123456789ab"]


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"\xe4", 0, 1, "bad"), KeyboardInterrupt(), SystemExit(143)]
)
def test_whatever_fails_in_a_swap_the_app_that_ran_before_runs_again(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    found: list[str] = []

    def apply(service: str, check: bool = False) -> None:
        found.append(Unit.load(service).image)
        if found[-1] == "hello:2":
            raise error

    monkeypatch.setattr(vantage_unit, "apply", apply)
    hello = host.write_unit("hello", app_unit("hello:1"))
    save_snapshot("hello")
    hello.write_text(app_unit("hello:2"))
    try:
        assert main(["deploy", "flask_app", "hello"]) == 1
    except BaseException as raised:
        assert raised is error
    assert hello.read_text() == app_unit("hello:1")
    assert found == ["hello:2", "hello:1"]
    assert not list(vantage_snapshots.snapshot_folder().glob("*"))


def test_an_app_that_cannot_be_restored_does_not_keep_the_others_down(
    host: FakeHost, applied: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("another", app_unit("another:1"))
    host.write_unit("hello", app_unit("hello:2"))
    restore_file = vantage_snapshots.restore_file

    def restore(service: str, content: str) -> None:
        if service == "another":
            raise OSError("no space left on device")
        restore_file(service, content)

    monkeypatch.setattr(vantage_snapshots, "restore_file", restore)
    assert main(["deploy", "flask_app", "another", "hello"]) == 1
    assert applied == ["another another:1", "hello hello:2", "another another:1", "hello hello:2"]
    assert "no space left" in capsys.readouterr().err


def test_before_start_runs_before_the_swap_with_the_data_of_the_app(host: FakeHost, applied: list[str]) -> None:
    hello = host.write_unit("hello", app_unit("hello:1"))
    save_snapshot("hello")
    hello.write_text(app_unit("hello:3") + BEFORE_START)
    host.answers["docker wait"] = "0\n"
    assert main(["deploy", "flask_app", "hello"]) == 0
    (run,) = before_start_runs(host)
    assert VOLUME in run
    assert "--publish=127.0.0.1:8000:5000" not in run
    assert applied == ["hello hello:3"]


def test_before_start_that_fails_leaves_everything_as_it_was(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hello = host.write_unit("hello", app_unit("hello:1"))
    save_snapshot("hello")
    hello.write_text(app_unit("hello:3") + BEFORE_START)
    host.answers["docker wait"] = "4\n"
    monkeypatch.setattr(vantage_canary, "container_log", lambda _: "no such revision")
    monkeypatch.setattr(vantage_unit, "apply", lambda service, check=False: None)
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert hello.read_text() == app_unit("hello:1")
    assert not [command for command in host.commands if command.startswith(("systemctl restart", "systemctl disable"))]
    said = capsys.readouterr().err
    for word in (COMMAND, "status 4", "no such revision", "before_start"):
        assert word in said


def test_a_first_deployment_has_nothing_to_return_to(host: FakeHost, applied: list[str]) -> None:
    host.answers["systemctl show"] = "ActiveState=inactive\n"
    host.write_unit("hello", app_unit("hello:3"))
    assert main(["deploy", "flask_app", "hello"]) == 0
    assert not [command for command in host.commands if "systemd-run" in command]
    assert main(["rollback"]) == 1


def test_a_deployment_starts_its_probation(host: FakeHost, applied: list[str]) -> None:
    host.write_unit("hello", app_unit("hello:3"))
    assert main(["deploy", "flask_app", "hello"]) == 0
    (command,) = [command for command in host.commands if command.startswith("systemd-run")]
    assert command.endswith("vantage_app.py probation flask_app")


@pytest.mark.parametrize("command", ["canary", "deploy", "restore"])
def test_check_mode_changes_nothing(
    host: FakeHost, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    candidate = tmp_path / "candidate"
    candidate.write_text(app_unit("hello:2"))
    hello = host.write_unit("hello", app_unit("hello:1"))
    host.write_unit("old", app_unit("old:1"))
    save_snapshot("hello")
    hello.write_text(app_unit("hello:2"))
    before = host.files()
    words = {"canary": ["hello", str(candidate)], "deploy": ["flask_app", "hello"], "restore": []}[command]
    assert main(["--check", command, *words]) == 0
    assert host.changes == []
    assert host.files() == before
    printed = {"canary": "hello canary\n", "deploy": "old remove\nhello restart\n", "restore": "hello restore\n"}
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


def test_every_program_of_the_role_is_installed_before_the_first_unit_is_checked() -> None:
    programs = {path.name for path in (ROLES / "flask_app/files").glob("vantage_*.py")}
    assert set(Host("flask_app").variables["__flask_app_programs"]) == programs
