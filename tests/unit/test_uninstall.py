"""What playbooks/uninstall.yml finds and refuses, without a machine; tests/integration/test_uninstall.py runs it on one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import vantage_unit
from ansible.template import trust_as_template
from rendering import ROOT, Host, load
from test_playbooks import inventory, run_playbook

__all__ = ["inventory"]
PLAYBOOK = ROOT / "playbooks/uninstall.yml"
EMPTY, FULL = "a" * 64, "b" * 64

# What Docker answers, by the words of the command.
DOCKER = r"""#!/bin/sh
case "$*" in
  version) exit $DOCKER_VERSION ;;
  "container inspect vantage-loki" | "network inspect vantage" | "image inspect loki:1" | "image inspect shop:old") ;;
  "image ls --quiet --filter label=vantage.source") echo shop:old ;;
  "ps --all --filter volume=$OWN"*) echo vantage-loki ;;
  "ps --all --filter ancestor=loki:1"*) echo stranger ;;
  "ps --all --filter"*) ;;
  "ps --all --format"*) echo vantage-loki; echo stranger ;;
  "volume ls --quiet") echo own; echo treasure; echo $EMPTY; echo $FULL ;;
  "volume inspect --format {{.Mountpoint}} "*) for name; do :; done; echo "$VOLUMES/$name" ;;
  *) exit 1 ;;
esac
"""


def list_installed(folder: Path, version: int = 0) -> list[str]:
    """The lines about Docker, of a host with the unit vantage-loki.service and the image loki:1."""
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    (folder / EMPTY).mkdir()
    (folder / FULL).mkdir()
    (folder / FULL / "file").touch()
    done = subprocess.run(
        [ROOT / "playbooks/files/list_installed.sh", "vantage.target vantage-loki.service", "loki:1"],
        env={
            "PATH": f"{folder}:/usr/bin:/bin", "DOCKER_VERSION": str(version), "VOLUMES": str(folder), "OWN": "own",
            "EMPTY": EMPTY, "FULL": FULL,
        },
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    kinds = ("engine ", "container ", "network ", "image ", "foreign ")
    return [line for line in done.stdout.splitlines() if line.startswith(kinds)]


def test_docker_objects_of_others_are_recognised(tmp_path: Path) -> None:
    assert list_installed(tmp_path) == [
        "engine running",
        "container vantage-loki",
        "network vantage",
        "image loki:1, used by: stranger",
        "image shop:old",
        "foreign container stranger",
        "foreign volume treasure",
        f"foreign volume {FULL}",
    ]


def test_docker_that_does_not_answer_is_stopped_or_missing(tmp_path: Path) -> None:
    assert list_installed(tmp_path, version=1)[0] in {"engine stopped", "engine missing"}


def test_misspelt_option_is_refused_with_the_options(inventory: Path) -> None:
    done = run_playbook(PLAYBOOK, inventory, "-e", "uninstall_dta=true")
    assert done.returncode != 0
    for name in ("uninstall_dta", "uninstall_data", "uninstall_engine"):
        assert name in done.stdout + done.stderr
    assert "changed=0" in done.stdout


def test_programs_that_read_a_removed_file_are_restarted() -> None:
    (play,) = load(PLAYBOOK)
    (task,) = (task for task in play["tasks"] if "try-restart" in str(task.get("ansible.builtin.command")))
    pairs = {(item["unit"], Path(item["file"])) for item in task["loop"]}
    assert pairs == {("systemd-journald", vantage_unit.JOURNALD), ("rsyslog", vantage_unit.RSYSLOG)}
    listed = {"__uninstall_before": {"stdout_lines": [f"file {vantage_unit.RSYSLOG}"]}}
    condition = trust_as_template("{{ " + task["when"] + " }}")
    hosts = {item["unit"]: Host("vantage", **(play["vars"] | listed | {"item": item})) for item in task["loop"]}
    assert [unit for unit, host in hosts.items() if host.value(condition)] == ["rsyslog"]


BEFORE = [
    "package docker.io", "package ca-certificates", "file /etc/vantage/loki", "mount /var/cache/vantage/images",
    "data /var/lib/vantage (1M)", "engine-data /etc/docker (4K)", "engine running", "image loki:1, used by: stranger",
]  # fmt: skip


def report(name: str, before: list[str], after: list[str], **options: object) -> list[str]:
    (play,) = load(PLAYBOOK)
    (task,) = (task for task in play["tasks"] if "ansible.builtin.debug" in task)
    listed = {"__uninstall_before": {"stdout_lines": before}, "__uninstall_after": {"stdout_lines": after}}
    services = {"__uninstall_listed": {"stdout": json.dumps([])}}
    host = Host("vantage", **(play["vars"] | task["vars"] | listed | services | options))
    return list(host.value(host.variables[name]))


@pytest.mark.parametrize(
    ("options", "would"),
    [
        ({}, ["file /etc/vantage/loki", "image loki:1, used by: stranger"]),
        ({"uninstall_data": "true"}, ["data /var/lib/vantage (1M)"]),
        ({"uninstall_engine": True}, ["package docker.io"]),
    ],
)
def test_check_mode_lists_what_a_run_would_remove(options: dict[str, object], would: list[str]) -> None:
    first, *lines = report("__uninstall_check", BEFORE, [], **options)
    assert "Check mode" in first
    assert set(would) <= set(lines)
    assert ("data /var/lib/vantage (1M)" in lines) is ("uninstall_data" in options)
    assert ("package docker.io" in lines) is ("uninstall_engine" in options)
    assert "package ca-certificates" not in lines, "others need it too"


@pytest.mark.parametrize(
    ("after", "options", "lines"),
    [
        (BEFORE[3:7], {}, ["Kept: /var/lib/vantage (1M).", "Left: /var/cache/vantage/images", "uninstall_engine"]),
        (BEFORE[3:7], {"uninstall_data": True}, ["Left: /var/lib/vantage (1M).", "mounted", "uninstall_engine"]),
        ([BEFORE[-1], "engine running"], {}, ["Left: image loki:1, used by: stranger", "uninstall_engine"]),
        (["engine missing", BEFORE[5]], {"uninstall_engine": True}, ["Nothing of Vantage is left.", "Left: /etc/docker (4K)"]),
    ],
)  # fmt: skip
def test_report_names_what_is_left(after: list[str], options: dict[str, object], lines: list[str]) -> None:
    found = report("__uninstall_report", BEFORE, after, **options)
    assert len(found) == len(lines), found
    for line, expected in zip(found, lines, strict=True):
        assert expected in line


def test_host_without_vantage_has_nothing_left() -> None:
    assert report("__uninstall_report", [], ["engine missing"]) == ["Nothing of Vantage is left."]
    assert report("__uninstall_check", ["engine missing"], []) == ["Nothing of Vantage is left."]
    (docker,) = report("__uninstall_report", [], ["engine running"])[1:]
    assert "did not install" in docker


@pytest.mark.parametrize(
    ("engine", "stays"), [("engine running", True), ("engine stopped", True), ("engine missing", False)]
)
def test_record_of_the_installed_docker_stays_with_docker(tmp_path: Path, engine: str, stays: bool) -> None:
    """A later run with uninstall_engine reads it; a run with both options removes it with Docker, before the data."""
    (play,) = load(PLAYBOOK)
    names = [task["name"] for task in play["tasks"]]
    (data,) = (task for task in play["tasks"] if "-delete" in str(task.get("ansible.builtin.command")))
    (record,) = (task for task in play["tasks"] if "__uninstall_record" in str(task.get("loop")) and task is not data)
    assert names.index(record["name"]) < names.index(data["name"])
    host = Host(
        "vantage", **(play["vars"] | {"__uninstall_before": {"stdout_lines": [engine]}, "uninstall_data": True})
    )
    for name in ("etc/vantage/secrets", "var/lib/vantage/loki", "var/cache/vantage"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "var/lib/vantage/.engine-installed").touch()
    for item in host.value(data["loop"]):
        host.variables["item"] = item
        words = host.value(data["ansible.builtin.command"]).split()
        placed = [f"{tmp_path}{word}" if word.startswith("/") else word for word in words]
        subprocess.run(placed, check=False, stderr=subprocess.DEVNULL)
    assert (tmp_path / "var/lib/vantage/.engine-installed").exists() is stays
    assert not (tmp_path / "etc/vantage").exists()
    assert (tmp_path / "var/lib/vantage").exists() is stays
    assert not (tmp_path / "var/lib/vantage/loki").exists()
