"""`vantage test-systems` reports each system; a second run of site.yml that changes something fails a machine's test."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from vantage_tools import machine_tests
from vantage_tools.errors import UserError

RECAP = "vantage                    : ok=90   changed={}    unreachable=0    failed=0\n"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which the stub of molecule writes its calls; nothing real is started."""
    programs = {
        # One system's packages are not available.
        "images": 'case "$*" in "load system-ubuntu2604") echo "mmdebstrap failed"; exit 1 ;; esac',
        # Another one's second run changes something.
        "molecule": f'echo "$VANTAGE_SYSTEM $*" >>{tmp_path}/calls; [ "$VANTAGE_SYSTEM $*" != "ubuntu2204 idempotence" ]',
        "pytest": "exit 0",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VANTAGE_SYSTEM_IMAGE", raising=False)
    monkeypatch.setattr(machine_tests, "IMAGES", (tmp_path / "images",))
    monkeypatch.setattr(machine_tests.engine, "get_images", lambda: None)
    return tmp_path / "calls"


def test_a_failed_system_fails_the_run_and_a_skipped_one_does_not(
    calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as exit_error:
        machine_tests.test_systems()
    assert exit_error.value.exit_code == 1
    table = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {name: line.split()[1] for name, line in table.items()} == {
        "debian12": "ok",
        "debian13": "ok",
        "ubuntu2204": "FAILED",
        "ubuntu2404": "ok",
        "ubuntu2604": "skipped",
        "rhel9": "skipped",
    }
    assert "ubuntu2604-image.log" in table["ubuntu2604"]
    assert "VANTAGE_SYSTEM_IMAGE" in table["rhel9"]
    lines = calls.read_text().splitlines()
    # The machine of a failed system is removed too.
    assert [line for line in lines if line.startswith("ubuntu2204")][-1] == "ubuntu2204 destroy"
    assert not [line for line in lines if line.startswith(("ubuntu2604", "rhel9"))]


def test_only_the_named_systems_are_tested(calls: Path) -> None:
    machine_tests.test_systems(["debian13"], full=True)
    assert calls.read_text() == "debian13 test\n"


def test_an_unknown_system_is_refused(calls: Path) -> None:
    with pytest.raises(UserError, match=r"debian11.*ubuntu2404"):
        machine_tests.test_systems(["debian11"])
    assert not calls.exists()


def test_a_second_run_that_changes_nothing_passes() -> None:
    machine_tests.require_no_change("TASK [x]\nok: [vantage]\n" + RECAP.format(0))


@pytest.mark.parametrize("output", [RECAP.format(2) + RECAP.format(0), "fatal: [vantage]: FAILED!\n", ""])
def test_a_second_run_that_changes_something_or_fails_is_an_error(output: str) -> None:
    with pytest.raises(UserError):
        machine_tests.require_no_change(output)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", False),
        ("vantage: [   1 s] 1/6 python: …\n", False),
        ("[  9.1] vantage: [ 900 s] DONE: Vantage runs\n", True),
    ],
)
def test_the_console_tells_whether_the_machine_has_provisioned(tmp_path: Path, said: str, expected: bool) -> None:
    console = tmp_path / "console.log"
    console.write_text(said)
    assert machine_tests.has_provisioned(console) is expected


def test_a_failure_on_the_console_is_shown(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("vantage: [  60 s] FAILED in project: cannot fetch x\nvantage: [  60 s] Fix: y\n")
    with pytest.raises(UserError, match="cannot fetch x"):
        machine_tests.has_provisioned(console)


def test_a_second_run_of_the_same_test_is_refused(tmp_path: Path) -> None:
    with (
        machine_tests.only_run(tmp_path),
        pytest.raises(UserError, match=str(tmp_path)),
        machine_tests.only_run(tmp_path),
    ):
        raise AssertionError("the lock was taken twice")
