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


def check_a_bare_machine(bare: Machine, uninstall: Run) -> None:
    output = succeeded(uninstall("--check"))
    assert "changed=0 " in output
    assert NOTHING_LEFT in output


def report_in_check_mode(bare: Machine, uninstall: Run) -> None:
    before = bare.sh(INSTALLED)
    images = bare.sh("sed -n 's/^Image=//p' /etc/systemd/system/vantage-*.service").split()
    assert len(images) == 2
    output = succeeded(uninstall("--check", "uninstall_data=true"))
    assert "changed=0 " not in output
    for would in (*images, "/etc/systemd/system/vantage-loki.service", "/var/lib/vantage"):
        assert would in output
    assert "not-ours" not in output
    assert "Left:" not in output, "what would be removed is not left"
    assert bare.sh(INSTALLED) == before


def remove_all_but_the_data(bare: Machine, uninstall: Run) -> None:
    bare.sh("install -d -m 0711 /etc/vantage/secrets/loki; touch /etc/vantage/secrets/loki/planted")
    journald = bare.sh(JOURNALD)
    output = succeeded(uninstall())
    assert "nowhere.invalid" not in output, "a host of neither group was reached for"
    assert "Kept: /var/lib/vantage (" in output
    assert "Kept: /etc/vantage/secrets (" in output
    assert bare.sh(TRACES).split() == ["/etc/systemd/system/vantage-not-ours.service"]
    assert bare.sh(INSIDE).strip() == ""
    assert bare.host.file(KEPT).exists
    assert bare.host.file("/etc/vantage/secrets/loki/planted").exists
    assert bare.host.service("docker").is_running
    # The mounted images are the controller's.
    assert bare.host.file("/var/cache/vantage/images/index.json").exists
    assert "Left: /var/cache/vantage/images" in output
    assert bare.sh(JOURNALD) != journald, "journald still runs with the limit"


def change_nothing_in_a_second_run(bare: Machine, uninstall: Run) -> None:
    output = succeeded(uninstall())
    assert "changed=0 " in output
    assert "Kept: /var/lib/vantage (" in output


def refuse_an_engine_that_others_use(bare: Machine, uninstall: Run) -> None:
    assert "docker.io" in bare.host.file(MARKER).content_string.split(), "the role did not note what it installed"
    bare.sh("docker load --quiet --input /var/cache/vantage/images/node_exporter.tar.gz")
    image = bare.sh("docker image ls --format '{{.Repository}}:{{.Tag}}'").strip()
    bare.sh(f"docker create --name foreign {shlex.quote(image)}; docker volume create treasure")
    refused(uninstall("uninstall_data=true", "uninstall_engine=true"), "container foreign", "volume treasure")
    bare.sh(f"test -e {KEPT} && docker container inspect foreign && docker volume inspect treasure")


def remove_data_and_engine(bare: Machine, uninstall: Run) -> None:
    bare.sh("docker rm foreign; docker volume rm treasure")
    # What a killed engine leaves of a container: an empty volume without a name.
    bare.sh("docker volume create $(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n')")
    output = succeeded(uninstall("uninstall_data=true", "uninstall_engine=true"))
    assert "Left: /var/lib/docker (" in output
    assert NOTHING_LEFT in output
    for path in ("/etc/vantage", "/var/lib/vantage", "/usr/sbin/dockerd"):
        assert not bare.host.file(path).exists, path
    # Noted with the engine's packages, and needed by others.
    assert bare.host.package("ca-certificates").is_installed


def change_nothing_without_an_engine(bare: Machine, uninstall: Run) -> None:
    output = succeeded(uninstall("uninstall_data=true", "uninstall_engine=true"))
    assert "changed=0 " in output


@pytest.mark.timeout(900)
def test_uninstall_removes_what_site_installed_and_nothing_else(bare: Machine, run: Run) -> None:
    """Each step begins where the one before it ended."""

    def uninstall(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [word if word.startswith("--") else f"--extra-vars={word}" for word in arguments]
        return run("playbooks/uninstall.yml", *FOREIGN, *words)

    check_a_bare_machine(bare, uninstall)
    # A source of others that does not answer does not prevent the installation of Docker from another source.
    broken = "/etc/apt/sources.list.d/broken.list"
    bare.sh(f"echo 'deb http://127.0.0.1:9/x nothing main' > {broken}")
    assert broken in succeeded(run("site.yml", "--tags", "docker,node_exporter,loki"))
    assert not bare.host.file("/run/vantage-run.json").exists
    bare.sh(f"rm {broken}")
    # What users add: a drop-in for our unit, a unit of their own with a similar name.
    bare.sh(
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
        step(bare, uninstall)
