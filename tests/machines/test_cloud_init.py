"""A Debian disk that provisions itself by cloud-init, without libvirt or root."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import ABOUT, KEEP, SUITE, Speed, assert_no_change, await_that, evidence_on_failure, find_speed
from vantage_tools import cloud_init
from vantage_tools.images.cli import get_images
from vantage_tools.paths import cache_dir
from vantage_tools.process import capture, lock, prepare_environment, run, running_pid
from vantage_tools.vm import host_tools
from vantage_tools.vm.box import box
from vantage_tools.waiting import step

pytestmark = [pytest.mark.long, pytest.mark.timeout(0)]
NAME = "vantage-test-cloud-init"
FOLDER = cache_dir() / "test-cloud-init"
KEY, CONSOLE = FOLDER / "key", FOLDER / "console.log"


def start_qemu(speed: Speed, port: int) -> subprocess.Popen[bytes]:
    """Start a machine with the cloud disk and the seed disk."""
    memory, cpus = os.environ.get("VANTAGE_MEMORY") or "4096", os.environ.get("VANTAGE_CPUS") or "2"
    accel = "-accel kvm -cpu host" if speed.driver == "kvm" else "-accel tcg,thread=multi -cpu qemu64"
    options = f"""
        -name {NAME} -machine q35 {accel} -smp {cpus} -m {memory}
        -nodefaults -display none -monitor none -serial file:console.log -device virtio-rng-pci
        -drive file=disk.qcow2,if=none,id=disk,discard=unmap -device virtio-blk-pci,drive=disk,bootindex=0
        -drive file=seed.iso,if=none,id=seed,format=raw,readonly=on -device ide-cd,drive=seed
        -nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:22"""
    command = ["qemu-system-x86_64", *options.split()]
    machine = subprocess.Popen(command, cwd=FOLDER, stdin=subprocess.DEVNULL, start_new_session=True)
    (FOLDER / "pid").write_text(str(machine.pid))
    return machine


def stop_qemu() -> None:
    """Stop the machine of this run or one that was kept, if the process is still that QEMU."""
    if pid := running_pid(FOLDER / "pid", NAME):
        os.kill(pid, signal.SIGTERM)
    for name in ("pid", "disk.qcow2", "seed.iso"):
        (FOLDER / name).unlink(missing_ok=True)


@pytest.fixture
def port() -> Iterator[int]:
    """A free port of this machine for the SSH of a machine whose two disks are ready; it is stopped at the end."""
    prepare_environment()
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with lock(FOLDER / "lock", f"another run uses {FOLDER}."):
        stop_qemu()
        host_tools.install("box", "seed", "qemu")
        disk = box(SUITE, cloud=True)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk, FOLDER / "disk.qcow2")
        if not KEY.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vantage test", "-f", KEY)
        yield free
        if KEEP:
            print(f"The machine is kept. ssh -i {KEY} -p {free} debian@127.0.0.1")
        else:
            stop_qemu()


def has_provisioned() -> bool:
    """Return whether the machine's console says DONE; fail if it says FAILED."""
    said = re.findall(r"vantage: \[.*", CONSOLE.read_text(errors="replace"))
    assert not any("] FAILED in " in line for line in said), "\n".join(said[-5:])
    return any("] DONE: " in line for line in said)


def test_a_machine_provisions_itself(port: int) -> None:
    speed = find_speed(FOLDER)
    get_images()
    certificate = os.environ.get("VANTAGE_CA_CERT")
    cloud_init.seed(
        FOLDER / "seed.iso", variables=FOLDER / "limits.yml", ssh_key=FOLDER / "key.pub", carry_project=True,
        carry_images=cache_dir() / "images", ca_cert=Path(certificate) if certificate else None,
    )  # fmt: skip
    options = (
        "-q -o ConnectTimeout=30 -o ServerAliveInterval=60 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    )
    ssh = ["ssh", "-i", str(KEY), "-p", str(port), *options.split(), "debian@127.0.0.1"]
    CONSOLE.write_text("")
    machine = start_qemu(speed, port)
    with evidence_on_failure(ssh):
        step(f"the machine provisions and verifies itself; console: {CONSOLE}")
        await_that(lambda: has_provisioned() or machine.poll() is not None, speed.provision)
        step("status of cloud-init and Vantage")
        # cloud-init ends a moment after its last command.
        said = capture(*ssh, f"cloud-init status --wait --long; cat /opt/vantage/status; {ABOUT}").stdout
        print(said)
        assert {"status: done", "state: done"} <= set(said.splitlines())
        step("provisioned again: nothing changes")
        assert_no_change(capture(*ssh, "sudo /opt/vantage/provision").stdout)
