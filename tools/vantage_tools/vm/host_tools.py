"""Install the system packages that this machine lacks for a group of tasks.

Standard library only: `make` runs this module before the environment exists.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from vantage_tools.errors import UserError
from vantage_tools.process import capture, last_lines, succeeds, sudo

# Probe: Debian package. The probe decides: next to a Docker from Docker's own repository, docker.io must not be installed.
GROUPS = {
    # Debian's python3 cannot make a venv; asked for only after that has failed.
    "python": {"python3-venv-is-missing": "python3-venv"},
    "lint": {"shellcheck": "shellcheck"},
    "engine": {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables"},
    # Promtail alone needs a C compiler and libsystemd's headers: it reads the journal through cgo.
    "images": {
        "mmdebstrap": "mmdebstrap", "gcc": "gcc", "tar": "tar",
        "/usr/include/stdlib.h": "libc6-dev",
        "/usr/include/systemd/sd-journal.h": "libsystemd-dev",
        "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
        "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
        "/usr/share/distro-info/ubuntu.csv": "distro-info-data",
    },
    "seed": {"xorriso": "xorriso", "cloud-init": "cloud-init"},
    "qemu": {
        "qemu-system-x86_64": "qemu-system-x86", "ssh": "openssh-client", "virt-host-validate": "libvirt-clients",
    },
    "box": {
        "mmdebstrap": "mmdebstrap", "qemu-img": "qemu-utils", "sfdisk": "fdisk", "mkfs.ext4": "e2fsprogs",
        "losetup": "mount", "grub-install": "grub2-common", "/usr/lib/grub/i386-pc/modinfo.sh": "grub-pc-bin",
        "ssh-keygen": "openssh-client",
    },
    "vm": {
        "vagrant": "vagrant", "/usr/share/doc/vagrant-libvirt": "vagrant-libvirt", "virsh": "libvirt-clients",
        "libvirtd": "libvirt-daemon-system", "dnsmasq": "dnsmasq-base", "qemu-system-x86_64": "qemu-system-x86",
        "ssh": "openssh-client", "rsync": "rsync",
    },
}  # fmt: skip
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def missing_packages(*groups: str) -> list[str]:
    """Return the Debian packages that this machine lacks for the groups; raise UserError for an unknown group."""
    for group in groups:
        if group not in GROUPS:
            raise UserError(f"unknown group of host tools: {group} (one of {', '.join(GROUPS)}).")
    return sorted(
        {
            package
            for group in groups
            # Docker Desktop or a remote engine needs no package here.
            if group != "engine" or not succeeds("docker", "version")
            for probe, package in GROUPS[group].items()
            if not _is_there(probe)
        }
    )


def install(*groups: str) -> None:
    """Install what is missing, with apt-get; raise UserError where that is impossible."""
    packages = missing_packages(*groups)
    if not packages:
        return
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise UserError(
            f"missing packages: {names} (Debian's names), and this system has no apt-get.",
            "install their counterparts with your system's package manager.",
        )
    if sudo() and not shutil.which("sudo"):
        raise UserError(
            f"missing packages: {names}. Installing them needs root, and there is no sudo.",
            f"as root: apt-get install {names}",
        )
    print(f"host-tools: installing {names}", file=sys.stderr)
    # A fresh cloud machine's own apt often holds the lock for its first minutes.
    apt = [*sudo(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq"]
    get = [*apt, "install", "-y", "--no-install-recommends", *packages]
    if capture(*get).returncode:
        # Package lists can be old or absent. One broken third-party source must not stop the installation.
        capture(*apt, "update")
        if (done := capture(*get)).returncode:
            raise UserError(
                f"apt-get cannot install: {names}.\n{last_lines(done.stdout, 20)}",
                "see above; it needs a Debian mirror that it can reach.",
            )


def _is_there(probe: str) -> bool:
    if probe.startswith("/"):
        return Path(probe).exists()
    return bool(shutil.which(probe, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}"))


if __name__ == "__main__":
    try:
        install(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"host-tools: {error}")
