"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import vantage_unit
from host_programs import ACTIVE, FakeHost
from rendering import load_plugins


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
