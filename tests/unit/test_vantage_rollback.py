"""vantage_rollback.py: the return to the apps before the last deployment."""

from __future__ import annotations

from pathlib import Path

import pytest
import vantage_unit
from host_programs import FakeHost, app_unit, before_start_runs
from vantage_app import main
from vantage_snapshots import snapshot_path


def test_rollback_is_one_command_and_its_own_reverse(host: FakeHost, deployed: Path, applied: list[str]) -> None:
    assert main(["rollback"]) == 0
    assert deployed.read_text() == app_unit("hello:1")
    assert main(["rollback"]) == 0
    assert deployed.read_text() == app_unit("hello:3")
    assert applied == ["hello hello:1", "hello hello:3"]
    assert "docker tag sha256:old hello:1" in host.commands


def test_rollback_ends_the_probation_and_runs_no_before_start(host: FakeHost, deployed: Path) -> None:
    assert main(["rollback"]) == 0
    assert not before_start_runs(host)
    assert [command for command in host.commands if "probation" in command] == [
        "systemctl stop vantage-probation.service"
    ]


def test_rollback_without_its_image_changes_nothing(
    host: FakeHost, deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers["docker image inspect --format {{.Id}} sha256:old"] = ""
    assert main(["rollback"]) == 1
    assert "sha256:old" in capsys.readouterr().err
    assert deployed.read_text() == app_unit("hello:3")


def test_rollback_of_a_deployment_of_secrets_says_that_it_restores_none(
    host: FakeHost, applied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", app_unit("hello:3"))
    host.answers |= {"docker container inspect": "sha256:3\n", "docker image inspect": "sha256:3\n"}
    assert main(["deploy", "flask_app", "hello"]) == 0
    capsys.readouterr()
    assert main(["rollback"]) == 1
    said = capsys.readouterr()
    assert "secrets" in said.err
    assert said.out == ""
    assert not snapshot_path("hello").exists()


def test_a_rollback_is_told_by_status_until_a_deployment_succeeds(
    host: FakeHost, deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback"]) == 0
    capsys.readouterr()
    vantage_unit.main(["status"])
    assert "hello:3" in capsys.readouterr().out
    assert main(["deploy", "flask_app", "hello"]) == 0
    vantage_unit.main(["status"])
    assert "hello:3" not in capsys.readouterr().out


def test_check_mode_of_a_rollback_changes_nothing(
    host: FakeHost, deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = host.files()
    capsys.readouterr()
    assert main(["--check", "rollback"]) == 0
    assert host.changes == []
    assert host.files() == before
    assert capsys.readouterr().out == "hello rollback\n"
