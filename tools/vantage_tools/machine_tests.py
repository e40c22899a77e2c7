"""End-to-end tests on machines: a VM by Vagrant, a VM that provisions itself, a system container of each system."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from vantage_tools import cloud_init, libvirt
from vantage_tools.box import Suite, box
from vantage_tools.errors import UserError
from vantage_tools.paths import ROOT, cache_dir
from vantage_tools.process import IMAGES, capture, lock, output, run, running_pid, succeeds
from vantage_tools.vm import engine, host_tools
from vantage_tools.vm.cli import MACHINES
from vantage_tools.vm.container import image_name
from vantage_tools.waiting import step, wait_until

# The systems that site.yml supports. mmdebstrap cannot build rhel9, so VANTAGE_SYSTEM_IMAGE names an image of it.
SYSTEMS = ("debian12", "debian13", "ubuntu2204", "ubuntu2404", "ubuntu2604", "rhel9")
ABOUT = "head -n 1 /etc/os-release; uname -r; systemctl --version | head -n 1; stat -fc %T /sys/fs/cgroup"
EVIDENCE = """
    systemctl --failed --no-legend; systemctl list-units --all --plain --no-legend 'vantage-*'; free -m; df -h /
    cat /opt/vantage/status; sudo tail -n 40 /var/log/vantage-provision.log
    sudo journalctl --boot --no-pager --priority warning --lines 60"""
# Of the machine that provisions itself.
NAME = "vantage-test-cloud-init"

app = typer.Typer()
SuiteArgument = Annotated[Suite, typer.Argument()]
Keep = Annotated[bool, typer.Option("--keep", envvar="KEEP", help="keep the machine; the next run removes it")]


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


def only_run(folder: Path) -> AbstractContextManager[None]:
    return lock(folder / "lock", f"another run uses {folder}.")


@contextmanager
def evidence_on_failure(ssh: list[str], console: Path | None = None) -> Iterator[None]:
    try:
        yield
        step("passed")
    except Exception:
        step("failed; the state of the machine:")
        typer.echo(capture(*ssh, EVIDENCE).stdout)
        if console:
            typer.echo(console.read_text(errors="replace")[-4000:])
        raise


def require(condition: Callable[[], bool], seconds: float, problem: str) -> None:
    """Wait for a condition; raise UserError when the time is over."""
    if not wait_until(condition, seconds, pause=5):
        raise UserError(f"{problem} after {seconds:.0f} s.")


def require_no_change(text: str) -> None:
    """Raise UserError unless the first recap in Ansible's output says that nothing changed."""
    recap = re.search(r"(localhost|vantage) +: ok=.*", text)
    if not recap or " changed=0 " not in recap[0]:
        lines = [line for line in text.splitlines() if line.startswith(("changed:", "fatal:", "vantage: ["))]
        raise UserError("the second run of site.yml failed or changed something:\n" + "\n".join(lines[-40:]))


# --- A VM by Vagrant ------------------------------------------------------------------------------------------
VAGRANT_SSH = ["vagrant", "ssh", "--command"]


def services_are_active() -> bool:
    """Return whether the VM's boot has started all services; SSH may not answer yet."""
    listing = "systemctl list-units --all --plain --no-legend 'vantage-*.service'"
    answer = capture(*VAGRANT_SSH, listing, "--", "-q")
    rows = [line.split() for line in answer.stdout.splitlines()]
    states = [row[2] for row in rows if len(row) > 2 and row[1] == "loaded"]
    return not answer.returncode and bool(states) and set(states) == {"active"}


@app.command("test-vm", rich_help_panel=MACHINES)
def test_vm(suite: SuiteArgument = Suite.TRIXIE, keep: Keep = False) -> None:
    """Test a VM by Vagrant: up, verify, reload, verify."""
    folder = cache_dir() / "test-vm"
    own = {
        "VAGRANT_DOTFILE_PATH": str(folder / f"debian-{suite.release}"),
        "VANTAGE_BOX": f"vantage/debian-{suite.release}",
        "VANTAGE_VM_PREFIX": "vantage-test-",
        "VANTAGE_PORTS": "13000:3000 18000:8000 19090:9090",
    }
    os.environ.update(own, VANTAGE_PROVIDER="libvirt", VAGRANT_DEFAULT_PROVIDER="libvirt", ANSIBLE_FORCE_COLOR="0")
    with only_run(folder):
        # Debian's Vagrant would get in the way of one from elsewhere.
        if not shutil.which("vagrant") or "vagrant-libvirt " not in output("vagrant", "plugin", "list"):
            host_tools.install("vm")
        libvirt.start()
        speed = find_speed(folder)
        box(suite)
        values = os.environ.get("VANTAGE_EXTRA_VARS", "")
        if not values:
            run(*IMAGES, "get")
            values = f"@{cache_dir()}/images/vars.yml"
        os.environ["VANTAGE_EXTRA_VARS"] = f"{values} @{folder}/limits.yml"
        variables = [f"--extra-vars={value}" for value in os.environ["VANTAGE_EXTRA_VARS"].split()]
        play = ["ansible-playbook", "-i", "inventory/vagrant", *variables]
        succeeds("vagrant", "destroy", "--force")
        try:
            with evidence_on_failure(VAGRANT_SSH):
                step("vagrant up")
                run("vagrant", "up", "--no-provision")
                typer.echo(output(*VAGRANT_SSH, ABOUT, "--", "-q"))
                step("provision by site.yml")
                run("vagrant", "provision")
                step("verify")
                run(*play, "playbooks/verify.yml")
                step("site.yml again: nothing changes")
                require_no_change(capture(*play, "site.yml").stdout)
                step("vagrant reload")
                run("vagrant", "reload", "--no-provision")
                step("services after the reload")
                require(services_are_active, speed.ready, "services are not active")
                step("verify after the reload")
                run(*play, "playbooks/verify.yml")
        finally:
            if keep:
                settings = " ".join(f"{name}='{value}'" for name, value in own.items())
                typer.echo(f"The VM is kept. {settings} vagrant ssh (or: destroy --force)")
            else:
                succeeds("vagrant", "destroy", "--force")
                libvirt.stop()


# --- A VM that provisions itself ------------------------------------------------------------------------------
def start_qemu(folder: Path, speed: Speed, port: int) -> subprocess.Popen[bytes]:
    """Start a machine with a cloud disk and the seed disk, without libvirt or root."""
    memory, cpus = os.environ.get("VANTAGE_MEMORY") or "4096", os.environ.get("VANTAGE_CPUS") or "2"
    accel = "-accel kvm -cpu host" if speed.driver == "kvm" else "-accel tcg,thread=multi -cpu qemu64"
    options = f"""
        -name {NAME} -machine q35 {accel} -smp {cpus} -m {memory}
        -nodefaults -display none -monitor none -serial file:console.log -device virtio-rng-pci
        -drive file=disk.qcow2,if=none,id=disk,discard=unmap -device virtio-blk-pci,drive=disk,bootindex=0
        -drive file=seed.iso,if=none,id=seed,format=raw,readonly=on -device ide-cd,drive=seed
        -nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:22"""
    command = ["qemu-system-x86_64", *options.split()]
    machine = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, start_new_session=True)
    (folder / "pid").write_text(str(machine.pid))
    return machine


def stop_qemu(folder: Path) -> None:
    """Stop the machine of this run or one that was kept, if the process is still that QEMU."""
    if pid := running_pid(folder / "pid", NAME):
        os.kill(pid, signal.SIGTERM)
    for name in ("pid", "disk.qcow2", "seed.iso"):
        (folder / name).unlink(missing_ok=True)


def has_provisioned(console: Path) -> bool:
    """Return whether the machine's console says DONE; raises UserError if it says FAILED."""
    said = re.findall(r"vantage: \[.*", console.read_text(errors="replace"))
    if any("] FAILED in " in line for line in said):
        raise UserError("the machine did not provision itself:\n" + "\n".join(said[-5:]))
    return any("] DONE: " in line for line in said)


@app.command("test-cloud-init", rich_help_panel=MACHINES)
def test_cloud_init(suite: SuiteArgument = Suite.TRIXIE, keep: Keep = False) -> None:
    """Test a Debian disk that provisions itself."""
    folder = cache_dir() / "test-cloud-init"
    key, console = folder / "key", folder / "console.log"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    options = (
        "-q -o ConnectTimeout=30 -o ServerAliveInterval=60 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    )
    ssh = ["ssh", "-i", str(key), "-p", str(port), *options.split(), "debian@127.0.0.1"]
    with only_run(folder):
        stop_qemu(folder)
        host_tools.install("box", "seed", "qemu")
        speed = find_speed(folder)
        disk = box(suite, cloud=True)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk, folder / "disk.qcow2")
        run(*IMAGES, "get")
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vantage test", "-f", key)
        certificate = os.environ.get("VANTAGE_CA_CERT")
        cloud_init.seed(
            folder / "seed.iso", variables=folder / "limits.yml", ssh_key=folder / "key.pub", carry_project=True,
            carry_images=cache_dir() / "images", ca_cert=Path(certificate) if certificate else None,
        )  # fmt: skip
        console.write_text("")
        machine = start_qemu(folder, speed, port)
        try:
            with evidence_on_failure(ssh, console):
                step("the machine provisions and verifies itself")
                require(
                    lambda: has_provisioned(console) or machine.poll() is not None, speed.provision, "it has not ended"
                )
                step("status of cloud-init and Vantage")
                # cloud-init ends a moment after its last command.
                said = capture(*ssh, f"cloud-init status --wait --long; cat /opt/vantage/status; {ABOUT}").stdout
                typer.echo(said)
                if not {"status: done", "state: done"} <= set(said.splitlines()):
                    raise UserError("cloud-init or Vantage does not report that it is done.")
                step("provisioned again: nothing changes")
                require_no_change(capture(*ssh, "sudo /opt/vantage/provision").stdout)
        finally:
            if keep:
                typer.echo(f"The machine is kept. ssh -i {key} -p {port} debian@127.0.0.1")
            else:
                stop_qemu(folder)


# --- Every supported system -----------------------------------------------------------------------------------
def why_skipped(system: str, log: Path) -> str:
    """Return why the system cannot be tested here, or nothing."""
    if image := os.environ.get("VANTAGE_SYSTEM_IMAGE"):
        return "" if succeeds("docker", "image", "inspect", image) else f"the Docker engine has no image {image}"
    if system == "rhel9":
        return "set VANTAGE_SYSTEM_IMAGE to an image with systemd"
    done = capture(*IMAGES, "load", image_name(system))
    log.write_text(done.stdout)
    return f"cannot build its image: {log}" if done.returncode else ""


def passes(system: str, folder: Path, is_full: bool) -> bool:
    """Run molecule and the tests on one system; return whether all pass. The log is <system>.log."""
    # Molecule keeps its state by directory and scenario; the machine's name keeps two runs apart.
    machine = f"vantage-test-{system}"
    own = {
        "VANTAGE_SYSTEM": system,
        "VANTAGE_TEST_MACHINE": machine,
        "VANTAGE_TEST_HOST": f"docker://{machine}",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(folder / system),
        "VANTAGE_TEST_INVENTORY": str(folder / system / "inventory"),
        "ANSIBLE_ROLES_PATH": "roles",
    }
    short = """
        molecule destroy && molecule converge && molecule idempotence &&
            pytest -q tests/integration/test_services.py tests/integration/test_path.py
        result=$?; molecule destroy; exit $result"""
    with (folder / f"{system}.log").open("w") as log:
        command = ["molecule", "test"] if is_full else ["sh", "-c", short]
        return not subprocess.run(
            command, cwd=ROOT, env=os.environ | own, stdout=log, stderr=log, check=False
        ).returncode


@app.command("test-systems", rich_help_panel=MACHINES)
def test_systems(
    systems: Annotated[list[str] | None, typer.Argument(help=f"default: {' '.join(SYSTEMS)}")] = None,
    full: Annotated[bool, typer.Option("--full", envvar="FULL", help="run all that `make test` runs")] = False,
) -> None:
    """Test each supported system in a container of its own."""
    if unknown := set(systems or []) - set(SYSTEMS):
        raise UserError(f"unknown system: {' '.join(sorted(unknown))} ({', '.join(SYSTEMS)}).", "correct it")
    folder = cache_dir() / "test-systems"
    folder.mkdir(parents=True, exist_ok=True)
    engine.get_images()
    rows = []
    for system in systems or SYSTEMS:
        log, started = folder / f"{system}.log", time.monotonic()
        if reason := why_skipped(system, folder / f"{system}-image.log"):
            rows.append(f"{system:<12} skipped        {reason}")
            continue
        step(f"{system} (log: {log})")
        result = f"ok      {time.monotonic() - started:5.0f} s" if passes(system, folder, full) else f"FAILED  {log}"
        rows.append(f"{system:<12} {result}")
    typer.echo("\n".join(rows))
    if any(" FAILED " in row for row in rows):
        raise typer.Exit(1)
