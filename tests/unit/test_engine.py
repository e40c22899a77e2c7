"""The Docker engine of this machine, and the packages that it and other tasks need."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from fakes import fake_program
from vantage_tools.errors import UserError
from vantage_tools.vm import engine, host_tools


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No programs, an empty cache."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("VANTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(host_tools, "SBIN", "")


def test_missing_engine_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make up` and `make test` need nothing on a machine but Python, git and make."""
    installed: list[str] = []

    def install(*groups: str) -> None:
        installed.extend(groups)
        raise UserError("stop here")

    monkeypatch.setattr(host_tools, "install", install)
    with pytest.raises(UserError, match="stop here"):
        engine.ensure_engine()
    assert installed == ["engine"]


def test_engine_that_answers_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "docker", "exit 0", monkeypatch)
    engine.ensure_engine()
    assert not (tmp_path / "cache").exists()


def test_unreachable_docker_host_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "docker", "exit 1", monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", "tcp://build:2375")
    with pytest.raises(UserError, match="tcp://build:2375"):
        engine.ensure_engine()


def test_pid_file_of_a_killed_dockerd_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["/bin/sleep", "60"])
    files = [tmp_path / "docker.pid", tmp_path / "containerd.pid"]
    for file in files:
        file.write_text(str(process.pid))
    monkeypatch.setattr(engine, "PID_FILE", files[0])
    monkeypatch.setattr(engine, "CONTAINERD_PID_FILE", files[1])
    engine._remove_stale_pid_files()
    process.kill()
    process.wait()
    assert not any(file.exists() for file in files), "the process has another name, so the number was reused"


def test_kernel_without_nft_gives_dockerd_the_legacy_iptables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's own alternatives stay as they are."""
    for name, script in (("iptables", "exit 1"), ("iptables-legacy", "exit 0"), ("ip6tables-legacy", "exit 0")):
        fake_program(tmp_path / "bin", name, script, monkeypatch)
    folder = Path(engine._iptables_environment()["PATH"].split(":")[0])
    assert {path.name: path.readlink() for path in folder.iterdir()} == {
        "iptables": tmp_path / "bin/iptables-legacy",
        "ip6tables": tmp_path / "bin/ip6tables-legacy",
    }
    assert "iptables-legacy" in capsys.readouterr().err


def test_kernel_without_nat_is_refused() -> None:
    with pytest.raises(UserError, match="NAT"):
        engine._iptables_environment()


# --- Packages -----------------------------------------------------------------------------------------------------


def test_only_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_tools.missing_packages("seed", "lint") == ["cloud-init", "shellcheck", "xorriso"]
    fake_program(tmp_path / "bin", "xorriso", "", monkeypatch)
    assert host_tools.missing_packages("seed", "lint") == ["cloud-init", "shellcheck"]


def test_engine_that_answers_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to a Docker from elsewhere, Debian's must not be installed."""
    assert "docker.io" in host_tools.missing_packages("engine")
    fake_program(tmp_path / "bin", "docker", "exit 0", monkeypatch)
    assert host_tools.missing_packages("engine") == []


def test_unknown_group_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="lnt") as refused:
        host_tools.missing_packages("lnt")
    assert all(group in refused.value.problem for group in host_tools.GROUPS)


def test_system_without_apt_gets_the_names() -> None:
    with pytest.raises(UserError, match="shellcheck"):
        host_tools.install("lint")


def test_user_without_sudo_gets_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "apt-get", "exit 0", monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError) as refused:
        host_tools.install("lint")
    assert refused.value.fix == "as root: apt-get install shellcheck"


@pytest.mark.parametrize(("failures", "commands"), [(0, ["install"]), (1, ["install", "update", "install"])])
def test_old_package_lists_are_updated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, commands: list[str]
) -> None:
    log, count = tmp_path / "log", tmp_path / "count"
    count.write_text(str(failures))
    script = f"""for word; do case $word in install|update) echo $word >> {log}; break ;; esac; done
    read n < {count}; [ $word = update ] && exit 0; echo $((n - 1)) > {count}; [ $n -le 0 ]"""
    fake_program(tmp_path / "bin", "apt-get", script, monkeypatch)
    fake_program(tmp_path / "bin", "env", 'shift; exec "$@"', monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    host_tools.install("lint")
    assert log.read_text().split() == commands


def test_failed_installation_shows_what_apt_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "apt-get", "echo 'E: no such mirror'; exit 100", monkeypatch)
    fake_program(tmp_path / "bin", "env", 'shift; exec "$@"', monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UserError, match=r"shellcheck[\s\S]*no such mirror"):
        host_tools.install("lint")
