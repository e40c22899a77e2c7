"""A machine on which nothing is installed yet: check mode and failed checks change nothing."""

from __future__ import annotations

from machine import Machine, refused, succeeded

TRACES = "ls -d /etc/vantage /var/lib/vantage /usr/local/lib/vantage /usr/bin/docker /etc/systemd/system/vantage* 2>/dev/null; true"


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
        "cp /usr/lib/os-release /etc/debian_version /root && echo 10.13 > /etc/debian_version && "
        "sed -i 's/^VERSION_ID=.*/VERSION_ID=\"10\"/; s/bookworm/buster/g' /usr/lib/os-release"
    )
    try:
        refused(run("site.yml"), "Debian 10", "not supported", "Debian 12")
    finally:
        bare.sh("mv /root/os-release /usr/lib/ && mv /root/debian_version /etc/")
    assert bare.sh(TRACES).strip() == ""
