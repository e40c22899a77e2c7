#!/usr/bin/env python3
"""Asks every service of this host whether it is ready, and follows a request through the stores, each minute.

    run              one check; writes its outcome as metrics for node_exporter, prints what failed
    schedule on|off  starts or stops vantage-verify.timer, and prints the change

The stores are asked on the monitoring host only: /etc/vantage/verify/settings.json has the settings of follow_request.py
there, and nothing on the other hosts. What fails is in the metrics, so `run` itself succeeds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import follow_request
import vantage_unit

SETTINGS = Path("/etc/vantage/verify/settings.json")
METRICS = Path("/run/vantage/metrics/verify.prom")
# A folder for each service that keeps data.
DATA = Path("/var/lib/vantage")
TIMER, SERVICE = "vantage-verify.timer", "vantage-verify.service"
# A service that restarts is not one that hangs: it may answer late, but within this time.
PROBE_SECONDS, PROBE_TIMEOUT, PROBE_PAUSE = 20.0, 5.0, 2.0
# An alert that is not sent again by then has ended: two checks, and some room.
ALERT_SECONDS = 180
# Hops that are missing while the app starts.
APP_HOPS = {"app", "replicas"}
HELP = {
    "vantage_service_ready": "Whether the service answered at its readiness URL.",
    "vantage_service_ready_seconds": "Seconds until it did, or until it was given up.",
    "vantage_verify_hop_success": "Whether the request of the last check was found at this hop.",
    "vantage_verify_hop_seconds": "Seconds until it was found, or until it was given up.",
    "vantage_data_bytes": "Bytes on disk of the service's data.",
    "vantage_verify_last_run_timestamp_seconds": "When the last check ended.",
}


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


def log(text: str, priority: int = 5) -> None:
    """Prints a line with its priority; systemd's own lines about each run are of level 6, and are left out."""
    print(f"<{priority}>{text}", flush=True)


# Services -------------------------------------------------------------------------------------------------------------


def probe(unit: vantage_unit.Unit) -> str:
    """Empty when the service is ready, otherwise the reason."""
    return vantage_unit.problem_of(vantage_unit.ask(unit.ready_url, PROBE_TIMEOUT), unit.ready_below)


def is_starting(service: str) -> bool:
    """Whether its unit still waits for the service to become ready; one that ended and is started again is not waited for."""
    shown = vantage_unit.systemd_properties(service, "SubState", "NRestarts")
    return shown.get("SubState", "").startswith("start") and shown.get("NRestarts") == "0"


def probe_service(unit: vantage_unit.Unit) -> list[Sample]:
    """Whether a service is ready, after it had some seconds to become so; nothing while it starts."""
    begin = time.monotonic()
    while (problem := probe(unit)) and time.monotonic() - begin + PROBE_PAUSE < PROBE_SECONDS:
        time.sleep(PROBE_PAUSE)
    took = time.monotonic() - begin
    if problem and is_starting(unit.service):
        return []
    labels = {"name": vantage_unit.unit_name(unit.service)}
    if unit.owner == vantage_unit.APP_OWNER:
        labels["app"] = unit.primary
    if problem:
        log(f"{unit.service} does not answer at {unit.ready_url}: {problem}", 3)
    return [
        Sample("vantage_service_ready", labels, float(not problem)),
        Sample("vantage_service_ready_seconds", labels, took),
    ]


def sizes() -> list[Sample]:
    """Bytes on disk of each service's data: Loki reports none, and Jaeger counts what its files may grow to."""
    measured = vantage_unit.run("du", "--block-size=1", "--max-depth=1", str(DATA)).stdout
    # The last line is the sum.
    found = (line.split("\t", 1) for line in measured.splitlines()[:-1])
    return [Sample("vantage_data_bytes", {"name": Path(path).name}, float(size)) for size, path in found]


# The request ----------------------------------------------------------------------------------------------------------


def follow(given: dict[str, Any]) -> list[Sample]:
    """The outcome at each hop; none on a host without settings of the stores."""
    if not given:
        return []
    settings = follow_request.Settings(**given)
    verification = follow_request.Verification(settings)
    if settings.log_service:
        # The line that is looked for where the app itself need not log its requests.
        log(f"verify sends request {verification.id}")
    for problem in verification.run():
        log(problem, 3)
    samples = []
    for row in verification.rows:
        if row.found.startswith("- ("):
            continue
        if row.problem and row.hop in APP_HOPS and any(map(is_starting, settings.replicas or [settings.app])):
            continue
        labels = {"app": settings.app, "hop": row.hop}
        samples.append(Sample("vantage_verify_hop_success", labels, float(not row.problem)))
        samples.append(Sample("vantage_verify_hop_seconds", labels, row.seconds))
        # Prometheus, which raises alerts, cannot say that it is down.
        if row.hop == "prometheus" and row.problem and settings.alertmanager:
            send_alert(settings.alertmanager, row.problem)
    return samples


def send_alert(alertmanager: str, problem: str) -> None:
    """Raises VerifyFails for the hop `prometheus` at Alertmanager itself."""
    labels = {"alertname": "VerifyFails", "severity": "critical", "hop": "prometheus", "service_name": "prometheus"}
    annotations = {
        "summary": "verify failed at hop prometheus: Prometheus does not answer, so no other alert can fire.",
        "description": problem,
        "runbook": "Look. journalctl -u vantage-prometheus -n 50. Do. systemctl restart vantage-prometheus.",
    }
    now = time.time()
    starts, ends = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) for moment in (now, now + ALERT_SECONDS))
    alert = {"labels": labels, "annotations": annotations, "startsAt": starts, "endsAt": ends}
    body = json.dumps([alert]).encode()
    request = urllib.request.Request(
        f"{alertmanager}/api/v2/alerts", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with follow_request.OPENER.open(request, timeout=10):
            pass
    except (OSError, http.client.HTTPException) as error:
        log(f"Alertmanager does not take the alert VerifyFails: {error}", 3)


# The commands ---------------------------------------------------------------------------------------------------------


def exposition(samples: list[Sample]) -> str:
    """The samples in the text format of Prometheus, each metric together."""
    lines = []
    for name, text in HELP.items():
        found = [sample for sample in samples if sample.name == name]
        if found:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for sample in found:
            labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
            lines.append(f"{name}{{{labels}}} {sample.value:.3f}" if labels else f"{name} {sample.value:.3f}")
    return "\n".join(lines) + "\n"


def run() -> None:
    """Checks the services and the request at the same time, and writes the metrics."""
    units = [unit for unit in vantage_unit.installed_units() if unit.ready_url]
    with ThreadPoolExecutor(len(units) + 1) as pool:
        followed = pool.submit(follow, json.loads(SETTINGS.read_text(encoding="utf-8")))
        samples = [sample for found in pool.map(probe_service, units) for sample in found]
        samples += followed.result()
    samples += sizes()
    samples.append(Sample("vantage_verify_last_run_timestamp_seconds", {}, time.time()))
    METRICS.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = METRICS.with_suffix(".new")
    new.write_text(exposition(samples), encoding="utf-8")
    # node_exporter's user reads it.
    new.chmod(0o644)
    new.replace(METRICS)


def schedule(state: str, check: bool = False) -> None:
    """Makes the timer run, or not, with its units as they are; prints the change."""

    def properties(unit: str) -> dict[str, str]:
        shown = vantage_unit.run("systemctl", "show", unit, "--property=ActiveState,UnitFileState,NeedDaemonReload")
        return dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)

    timer, service = properties(TIMER), properties(SERVICE)
    runs = timer.get("ActiveState") == "active" and timer.get("UnitFileState") == "enabled"
    is_stale = "yes" in {timer.get("NeedDaemonReload"), service.get("NeedDaemonReload")}
    if state == "on" and (not runs or is_stale):
        commands = [("daemon-reload",), ("enable", TIMER), ("restart", TIMER)]
    elif state == "off" and timer.get("UnitFileState") == "enabled":
        commands = [("disable", "--now", TIMER)]
    else:
        return
    print(TIMER, "start" if state == "on" else "stop")
    if check:
        return
    for command in commands:
        vantage_unit.run_or_fail("systemctl", *command)
    if state == "off":
        # An outcome that is not renewed would look like a check that hangs.
        METRICS.unlink(missing_ok=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="print what would change, but change nothing")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run")
    commands.add_parser("schedule").add_argument("state", choices=["on", "off"])
    arguments = parser.parse_args(argv)
    if arguments.command == "run":
        run()
        return 0
    try:
        schedule(arguments.state, arguments.check)
    except vantage_unit.UnitError as error:
        print(f"vantage_verify: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
