"""The two kinds of VM and the choice between them."""

from __future__ import annotations

import enum
import json
import os
import platform
import shlex
import shutil
from pathlib import Path
from typing import Any

from vantage_tools.errors import UserError
from vantage_tools.images import cli as images
from vantage_tools.images.store import write_atomically
from vantage_tools.paths import ROOT, cache_dir
from vantage_tools.process import output, run, succeeds
from vantage_tools.vm import box, engine, libvirt, ports
from vantage_tools.vm.container import SystemContainer

NAME = "vantage"
UNIT_PROGRAM = "/usr/local/lib/vantage/vantage_unit.py"


class Kind(enum.StrEnum):
    """What `--vm` takes."""

    AUTO = "auto"
    VAGRANT = "vagrant"
    CONTAINER = "container"


class ContainerMachine(SystemContainer):
    kind = Kind.CONTAINER

    def __init__(self) -> None:
        super().__init__(NAME)

    def create(self) -> None:
        engine.ensure_engine()
        publish = ports.of_inventory(inventory(self.kind), NAME)
        if self.exists:
            ports.refuse_new(self.published(), NAME)
        get_images(self.kind)
        self.up(publish)
        play(self.kind, "site.yml")

    def destroy(self) -> None:
        self.down()

    def shell_command(self) -> list[str]:
        return self.terminal_command("bash", "--login")


class VagrantMachine:
    kind = Kind.VAGRANT

    @property
    def exists(self) -> bool:
        # Vagrant makes its folder for `vagrant status` too; the id comes with the VM.
        state = ROOT / (os.environ.get("VAGRANT_DOTFILE_PATH") or ".vagrant")
        return any(state.glob(f"machines/{NAME}/*/id"))

    def create(self) -> None:
        is_linux = platform.system() == "Linux"
        if is_linux and _provider() == "libvirt" and "vagrant-libvirt " in output("vagrant", "plugin", "list"):
            libvirt.start()
            if not os.environ.get("VANTAGE_BOX"):
                box.box()
        # Images are made on Linux only; elsewhere the VM pulls them.
        if is_linux:
            get_images(self.kind)
        # The first `vagrant up` provisions too: without the option, site.yml would run twice.
        run("vagrant", "up", "--no-provision")
        run("vagrant", "provision")

    def destroy(self) -> None:
        run("vagrant", "destroy", "--force")

    def command(self, *argv: str) -> list[str]:
        return ["vagrant", "ssh", "-c", f"sudo {shlex.join(argv)}", "--", "-q"]

    def shell_command(self) -> list[str]:
        return ["vagrant", "ssh"]

    def published(self) -> dict[int, int]:
        return {mapping.guest: mapping.host for mapping in ports.of_vagrantfile()}


Machine = ContainerMachine | VagrantMachine


def choose(kind: Kind) -> Machine:
    """Return the VM: for `auto` the one that exists, else Vagrant's where it is installed and need not emulate."""
    container, vagrant = ContainerMachine(), VagrantMachine()
    has_vagrant = shutil.which("vagrant")
    use_container = container.exists or not (vagrant.exists or (has_vagrant and _can_virtualise()))
    if kind is Kind.CONTAINER or (kind is Kind.AUTO and use_container):
        return container
    if not has_vagrant:
        is_auto = kind is Kind.AUTO
        reason = "a Vagrant VM exists (.vagrant)" if is_auto else "VM=vagrant"
        raise UserError(
            f"{reason}, but vagrant is not installed.",
            "install it (Debian and Ubuntu: .venv/bin/vantage host-tools vm), or use "
            f"{'VM=container' if is_auto else 'make without VM'}.",
        )
    return vagrant


def require_vm(machine: Machine) -> None:
    if not machine.exists:
        raise UserError(f"VM {NAME} ({machine.kind}) does not exist.", "make up")


def list_services(machine: Machine) -> list[dict[str, Any]]:
    """Return what `vantage_unit.py list --json` says of each service; raise UserError without VM or Vantage."""
    require_vm(machine)
    if not succeeds(*machine.command("true")):
        raise UserError(f"VM {NAME} ({machine.kind}) does not answer; it may be stopped.", "make up")
    if not succeeds(*machine.command("test", "-e", UNIT_PROGRAM)):
        raise UserError(f"Vantage is not installed on VM {NAME} ({machine.kind}).", "make up")
    services: list[dict[str, Any]] = json.loads(output(*machine.command(UNIT_PROGRAM, "list", "--json", "--no-probe")))
    return services


def inventory(kind: Kind) -> Path:
    return Path("inventory") / kind


def play(kind: Kind, playbook: str, *arguments: str) -> None:
    run("ansible-playbook", "-i", inventory(kind), playbook, *arguments)


def get_images(kind: Kind) -> None:
    """Get every image, and let the inventory name those that were made."""
    images.get_images()
    target = ROOT / inventory(kind) / "group_vars/all/images.yml"
    write_atomically(target, (cache_dir() / "images/vars.yml").read_text())


def _provider() -> str:
    return os.environ.get("VANTAGE_PROVIDER") or "libvirt"


def _can_virtualise() -> bool:
    """Return whether Vagrant's VM runs without emulation, which takes an hour and is for `VM=vagrant` only."""
    needs_kvm = platform.system() == "Linux" and _provider() in ("libvirt", "qemu")
    return not needs_kvm or libvirt.find_driver() == "kvm"
