"""Swaps the versions of all apps, or returns to the previous ones of all."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import vantage_unit
from vantage_advice import advise, find_cause
from vantage_canary import describe_container, option, run_before_start, side_arguments
from vantage_snapshots import Snapshot, snapshot_folder
from vantage_unit import Unit, UnitError, read_text, unit_name, unit_path, write_text

PROBATION_UNIT = "vantage-probation"
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def host_ports(unit: Unit) -> set[int]:
    return {port["host"] for port in unit.ports}


def deploy(owner: str, keep: list[str], check: bool = False, rollback_reason: str = "") -> None:
    """Removes the owner's other services and applies those to keep; restores all when anything fails."""
    if check:
        vantage_unit.remove(owner, keep, check)
        for service in keep:
            vantage_unit.apply(service, check)
        return
    owned = [unit.service for unit in vantage_unit.installed_units() if unit.owner == owner]
    if set(owned) <= set(keep) and not any(map(vantage_unit.drift, keep)):
        if not rollback_reason:
            forget_rollback(owner)
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


def failure_path() -> Path:
    """What node_exporter reads while the rollback of a probation has failed; the alert AppRollbackFailed is about it."""
    return vantage_unit.STATE / "metrics/rollback.prom"


def forget_rollback(owner: str) -> None:
    """Ends what `status` and preflight say of a rollback: the apps are those that the settings mean."""
    deployment = vantage_unit.read_deployment(owner)
    if deployment.get("rollback"):
        write_text(vantage_unit.deployment_path(owner), json.dumps(deployment | {"rollback": ""}))


def start_probation(owner: str) -> None:
    """Watches the new versions for a minute, in a unit of its own: the run does not wait for it."""
    run = ("systemd-run", "--quiet", "--collect", f"--unit={PROBATION_UNIT}", "--description=Vantage: watch new apps")
    vantage_unit.run(*run, str(Path(__file__).resolve().with_name("vantage_app.py")), "probation", owner)
