"""Make sure that libvirt answers, for Vagrant: `vantage libvirt`."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import typer

from vantage_tools.errors import UserError
from vantage_tools.paths import cache_dir
from vantage_tools.process import capture, output, run, running_pid, succeeds
from vantage_tools.vm import engine
from vantage_tools.waiting import wait_until

URI = ["virsh", "--connect", "qemu:///system"]
START_SECONDS = 30

app = typer.Typer(help="Start libvirt, for Vagrant, and find out whether KVM works.", no_args_is_help=True)


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
    return succeeds(*URI, "version", timeout=20)


@app.command()
def start() -> None:
    """Start libvirt unless it answers, and save its driver."""
    if not shutil.which("virsh") or not (answers() or shutil.which("libvirtd")):
        raise UserError("libvirt is not installed.", "vantage host-tools vm")
    if not answers():
        if engine.SYSTEMD.is_dir():
            engine.start_service("libvirtd", "libvirt", answers)
        else:
            start_daemons()
    cache_dir().mkdir(parents=True, exist_ok=True)
    (cache_dir() / "libvirt-driver").write_text(find_driver() + "\n")


def start_daemons() -> None:
    """Start virtlogd and libvirtd without systemd; raise UserError if libvirt still does not answer."""
    if os.geteuid() != 0:
        raise UserError("libvirt does not run, and there is no systemd to start it.", "sudo vantage libvirt start")
    log = cache_dir() / "libvirt/libvirtd.log"
    for folder in (log.parent, Path("/run/libvirt")):
        folder.mkdir(parents=True, exist_ok=True)
    typer.echo(f"libvirt: starting libvirtd without systemd; log: {log}", err=True)
    # virtlogd takes the serial consoles of the machines, so it comes first.
    if not succeeds("pgrep", "-x", "virtlogd"):
        run("virtlogd", "--daemon")
    (log.parent / "started-by-vantage").touch()
    with log.open("a") as file:
        run("libvirtd", "--daemon", stdout=file, stderr=file)
    if not wait_until(answers, START_SECONDS, pause=1):
        raise UserError(f"libvirtd does not answer. Its last lines:\n{log.read_text()[-1500:]}", f"read {log}")


@app.command()
def stop() -> None:
    """Stop the libvirt that `start` started without systemd."""
    marker = cache_dir() / "libvirt/started-by-vantage"
    if not marker.exists():
        return
    if answers() and output(*URI, "list", "--name").strip():
        typer.echo("libvirt: machines are running; libvirtd stays", err=True)
        return
    for name in ("libvirtd", "virtlogd"):
        if pid := running_pid(Path(f"/run/{name}.pid"), name):
            os.kill(pid, signal.SIGTERM)
    marker.unlink()
