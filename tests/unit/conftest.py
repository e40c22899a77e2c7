"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import vantage_unit
from host_programs import ACTIVE, FakeHost, app_unit
from rendering import load_plugins
from vantage_app import main
from vantage_snapshots import save_snapshot
from vantage_unit import Unit, UnitError


@pytest.fixture(scope="session", autouse=True)
def plugins() -> None:
    load_plugins()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """The host that vantage_unit.py and vantage_app.py see: no unit, every unit active, every image with one id."""
    fake = FakeHost(tmp_path, answers={"systemctl show": ACTIVE, "docker image inspect": "sha256:1\n"})
    for name in ("UNITS", "CONFIG", "STATE", "CACHE"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(vantage_unit, name, tmp_path / name)
    monkeypatch.setattr(vantage_unit, "run", fake.run)
    return fake


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


@pytest.fixture
def deployed(host: FakeHost, applied: list[str]) -> Path:
    """Version 3 of hello took the place of version 1."""
    hello = host.write_unit("hello", app_unit("hello:1"))
    host.answers["docker container inspect"] = "sha256:old\n"
    save_snapshot("hello")
    hello.write_text(app_unit("hello:3"))
    assert main(["deploy", "flask_app", "hello"]) == 0
    applied.clear()
    host.calls.clear()
    return hello
