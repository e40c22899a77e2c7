"""What the tests on machines share. `make test-vm`, `make test-cloud-init` and `make test-systems` run them.

SUITE=bookworm tests Debian 12 instead of 13; KEEP=1 keeps the machine, and the next run removes it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vantage_tools.process import capture
from vantage_tools.vm import libvirt
from vantage_tools.vm.box import Suite
from vantage_tools.waiting import step, wait_until

SUITE = Suite(os.environ.get("SUITE") or "trixie")
# Those of site.yml. mmdebstrap cannot build rhel9, so VANTAGE_SYSTEM_IMAGE names an image of it.
SYSTEMS = ("debian12", "debian13", "ubuntu2204", "ubuntu2404", "ubuntu2604", "rhel9")
KEEP = bool(os.environ.get("KEEP"))
ABOUT = "head -n 1 /etc/os-release; uname -r; systemctl --version | head -n 1; stat -fc %T /sys/fs/cgroup"
EVIDENCE = """
    systemctl --failed --no-legend; systemctl list-units --all --plain --no-legend 'vantage-*'; free -m; df -h /
    cat /opt/vantage/status; sudo tail -n 40 /var/log/vantage-provision.log
    sudo journalctl --boot --no-pager --priority warning --lines 60"""


class Speed(NamedTuple):
    """How many seconds a service may take to become ready, and a machine to provision itself."""

    driver: str
    ready: int
    provision: int


def find_speed(folder: Path) -> Speed:
    """Return the limits for KVM, or for emulation where KVM does not work, and write the roles' to limits.yml."""
    if (os.environ.get("VANTAGE_LIBVIRT_DRIVER") or libvirt.find_driver()) == "kvm":
        speed = Speed("kvm", 180, 1800)
    else:
        step("KVM does not work here, so the machine is emulated: an hour or more on two cores")
        speed = Speed("qemu", 1200, 9000)
    # A file, because a=1 on the command line is a string.
    limits = f"---\nvantage_ready_seconds: {speed.ready}\nverify_seconds: {speed.ready // 4}\n"
    (folder / "limits.yml").write_text(limits)
    return speed


@contextmanager
def evidence_on_failure(ssh: list[str]) -> Iterator[None]:
    try:
        yield
        step("passed")
    except Exception:
        step("failed; the state of the machine:")
        print(capture(*ssh, EVIDENCE).stdout)
        raise


def await_that(condition: Callable[[], bool], seconds: float) -> None:
    assert wait_until(condition, seconds, pause=5), f"after {seconds:.0f} s"


def assert_no_change(text: str) -> None:
    """Fail unless the first recap in Ansible's output says that nothing changed."""
    recap = re.search(r"(localhost|vantage) +: ok=.*", text)
    lines = [line for line in text.splitlines() if line.startswith(("changed:", "fatal:", "vantage: ["))]
    assert recap and " changed=0 " in recap[0], "\n".join(lines[-40:])
