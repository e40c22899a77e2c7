"""Make sure that libvirt answers, for Vagrant, and find out whether KVM works."""

from __future__ import annotations

import os
import shutil

from vantage_tools.errors import UserError
from vantage_tools.paths import cache_dir
from vantage_tools.process import capture, succeeds
from vantage_tools.vm import engine


def find_driver() -> str:
    """Return kvm if libvirt's own check finds hardware virtualization that this user may use, otherwise qemu."""
    try:
        checks = capture("virt-host-validate", "qemu", env=os.environ | {"LC_ALL": "C"}).stdout
    except OSError:
        return "qemu"
    wanted = ("hardware virtualization", "/dev/kvm exists", "/dev/kvm is accessible")
    # Newer versions quote the device.
    lines = checks.replace("'", "").splitlines()
    passed = [line for line in lines if any(name in line for name in wanted) and "PASS" in line]
    return "kvm" if len(passed) == len(wanted) else "qemu"


def answers() -> bool:
    return succeeds("virsh", "--connect", "qemu:///system", "version", timeout=20)


def start() -> None:
    """Start libvirt unless it answers, and save its driver for the Vagrantfile."""
    if not shutil.which("virsh"):
        raise UserError("libvirt is not installed.", "vantage host-tools vm")
    if not answers():
        engine.start_service("libvirtd", "libvirt", answers)
    cache_dir().mkdir(parents=True, exist_ok=True)
    (cache_dir() / "libvirt-driver").write_text(find_driver() + "\n")
