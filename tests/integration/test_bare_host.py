"""A machine on which nothing is installed yet: check mode and failed checks change nothing."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from machine import Machine, play, refused, succeeded, system_container, write_inventory

NAME = "vantage-bare"
TRACES = "ls -d /etc/vantage /var/lib/vantage /usr/local/lib/vantage /usr/bin/docker /etc/systemd/system/vantage* 2>/dev/null; true"


@pytest.fixture(scope="module")
def bare() -> Iterator[Machine]:
    with system_container(NAME) as created:
        yield created


@pytest.fixture(scope="module")
def run(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory):
    """Run a playbook on the bare machine, with the images of the one under test."""
    return functools.partial(play, write_inventory(tmp_path_factory.mktemp("inventory"), NAME, variables))


def test_root_mount_is_shared(bare: Machine) -> None:
    """node_exporter binds / with what is mounted on it later, and Docker refuses that of a private root."""
    assert "shared" in bare.sh("findmnt --noheadings --output PROPAGATION /")


def test_check_mode_changes_nothing(bare: Machine, run) -> None:
    output = succeeded(run("site.yml", "--check", "--diff"))
    assert "changed=0 " not in output, "on a bare machine there is something to do"
    assert bare.sh(TRACES).strip() == ""


def test_too_little_disk_is_refused(bare: Machine, run) -> None:
    refused(run("site.yml", preflight_disk_mb=99999999), "preflight_disk_mb", "99999999", "/var")
    assert bare.sh(TRACES).strip() == ""


def test_unsupported_system_is_refused(bare: Machine, run) -> None:
    bare.sh(
        "sed -i 's/^VERSION_ID=.*/VERSION_ID=\"10\"/; s/bookworm/buster/g' /usr/lib/os-release; echo 10.13 > /etc/debian_version"
    )
    refused(run("site.yml"), "Debian 10", "not supported", "Debian 12")
    assert bare.sh(TRACES).strip() == ""
