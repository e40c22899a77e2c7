"""Watches the apps for a minute after a deployment, and rolls them back if one ends again and again."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator

import vantage_unit
from vantage_advice import find_cause
from vantage_canary import SEARCHED_LINES, describe_container
from vantage_deploy import failure_path
from vantage_rollback import rollback
from vantage_snapshots import is_replacing
from vantage_unit import Unit, UnitError, unit_name

# An app that ends by itself twice, each time within this long after the swap or the last end, is rolled back.
PROBATION_SECONDS, PROBATION_ENDS = 60.0, 2
# The watch itself ends, whatever happens.
MAX_PROBATION_SECONDS = 600.0


def restarts(service: str) -> int:
    return int(vantage_unit.systemd_properties(service, "NRestarts").get("NRestarts") or 0)


def engine_pid() -> str:
    return vantage_unit.run("systemctl", "show", "docker", "--property=MainPID", "--value").stdout.strip()


def watch(owner: str) -> str:
    """Waits until the apps ran for a minute without an end; the reason for a rollback if one ends again and again."""
    services = [unit.service for unit in vantage_unit.installed_units() if unit.owner == owner]
    begin = calm = time.monotonic()
    first, engine = {service: restarts(service) for service in services}, engine_pid()
    last = dict(first)
    while time.monotonic() - calm < PROBATION_SECONDS and time.monotonic() - begin < MAX_PROBATION_SECONDS:
        time.sleep(1.0)
        if (pid := engine_pid()) != engine:
            # A restart of Docker ends every app: not their fault.
            engine, first, calm = pid, {service: restarts(service) for service in services}, time.monotonic()
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


def last_words(service: str) -> str:
    """The cause of the last end, from the journal."""
    shown = vantage_unit.run(
        "journalctl", f"--lines={SEARCHED_LINES}", "--no-pager", "--output=cat", f"--unit={unit_name(service)}"
    )
    return find_cause(shown.stdout, describe_container(Unit.load(service)).folder)


def check_restarts(owner: str, services: list[str]) -> None:
    """Raises UnitError if a service ended by itself since its deployment, which began within this run."""
    if text := vantage_unit.read_deployment(owner).get("rollback"):
        raise UnitError(text)
    for service in services:
        if count := restarts(service):
            cause = last_words(service)
            raise UnitError(
                f"{service} ended by itself since its deployment, restarts: {count}{f' ({cause})' if cause else ''}. If it "
                "ends again within a minute, the previous version returns. Correct it, or run playbooks/rollback.yml. "
                f"More lines: journalctl -u {unit_name(service)}"
            )


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


@contextlib.contextmanager
def apps_lock() -> Iterator[None]:
    """Keeps the rollback of a probation apart from a run that replaces the apps."""
    vantage_unit.STATE.mkdir(mode=0o755, exist_ok=True)
    with (vantage_unit.STATE / "apps.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
