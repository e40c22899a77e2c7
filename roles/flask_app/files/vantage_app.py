#!/usr/bin/env -S python3 -B
"""Deploys apps so that the running versions keep running when the new ones cannot start.

With --check a command prints what it would change, and changes nothing.

`canary` is the checker of a unit file: it runs before the file takes its place, only where the file differs.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
from pathlib import Path

# Installed in the same folder. -B above: no bytecode cache beside the programs.
import vantage_unit
from vantage_unit import Unit, UnitError, unit_name, unit_path

# Waiting does not resolve a client error; it may resolve a server error.
CLIENT_ERROR_SECONDS = 10.0


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def is_active(service: str) -> bool:
    shown = vantage_unit.systemd_properties(service, "ActiveState")
    return shown.get("ActiveState") in {"active", "reloading"}


def inspect(container: str, template: str) -> str:
    result = vantage_unit.run("docker", "container", "inspect", "--format", template, container)
    return str(result.stdout.strip())


# Unit files before this run -------------------------------------------------------------------------------------------


def snapshot_folder() -> Path:
    """Unit files as they were before this run wrote them; an empty one stands for a service that did not exist."""
    return Path(vantage_unit.STATE) / "snapshots"


def snapshot_path(service: str) -> Path:
    return snapshot_folder() / f"{service}.service"


def save_snapshot(service: str) -> None:
    """Keeps the unit file that is about to be replaced, unless an interrupted run has kept an older one."""
    saved = snapshot_path(service)
    if saved.exists() and vantage_unit.drift(service):
        return
    saved.parent.mkdir(parents=True, exist_ok=True)
    saved.write_text(read(unit_path(service)), encoding="utf-8")


def restore_file(service: str, text: str) -> None:
    """Writes the unit file as it was; a service that did not exist is stopped and its unit removed."""
    path = unit_path(service)
    if not text:
        vantage_unit.run("systemctl", "disable", "--now", path.name)
        path.unlink(missing_ok=True)
    elif text != read(path):
        path.write_text(text, encoding="utf-8")


def rollback(check: bool = False) -> None:
    """Restores the unit files that were written since the last deployment. No service was started from them yet."""
    for saved in sorted(snapshot_folder().glob("*.service")):
        text = read(saved)
        differs = text != read(unit_path(saved.stem))
        if differs:
            print(saved.stem, "rollback")
        if check:
            continue
        if differs:
            restore_file(saved.stem, text)
        saved.unlink()
    if not check:
        vantage_unit.run("systemctl", "daemon-reload")


# The canary -----------------------------------------------------------------------------------------------------------


def canary_name(service: str) -> str:
    return f"vantage-{service}-canary"


def canary_arguments(unit: Unit, data: Path) -> list[str]:
    """Arguments of `docker run` for the same container under another name, without host port, network alias and data.

    Two containers on one data folder can corrupt an SQLite file, so every writable volume is an empty folder in `data`.
    """
    user = next((word.partition("=")[2] for word in unit.docker_arguments if word.startswith("--user=")), "")
    arguments, volumes = ["--detach", "--log-driver=local"], 0
    for word in unit.docker_arguments:
        option, _, value = word.partition("=")
        if option in {"--rm", "--publish", "--network-alias", "--log-driver"}:
            continue
        if option == "--name":
            word = f"--name={canary_name(unit.service)}"
        if option == "--volume" and "ro" not in "".join(value.split(":", 2)[2:3]).split(","):
            folder = data / str(volumes)
            folder.mkdir(mode=0o750)
            if user:
                uid, gid = user.split(":")
                shutil.chown(folder, int(uid), int(gid))
            word, volumes = f"--volume={folder}:{value.split(':')[1]}", volumes + 1
        arguments.append(word)
    return arguments


def listening_addresses(pid: str) -> list[str]:
    """Where the processes of the container's network namespace listen, from the kernel's tables."""
    found = []
    for table, any_address in (("tcp", "0" * 8), ("tcp6", "0" * 32)):
        for line in read(Path(f"/proc/{pid}/net/{table}")).splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            # Docker's own resolver listens in each container, on 127.0.0.11.
            if fields[3] == "0A" and address != "0B00007F":
                found.append(f"{'0.0.0.0' if address == any_address else '127.0.0.1'}:{int(port, 16)}")
    return found


def explain_closed_port(pid: str, port: int) -> str:
    found = listening_addresses(pid)
    if not found:
        return (
            f"No process in the container listens on a port. The app must listen on 0.0.0.0:{port} (environment PORT)."
        )
    if f"127.0.0.1:{port}" in found:
        return f"The app listens on 127.0.0.1:{port}, inside the container only. Make it listen on 0.0.0.0:{port}."
    numbers = ", ".join(sorted({address.rpartition(":")[2] for address in found}))
    return f"Port {port} is closed; the container listens on {numbers}. Set container_port to that."


def wait_for_canary(container: str, port: int, path: str, seconds: float) -> str:
    """Empty when the container answers 2xx in time, otherwise the reason and the fix."""
    begin, first_client_error, last = time.monotonic(), 0.0, ""
    while True:
        state = inspect(container, "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Pid}}").split()
        if state[:1] not in (["running"], ["created"]):
            killed = " Out of memory: the kernel killed it at its memory limit." if state[2:3] == ["true"] else ""
            return f"its process ended with status {state[1] if state[1:] else '?'}.{killed}"
        address = inspect(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        try:
            with vantage_unit.OPENER.open(f"http://{address}:{port}{path}", timeout=5):
                return ""
        except urllib.error.HTTPError as error:
            body = " ".join(error.read(300).decode(errors="replace").split())
            last = f"GET {path} answered {error.code}: {body}"
            if 400 <= error.code < 500:
                first_client_error = first_client_error or time.monotonic()
                if time.monotonic() - first_client_error > CLIENT_ERROR_SECONDS:
                    return f"{last}. Set health_path to a path that answers 2xx."
        except ConnectionError:
            last = ""
        except (OSError, ValueError) as error:
            last = f"GET {path}: {error}" if "refused" not in str(error) else ""
        if time.monotonic() - begin > seconds:
            return f"not ready after {seconds:.0f} s. {last or explain_closed_port(state[3], port)}"
        time.sleep(0.3)


def last_log_lines(container: str) -> str:
    argv = ["docker", "logs", "--tail=10", container]
    logs = subprocess.run(argv, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return "\n".join(line[:600] for line in logs.stdout.rstrip().splitlines()) or "(none)"


def needs_canary(unit: Unit) -> bool:
    # Where no app runs there is nothing to protect, and apps that depend on each other could not start one by one.
    others = [other.service for other in vantage_unit.installed_units() if other.owner == unit.owner]
    return unit.settings.get("Canary") != "no" and any(map(is_active, others))


def run_canary(service: str, candidate: Path, check: bool = False) -> None:
    """Starts what the unit file describes beside the running version; raises UnitError unless it answers in time."""
    unit = Unit(service, candidate.read_text(encoding="utf-8"))
    if check:
        print(service, "canary")
        return
    save_snapshot(service)
    if not needs_canary(unit):
        return
    container = canary_name(service)
    data = Path(tempfile.mkdtemp(prefix="vantage-canary-", dir="/var/tmp"))
    data.chmod(0o755)
    try:
        vantage_unit.run("docker", "rm", "--force", "--volumes", container)
        started = vantage_unit.run("docker", "run", *canary_arguments(unit, data))
        if started.returncode:
            problem = f"docker run failed: {started.stderr.strip()}"
        else:
            path = urllib.parse.urlsplit(unit.ready_url).path or "/"
            problem = wait_for_canary(container, unit.ports[0]["container"], path, unit.ready_seconds)
        if problem:
            raise UnitError(
                f"the canary of {service} ({unit.image}) failed: {problem}\n"
                f"Last lines of its log:\n{last_log_lines(container)}"
            )
    finally:
        vantage_unit.run("docker", "rm", "--force", "--volumes", container)
        shutil.rmtree(data, ignore_errors=True)


# The deployment -------------------------------------------------------------------------------------------------------


class Snapshot:
    """A service as it was before the deployment."""

    def __init__(self, service: str) -> None:
        saved = snapshot_path(service)
        self.service = service
        self.unit = Unit(service, read(saved if saved.exists() else unit_path(service)))
        self.was_active = bool(self.unit.text) and is_active(service)
        # The image itself: its tag may point to another one since.
        self.image_id = inspect(f"vantage-{service}", "{{.Image}}") if self.was_active else ""

    def restore(self) -> None:
        restore_file(self.service, self.unit.text)
        if self.image_id and self.image_id != vantage_unit.image_id(self.unit.image):
            vantage_unit.run("docker", "tag", self.image_id, self.unit.image)

    def restart(self) -> str:
        """Empty when the service runs again, otherwise the diagnosis."""
        try:
            vantage_unit.apply(self.service)
        except UnitError as error:
            return str(error)
        return ""


def host_ports(unit: Unit) -> set[int]:
    return {port["host"] for port in unit.ports}


def deploy(owner: str, keep: list[str], check: bool = False) -> None:
    """Removes the owner's other services and applies those to keep; restores all when one of them does not start."""
    if check:
        vantage_unit.remove(owner, keep, check)
        for service in keep:
            vantage_unit.apply(service, check)
        return
    owned = [unit.service for unit in vantage_unit.installed_units() if unit.owner == owner]
    if set(owned) <= set(keep) and not any(map(vantage_unit.drift, keep)):
        return
    snapshots = [Snapshot(service) for service in dict.fromkeys([*owned, *keep])]
    try:
        vantage_unit.remove(owner, keep)
        for snapshot in snapshots:
            # A service must release its old port before another takes it.
            current = Unit(snapshot.service, read(unit_path(snapshot.service)))
            if snapshot.was_active and snapshot.service in keep and host_ports(snapshot.unit) - host_ports(current):
                vantage_unit.run("systemctl", "stop", unit_name(snapshot.service))
        for service in keep:
            vantage_unit.apply(service)
    except UnitError as error:
        raise UnitError("\n".join([str(error), *restore_all(snapshots)])) from None
    shutil.rmtree(snapshot_folder(), ignore_errors=True)
    prune_builds(snapshots)


def restore_all(snapshots: list[Snapshot]) -> list[str]:
    """Restores all services and returns the lines of the report; without an active one there is nothing to restore."""
    active = [snapshot for snapshot in snapshots if snapshot.was_active]
    if not active:
        return []
    # New services first: they may hold a port of the others.
    for snapshot in sorted(snapshots, key=lambda snapshot: bool(snapshot.unit.text)):
        snapshot.restore()
    vantage_unit.run("systemctl", "daemon-reload")
    shutil.rmtree(snapshot_folder(), ignore_errors=True)
    problems = {snapshot.service: snapshot.restart() for snapshot in active}
    lost = [service for service, problem in problems.items() if problem]
    if lost:
        return [*filter(None, problems.values()), f"Rollback incomplete: {', '.join(lost)} did not start again."]
    return [f"Rolled back: {', '.join(problems)}."]


def prune_builds(snapshots: list[Snapshot]) -> None:
    """Removes images built here that neither a unit nor its previous version needs: a build takes 100 MB and more."""
    units = [snapshot.unit for snapshot in snapshots] + vantage_unit.installed_units()
    needed = {unit.image.removeprefix("docker.io/") for unit in units}
    template = "{{.Repository}}:{{.Tag}}"
    built = vantage_unit.run("docker", "image", "ls", "--filter=label=vantage.source", "--format", template).stdout
    for tag in built.split():
        # Only tags that end in a source digest: another tag is the user's own.
        if re.search(r"[:-][0-9a-f]{12}$", tag) and tag.removeprefix("docker.io/") not in needed:
            # Docker refuses while a container uses it.
            vantage_unit.run("docker", "image", "rm", tag)


# The command line -----------------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vantage_app.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="print what would change, change nothing")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("canary", help="start what a unit file describes beside the running version")
    command.add_argument("service", metavar="SERVICE")
    command.add_argument("candidate", type=Path, metavar="UNIT_FILE")
    command = commands.add_parser(
        "deploy", help="apply the services to keep, remove the owner's others, or restore all"
    )
    command.add_argument("owner", metavar="OWNER")
    command.add_argument("keep", nargs="*", metavar="KEEP")
    commands.add_parser("rollback", help="restore the unit files written since the last deployment")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "canary":
            run_canary(arguments.service, arguments.candidate, arguments.check)
        elif arguments.command == "deploy":
            deploy(arguments.owner, arguments.keep, arguments.check)
        else:
            rollback(arguments.check)
    except UnitError as error:
        print(f"vantage_app: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
