#!/usr/bin/env python3
"""Operates vantage-<service>.service units: readiness, drift, apply, and the list of what runs.

    pre-start SERVICE             ExecStartPre: free the container's name, record the files that are about to be read
    ready SERVICE                 ExecStartPost: wait until the service answers, record that it is ready
    stop SERVICE                  ExecStop: stop the container
    reload SERVICE                ExecReload: send SIGHUP, wait until the engine loaded the config
    apply SERVICE…                start, restart or reload services that differ from their files, wait until ready
    remove OWNER [KEEP…]          remove an owner's services except those to keep; data stays
    ensure-docker SUBNET GATEWAY  run Docker with the settings in its files, create the network
    status                        one line per service; exit status 1 unless all are active and ready
    list                          the same list without an exit status

What a service needs is in the last section of its unit file, [X-Vantage], which systemd ignores. Other programs do not
parse units: they call `vantage_unit.py list --json`, or import this module.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

UNITS = Path("/etc/systemd/system")
CONFIG = Path("/etc/vantage")
STATE = Path("/run/vantage")
CACHE = Path("/var/cache/vantage")
JOURNALD = Path("/etc/systemd/journald.conf.d/vantage.conf")
RSYSLOG = Path("/etc/rsyslog.d/10-vantage.conf")
DAEMON = Path("/etc/docker/daemon.json")
CLIENT = Path("/root/.docker/config.json")
APP_OWNER = "flask_app"
RELOAD_SECONDS = 20.0
# A wrong port and a wrong health path do not mend themselves: an app that starts slowly may change them for this long.
HOPELESS_SECONDS = 10.0


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: followed, a login page would make an app ready that is not."""

    def redirect_request(self, *_: Any) -> None:
        return None


# Localhost is never behind a proxy, whatever the environment says.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)


class UnitError(Exception):
    """A command failed; the text is what the operator reads."""


def unit_name(service: str) -> str:
    return f"vantage-{service}.service"


def unit_path(service: str) -> Path:
    return UNITS / unit_name(service)


def run(*argv: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command; bytes of its output that are not UTF-8, as a log may have, become replacement characters."""
    return subprocess.run(
        argv,
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )


def read_text(path: Path) -> str:
    """The text of a file, empty if there is none; bytes that are not UTF-8 survive `write_text`."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


def run_or_fail(*argv: str) -> None:
    result = run(*argv)
    if result.returncode:
        raise UnitError(f"{' '.join(argv)} failed: {result.stderr.strip()}")


# The unit file --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """A service and the text of its unit file."""

    service: str
    text: str

    @classmethod
    def load(cls, service: str) -> Unit:
        path = unit_path(service)
        try:
            return cls(service, path.read_text(encoding="utf-8", errors="surrogateescape"))
        except FileNotFoundError:
            raise UnitError(f"{path} does not exist. Run site.yml for the role that owns {service}.") from None

    @cached_property
    def settings(self) -> dict[str, str]:
        """The section [X-Vantage]; empty for a unit that is not Vantage's."""
        lines = self.text.partition("[X-Vantage]\n")[2].splitlines()
        return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}

    @property
    def is_vantage(self) -> bool:
        return "\n[X-Vantage]\n" in f"\n{self.text}"

    @property
    def owner(self) -> str:
        return self.settings.get("Owner", "")

    @property
    def primary(self) -> str:
        """The service whose config, data and secrets this one has: itself, unless it is a replica."""
        return self.settings.get("ReplicaOf") or self.service

    @property
    def image(self) -> str:
        return self.settings.get("Image", "")

    @property
    def ready_url(self) -> str:
        return self.settings.get("ReadyUrl", "")

    @property
    def ready_seconds(self) -> float:
        return float(self.settings.get("ReadySeconds") or 120)

    @property
    def ready_below(self) -> int:
        """Answers with a status below this one make the service ready."""
        return int(self.settings.get("ReadyBelow") or 300)

    @property
    def before_start(self) -> str:
        """The command that an app runs once before a new version starts; empty for none."""
        return str(json.loads(self.settings.get("BeforeStart") or '""'))

    @cached_property
    def docker_arguments(self) -> list[str]:
        """The arguments of `docker run`, with systemd's quoting removed."""
        start = "ExecStart=/usr/bin/docker run "
        line = next((line for line in self.text.replace("\\\n", " ").splitlines() if line.startswith(start)), start)
        words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line.removeprefix(start))]
        # The unit takes their value from its environment file.
        return [f"{word}={no_proxy(self)}" if word.lower() == "--env=no_proxy" else word for word in words]

    @property
    def ports(self) -> list[dict[str, Any]]:
        """What the service listens on: `address` and `host` port, and the `container` port behind it."""
        words = self.docker_arguments
        if "--network=host" in words:
            # Without port mappings the program's own option says where it listens.
            listen = [word.partition("=")[2] for word in words if word.startswith("--web.listen-address=")]
            mappings = [f"{value}:{value.rpartition(':')[2]}" for value in listen]
        else:
            # What follows the image belongs to the program in the container.
            options = words[: words.index(self.image)] if self.image in words else words
            mappings = [word.partition("=")[2] for word in options if word.startswith("--publish=")]
        found = []
        for mapping in mappings:
            address, host, container = mapping.rsplit(":", 2)
            found.append({"address": address.strip("[]"), "host": int(host), "container": int(container)})
        return found


def no_proxy(unit: Unit) -> str:
    """What a container reaches without the proxies that root's Docker client config gives it, as NO_PROXY lists it.

    That is what the config and the service's own variables exclude, the Docker network, and every service by its name:
    Python and curl do not compare a name with a network.
    """
    try:
        given = str(json.loads(CLIENT.read_text(encoding="utf-8"))["proxies"]["default"].get("noProxy") or "")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        given = ""
    names = [name for other in installed_units() for name in (other.service, f"vantage-{other.service}")]
    entries = [*given.split(","), "localhost", "127.0.0.1", *unit.settings.get("NoProxy", "").split(","), *names]
    stripped = list(dict.fromkeys(entry.strip() for entry in entries if entry.strip()))
    # It excludes everything, but only if it stands alone.
    return "*" if "*" in stripped else ",".join(stripped)


def environment_path(service: str) -> Path:
    return STATE / f"{service}.env"


def write_environment(unit: Unit) -> None:
    """Writes the file from which the unit's `docker run --env=NO_PROXY` takes the value."""
    if "NoProxy" in unit.settings:
        STATE.mkdir(mode=0o755, exist_ok=True)
        value = no_proxy(unit)
        environment_path(unit.service).write_text(f'NO_PROXY="{value}"\nno_proxy="{value}"\n', encoding="utf-8")


def installed_units() -> list[Unit]:
    """Vantage's units of this host, sorted by service."""
    services = sorted(path.stem.removeprefix("vantage-") for path in UNITS.glob("vantage-*.service"))
    return [unit for unit in map(Unit.load, services) if unit.is_vantage]


# The state of a start -------------------------------------------------------------------------------------------------


def digest(paths: list[Path], *extra: str) -> str:
    """One SHA-256 over names and contents of all files below the paths, and over the extra strings."""
    total = hashlib.sha256("\0".join(extra).encode())
    for root in paths:
        for path in filter(Path.is_file, [root, *sorted(root.rglob("*"))]):
            total.update(f"\0{path}\0".encode(errors="surrogateescape"))
            total.update(path.read_bytes())
    return total.hexdigest()


def image_id(image: str) -> str:
    """The local id of the image: a tag that moved is a reason to restart."""
    return run("docker", "image", "inspect", "--format", "{{.Id}}", image).stdout.strip()


def fingerprint(service: str) -> dict[str, Any]:
    """Digests of everything that the service's process reads when it starts."""
    unit, path = Unit.load(service), unit_path(service)
    read_at_start = [path, path.with_suffix(".service.d"), CONFIG / "secrets" / unit.primary]
    return {"unit": digest(read_at_start, image_id(unit.image)), "config": digest([CONFIG / unit.primary])}


def state_path(service: str) -> Path:
    return STATE / f"{service}.json"


def read_state(service: str) -> dict[str, Any]:
    """The fingerprint of the last start and whether it became ready; empty when it never started."""
    try:
        state = dict(json.loads(state_path(service).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}
    # Releases before this one wrote "yes" or "".
    return state | {"ready": bool(state.get("ready"))}


def write_state(service: str, state: dict[str, Any]) -> None:
    STATE.mkdir(mode=0o755, exist_ok=True)
    path = state_path(service)
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(state), encoding="utf-8")
    new.replace(path)


# Readiness ------------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a URL answered: its status, 0 for no answer at all, and the text or the reason."""

    status: int
    text: str
    location: str = ""


def ask(url: str, timeout: float = 2) -> Answer:
    try:
        with OPENER.open(url, timeout=timeout) as response:
            return Answer(response.status, "")
    except urllib.error.HTTPError as error:
        try:
            text = " ".join(error.read(300).decode(errors="replace").split())
        except OSError:
            text = ""
        return Answer(error.code, text, error.headers.get("Location", ""))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(0, str(error) or type(error).__name__)


def problem_of(answer: Answer, below: int = 300) -> str:
    """Empty when the answer makes the service ready, otherwise the reason why not."""
    if 200 <= answer.status < below:
        return ""
    if not answer.status:
        return answer.text
    redirect = f", a redirect to {answer.location}" if answer.location else ""
    return f"answered {answer.status}{redirect}" + (f": {answer.text}" if answer.text and not redirect else "")


def probe(url: str, below: int = 300) -> str:
    """Empty when the URL answers with a status from 200 to `below`, otherwise the reason."""
    return problem_of(ask(url), below)


def listening_addresses(pid: str) -> list[str]:
    """Where the processes of the container's network namespace listen, from the kernel's tables."""
    found = []
    for table, any_address in (("tcp", "0" * 8), ("tcp6", "0" * 32)):
        for line in read_text(Path(f"/proc/{pid}/net/{table}")).splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            # Docker's own resolver listens in each container, on 127.0.0.11.
            if fields[3] == "0A" and address != "0B00007F":
                found.append(f"{'0.0.0.0' if address == any_address else '127.0.0.1'}:{int(port, 16)}")
    return found


def explain_closed_port(found: list[str], port: int) -> str:
    """Why nothing answers on the port, and what to do; empty if something listens there."""
    if f"0.0.0.0:{port}" in found:
        return ""
    if not found:
        return (
            f"No process in the container listens on a port. The app must listen on 0.0.0.0:{port} (environment PORT)."
        )
    outside = sorted({address.rpartition(":")[2] for address in found if address.startswith("0.0.0.0:")}, key=int)
    if not outside:
        return f"The app listens on {found[0]}, inside the container only. Make it listen on 0.0.0.0:{port} (environment PORT)."
    return f"Port {port} is closed; the container listens on {', '.join(outside)}. Set container_port to that."


class Patience:
    """Ends a wait early for what waiting does not resolve: an app on another port, a path that answers 3xx or 4xx."""

    def __init__(self, port: int) -> None:
        self.port, self.kind, self.since = port, "", 0.0

    def verdict(self, answer: Answer, pid: Callable[[], str]) -> str:
        """What to report instead of waiting on; empty to go on. `pid` is that of a process of the container."""
        found = [] if answer.status else listening_addresses(pid())
        closed = explain_closed_port(found, self.port) if found else ""
        kind = "port" if closed else "path" if 300 <= answer.status < 500 else ""
        if kind != self.kind:
            self.kind, self.since = kind, time.monotonic()
        if not kind or time.monotonic() - self.since < HOPELESS_SECONDS:
            return ""
        return closed or f"{problem_of(answer)}. Set health_path to a path that answers 2xx."


def wait_until_ready(service: str) -> str:
    """Waits until the service answers; empty when it does, otherwise the last failure."""
    unit = Unit.load(service)
    url, seconds = unit.ready_url, unit.ready_seconds
    deadline = time.monotonic() + seconds
    patience = Patience(unit.ports[0]["container"]) if unit.owner == APP_OWNER and unit.ports else None

    def container_pid() -> str:
        return run("docker", "container", "inspect", "--format", "{{.State.Pid}}", f"vantage-{service}").stdout.strip()

    while url and (last := problem_of(answer := ask(url), unit.ready_below)):
        if time.monotonic() > deadline:
            return f"{url} was not ready within {seconds:.0f} s: {last}"
        if run("systemctl", "show", unit_name(service), "--property=MainPID", "--value").stdout.strip() == "0":
            return "its process ended"
        if patience and (hopeless := patience.verdict(answer, container_pid)):
            return hopeless if answer.status == 0 else f"GET {url} {hopeless}"
        time.sleep(0.2)
    return ""


def record_ready(service: str) -> None:
    """Waits for a service that was started before; raises UnitError with the diagnosis.

    Where the unit has just waited to the end, which `ready` records, it asks once and does not wait twice.
    """
    unit, problem = Unit.load(service), str(read_state(service).get("problem", ""))
    if not problem:
        problem = wait_until_ready(service)
    elif not probe(unit.ready_url, unit.ready_below):
        problem = ""
    if problem:
        raise UnitError(diagnose(service, problem))
    write_state(
        service, {key: value for key, value in read_state(service).items() if key != "problem"} | {"ready": True}
    )


def diagnose(service: str, problem: str) -> str:
    """The problem, the unit's state and the journal's last lines."""
    unit = unit_name(service)
    # Of this start alone: the cause of an earlier failure may be fixed.
    invocation = run("systemctl", "show", unit, "--property=InvocationID", "--value").stdout.strip()
    shown = ["journalctl", "--lines=30", "--no-pager", "--output=cat"]
    lines = run(*shown, f"_SYSTEMD_INVOCATION_ID={invocation}").stdout.rstrip() if invocation else ""
    lines = lines or run(*shown, "--unit", unit).stdout.rstrip()
    # The unit's own commands have said the same as the problem.
    lines = "\n".join(line for line in lines.splitlines() if not line.startswith("vantage_unit: "))
    result = run("systemctl", "show", unit, "--property=ActiveState,SubState,Result,NRestarts").stdout
    return (
        f"{service} did not start: {problem}\n"
        f"State: {' '.join(result.split())}\n"
        f"Last lines of its journal:\n{lines}\n"
        f"Fix the cause and run site.yml again. More lines: journalctl -u {unit}"
    )


# Commands that a unit calls -------------------------------------------------------------------------------------------


def pre_start(service: str) -> None:
    # A container outlives a killed client; its name must be free.
    run("docker", "rm", "--force", f"vantage-{service}")
    write_environment(Unit.load(service))
    # Before the process reads anything: a file that changes during the start is drift.
    write_state(service, fingerprint(service) | {"ready": False})


def ready(service: str) -> None:
    state = read_state(service)
    if problem := wait_until_ready(service):
        write_state(service, state | {"problem": problem})
        raise UnitError(f"{service}: {problem.rstrip('.')}. It keeps trying; see journalctl -u {unit_name(service)}")
    write_state(service, state | {"ready": True})


def stop(service: str) -> None:
    # Not docker itself in the unit: its output would be log lines of the service.
    run("docker", "stop", f"--time={Unit.load(service).settings['StopSeconds']}", f"vantage-{service}")


def reload_success_time(unit: Unit) -> float:
    """When the engine last loaded a config, by its own metric.

    Infinity for an engine without such a metric, 0 where the metric cannot be read.
    """
    metric = unit.settings.get("ReloadMetric", "")
    if not metric:
        return float("inf")
    try:
        with OPENER.open(unit.settings.get("MetricsUrl", ""), timeout=2) as response:
            for line in response.read().decode(errors="replace").splitlines():
                if line.startswith(metric + " "):
                    return float(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0.0


def reload(service: str) -> None:
    unit, new = Unit.load(service), fingerprint(service)["config"]
    before = reload_success_time(unit)
    if not before:
        raise UnitError(
            f"{service} was not reloaded: no {unit.settings['ReloadMetric']} at {unit.settings['MetricsUrl']}"
        )
    result = run("docker", "kill", "--signal=HUP", f"vantage-{service}")
    if result.returncode:
        raise UnitError(f"{service}: SIGHUP failed: {result.stderr.strip()}")
    deadline = time.monotonic() + RELOAD_SECONDS
    while before != float("inf") and reload_success_time(unit) <= before:
        if time.monotonic() > deadline:
            raise UnitError(f"{service} rejected the new config and keeps the old: journalctl -u {unit_name(service)}")
        time.sleep(0.2)
    if problem := wait_until_ready(service):
        raise UnitError(f"{service}: {problem}")
    write_state(service, read_state(service) | {"config": new, "ready": True})


# Commands that the playbook calls -------------------------------------------------------------------------------------


def systemd_properties(service: str, *names: str) -> dict[str, str]:
    shown = run("systemctl", "show", unit_name(service), f"--property={','.join(names)}").stdout
    return dict(line.split("=", 1) for line in shown.splitlines())


def drift(service: str) -> str:
    """The action that makes the process run the files as they are: start, restart, reload, wait, or empty for none."""
    shown = systemd_properties(service, "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload")
    is_started = shown.get("ActiveState") in {"active", "reloading", "activating"}
    # It failed and systemd pauses before the next try: start it now, so that the journal explains why.
    is_pausing = shown.get("SubState", "").startswith("auto-restart")
    if not is_started or is_pausing or shown.get("UnitFileState") != "enabled":
        return "start"
    state, files = read_state(service), fingerprint(service)
    if state.get("unit") != files["unit"] or shown.get("NeedDaemonReload") == "yes":
        return "restart"
    if state.get("config") != files["config"]:
        return "reload" if Unit.load(service).settings.get("Reload") == "true" else "restart"
    # It runs the right files and is not ready yet: a restart would begin a long replay again.
    return "" if state.get("ready") else "wait"


def apply(service: str, check: bool = False) -> None:
    """Makes the process run the files as they are, waits until it is ready, and prints `SERVICE ACTION`."""
    if action := drift(service):
        if not check:
            take_action(service, action)
        print(service, action)


def take_action(service: str, action: str) -> None:
    unit = unit_name(service)
    run("systemctl", "daemon-reload")
    if action == "wait":
        # The problem was that of an earlier run's wait.
        write_state(service, read_state(service) | {"problem": ""})
        record_ready(service)
        return
    if action == "start":
        run("systemctl", "enable", unit)
        # `systemctl start` leaves a unit that waits between two tries in its old job.
        action = "restart"
    result = run("systemctl", action, unit)
    if result.returncode:
        raise UnitError(diagnose(service, result.stderr.strip()))
    if not read_state(service).get("ready"):
        record_ready(service)


def remove(owner: str, keep: list[str], check: bool = False) -> None:
    """Removes the owner's services except those to keep, and prints `SERVICE remove`. Their data stays."""
    for unit in installed_units():
        if unit.owner != owner or unit.service in keep:
            continue
        print(unit.service, "remove")
        if check:
            continue
        path = unit_path(unit.service)
        run("systemctl", "disable", "--now", path.name)
        path.unlink()
        run("systemctl", "daemon-reload")
        # A unit that ended with an error would be listed as failed until the next boot.
        run("systemctl", "reset-failed", path.name)
        for file in (state_path(unit.service), environment_path(unit.service)):
            file.unlink(missing_ok=True)


def started_before(unit: str, file: Path) -> bool:
    """Whether the unit's process is older than the file, and so has not read it."""
    pid = run("systemctl", "show", unit, "--property=MainPID", "--value").stdout.strip()
    process = Path("/proc") / pid
    if pid in {"", "0"} or not (file.exists() and process.exists()):
        return False
    return process.stat().st_mtime < file.stat().st_mtime


def ensure_docker(subnet: str, gateway: str, check: bool = False) -> None:
    """Runs Docker, lets it and journald read their settings, creates the network `vantage`; prints each change."""

    def change(text: str, *argv: str) -> None:
        if not check:
            run_or_fail(*argv)
        print(text)

    for unit in ("vantage.target", "docker"):
        if run("systemctl", "is-enabled", unit).returncode:
            change(f"{unit} enable", "systemctl", "enable", unit)
    for unit, file in (("systemd-journald", JOURNALD), ("rsyslog", RSYSLOG), ("docker", DAEMON)):
        if started_before(unit, file):
            change(f"{unit} restart", "systemctl", "restart", unit)
    if run("systemctl", "is-active", "docker").returncode:
        change("docker start", "systemctl", "start", "docker")
        # The client would start a stopped Docker through its socket.
        if check:
            return
    form = "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}"
    current = run("docker", "network", "inspect", "--format", form, "vantage").stdout.strip()
    if not current:
        bridge = "com.docker.network.bridge.name=vantage0"
        options = (f"--subnet={subnet}", f"--gateway={gateway}", f"--opt={bridge}")
        try:
            change("network create", "docker", "network", "create", *options, "vantage")
        except UnitError as error:
            # Preflight sees the networks of a Docker that runs; this one may have been stopped.
            raise UnitError(
                f"{error}. Set vantage_network_subnet ({subnet}) and vantage_network_gateway ({gateway}) to a free pair."
            ) from None
    elif current != f"{subnet} {gateway}":
        raise UnitError(
            f"the Docker network vantage has another subnet and gateway: {current} (settings: {subnet} {gateway}). Stop "
            "the services (systemctl stop vantage.target), remove it (docker network rm vantage), run site.yml again."
        )


# The list of what runs ------------------------------------------------------------------------------------------------


def deployment_path(owner: str) -> Path:
    """What vantage_app.py keeps of an owner's last deployment: the previous units, and whether it was rolled back."""
    return CACHE / "deployments" / f"{owner}.json"


def read_deployment(owner: str) -> dict[str, Any]:
    try:
        return dict(json.loads(read_text(deployment_path(owner))))
    except ValueError:
        return {}


def describe(unit: Unit, with_probe: bool = True) -> dict[str, Any]:
    """One element of `list --json`:

    service    str          name without prefix and suffix: `blog-2` of vantage-blog-2.service
    unit       str          name of the unit: `vantage-blog-2.service`
    owner      str          the role that deployed it
    app        str | null   the app it runs, for a service of flask_app; replicas share it
    replica    int | null   1 for the app's first container, 2 and up for the others; null where app is null
    image      str          image reference
    ports      list         {address: str, host: int, container: int}, what it listens on
    readiness  object       {url: str | null, ready: bool | null, problem: str}; ready is null when not probed
    state      object       {active: str, sub: str, restarts: int}, systemd's ActiveState, SubState and NRestarts
    pending    str | null   what `apply` would do: start, restart, reload or wait; null when not probed
    rollback   str          when and why the owner's last deployment was rolled back; empty if it was not
    """
    shown = systemd_properties(unit.service, "ActiveState", "SubState", "NRestarts")
    url = unit.ready_url or None
    problem = probe(url, unit.ready_below) if url and with_probe else ""
    is_app = unit.owner == APP_OWNER
    replica = int(unit.service.rpartition("-")[2]) if unit.primary != unit.service else 1
    return {
        "service": unit.service,
        "unit": unit_name(unit.service),
        "owner": unit.owner,
        "app": unit.primary if is_app else None,
        "replica": replica if is_app else None,
        "image": unit.image,
        "ports": unit.ports,
        "readiness": {"url": url, "ready": not problem if url and with_probe else None, "problem": problem},
        "state": {
            "active": shown.get("ActiveState", "unknown"),
            "sub": shown.get("SubState", "unknown"),
            "restarts": int(shown.get("NRestarts") or 0),
        },
        "pending": (drift(unit.service) or None) if with_probe else None,
        "rollback": str(read_deployment(unit.owner).get("rollback", "")),
    }


def print_table(services: list[dict[str, Any]]) -> None:
    width = max((len(one["service"]) for one in services), default=0)
    for one in services:
        readiness = one["readiness"]
        word = "ready" if readiness["ready"] or not readiness["url"] else "not probed"
        word = f"NOT READY: {readiness['problem']}" if readiness["problem"] else word
        pending = f"pending: {one['pending']}" if one["pending"] else ""
        print(
            f"{one['service']:<{width}}  {one['state']['active']:<12} {word:<10}"
            f"  restarts {one['state']['restarts']}  {pending}".rstrip()
        )
    for text in dict.fromkeys(one["rollback"] for one in services if one["rollback"]):
        print(text)


def is_up(service: dict[str, Any]) -> bool:
    return service["state"]["active"] == "active" and not service["readiness"]["problem"]


# The command line -----------------------------------------------------------------------------------------------------

UNIT_COMMANDS = {"pre-start": pre_start, "ready": ready, "stop": stop, "reload": reload}
# The number of names of each command that does not take exactly one; None: one or more.
NAMES = {"apply": None, "remove": None, "ensure-docker": 2, "status": 0, "list": 0}


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*UNIT_COMMANDS, *NAMES], metavar="COMMAND")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true", help="print what would change, but change nothing")
    parser.add_argument("--json", action="store_true", help="print the list as JSON, for programs")
    parser.add_argument("--no-probe", action="store_true", help="list without readiness and pending")
    arguments = parser.parse_intermixed_args(argv)
    given, allowed = len(arguments.names), NAMES.get(arguments.command, 1)
    if given != allowed and (allowed is not None or not given):
        parser.error(
            f"wrong number of names for {arguments.command}: {given} ({'1 or more' if allowed is None else allowed})"
        )
    return arguments


def execute(arguments: argparse.Namespace) -> bool:
    """Runs the command; False when `status` found a service that is not up."""
    command, names, check = arguments.command, arguments.names, arguments.check
    if command in UNIT_COMMANDS and check:
        print(*names, command)
    elif command in UNIT_COMMANDS:
        UNIT_COMMANDS[command](*names)
    elif command == "apply":
        for service in names:
            apply(service, check)
    elif command == "remove":
        remove(names[0], names[1:], check)
    elif command == "ensure-docker":
        ensure_docker(names[0], names[1], check)
    else:
        services = [describe(unit, not arguments.no_probe) for unit in installed_units()]
        if arguments.json:
            print(json.dumps(services, indent=1))
        else:
            print_table(services)
        return command == "list" or all(map(is_up, services))
    return True


def tolerate_any_text() -> None:
    """Printing never fails: what containers say need not fit into the locale's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(argv: list[str]) -> int:
    tolerate_any_text()
    try:
        return 0 if execute(parse(argv)) else 1
    except UnitError as error:
        print(f"vantage_unit: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
