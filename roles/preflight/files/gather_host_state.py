#!/usr/bin/env python3
"""Prints the state of the host that preflight compares with what is to run, as JSON.

    memory_mb   int    MiB of memory
    disk_mb     int    free MiB below /var
    installed   bool   whether Vantage was installed here before
    addresses   list   IP addresses of the host; empty if a program may listen on others too
    listeners   list   {address: str, port: int, container: str, holder: str}, one for each listening TCP socket
    apps        list   services of the role flask_app that are installed

One program, because facts modules cost a round trip each and do not know containers. Measured on a busy machine with two
cores: 1.1 s, against 16.5 s for `setup` with the subset hardware, `service_facts` and `listen_ports_facts`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path("/usr/local/lib/vantage")


def run(*argv: str) -> str:
    """The standard output of a program; empty where it is missing or does not end."""
    try:
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60).stdout
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""


def list_containers() -> tuple[dict[str, str], dict[int, str]]:
    """The names of the running containers by id, and by published port."""
    by_id: dict[str, str] = {}
    by_port: dict[int, str] = {}
    for line in run("docker", "ps", "--no-trunc", "--format={{.ID}} {{.Names}} {{.Ports}}").splitlines():
        container_id, name, *ports = line.split(" ", 2)
        by_id[container_id] = name
        for first, last in re.findall(r":(\d+)(?:-(\d+))?->", "".join(ports)):
            by_port |= dict.fromkeys(range(int(first), int(last or first) + 1), name)
    return by_id, by_port


def container_ids(pid: str) -> list[str]:
    """The ids of the containers that a process runs in, which its cgroups are named after.

    They are several if this host is a container itself: a cgroup may name that one, which Docker here does not know.
    """
    try:
        return re.findall(r"docker[-/]([0-9a-f]{64})", Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"))
    except OSError:
        return []


def list_addresses() -> list[str]:
    """The IP addresses of the host; none where a program may listen on an address that the host does not have yet."""
    if run("cat", "/proc/sys/net/ipv4/ip_nonlocal_bind").strip() == "1":
        return []
    return [line.split()[3].split("/")[0] for line in run("ip", "-o", "address").splitlines()]


def list_listeners(docker_runs: bool) -> list[dict[str, object]]:
    """Every listening TCP socket with what holds it."""
    if not shutil.which("ss"):
        sys.exit(
            "ss is not installed, which lists listening ports. Install iproute2 (Debian, Ubuntu) or iproute (RHEL)."
        )
    by_id, by_port = list_containers() if docker_runs else ({}, {})
    listeners = []
    for line in run("ss", "-Hltnp").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        holder = re.search(r'users:\(\("([^"]+)",pid=(\d+)', line)
        process, pid = holder.groups() if holder else ("unknown process", "?")
        # Docker listens for a container that has its own network; in the host's network the program itself does.
        published = by_port.get(int(port), "") if process in {"docker-proxy", "dockerd"} else ""
        container = published or next((by_id[one] for one in container_ids(pid) if one in by_id), "")
        listeners.append(
            {
                "address": address.strip("[]").split("%")[0],
                "port": int(port),
                "container": container,
                "holder": f"container {container}" if container else f"{process} (pid {pid})",
            }
        )
    return listeners


def list_apps() -> list[str]:
    """The services of the role flask_app."""
    program = PROGRAMS / "vantage_unit.py"
    if not program.exists():
        # The host of an earlier release, whose program prints no list; the next release may drop this.
        units = Path("/etc/systemd/system").glob("vantage-*.service")
        return [u.stem.removeprefix("vantage-") for u in units if "\nOwner=flask_app\n" in u.read_text("utf-8")]
    services = json.loads(run(str(program), "list", "--json", "--no-probe") or "[]")
    return [service["service"] for service in services if service["app"]]


def main() -> None:
    disk = os.statvfs("/var")
    # The client would start a stopped Docker through its socket, and with it every service.
    docker_runs = run("systemctl", "is-active", "docker.service").strip() == "active"
    state = {
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "disk_mb": disk.f_bavail * disk.f_frsize // 2**20,
        "installed": PROGRAMS.exists(),
        "addresses": list_addresses(),
        "listeners": list_listeners(docker_runs),
        "apps": list_apps(),
    }
    print(json.dumps(state))


if __name__ == "__main__":
    main()
