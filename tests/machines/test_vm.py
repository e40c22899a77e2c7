"""A VM by Vagrant, with the box of `make box`: up, verify, reload, verify."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import ABOUT, KEEP, SUITE, assert_no_change, await_that, evidence_on_failure, find_speed
from vantage_tools.images.cli import get_images
from vantage_tools.paths import cache_dir
from vantage_tools.process import capture, lock, output, prepare_environment, run, running_pid, succeeds
from vantage_tools.vm import engine, host_tools, libvirt
from vantage_tools.vm.box import box
from vantage_tools.waiting import step, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(0)]
SSH = ["vagrant", "ssh", "--command"]
FOLDER = cache_dir() / "test-vm"
DAEMONS = ("virtlogd", "libvirtd")
MARKER = FOLDER / "started-libvirt"
OWN = {
    "VAGRANT_DOTFILE_PATH": str(FOLDER / f"debian-{SUITE.release}"),
    "VANTAGE_BOX": f"vantage/debian-{SUITE.release}",
    "VANTAGE_VM_PREFIX": "vantage-test-",
    "VANTAGE_PORTS": "13000:3000 18000:8000 19090:9090",
}


def start_libvirt() -> None:
    """Start libvirt, with virtlogd first where there is no systemd: it takes the serial consoles of the machines."""
    if not libvirt.answers() and not engine.SYSTEMD.is_dir():
        Path("/run/libvirt").mkdir(parents=True, exist_ok=True)
        for name in DAEMONS:
            if not running_pid(Path(f"/run/{name}.pid"), name):
                run(name, "--daemon")
        MARKER.touch()
        assert wait_until(libvirt.answers, 30, pause=1), "libvirtd does not answer"
    libvirt.start()


def stop_libvirt() -> None:
    """Stop the libvirt that start_libvirt() started without systemd, unless another machine runs."""
    if MARKER.exists() and not output("virsh", "--connect", "qemu:///system", "list", "--name").strip():
        for name in reversed(DAEMONS):
            if pid := running_pid(Path(f"/run/{name}.pid"), name):
                os.kill(pid, signal.SIGTERM)
        MARKER.unlink()


@pytest.fixture
def vm() -> Iterator[None]:
    """The settings of a VM that does not exist; it is removed at the end."""
    prepare_environment()
    os.environ.update(OWN, VANTAGE_PROVIDER="libvirt", VAGRANT_DEFAULT_PROVIDER="libvirt", ANSIBLE_FORCE_COLOR="0")
    with lock(FOLDER / "lock", f"another run uses {FOLDER}."):
        # Debian's Vagrant would get in the way of one from elsewhere.
        if not shutil.which("vagrant") or "vagrant-libvirt " not in output("vagrant", "plugin", "list"):
            host_tools.install("vm")
        start_libvirt()
        box(SUITE)
        succeeds("vagrant", "destroy", "--force")
        yield
        if KEEP:
            settings = " ".join(f"{name}='{value}'" for name, value in OWN.items())
            print(f"The VM is kept. {settings} vagrant ssh (or: destroy --force)")
        else:
            succeeds("vagrant", "destroy", "--force")
            stop_libvirt()


def services_are_active() -> bool:
    """Return whether the VM's boot has started all services; SSH may not answer yet."""
    listing = "systemctl list-units --all --plain --no-legend 'vantage-*.service'"
    answer = capture(*SSH, listing, "--", "-q")
    rows = [line.split() for line in answer.stdout.splitlines()]
    states = [row[2] for row in rows if len(row) > 2 and row[1] == "loaded"]
    return not answer.returncode and bool(states) and set(states) == {"active"}


def test_a_vm_is_provisioned_and_survives_a_reload(vm: None) -> None:
    speed = find_speed(FOLDER)
    values = os.environ.get("VANTAGE_EXTRA_VARS", "")
    if not values:
        get_images()
        values = f"@{cache_dir()}/images/vars.yml"
    os.environ["VANTAGE_EXTRA_VARS"] = f"{values} @{FOLDER}/limits.yml"
    variables = [f"--extra-vars={value}" for value in os.environ["VANTAGE_EXTRA_VARS"].split()]
    play = ["ansible-playbook", "-i", "inventory/vagrant", *variables]
    with evidence_on_failure(SSH):
        step("vagrant up")
        run("vagrant", "up", "--no-provision")
        print(output(*SSH, ABOUT, "--", "-q"))
        step("provision by site.yml")
        run("vagrant", "provision")
        step("verify")
        run(*play, "playbooks/verify.yml")
        step("site.yml again: nothing changes")
        assert_no_change(capture(*play, "site.yml").stdout)
        step("vagrant reload")
        run("vagrant", "reload", "--no-provision")
        step("services after the reload")
        await_that(services_are_active, speed.ready)
        step("verify after the reload")
        run(*play, "playbooks/verify.yml")
