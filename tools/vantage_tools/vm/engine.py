"""Make sure that a Docker engine answers: install one, start it with systemd, or run dockerd where there is no systemd."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vantage_tools.errors import UserError
from vantage_tools.images import cli as images
from vantage_tools.paths import cache_dir
from vantage_tools.process import last_lines, lock, run, running_pid, succeeds, sudo
from vantage_tools.vm import host_tools
from vantage_tools.waiting import wait_until

PID_FILE = Path("/run/docker.pid")
CONTAINERD_PID_FILE = Path("/run/docker/containerd/containerd.pid")
SYSTEMD = Path("/run/systemd/system")
# Clear of Docker's own subnets, which the engine in a system container uses.
BRIDGE = "10.213.0.1/24"
POOL = "base=10.214.0.0/16,size=24"
START_SECONDS = 60


def answers() -> bool:
    return succeeds("docker", "version", timeout=10)


def ensure_engine() -> None:
    """Install and start an engine unless one answers; raise UserError where that is impossible."""
    if not shutil.which("docker"):
        host_tools.install("engine")
    if answers():
        return
    if host := os.environ.get("DOCKER_HOST"):
        raise UserError(f"no Docker engine answers: DOCKER_HOST={host}.", "start that engine, or unset DOCKER_HOST.")
    if SYSTEMD.is_dir():
        start_service("docker", "docker", answers)
    elif platform.system() == "Linux":
        _start_dockerd()
    else:
        raise UserError("no Docker engine answers.", "start Docker Desktop, Colima or another engine.")


def get_images() -> None:
    ensure_engine()
    images.get_images()


def start_service(name: str, group: str, answers: Callable[[], bool]) -> None:
    """Start a service of systemd; raise UserError if it does not answer this user, who may lack the group."""
    run(*sudo(), "systemctl", "start", name)
    if not wait_until(answers, 30):
        user = getpass.getuser()
        fix = f"sudo usermod -aG {group} {user}, then log in again" if sudo() else f"see: journalctl -u {name} -n 30"
        raise UserError(f"{name} does not answer user {user}.", fix)


def _start_dockerd() -> None:
    if os.geteuid() != 0:
        raise UserError(
            "no Docker engine answers, and there is no systemd to start one.",
            "run `make` as root, or point DOCKER_HOST at an engine that runs.",
        )
    if not shutil.which("dockerd"):
        host_tools.install("engine")
    with lock(_state() / "lock"):
        if pid := running_pid(PID_FILE, "dockerd"):
            if wait_until(answers, START_SECONDS):
                return
            raise UserError(f"dockerd (pid {pid}) does not answer. See {_log()}.")
        _remove_stale_pid_files()
        print(f"engine: starting dockerd (no systemd here); log: {_log()}", file=sys.stderr)
        options = f"--bip {BRIDGE} --default-address-pool {POOL} --mtu {_mtu()} --log-level warn"
        with _log().open("a") as log:
            daemon = subprocess.Popen(
                ["dockerd", *options.split()], env=_iptables_environment(), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        if not wait_until(lambda: answers() or daemon.poll() is not None, START_SECONDS) or daemon.poll() is not None:
            raise UserError(
                f"dockerd did not start.\n{last_lines(_log().read_text(errors='replace'), 15)}",
                "common causes are a full disk, no permission to mount or to use cgroups, or a subnet in use "
                f"({BRIDGE}, {POOL}).",
            )


def _iptables_environment() -> dict[str, str]:
    """Return dockerd's environment, in which `iptables` is a flavour that this kernel supports."""
    if succeeds("iptables", "-t", "nat", "-S"):
        return dict(os.environ)
    if not succeeds("iptables-legacy", "-t", "nat", "-S"):
        raise UserError(
            "iptables cannot use the kernel's NAT table, so containers would have no network.",
            "use a kernel with netfilter NAT, or a root user with CAP_NET_ADMIN.",
        )
    # A kernel without nft NAT. Only dockerd gets the legacy flavour; the system's alternatives stay.
    print("engine: this kernel has no nft NAT; dockerd uses iptables-legacy", file=sys.stderr)
    programs = _state() / "iptables-legacy"
    programs.mkdir(exist_ok=True)
    for name in ("iptables", "ip6tables"):
        if found := shutil.which(f"{name}-legacy"):
            (programs / name).unlink(missing_ok=True)
            (programs / name).symlink_to(found)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}


def _mtu() -> int:
    """Return the MTU of the default route, at most 1500: a bridge with a larger one loses full-sized packets."""
    for line in Path("/proc/net/route").read_text().splitlines():
        interface, destination = line.split()[:2]
        if destination == "00000000":
            return min(1500, int(Path(f"/sys/class/net/{interface}/mtu").read_text()))
    return 1500


def _remove_stale_pid_files() -> None:
    """Remove what a killed dockerd leaves behind and the next one stumbles over."""
    PID_FILE.unlink(missing_ok=True)
    if not running_pid(CONTAINERD_PID_FILE, "containerd"):
        CONTAINERD_PID_FILE.unlink(missing_ok=True)


def _state() -> Path:
    folder = cache_dir() / "engine"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _log() -> Path:
    return _state() / "dockerd.log"
