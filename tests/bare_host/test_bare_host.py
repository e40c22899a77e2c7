"""A machine on which nothing is installed yet: check mode and failed checks change nothing."""

from __future__ import annotations

import json

from machine import Machine, refused, succeeded

TRACES = "ls -d /etc/vantage /var/lib/vantage /usr/local/lib/vantage /usr/bin/docker /etc/systemd/system/vantage* 2>/dev/null; true"


def test_root_mount_is_shared(vm: Machine) -> None:
    """node_exporter binds / with what is mounted on it later, and Docker refuses that of a private root."""
    assert "shared" in vm.sh("findmnt --noheadings --output PROPAGATION /")


def test_check_mode_changes_nothing(vm: Machine, playbook) -> None:
    output = succeeded(playbook("site.yml", "--check", "--diff"))
    assert "changed=0 " not in output, "on a bare machine there is something to do"
    assert vm.sh(TRACES).strip() == ""


def test_too_little_disk_is_refused(vm: Machine, playbook) -> None:
    refused(playbook("site.yml", preflight_disk_mb=99999999), "preflight_disk_mb", "99999999", "/var")
    assert vm.sh(TRACES).strip() == ""


def test_unsupported_system_is_refused(vm: Machine, playbook) -> None:
    vm.sh(
        "cp /usr/lib/os-release /etc/debian_version /root && echo 10.13 > /etc/debian_version && "
        "sed -i 's/^VERSION_ID=.*/VERSION_ID=\"10\"/; s/bookworm/buster/g' /usr/lib/os-release"
    )
    try:
        refused(playbook("site.yml"), "Debian 10", "not supported", "Debian 12")
    finally:
        vm.sh("mv /root/os-release /usr/lib/ && mv /root/debian_version /etc/")
    assert vm.sh(TRACES).strip() == ""


# A package with the relations of Docker's own containerd.io, as a node of Kubernetes has it.
CONTAINERD_IO = r"""
d=$(mktemp -d) && mkdir "$d/DEBIAN" && printf '%s\n' 'Package: containerd.io' 'Version: 1.7.27-1' 'Architecture: all' \
  'Maintainer: Test <test@example.org>' 'Provides: containerd, runc' 'Conflicts: containerd, runc' \
  'Replaces: containerd, runc' 'Description: stands for a runtime that others use' > "$d/DEBIAN/control" &&
dpkg-deb --build "$d" /root/containerd.io.deb && dpkg --install /root/containerd.io.deb
"""


def test_another_container_runtime_is_refused_and_stays(vm: Machine, playbook) -> None:
    vm.sh(CONTAINERD_IO)
    try:
        refused(playbook("site.yml"), "containerd.io", "docker_source")
        assert vm.host.package("containerd.io").is_installed
    finally:
        vm.sh("dpkg --purge containerd.io")
    assert vm.sh(TRACES).strip() == ""


def test_subnet_that_a_route_leads_to_is_refused(vm: Machine, playbook) -> None:
    vm.sh("ip link add other type bridge && ip link set other up && ip route add 172.29.0.0/16 dev other")
    try:
        refused(
            playbook("site.yml"), "vantage_network_subnet: 172.29.238.0/24", "other (172.29.0.0/16)", "172.30.238.1"
        )
    finally:
        vm.sh("ip link delete other")
    assert vm.sh(TRACES).strip() == ""


def test_second_run_is_refused_and_check_mode_is_not(vm: Machine, playbook) -> None:
    record = {
        "id": "there/7",
        "controller": "there",
        "pid": 7,
        "who": "alice@laptop",
        "since": "2026-11-30 09:00:00 UTC",
    }
    vm.sh(f"echo '{json.dumps(record)}' > /run/vantage-run.json")
    try:
        refused(playbook("site.yml"), "alice@laptop", "2026-11-30 09:00:00", "/run/vantage-run.json")
        refused(playbook("playbooks/uninstall.yml"), "alice@laptop")
        succeeded(playbook("site.yml", "--check", "--tags", "docker"))
        assert json.loads(vm.sh("cat /run/vantage-run.json")) == record
    finally:
        vm.sh("rm /run/vantage-run.json")
    assert vm.sh(TRACES).strip() == ""


def test_host_may_forbid_to_execute_files_of_users(vm: Machine, playbook) -> None:
    folders = ("/root", "/tmp")
    for folder in folders:
        vm.sh(f"mount --bind {folder} {folder} && mount -o remount,bind,noexec {folder}")
    try:
        succeeded(playbook("site.yml", "--check", "--tags", "docker"))
        succeeded(playbook("playbooks/uninstall.yml", "--check"))
    finally:
        vm.sh(f"umount {' '.join(folders)}")
