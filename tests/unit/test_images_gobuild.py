"""What a build of an engine asks of this machine, without building one."""

from __future__ import annotations

from pathlib import Path

import pytest
from vantage_tools.errors import UserError
from vantage_tools.images import gobuild


def test_too_little_room_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"GiB free, .* GiB needed\n.*VANTAGE_CACHE"):
        gobuild.require_space(tmp_path, needed=1 << 60)


def test_a_warm_cache_needs_little_room(tmp_path: Path) -> None:
    (tmp_path / "go" / "build" / "00").mkdir(parents=True)
    gobuild.require_space(tmp_path, needed=1 << 60)


def test_the_users_own_go_settings_do_not_reach_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("GOARCH", "wasm")
    monkeypatch.setenv("GOPROXY", "https://proxy.example")
    environment = gobuild.environment(tmp_path, cgo=False)
    assert environment["GOFLAGS"] == "-modcacherw -buildvcs=false"
    assert "GOARCH" not in environment
    assert environment["GOPROXY"] == "https://proxy.example"
    assert environment["CGO_ENABLED"] == "0"
    assert gobuild.environment(tmp_path, cgo=True)["CGO_ENABLED"] == "1"


def test_an_unknown_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gobuild.platform, "machine", lambda: "riscv64")
    with pytest.raises(UserError, match="riscv64"):
        gobuild.architecture()
