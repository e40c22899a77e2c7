"""playbooks/uninstall.yml, from a bare machine to a bare machine."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable

import pytest
from machine import Machine, refused, succeeded

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
# A host of neither group, which cannot be reached.
FOREIGN = ("-i", "nowhere.invalid,")

Run = Callable[..., subprocess.CompletedProcess[str]]


def check_a_bare_machine(vm: Machine, uninstall: Run) -> None:
    output = succeeded(uninstall("--check"))
    assert "changed=0 " in output
    assert NOTHING_LEFT in output


def report_in_check_mode(vm: Machine, uninstall: Run) -> None:
    before = vm.sh(INSTALLED)
    images = vm.sh("sed -n 's/^Image=//p' /etc/systemd/system/vantage-*.service").split()
    assert len(images) == 2
    output = succeeded(uninstall("--check", "uninstall_data=true"))
    assert "changed=0 " not in output
    for would in (*images, "/etc/systemd/system/vantage-loki.service", "/var/lib/vantage"):
        assert would in output
    assert "not-ours" not in output
    assert "Left:" not in output, "what would be removed is not left"
    assert vm.sh(INSTALLED) == before


def remove_all_but_the_data(vm: Machine, uninstall: Run) -> None:
    vm.sh("install -d -m 0711 /etc/vantage/secrets/loki; touch /etc/vantage/secrets/loki/planted")
    journald = vm.sh(JOURNALD)
    output = succeeded(uninstall())
    assert "nowhere.invalid" not in output, "a host of neither group was reached for"
    assert "Kept: /var/lib/vantage (" in output
    assert "Kept: /etc/vantage/secrets (" in output
    assert vm.sh(TRACES).split() == ["/etc/systemd/system/vantage-not-ours.service"]
    assert vm.sh(INSIDE).strip() == ""
    assert vm.host.file(KEPT).exists
    assert vm.host.file("/etc/vantage/secrets/loki/planted").exists
    assert vm.host.service("docker").is_running
    # The mounted images are the controller's.
    assert vm.host.file("/var/cache/vantage/images/index.json").exists
    assert "Left: /var/cache/vantage/images" in output
    assert vm.sh(JOURNALD) != journald, "journald still runs with the limit"


def change_nothing_in_a_second_run(vm: Machine, uninstall: Run) -> None:
    output = succeeded(uninstall())
    assert "changed=0 " in output
    assert "Kept: /var/lib/vantage (" in output


def refuse_an_engine_that_others_use(vm: Machine, uninstall: Run) -> None:
    assert "docker.io" in vm.host.file(MARKER).content_string.split(), "the role did not note what it installed"
    vm.sh("docker load --quiet --input /var/cache/vantage/images/node_exporter.tar.gz")
    image = vm.sh("docker image ls --format '{{.Repository}}:{{.Tag}}'").strip()
    vm.sh(f"docker create --name foreign {shlex.quote(image)}; docker volume create treasure")
    refused(uninstall("uninstall_data=true", "uninstall_engine=true"), "container foreign", "volume treasure")
    vm.sh(f"test -e {KEPT} && docker container inspect foreign && docker volume inspect treasure")


def remove_data_and_engine(vm: Machine, uninstall: Run) -> None:
    vm.sh("docker rm foreign; docker volume rm treasure")
    # What a killed engine leaves of a container: an empty volume without a name.
    vm.sh("docker volume create $(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n')")
    output = succeeded(uninstall("uninstall_data=true", "uninstall_engine=true"))
    assert "Left: /var/lib/docker (" in output
    assert NOTHING_LEFT in output
    for path in ("/etc/vantage", "/var/lib/vantage", "/usr/sbin/dockerd"):
        assert not vm.host.file(path).exists, path
    # Noted with the engine's packages, and needed by others.
    assert vm.host.package("ca-certificates").is_installed


def change_nothing_without_an_engine(vm: Machine, uninstall: Run) -> None:
    output = succeeded(uninstall("uninstall_data=true", "uninstall_engine=true"))
    assert "changed=0 " in output


@pytest.mark.timeout(900)
def test_uninstall_removes_what_site_installed_and_nothing_else(vm: Machine, playbook: Run) -> None:
    """Each step begins where the one before it ended."""

    def uninstall(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [word if word.startswith("--") else f"--extra-vars={word}" for word in arguments]
        return playbook("playbooks/uninstall.yml", *FOREIGN, *words)

    check_a_bare_machine(vm, uninstall)
    # A source of others that does not answer does not prevent the installation of Docker from another source.
    broken = "/etc/apt/sources.list.d/broken.list"
    vm.sh(f"echo 'deb http://127.0.0.1:9/x nothing main' > {broken}")
    assert broken in succeeded(playbook("site.yml", "--tags", "docker,node_exporter,loki"))
    assert not vm.host.file("/run/vantage-run.json").exists
    vm.sh(f"rm {broken}")
    # What users add: a drop-in for our unit, a unit of their own with a similar name.
    vm.sh(
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
        step(vm, uninstall)
