"""How the role docker installs Docker: what check mode may pass over on a bare host, and what apt's failures come to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import update_package_lists
from ansible.template import trust_as_template
from rendering import ROLES, Host, load, unit


def fails(file: str, register: str, result: dict[str, Any], check: bool) -> bool:
    """Whether the task with this register fails with this result."""
    tasks = [inner for task in load(ROLES / f"docker/tasks/{file}.yml") for inner in task.get("block", [task])]
    (task,) = (task for task in tasks if task.get("register") == register)
    host = Host("docker", **{"ansible_check_mode": check, register: result})
    return bool(host.value(trust_as_template("{{ " + task["failed_when"] + " }}")))


@pytest.mark.parametrize("noise", ["", "sudo: unable to resolve host vm: Name or service not known\r\n"])
@pytest.mark.parametrize("engine", ["", "engine=dockerd\r\n"])
def test_docker_is_installed_only_where_none_was_found(engine: str, noise: str) -> None:
    """With a terminal over SSH, the warnings of sudo are in stdout too."""
    (task,) = (task for task in load(ROLES / "docker/tasks/main.yml") if task["name"] == "Install Docker")
    host = Host("docker", __docker_engine={"stdout": noise + engine})
    assert host.value(trust_as_template("{{ " + task["when"] + " }}")) is not bool(engine)


BARE = [
    ("debian", "__docker_apt", {"failed": True, "msg": "python3-apt must be installed to use check mode."}),
    ("debian", "__docker_apt", {"failed": True, "msg": "No package matching 'docker-ce' is available"}),
    ("redhat", "__docker_dnf", {"failed": True, "failures": ["No package docker-ce available."]}),
]
REAL = [
    ("debian", "__docker_apt", {"failed": True, "msg": "Failed to lock apt for exclusive operation"}),
    ("redhat", "__docker_dnf", {"failed": True, "msg": "Failed to download metadata for repo 'docker'"}),
]


@pytest.mark.parametrize(("file", "register", "result"), BARE)
def test_check_mode_passes_over_what_a_bare_host_lacks(file: str, register: str, result: dict[str, Any]) -> None:
    assert not fails(file, register, result, check=True)
    assert fails(file, register, result, check=False)


@pytest.mark.parametrize(("file", "register", "result"), REAL)
@pytest.mark.parametrize("check", [True, False])
def test_real_failure_is_not_hidden(file: str, register: str, result: dict[str, Any], check: bool) -> None:
    assert fails(file, register, result, check)


# Package lists ---------------------------------------------------------------------------------------------------------

# As apt 2.6 prints them; the last source is of the host itself.
OUTPUT = """\
Hit:1 http://mirror.example.org/debian bookworm InRelease
Ign:2 http://127.0.0.1:9/x nothing InRelease
Err:3 https://old.example.org/apt stable InRelease
Reading package lists...
W: GPG error: https://key.example.org stable InRelease: The following signatures couldn't be verified because the public \
key is not available: NO_PUBKEY 0123456789ABCDEF
E: The repository 'https://key.example.org stable InRelease' is not signed.
W: Failed to fetch http://127.0.0.1:9/x/dists/nothing/InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect \
(111: Connection refused)
W: Some index files failed to download. They have been ignored, or old ones used instead.
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://mirror.example.org/debian bookworm main\n")
    (parts / "broken.list").write_bytes(
        b"# f\xfcr http://127.0.0.1:9\ndeb [arch=amd64] http://127.0.0.1:9/x/ nothing main\n"
    )
    (parts / "key.sources").write_text("Types: deb\nURIs: https://key.example.org\nSuites: stable\n")
    monkeypatch.setattr(update_package_lists, "SOURCES", tmp_path)
    return parts


def test_source_that_failed_is_named_with_its_file_and_reason(sources: Path) -> None:
    key, broken = update_package_lists.failed_sources(OUTPUT, update_package_lists.source_files())
    assert key.startswith(f"{sources}/key.sources: ")
    assert "not signed" in key
    assert broken.startswith(f"{sources}/broken.list: ")
    assert "Connection refused" in broken


def test_sources_that_answer_are_not_named(sources: Path) -> None:
    assert update_package_lists.failed_sources("Hit:1 http://mirror.example.org/debian bookworm InRelease\n", {}) == []


def test_sources_that_apt_cannot_read_are_reported_in_its_words(sources: Path) -> None:
    output = (
        f"E: Malformed entry 1 in list file {sources}/bad.list (Suite)\nE: The list of sources could not be read.\n"
    )
    first, _ = update_package_lists.failed_sources(output, update_package_lists.source_files())
    assert f"{sources}/bad.list" in first


def test_process_that_holds_a_lock_of_apt_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock-frontend"
    lock.touch()
    (tmp_path / "4711").mkdir()
    (tmp_path / "4711/comm").write_text("unattended-upgr\n")
    monkeypatch.setattr(update_package_lists, "LOCKS", [lock, tmp_path / "missing"])
    monkeypatch.setattr(update_package_lists, "PROC", tmp_path)
    inode = lock.stat().st_ino
    others = f"1: FLOCK  ADVISORY  WRITE 7 08:01:{inode} 0 EOF\n2: POSIX  ADVISORY  WRITE 8 08:01:{inode}1 0 EOF\n"
    (tmp_path / "locks").write_text(others + f"2: -> POSIX  ADVISORY  WRITE 9 08:01:{inode} 0 EOF\n")
    assert update_package_lists.lock_holder() == ""
    (tmp_path / "locks").write_text(others + f"3: POSIX  ADVISORY  WRITE 4711 08:01:{inode} 0 EOF\n")
    assert update_package_lists.lock_holder() == "unattended-upgr (pid 4711)"


@pytest.mark.parametrize(
    ("holder", "output", "status", "busy"),
    [
        ("dpkg (pid 3)", "", 75, "dpkg (pid 3)"),
        (
            "",
            "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 68 (apt-get)",
            75,
            "another process",
        ),
        ("", "Reading package lists...", 0, ""),
    ],
)
def test_busy_apt_asks_to_be_tried_again(
    holder: str, output: str, status: int, busy: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "apt-get").write_text(f"#!/bin/sh\necho '{output}'\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(update_package_lists, "lock_holder", lambda: holder)
    assert update_package_lists.main() == status
    assert json.loads(capsys.readouterr().out) == {"busy": busy, "failed": []}


def apt_message(result: dict[str, Any], failed_sources: list[str]) -> str:
    """What the run ends with when the installation of Docker's packages ended with this result."""
    (block,) = (task for task in load(ROLES / "docker/tasks/debian.yml") if "rescue" in task)
    (report,) = block["rescue"]
    lists = {"stdout": json.dumps({"busy": "", "failed": failed_sources})}
    host = Host("docker", ansible_failed_result=result, __docker_lists=lists, **report["vars"])
    return str(host.value(report["ansible.builtin.fail"]["msg"]))


def test_packages_that_apt_would_remove_are_named() -> None:
    stdout = (
        "The following packages will be REMOVED:\n  containerd.io kubelet\n  kubeadm\n"
        "The following NEW packages will be installed:\n  containerd docker.io runc\n"
    )
    error = "E: Packages need to be removed but remove is disabled."
    message = apt_message({"msg": "apt-get failed", "stdout": stdout, "stderr": error}, [])
    assert "containerd.io, kubelet, kubeadm" in message
    assert error in message


def test_missing_package_is_reported_with_the_sources_that_failed() -> None:
    message = apt_message({"msg": "No package matching 'docker.io' is available"}, ["/etc/apt/x.list: 404"])
    for word in ("docker.io, iptables", "vm", "No package matching 'docker.io'", "/etc/apt/x.list: 404"):
        assert word in message


def test_apt_never_removes_a_package_and_waits_for_its_lock() -> None:
    (block,) = (task for task in load(ROLES / "docker/tasks/debian.yml") if "module_defaults" in task)
    used = block["module_defaults"]["ansible.builtin.apt"]
    assert used["fail_on_autoremove"] is True
    assert used["lock_timeout"] == 600


def test_rsyslog_keeps_no_second_copy_of_the_lines() -> None:
    host = Host("docker")
    (drop_in,) = [file for file in host.variables["__docker_files"] if "rsyslog" in file["path"]]
    text = host.render(ROLES / "docker/templates" / drop_in["template"])
    assert drop_in["path"] == "/etc/rsyslog.d/10-vantage.conf"
    assert ':programname, startswith, "vantage-" stop' in text.splitlines()
    # The name of a program in the journal is this one.
    assert "\nSyslogIdentifier=vantage-loki\n" in unit("loki")
