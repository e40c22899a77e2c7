"""`make test`: a failed unit test ends the run early, a failed scenario of molecule does not end the others."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import fake_program
from vantage_tools import testing
from vantage_tools.errors import UserError

Molecule = Callable[[str], Callable[[], list[str]]]


@pytest.fixture
def molecule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Molecule:
    """Installs a molecule that does `script` to test a scenario; returns what lists the calls."""
    for module, name in ((testing.host_tools, "install"), (testing.lint, "lint"), (testing.engine, "get_images")):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(testing, "unit", lambda: None)
    monkeypatch.setattr(testing, "cache_dir", lambda: tmp_path)
    calls = tmp_path / "calls"

    def install(script: str) -> Callable[[], list[str]]:
        test = f'echo "$1 $3" >> {calls}; case $1 in test) {script} ;; esac'
        fake_program(tmp_path / "bin", "molecule", test, monkeypatch)
        return lambda: sorted(calls.read_text().splitlines())

    return install


def test_failed_unit_test_ends_the_scenarios_and_removes_their_machines(
    molecule: Molecule, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = molecule("sleep 60")

    def fail() -> None:
        time.sleep(0.5)
        raise subprocess.CalledProcessError(1, ["pytest"])

    monkeypatch.setattr(testing, "unit", fail)
    begin = time.monotonic()
    with pytest.raises(subprocess.CalledProcessError):
        testing.test()
    assert time.monotonic() - begin < 30
    assert {"destroy apps", "destroy default"} <= set(calls())


def test_failed_scenario_is_named_last_and_does_not_end_the_others(
    molecule: Molecule, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = molecule("echo output of $3; test $3 != default")
    with pytest.raises(UserError, match="default"):
        testing.test()
    assert calls() == ["test apps", "test bare_host", "test default", "test two_hosts"]
    shown = capfd.readouterr()
    assert shown.out.split("output of ")[-1].strip() == "default"
    assert "default: exit code 1" in shown.err


def test_scenarios_that_pass_are_a_success(molecule: Molecule) -> None:
    calls = molecule("true")
    testing.test()
    assert len(calls()) == 4
