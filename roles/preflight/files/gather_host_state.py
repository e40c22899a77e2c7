#!/usr/bin/env python3
"""Prints the state of the host that preflight compares with what is to run, as JSON.

    memory_mb   int    MiB of memory
    disks       list   {path: str, free_mb: int}, one for each file system that data and images are written to
    installed   bool   whether Vantage was installed here before
    addresses   list   IP addresses of the host; empty if a program may listen on others too
    listeners   list   {address: str, port: int, container: str, holder: str}, one for each listening TCP socket
    apps        list   services of the role flask_app that are installed
    rollbacks   list   when and why the last deployment was rolled back, for each role whose was
    engine      dict   what is known of Docker:
                       dockerd, docker   str   paths; empty if the program is missing
                       unit              str   LoadState of docker.service
                       security          list  its security options, for example name=userns; empty while it is stopped
                       packages          list  {name: str, conflicts: [str]}, if dockerd is missing: what apt could remove
                       python            dict  {found: str, default: str}, if apt's Python library cannot be used
    networks    list   {name: str, subnets: [str], gateways: [str]}, one for each Docker network; empty while it is stopped
    routes      list   {subnet: str, device: str}, one for each IPv4 route to a network
    run         dict   the run that changes this host at present, with its age in seconds; empty if there is none

Its argument is a JSON object: run_file, the record of the present run, and data_root, where Docker is going to keep images
(empty: where it keeps them now).

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
import time
from pathlib import Path
from typing import Any

PROGRAMS = Path("/usr/local/lib/vantage")
DATA = Path("/var/lib/vantage")
NONLOCAL_BIND = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")
DAEMON = Path("/etc/docker/daemon.json")
SNAP = Path("/snap/bin/docker")
PYTHON = Path("/usr/bin/python3")
DEBIAN_PYTHON = Path("/usr/share/python3/debian_defaults")
ENGINE_WORDS = re.compile("containerd|docker|moby|runc")
DOCKER_PROXIES = {"docker-proxy", "dockerd"}
# A login over SSH may not have them.
SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


def run(*argv: str) -> str:
    """The standard output of a program; empty where it is missing or does not end."""
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def read(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_json(text: str) -> Any:
    """What a JSON text holds; an empty mapping where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


# Ports and addresses ---------------------------------------------------------------------------------------------------


def list_containers() -> tuple[dict[str, str], dict[int, str]]:
    """The names of the containers by id, and by published port; those that are just being started have no ports yet."""
    by_id: dict[str, str] = {}
    by_port: dict[int, str] = {}
    for line in run("docker", "ps", "--all", "--no-trunc", "--format={{.ID}} {{.Names}} {{.Ports}}").splitlines():
        container_id, name, *ports = line.split(" ", 2)
        by_id[container_id] = name
        for first, last in re.findall(r":(\d+)(?:-(\d+))?->", "".join(ports)):
            by_port |= dict.fromkeys(range(int(first), int(last or first) + 1), name)
    return by_id, by_port


def container_ids(pid: str) -> list[str]:
    """The ids of the containers that a process runs in, which its cgroups are named after.

    They are several if this host is a container itself: a cgroup may name that one, which Docker here does not know.
    """
    return re.findall(r"docker[-/]([0-9a-f]{64})", read(Path(f"/proc/{pid}/cgroup")))


def list_addresses() -> list[str]:
    """The IP addresses of the host; none where a program may listen on an address that the host does not have yet."""
    if read(NONLOCAL_BIND).strip() == "1":
        return []
    return [line.split()[3].split("/")[0] for line in run("ip", "-o", "address").splitlines()]


def list_listeners(docker_runs: bool, own_ports: dict[int, str]) -> list[dict[str, object]]:
    """Every listening TCP socket with what holds it; `own_ports` are those of Vantage's units."""
    if not shutil.which("ss"):
        sys.exit(
            "ss is not installed, which lists listening ports. Install iproute2 (Debian, Ubuntu) or iproute (RHEL)."
        )
    by_id, by_port = list_containers() if docker_runs else ({}, {})
    # While a service crashes in a loop, Docker listens before `docker ps` shows the port, and after it no longer does.
    by_port = own_ports | by_port
    listeners = []
    for line in run("ss", "-Hltnp").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        holder = re.search(r'users:\(\("([^"]+)",pid=(\d+)', line)
        process, pid = holder.groups() if holder else ("unknown process", "?")
        # Docker listens for a container that has its own network; in the host's network the program itself does.
        published = by_port.get(int(port), "") if docker_runs and process in DOCKER_PROXIES else ""
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


def list_services() -> list[dict[str, Any]]:
    """Vantage's services, whatever their state: what `vantage_unit.py list --json` prints."""
    program = PROGRAMS / "vantage_unit.py"
    if not program.exists():
        # The host of an earlier release, whose program prints no list; the next release may drop this.
        units = {
            u.stem.removeprefix("vantage-"): read(u) for u in Path("/etc/systemd/system").glob("vantage-*.service")
        }
        return [
            {"service": name, "app": name, "ports": []} for name, text in units.items() if "\nOwner=flask_app\n" in text
        ]
    return list(read_json(run(str(program), "list", "--json", "--no-probe")))


# Docker ----------------------------------------------------------------------------------------------------------------


def inspect_unit() -> dict[str, str]:
    """LoadState and ActiveState of docker.service."""
    shown = run("systemctl", "show", "docker.service", "--property=LoadState,ActiveState")
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def inspect_engine(unit: dict[str, str], info: dict[str, Any]) -> dict[str, Any]:
    dockerd = shutil.which("dockerd") or ""
    docker = shutil.which("docker") or (str(SNAP) if SNAP.exists() else "")
    has_apt = bool(shutil.which("apt-get"))
    return {
        "dockerd": dockerd,
        "docker": docker,
        "unit": unit.get("LoadState", ""),
        "security": list(info.get("SecurityOptions") or stopped_security_options()),
        "packages": list_packages() if has_apt and not dockerd else [],
        "python": find_foreign_python() if has_apt and not dockerd else {},
    }


def stopped_security_options() -> list[str]:
    """What Docker is going to report when it starts, as far as its settings say so."""
    return ["name=userns"] if daemon_options().get("userns-remap") else []


def daemon_options() -> dict[str, Any]:
    options = read_json(read(DAEMON))
    return dict(options) if isinstance(options, dict) else {}


def list_packages() -> list[dict[str, Any]]:
    """The installed packages of container engines, with the names that each excludes, as containerd.io does containerd."""
    form = "${db:Status-Status}\t${Package}\t${Conflicts}, ${Breaks}\n"
    packages = []
    for line in run("dpkg-query", "--show", f"--showformat={form}").splitlines():
        status, name, relations = line.split("\t", 2)
        excluded = [text.strip() for text in relations.split(",") if text.strip() and "(" not in text]
        if status == "installed" and ENGINE_WORDS.search(f"{name} {relations}"):
            packages.append({"name": name, "conflicts": excluded})
    return packages


def find_foreign_python() -> dict[str, str]:
    """What /usr/bin/python3 is if it is not the distribution's, the only one that has apt's library."""
    default = re.search(r"^default-version *= *(\S+)", read(DEBIAN_PYTHON), re.MULTILINE)
    found = PYTHON.resolve()
    if not default or found == PYTHON.with_name(default[1]).resolve():
        return {}
    # Another Python is right if the library was built for it.
    if run(str(PYTHON), "-c", "import apt; print('usable')").strip() == "usable":
        return {}
    return {"found": str(found), "default": default[1]}


def list_networks() -> list[dict[str, Any]]:
    """Docker's networks with their IPv4 and IPv6 subnets."""
    ids = run("docker", "network", "ls", "--quiet").split()
    found = []
    for network in read_json(run("docker", "network", "inspect", *ids)) if ids else []:
        config = (network.get("IPAM") or {}).get("Config") or []
        found.append(
            {
                "name": network["Name"],
                "subnets": [one["Subnet"] for one in config if one.get("Subnet")],
                "gateways": [one["Gateway"] for one in config if one.get("Gateway")],
            }
        )
    return found


def list_routes() -> list[dict[str, str]]:
    """The IPv4 routes to networks and single addresses, of all tables: a VPN may have its own."""
    routes = []
    for line in run("ip", "-o", "-4", "route", "show", "table", "all").splitlines():
        found = re.match(r"(?:unicast )?(\d+\.\d+\.\d+\.\d+(?:/\d+)?) .*?\bdev (\S+)", line)
        if found and found[2] != "lo":
            routes.append({"subnet": found[1], "device": found[2]})
    return routes


# Disk and the present run ----------------------------------------------------------------------------------------------


def list_disks(data_root: str) -> list[dict[str, object]]:
    """The free room of the file systems of Vantage's data and of Docker's; one entry if they are the same."""
    disks: dict[int, dict[str, object]] = {}
    for path in (DATA, Path(data_root)):
        existing = next(one for one in (path, *path.parents) if one.exists())
        room = os.statvfs(existing)
        disks.setdefault(existing.stat().st_dev, {"path": str(path), "free_mb": room.f_bavail * room.f_frsize // 2**20})
    return list(disks.values())


def present_run(file: Path) -> dict[str, Any]:
    record = read_json(read(file))
    try:
        return {**record, "age": time.time() - file.stat().st_mtime} if record else {}
    except OSError:
        return {}


def main(arguments: str) -> None:
    given = json.loads(arguments)
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + SBIN
    unit = inspect_unit()
    # The client would start a stopped Docker through its socket, and with it every service.
    docker_runs = unit.get("ActiveState") == "active"
    info = read_json(run("docker", "info", "--format={{json .}}")) if docker_runs else {}
    data_root = given["data_root"] or info.get("DockerRootDir") or daemon_options().get("data-root")
    services = list_services()
    own_ports = {port["host"]: f"vantage-{one['service']}" for one in services for port in one.get("ports", [])}
    state = {
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "disks": list_disks(str(data_root or "/var/lib/docker")),
        "installed": PROGRAMS.exists(),
        "addresses": list_addresses(),
        "listeners": list_listeners(docker_runs, own_ports),
        "apps": [one["service"] for one in services if one["app"]],
        "rollbacks": sorted({one["rollback"] for one in services if one.get("rollback")}),
        "engine": inspect_engine(unit, info),
        "networks": list_networks() if docker_runs else [],
        "routes": list_routes(),
        "run": present_run(Path(given["run_file"])),
    }
    print(json.dumps(state))


if __name__ == "__main__":
    main(sys.argv[1])
