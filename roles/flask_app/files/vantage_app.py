#!/usr/bin/env -S python3 -B
"""Deploys apps so that the running versions keep running when the new ones cannot start.

With --check a command prints what it would change, and changes nothing.

`canary` is the checker of a unit file: it runs before the file takes its place, only where the file differs. `deploy` swaps
the versions, `probation` watches the new ones for a minute, and `rollback` returns to the previous ones.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Installed in the same folder. -B above: no bytecode cache beside the programs.
import vantage_unit
from vantage_advice import Container, advise, find_cause
from vantage_unit import Patience, Unit, UnitError, read_text, unit_name, unit_path, write_text

# A command of before_start that hangs would block the run for ever.
BEFORE_START_SECONDS = 900
# An app that ends by itself twice, each time within this long after the swap or the last end, is rolled back.
PROBATION_SECONDS, PROBATION_ENDS = 60.0, 2
# The watch itself ends, whatever happens.
MAX_PROBATION_SECONDS = 600.0
PROBATION_UNIT = "vantage-probation"
# Lines of the log that are searched for the cause, and shown.
SEARCHED_LINES, SHOWN_LINES = 200, 15


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
    write_text(saved, read_text(unit_path(service)))


def is_replacing() -> bool:
    """Whether a run has written units from which nothing was started yet."""
    return any(snapshot_folder().glob("*.service"))


def restore_file(service: str, text: str) -> None:
    """Writes the unit file as it was; a service that did not exist is stopped and its unit removed."""
    path = unit_path(service)
    if not text:
        vantage_unit.run("systemctl", "disable", "--now", path.name)
        path.unlink(missing_ok=True)
    elif text != read_text(path):
        write_text(path, text)


def restore(check: bool = False) -> None:
    """Restores the unit files that were written since the last deployment. No service was started from them yet."""
    for saved in sorted(snapshot_folder().glob("*.service")):
        text = read_text(saved)
        differs = text != read_text(unit_path(saved.stem))
        if differs:
            print(saved.stem, "restore")
        if check:
            continue
        if differs:
            restore_file(saved.stem, text)
        saved.unlink()
    if not check:
        vantage_unit.run("systemctl", "daemon-reload")


# What failed, and what to do ------------------------------------------------------------------------------------------


def container_log(container: str) -> str:
    """The end of what a container printed to stdout and stderr, in the order of its lines."""
    # Not vantage_unit.run, which keeps the two apart.
    argv = ["docker", "logs", f"--tail={SEARCHED_LINES}", container]
    output = subprocess.run(
        argv, check=False, encoding="utf-8", errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # Without the colours of a terminal.
    return re.sub(r"\x1b\[[0-9;]*m", "", output.stdout).rstrip()


def last_lines(log: str) -> str:
    return "\n".join(line[:600] for line in log.splitlines()[-SHOWN_LINES:]) or "(none)"


def describe_container(unit: Unit) -> Container:
    """The directory the container starts in and its user."""
    folder = vantage_unit.run("docker", "image", "inspect", "--format", "{{.Config.WorkingDir}}", unit.image)
    return Container(folder.stdout.strip() or "/", option(unit, "user"))


def option(unit: Unit, name: str) -> str:
    start = f"--{name}="
    return next((word.removeprefix(start) for word in unit.docker_arguments if word.startswith(start)), "")


def explain_failure(unit: Unit, what: str, problem: str, log: str, *further: str) -> str:
    """What failed and where, the last lines of the log, and then what to do."""
    container = describe_container(unit)
    cause, advice = find_cause(log, container.folder), advise(log, container)
    head = f"{what} failed: {problem}" + (f"\n{cause}" if cause else "")
    remedies = [advice] if advice else [text for text in further if text]
    return "\n".join([head, f"Last lines of its log:\n{last_lines(log)}", *remedies])


# Containers beside the running version ---------------------------------------------------------------------------------


def canary_name(service: str) -> str:
    return f"vantage-{service}-canary"


def canary_folder(service: str) -> Path:
    """The directory of the canary's data. A fixed name: what a killed run left is found and removed by the next."""
    return vantage_unit.CACHE / "canary" / service


def split_at_image(unit: Unit, words: list[str]) -> tuple[list[str], list[str]]:
    """The options of `docker run`, and what follows them: the image and the arguments of the app, which may look alike."""
    position = words.index(unit.image) if unit.image in words else len(words)
    return words[:position], words[position:]


def side_arguments(unit: Unit, name: str) -> list[str]:
    """Arguments of `docker run` for the same container under another name, without host port and network alias."""
    dropped = {"--rm", "--publish", "--network-alias", "--log-driver"}
    options, program = split_at_image(unit, unit.docker_arguments)
    options = [word for word in options if word.partition("=")[0] not in dropped]
    options = [f"--name={name}" if word.startswith("--name=") else word for word in options]
    return ["--detach", "--log-driver=local", *options, *program]


def canary_arguments(unit: Unit, data: Path) -> list[str]:
    """`side_arguments` without the data of the running version.

    Two containers on one data folder can corrupt an SQLite file, so every writable volume is an empty folder in `data`.
    """
    arguments, volumes, user = [], 0, option(unit, "user")
    options, program = split_at_image(unit, side_arguments(unit, canary_name(unit.service)))
    for word in options:
        name, _, value = word.partition("=")
        if name == "--volume" and "ro" not in "".join(value.split(":", 2)[2:3]).split(","):
            folder = data / str(volumes)
            # Made once, for the command before the start and for the canary.
            if not folder.exists():
                folder.mkdir(mode=0o750)
                if user:
                    uid, gid = user.split(":")
                    shutil.chown(folder, int(uid), int(gid))
            word, volumes = f"--volume={folder}:{value.split(':')[1]}", volumes + 1
        arguments.append(word)
    return [*arguments, *program]


def remove_container(name: str) -> None:
    vantage_unit.run("docker", "rm", "--force", "--volumes", name)


def run_before_start(unit: Unit, arguments: list[str], what: str) -> None:
    """Runs the app's command before_start with the arguments of its container; raises UnitError if it fails."""
    name = f"vantage-{unit.service}-before-start"
    given, _ = split_at_image(unit, arguments)
    options = [word for word in given if word.partition("=")[0] not in {"--entrypoint", "--name"}]
    # Its image's own command and arguments belong to the entrypoint that a shell replaces.
    shell = [f"--name={name}", "--entrypoint=/bin/sh", unit.image, "-c", unit.before_start]
    try:
        remove_container(name)
        started = vantage_unit.run("docker", "run", *options, *shell)
        if started.returncode:
            raise UnitError(f"{what} failed: docker run: {started.stderr.strip()}")
        try:
            status = vantage_unit.run("docker", "wait", name, timeout=BEFORE_START_SECONDS).stdout.strip()
        except subprocess.TimeoutExpired:
            status = f"none within {BEFORE_START_SECONDS} s"
        if status != "0":
            problem = f"`{unit.before_start}` ended with status {status}."
            fix = "Correct before_start, or what it needs: its environment, secrets and data are those of the app."
            raise UnitError(explain_failure(unit, what, problem, container_log(name), fix))
    finally:
        remove_container(name)


# The canary -----------------------------------------------------------------------------------------------------------


def wait_for_canary(unit: Unit) -> str:
    """Empty when the container is ready in time, otherwise the reason and the fix."""
    container, port = canary_name(unit.service), unit.ports[0]["container"]
    path = urllib.parse.urlsplit(unit.ready_url)._replace(scheme="", netloc="").geturl() or "/"
    begin, patience = time.monotonic(), Patience(port)
    while True:
        state = inspect(container, "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Pid}}").split()
        if state[:1] not in (["running"], ["created"]):
            killed = " Out of memory: the kernel killed it at its memory limit." if state[2:3] == ["true"] else ""
            return f"its process ended with status {state[1] if state[1:] else '?'}.{killed}"
        address = inspect(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        answer = vantage_unit.ask(f"http://{address}:{port}{path}", timeout=5)
        problem = vantage_unit.problem_of(answer, unit.ready_below)
        if not problem:
            return ""
        hopeless = patience.verdict(answer, state[3].strip)
        if hopeless or time.monotonic() - begin > unit.ready_seconds:
            if answer.status:
                return f"GET {path} {hopeless or problem}"
            return hopeless or f"not ready after {unit.ready_seconds:.0f} s."
        time.sleep(0.3)


def explain_silence(unit: Unit) -> str:
    """Why the canary's port is closed; empty if its process ended or listens there."""
    pid = inspect(canary_name(unit.service), "{{.State.Pid}}")
    if pid in ("", "0"):
        return ""
    return vantage_unit.explain_closed_port(vantage_unit.listening_addresses(pid), unit.ports[0]["container"])


def needs_canary(unit: Unit) -> bool:
    # Where no app runs there is nothing to protect, and apps that depend on each other could not start one by one.
    others = [other.service for other in vantage_unit.installed_units() if other.owner == unit.owner]
    return unit.settings.get("Canary") != "no" and any(map(is_active, others))


def run_canary(service: str, candidate: Path, check: bool = False) -> None:
    """Starts what the unit file describes beside the running version; raises UnitError unless it answers in time."""
    unit = Unit(service, read_text(candidate))
    if check:
        print(service, "canary")
        return
    save_snapshot(service)
    if not needs_canary(unit):
        return
    container, data = canary_name(service), canary_folder(service)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o755, parents=True)
    what = f"the canary of {service} ({unit.image})"
    try:
        remove_container(container)
        arguments = canary_arguments(unit, data)
        empty = ""
        if any(data.iterdir()):
            empty = (
                "The canary never sees the app's data: its data directories are empty. If the app needs tables or files "
                "at its start, set before_start to the command that creates them, health_path to a path that needs "
                "none, or trial to false."
            )
        if unit.before_start:
            run_before_start(unit, arguments, f"before_start of {service} ({unit.image}), with empty data,")
        started = vantage_unit.run("docker", "run", *arguments)
        if started.returncode:
            raise UnitError(f"{what} failed: docker run: {started.stderr.strip()}")
        if problem := wait_for_canary(unit):
            is_explained = any(word in problem for word in ("container_port", "health_path", "0.0.0.0"))
            # After the log: it mostly says why nothing listens.
            remedies = [] if is_explained else [explain_silence(unit), empty]
            raise UnitError(explain_failure(unit, what, problem, container_log(container), *remedies))
    finally:
        remove_container(container)
        shutil.rmtree(data, ignore_errors=True)


# The deployment -------------------------------------------------------------------------------------------------------


class Snapshot:
    """A service as it was before the deployment."""

    def __init__(self, service: str) -> None:
        saved = snapshot_path(service)
        self.service = service
        self.unit = Unit(service, read_text(saved if saved.exists() else unit_path(service)))
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
        except Exception as error:  # the others are restarted all the same
            return str(error)
        return ""


def host_ports(unit: Unit) -> set[int]:
    return {port["host"] for port in unit.ports}


def deploy(owner: str, keep: list[str], check: bool = False, rollback_reason: str = "") -> None:
    """Removes the owner's other services and applies those to keep; restores all when anything fails."""
    if check:
        vantage_unit.remove(owner, keep, check)
        for service in keep:
            vantage_unit.apply(service, check)
        return
    if not rollback_reason:
        tell_rollback(owner)
    owned = [unit.service for unit in vantage_unit.installed_units() if unit.owner == owner]
    if set(owned) <= set(keep) and not any(map(vantage_unit.drift, keep)):
        return
    if not rollback_reason:
        vantage_unit.run("systemctl", "stop", f"{PROBATION_UNIT}.service")
    snapshots = [Snapshot(service) for service in dict.fromkeys([*owned, *keep])]
    try:
        # Migrations of a version that is rolled back to ran when it was new.
        for service in [] if rollback_reason else keep:
            prepare(service)
        vantage_unit.remove(owner, keep)
        for snapshot in snapshots:
            # A service must release its old port before another takes it.
            current = Unit(snapshot.service, read_text(unit_path(snapshot.service)))
            if snapshot.was_active and snapshot.service in keep and host_ports(snapshot.unit) - host_ports(current):
                vantage_unit.run("systemctl", "stop", unit_name(snapshot.service))
        for service in keep:
            apply(service)
    except BaseException as error:
        # Whatever it is, a bug or a signal included: the apps that ran before run again.
        with ignored_signals():
            lines = restore_all(snapshots)
        if isinstance(error, UnitError):
            raise UnitError("\n".join([str(error), *lines])) from None
        print(*lines, sep="\n", file=sys.stderr)
        raise
    shutil.rmtree(snapshot_folder(), ignore_errors=True)
    record_deployment(owner, snapshots, rollback_reason)
    prune_builds(snapshots)
    if keep and not rollback_reason and any(snapshot.was_active for snapshot in snapshots):
        start_probation(owner)


def prepare(service: str) -> None:
    """Runs before_start of an app whose new version is about to start, on its data."""
    unit = Unit.load(service)
    if unit.before_start and unit.primary == service and vantage_unit.drift(service) in {"start", "restart"}:
        folder = Path("/var/lib/vantage") / service
        make_data_directory(unit, folder)
        what = f"before_start of {service} ({unit.image})"
        run_before_start(unit, side_arguments(unit, service), what)
        print(service, "before_start")


def make_data_directory(unit: Unit, folder: Path) -> None:
    """Makes the app's data directory as its unit will: Docker would make a missing one as root's."""
    user = option(unit, "user").partition(":")
    if any(word.startswith(f"--volume={folder}:") for word in unit.docker_arguments):
        install = ("install", "--directory", "--mode=0750", f"--owner={user[0]}", f"--group={user[2]}")
        vantage_unit.run_or_fail(*install, str(folder))


def apply(service: str) -> None:
    """Applies a service; a failure says what mends it."""
    try:
        vantage_unit.apply(service)
    except UnitError as error:
        container = describe_container(Unit.load(service))
        added = [find_cause(str(error), container.folder), advise(str(error), container)]
        raise UnitError("\n".join([str(error), *filter(None, added)])) from None


@contextlib.contextmanager
def ignored_signals() -> Iterator[None]:
    """A second signal must not stop the rollback."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def restore_all(snapshots: list[Snapshot]) -> list[str]:
    """Restores all services and returns the lines of the report; without an active one there is nothing to restore."""
    active = [snapshot for snapshot in snapshots if snapshot.was_active]
    if not active:
        return []
    problems = {snapshot.service: "" for snapshot in active}
    # New services first: they may hold a port of the others.
    for snapshot in sorted(snapshots, key=lambda snapshot: bool(snapshot.unit.text)):
        try:
            snapshot.restore()
        except Exception as error:  # the others are restored all the same
            problems[snapshot.service] = f"{snapshot.service} was not restored: {error}"
    vantage_unit.run("systemctl", "daemon-reload")
    shutil.rmtree(snapshot_folder(), ignore_errors=True)
    for snapshot in active:
        problems[snapshot.service] = snapshot.restart() or problems[snapshot.service]
    lost = [service for service, problem in problems.items() if problem]
    if lost:
        return [*filter(None, problems.values()), f"Rollback incomplete: {', '.join(lost)} did not start again."]
    return [f"Rolled back: {', '.join(problems)}."]


def prune_builds(snapshots: list[Snapshot]) -> None:
    """Removes images built here that neither a unit nor its previous version needs: a build takes 100 MB and more."""
    units = [snapshot.unit for snapshot in snapshots] + vantage_unit.installed_units()
    needed = {unit.image.removeprefix("docker.io/") for unit in units}
    # They inherit the label of the base image. The next build of the app needs them, and removes older ones itself.
    packages = tuple(f"vantage/{unit.primary}:packages-" for unit in units)
    template = "{{.Repository}}:{{.Tag}}"
    built = vantage_unit.run("docker", "image", "ls", "--filter=label=vantage.source", "--format", template).stdout
    for tag in built.split():
        name = tag.removeprefix("docker.io/")
        # Only tags that end in a source digest: another tag is the user's own.
        if re.search(r"[:-][0-9a-f]{12}$", name) and name not in needed and not name.startswith(packages):
            # Docker refuses while a container uses it.
            vantage_unit.run("docker", "image", "rm", tag)


# Rollback of a deployment that succeeded -------------------------------------------------------------------------------


def record_deployment(owner: str, snapshots: list[Snapshot], rollback: str) -> None:
    """Keeps the previous units for `rollback`, across reboots; nothing if no app ran before."""
    units = {one.service: {"text": one.unit.text, "image": one.image_id} for one in snapshots if one.unit.text}
    if not any(one.was_active for one in snapshots):
        units = {}
    path = vantage_unit.deployment_path(owner)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    write_text(new, json.dumps({"units": units, "rollback": rollback}))
    new.replace(path)
    failure_path().unlink(missing_ok=True)


def tell_rollback(owner: str) -> None:
    """Says once, to the next run, that the last deployment was rolled back; `status` says it until then."""
    deployment = vantage_unit.read_deployment(owner)
    if deployment.get("rollback"):
        print(deployment["rollback"], file=sys.stderr)
        write_text(vantage_unit.deployment_path(owner), json.dumps(deployment | {"rollback": ""}))


def rollback(owner: str, reason: str = "", check: bool = False) -> None:
    """Returns to the apps as they were before the last deployment. Used again, it returns to those of now."""
    units: dict[str, Any] = vantage_unit.read_deployment(owner).get("units", {})
    if not units:
        raise UnitError(
            "no previous version is kept: nothing was deployed over a running app, or the last deployment was rolled back "
            "by itself. Deploy the version you want with site.yml. Nothing was changed."
        )
    if missing := [
        unit["image"] for unit in units.values() if unit["image"] and not vantage_unit.image_id(unit["image"])
    ]:
        raise UnitError(
            f"the image of the previous version is not on this host: {', '.join(missing)}. "
            "Deploy that version with site.yml. Nothing was changed."
        )
    installed = [unit for unit in vantage_unit.installed_units() if unit.owner == owner]
    now = {unit.service: unit.image for unit in installed}
    if now.keys() == units.keys() and not any(differs(service, unit) for service, unit in units.items()):
        raise UnitError(
            "the last deployment changed only secrets, which a rollback does not restore. Nothing was changed. "
            "Correct them and run site.yml again."
        )
    if not reason and not check:
        # It would judge the previous versions.
        vantage_unit.run("systemctl", "stop", f"{PROBATION_UNIT}.service")
    for service, unit in units.items():
        print(service, "rollback")
        if not check:
            save_snapshot(service)
            write_text(unit_path(service), unit["text"])
            if unit["image"]:
                vantage_unit.run("docker", "tag", unit["image"], Unit(service, unit["text"]).image)
    if check:
        vantage_unit.remove(owner, list(units), check)
        return
    vantage_unit.run("systemctl", "daemon-reload")
    images = ", ".join(f"{service} {image}" for service, image in now.items())
    text = f"Rolled back at {time.strftime('%Y-%m-%d %H:%M:%S %Z')}: {reason or 'by command'}. Version before the rollback: {images}."
    deploy(owner, list(units), rollback_reason=text)


def differs(service: str, unit: dict[str, Any]) -> bool:
    """Whether the previous unit, or the image that it started, differs from the present one."""
    is_image_kept = not unit["image"] or unit["image"] == vantage_unit.image_id(Unit(service, unit["text"]).image)
    return unit["text"] != read_text(unit_path(service)) or not is_image_kept


def start_probation(owner: str) -> None:
    """Watches the new versions for a minute, in a unit of its own: the run does not wait for it."""
    run = ("systemd-run", "--quiet", "--collect", f"--unit={PROBATION_UNIT}", "--description=Vantage: watch new apps")
    vantage_unit.run(*run, str(Path(__file__).resolve()), "probation", owner)


def restarts(service: str) -> int:
    return int(vantage_unit.systemd_properties(service, "NRestarts").get("NRestarts") or 0)


def engine_pid() -> str:
    return vantage_unit.run("systemctl", "show", "docker", "--property=MainPID", "--value").stdout.strip()


def watch(owner: str) -> str:
    """Waits until the apps ran for a minute without an end; the reason for a rollback if one ends again and again."""
    services = [unit.service for unit in vantage_unit.installed_units() if unit.owner == owner]
    begin = calm = time.monotonic()
    first, last, engine = dict(map(count_restarts, services)), dict(map(count_restarts, services)), engine_pid()
    while time.monotonic() - calm < PROBATION_SECONDS and time.monotonic() - begin < MAX_PROBATION_SECONDS:
        time.sleep(1.0)
        if (pid := engine_pid()) != engine:
            # A restart of Docker ends every app: not their fault.
            engine, first, calm = pid, dict(map(count_restarts, services)), time.monotonic()
        for service in services:
            count = restarts(service)
            # A start by hand restarts the count.
            first[service] = min(first[service], count)
            if count > last[service]:
                calm = time.monotonic()
            last[service] = count
            # While a run replaces the apps, what fails is its own matter.
            if count - first[service] >= PROBATION_ENDS and not is_replacing():
                return f"{service} ended {count - first[service]} times within {time.monotonic() - begin:.0f} s of its deployment"
    return ""


def count_restarts(service: str) -> tuple[str, int]:
    return service, restarts(service)


def last_words(service: str) -> str:
    """The cause of the last end, from the journal."""
    shown = vantage_unit.run(
        "journalctl", f"--lines={SEARCHED_LINES}", "--no-pager", "--output=cat", f"--unit={unit_name(service)}"
    )
    unit = Unit.load(service)
    return find_cause(shown.stdout, describe_container(unit).folder)


def probation(owner: str) -> None:
    """Rolls back if an app of the last deployment ends again and again."""
    while reason := watch(owner):
        with apps_lock():
            # The lock may be that of a run which has begun since.
            if is_replacing():
                continue
            service = reason.partition(" ")[0]
            cause = last_words(service)
            try:
                rollback(owner, f"{reason} ({cause})" if cause else reason)
            except Exception:
                write_failure(service)
                raise
            return


def failure_path() -> Path:
    """What node_exporter reads while the rollback of a probation has failed; the alert AppRollbackFailed is about it."""
    return vantage_unit.STATE / "metrics/rollback.prom"


def write_failure(service: str) -> None:
    path, app = failure_path(), Unit.load(service).primary
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(
        "# HELP vantage_app_rollback_failed Whether the app ended again and again and could not be rolled back.\n"
        "# TYPE vantage_app_rollback_failed gauge\n"
        f'vantage_app_rollback_failed{{app="{app}",name="{unit_name(service)}"}} 1\n',
        encoding="utf-8",
    )
    # node_exporter's user reads it.
    new.chmod(0o644)
    new.replace(path)


# The command line -----------------------------------------------------------------------------------------------------


SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def end(number: int, _: object) -> None:
    """A signal is an exception, so that containers are removed and apps restored on the way out."""
    raise SystemExit(128 + number)


@contextlib.contextmanager
def apps_lock() -> Iterator[None]:
    """Keeps the rollback of a probation apart from a run that replaces the apps."""
    vantage_unit.STATE.mkdir(mode=0o755, exist_ok=True)
    with (vantage_unit.STATE / "apps.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    commands.add_parser("restore", help="restore the unit files written since the last deployment")
    command = commands.add_parser("rollback", help="return to the apps as they were before the last deployment")
    command.add_argument("owner", nargs="?", default=vantage_unit.APP_OWNER, metavar="OWNER")
    command = commands.add_parser(
        "probation", help="watch the apps for a minute, roll back if one ends again and again"
    )
    command.add_argument("owner", metavar="OWNER")
    arguments = parser.parse_args(argv)
    check = arguments.check
    actions: dict[str, Callable[[], None]] = {
        "canary": lambda: run_canary(arguments.service, arguments.candidate, check),
        "deploy": lambda: deploy(arguments.owner, arguments.keep, check),
        "restore": lambda: restore(check),
        "rollback": lambda: rollback(arguments.owner, check=check),
        "probation": lambda: None if check else probation(arguments.owner),
    }
    vantage_unit.tolerate_any_text()
    # The probation takes it for its rollback alone; nothing is kept in check mode.
    with contextlib.nullcontext() if check or arguments.command == "probation" else apps_lock():
        try:
            actions[arguments.command]()
        except UnitError as error:
            print(f"vantage_app: {error}", file=sys.stderr)
            return 1
        except Exception:  # a bug: what was changed is restored, and the operator reads all of it
            traceback.print_exc()
            return 1
    return 0


if __name__ == "__main__":
    for signal_number in SIGNALS:
        signal.signal(signal_number, end)
    sys.exit(main(sys.argv[1:]))
