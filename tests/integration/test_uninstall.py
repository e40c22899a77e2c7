"""playbooks/uninstall.yml on a machine of its own."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import Machine, play, refused, succeeded, system_container, write_inventory

NAME = "vantage-bare2"
KEPT = "/var/lib/vantage/loki/kept"
MARKER = "/var/lib/vantage/.engine-installed"
NOTHING_LEFT = "Nothing of Vantage is left"
# Vantage's own files and units, without data and secrets. `true`, because ls fails for a missing file.
TRACES = (
    "ls -d /etc/systemd/system/vantage* /etc/systemd/system/*/vantage* /etc/systemd/journald.conf.d/vantage.conf"
    " /etc/vantage/loki /usr/local/lib/vantage /run/vantage 2>/dev/null; systemctl list-units --all --no-legend 'vantage*'; true"
)
JOURNALD = "systemctl show --property=ExecMainStartTimestampMonotonic systemd-journald"
INSIDE = "docker ps --all --quiet; docker network ls --quiet --filter name=vantage; docker image ls --quiet | sort"
INSTALLED = f"{TRACES};{INSIDE}"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with system_container(NAME) as created:
        yield created


@pytest.fixture
def inventory_file(variables: dict[str, str], tmp_path: Path) -> str:
    return write_inventory(tmp_path, NAME, variables)


@pytest.fixture
def run(inventory_file: str) -> Run:
    """Run uninstall.yml with options and variables."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [word if word.startswith("--") else f"--extra-vars={word}" for word in arguments]
        return play(inventory_file, "playbooks/uninstall.yml", *words)

    return call


def check_a_bare_machine(machine: Machine, run: Run) -> None:
    output = succeeded(run("--check"))
    assert "changed=0 " in output
    assert NOTHING_LEFT in output


def report_in_check_mode(machine: Machine, run: Run) -> None:
    before = machine.sh(INSTALLED)
    images = machine.sh("sed -n 's/^Image=//p' /etc/systemd/system/vantage-*.service").split()
    assert len(images) == 2
    output = succeeded(run("--check", "uninstall_data=true"))
    assert "changed=0 " not in output
    for would in (*images, "/etc/systemd/system/vantage-loki.service", "/var/lib/vantage"):
        assert would in output
    assert "not-ours" not in output
    assert "Left:" not in output, "what would be removed is not left"
    assert machine.sh(INSTALLED) == before


def remove_all_but_the_data(machine: Machine, run: Run) -> None:
    machine.sh("install -d -m 0711 /etc/vantage/secrets/loki; touch /etc/vantage/secrets/loki/planted")
    journald = machine.sh(JOURNALD)
    output = succeeded(run())
    assert "nowhere.invalid" not in output, "a host of neither group was reached for"
    assert "Kept: /var/lib/vantage (" in output
    assert "Kept: /etc/vantage/secrets (" in output
    assert machine.sh(TRACES).split() == ["/etc/systemd/system/vantage-not-ours.service"]
    assert machine.sh(INSIDE).strip() == ""
    assert machine.host.file(KEPT).exists
    assert machine.host.file("/etc/vantage/secrets/loki/planted").exists
    assert machine.host.service("docker").is_running
    # The mounted images are the controller's.
    assert machine.host.file("/var/cache/vantage/images/index.json").exists
    assert "Left: /var/cache/vantage/images" in output
    assert machine.sh(JOURNALD) != journald, "journald still runs with the limit"


def change_nothing_in_a_second_run(machine: Machine, run: Run) -> None:
    output = succeeded(run())
    assert "changed=0 " in output
    assert "Kept: /var/lib/vantage (" in output


def refuse_an_engine_that_others_use(machine: Machine, run: Run) -> None:
    assert "docker.io" in machine.host.file(MARKER).content_string.split(), "the role did not note what it installed"
    machine.sh("docker load --quiet --input /var/cache/vantage/images/node_exporter.tar.gz")
    image = machine.sh("docker image ls --format '{{.Repository}}:{{.Tag}}'").strip()
    machine.sh(f"docker create --name foreign {shlex.quote(image)}; docker volume create treasure")
    refused(run("uninstall_data=true", "uninstall_engine=true"), "container foreign", "volume treasure")
    machine.sh(f"test -e {KEPT} && docker container inspect foreign && docker volume inspect treasure")


def remove_data_and_engine(machine: Machine, run: Run) -> None:
    machine.sh("docker rm foreign; docker volume rm treasure")
    # What a killed engine leaves of a container: an empty volume without a name.
    machine.sh("docker volume create $(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n')")
    output = succeeded(run("uninstall_data=true", "uninstall_engine=true"))
    assert "Left: /var/lib/docker (" in output
    assert NOTHING_LEFT in output
    for path in ("/etc/vantage", "/var/lib/vantage", "/usr/sbin/dockerd"):
        assert not machine.host.file(path).exists, path
    # Noted with the engine's packages, and needed by others.
    assert machine.host.package("ca-certificates").is_installed


def change_nothing_without_an_engine(machine: Machine, run: Run) -> None:
    output = succeeded(run("uninstall_data=true", "uninstall_engine=true"))
    assert "changed=0 " in output


@pytest.mark.timeout(900)
def test_uninstall_removes_what_site_installed_and_nothing_else(
    machine: Machine, run: Run, inventory_file: str
) -> None:
    """Each step begins where the one before it ended."""
    check_a_bare_machine(machine, run)
    succeeded(play(inventory_file, "site.yml", "--tags", "docker,node_exporter,loki"))
    # What users add: a drop-in for our unit, a unit of their own with a similar name.
    machine.sh(
        f"touch {KEPT}; cd /etc/systemd/system; mkdir vantage-loki.service.d;"
        "echo '[Service]' > vantage-loki.service.d/own.conf;"
        "printf '[Service]\\nExecStart=/bin/true\\n' > vantage-not-ours.service"
    )
    for step in (
        report_in_check_mode,
        remove_all_but_the_data,
        change_nothing_in_a_second_run,
        refuse_an_engine_that_others_use,
        remove_data_and_engine,
        change_nothing_without_an_engine,
    ):
        step(machine, run)
