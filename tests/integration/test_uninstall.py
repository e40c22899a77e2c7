"""playbooks/uninstall.yml takes away what site.yml brought, and nothing else; the tests build on each other."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import testinfra
from machine import CONTAINER, Machine, play, write_inventory

NAME = "vantage-bare2"
UNINSTALL = "playbooks/uninstall.yml"
KEPT = "/var/lib/vantage/loki/kept"
MARKER = "/var/lib/vantage/.engine-installed"
# Vantage's own, all of it but the data and secrets. `true`, because ls fails for what is not there, as is hoped.
TRACES = (
    "ls -d /etc/systemd/system/vantage* /etc/systemd/system/*/vantage* /etc/systemd/journald.conf.d/vantage.conf"
    " /etc/vantage/loki /usr/local/lib/vantage /run/vantage 2>/dev/null; systemctl list-units --all --no-legend 'vantage*'; true"
)
JOURNALD = "systemctl show --property=ExecMainStartTimestampMonotonic systemd-journald"
INSIDE = "docker ps --all --quiet; docker network ls --quiet --filter name=vantage; docker image ls --quiet | sort"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine of its own, with two services on it and a file in one's store."""
    subprocess.run([*CONTAINER, "up", NAME], check=True, capture_output=True)
    yield Machine(testinfra.get_host(f"docker://{NAME}"))
    subprocess.run([*CONTAINER, "down", NAME], check=True, capture_output=True)


@pytest.fixture
def run(variables: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs a playbook on the machine; its status, and its output with single spaces."""
    inventory = write_inventory(tmp_path, NAME, variables)

    def call(name: str, *arguments: str) -> tuple[int, str]:
        result = play(inventory, name, *arguments)
        return result.returncode, " ".join((result.stdout + result.stderr).split())

    return call


def images(machine: Machine) -> list[str]:
    """The images that the units name."""
    return machine.sh("sed -n 's/^Image=//p' /etc/systemd/system/vantage-*.service").split()


def test_bare_machine_takes_check_mode(machine: Machine, run) -> None:
    status, output = run(UNINSTALL, "--check")
    assert status == 0, output
    assert "changed=0 " in output
    assert "Nothing of Vantage is left." in output


def test_check_mode_tells_and_a_misspelt_option_is_refused_and_neither_removes_anything(machine: Machine, run) -> None:
    status, output = run("site.yml", "--tags", "docker,node_exporter,loki")
    assert status == 0, output[-3000:]
    machine.sh(f"touch {KEPT}")
    # What people add: a drop-in of ours, a unit of theirs that is called alike.
    machine.sh(
        "cd /etc/systemd/system; mkdir vantage-loki.service.d; echo '[Service]' > vantage-loki.service.d/own.conf;"
        "printf '[Service]\\nExecStart=/bin/true\\n' > vantage-not-ours.service"
    )
    before = machine.sh(TRACES + ";" + INSIDE)
    assert len(images(machine)) == 2
    # A misspelt option must not end as if the data were removed.
    status, output = run(UNINSTALL, "-e", "uninstall_dta=true")
    assert status != 0
    for word in ("uninstall_dta", "uninstall_data", "uninstall_engine", "Nothing was changed"):
        assert word in output
    assert machine.sh(TRACES + ";" + INSIDE) == before
    status, output = run(UNINSTALL, "--check", "-e", "uninstall_data=true")
    assert status == 0, output
    assert "changed=0 " not in output
    assert "Check mode: nothing was removed" in output
    for would in (*images(machine), "/etc/systemd/system/vantage-loki.service", "/var/lib/vantage"):
        assert would in output
    assert "not-ours" not in output
    assert "Left:" not in output, "what would be removed is not left"
    assert machine.sh(TRACES + ";" + INSIDE) == before


def test_all_but_the_data_goes(machine: Machine, run) -> None:
    machine.sh("install -d -m 0711 /etc/vantage/secrets/loki; touch /etc/vantage/secrets/loki/planted")
    journald = machine.sh(JOURNALD)
    status, output = run(UNINSTALL)
    assert status == 0, output
    assert "nowhere.invalid" not in output, "a host of neither group was reached for"
    assert "Kept: /var/lib/vantage (" in output
    assert "Kept: /etc/vantage/secrets (" in output
    assert machine.sh(TRACES).split() == ["/etc/systemd/system/vantage-not-ours.service"]
    assert machine.sh(INSIDE).strip() == ""
    machine.sh(f"test -e {KEPT} && test -e /etc/vantage/secrets/loki/planted")
    assert machine.sh("systemctl is-active docker").strip() == "active"
    # The mounted images are the controller's.
    assert machine.sh("ls /var/cache/vantage/images/index.json").strip()
    assert "/var/cache/vantage/images, which is mounted from elsewhere" in output
    assert machine.sh(JOURNALD) != journald, "journald still runs with the limit"


def test_second_run_changes_nothing(run) -> None:
    status, output = run(UNINSTALL)
    assert status == 0, output
    assert "changed=0 " in output
    assert "Kept: /var/lib/vantage (" in output


def test_engine_that_others_use_is_refused(machine: Machine, run) -> None:
    assert "docker.io" in machine.sh(f"cat {MARKER}").split(), "the role did not note what it installed"
    machine.sh("docker load --quiet --input /var/cache/vantage/images/node_exporter.tar.gz")
    image = machine.sh("docker image ls --format '{{.Repository}}:{{.Tag}}'").strip()
    machine.sh(f"docker create --name foreign {shlex.quote(image)}; docker volume create treasure")
    status, output = run(UNINSTALL, "-e", "uninstall_data=true", "-e", "uninstall_engine=true")
    assert status != 0
    for words in ("container foreign", "volume treasure", "Nothing was changed"):
        assert words in output
    machine.sh(f"test -e {KEPT} && docker container inspect foreign && docker volume inspect treasure")


def test_data_and_engine_go_when_told(machine: Machine, run) -> None:
    machine.sh("docker rm foreign; docker volume rm treasure")
    # What a killed engine leaves of a container: an empty volume without a name.
    machine.sh("docker volume create $(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n')")
    status, output = run(UNINSTALL, "-e", "uninstall_data=true", "-e", "uninstall_engine=true")
    assert status == 0, output
    assert "Left: /var/lib/docker (" in output
    assert machine.sh("ls -d /etc/vantage /var/lib/vantage /usr/sbin/dockerd 2>/dev/null; true").strip() == ""
    assert "Nothing of Vantage is left." in output
    # Noted with the engine's packages, and needed by others.
    assert "install ok installed" in machine.sh("dpkg --status ca-certificates")


def test_machine_without_an_engine_is_no_trouble(run) -> None:
    status, output = run(UNINSTALL, "-e", "uninstall_data=true", "-e", "uninstall_engine=true")
    assert status == 0, output
    assert "changed=0 " in output
