"""Rules on the host and the engines: targets, restarts, lost signals, memory, disk, alerts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, Findings, describe

# Alerts that another rule reports in its own words.
COVERED_ALERTS = {
    *("ErrorSpike", "LatencySpike", "TargetDown", "RestartLoop", "DiskAlmostFull", "Watchdog"),
    *(f"Slo{kind}{speed}Burn" for kind in ("Availability", "Latency") for speed in ("Fast", "Slow")),
    *("AppDropsSpans", "JaegerDropsSpans", "PromtailDropsLines", "LokiDropsLines"),
}
HOLDS = {"prometheus": "metrics", "loki": "logs", "jaeger": "traces"}


def silent_engines(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find engines that did not answer the report."""
    for name, engine in dataset.engines.items():
        if not engine["ok"]:
            figures = {"error": engine["error"], "holds": HOLDS[name]}
            yield describe(dataset, "silent", "critical", name, figures)


def targets_down(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find targets that Prometheus cannot scrape; the replicas of an app are one finding."""
    last_up = dataset.values("last_up", "service_name", "job", "instance")
    reported = {finding.service for finding in so_far}
    down = [target for target, is_up in dataset.targets.items() if not is_up]
    names = {name for name, _, _ in down} | reported
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, job, instance in down:
        # Jaeger's second port, with the span metrics, has no service name.
        if name not in reported and (name or "jaeger" not in names):
            groups[(name, job) if job == "apps" else (name, job, instance)].append(instance)
    for (name, job, *_), instances in groups.items():
        service, total = name or job, len(dataset.instances[name]) if job == "apps" else 1
        is_partial = len(instances) < total
        figures = {
            "name": name,
            "instances": instances,
            "total": total,
            "is_partial": is_partial,
            "is_app": name in dataset.services,
            "units": _distinct(unit_of(service, replica_of(service, one, total), total) for one in instances),
        }
        # All of them are down since the last one went down.
        since = max((last_up[key] for one in instances if (key := (name, job, one)) in last_up), default=None)
        yield describe(dataset, "down", "warning" if is_partial else "critical", service, figures, since=since)


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


# -- Restarts


def restarts(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services that were restarted; the replicas of an app are one finding."""
    processes, units_now = _process_starts(dataset), _unit_restarts(dataset, "short")
    for service in sorted({*processes, *units_now}):
        by_unit, by_process = units_now.get(service, {}), processes.get(service, {})
        replicas, total = sorted(by_unit or by_process), len(dataset.instances.get(service, []))
        # The most of one replica: one restart of each replica is not a loop.
        starts = max(max(by_unit.get(one, 0.0), by_process.get(one, 0.0)) for one in replicas)
        # Prometheus extrapolates an increase, so it is not a whole number.
        is_loop = round(starts) >= limit.RESTART_LOOP_COUNT
        units = _distinct(unit_of(service, replica, total) for replica in replicas)
        figures = {
            "replicas": replicas,
            "total": total,
            "starts": starts,
            "reported": max((by_unit or by_process).values()),
            "by_systemd": bool(by_unit),
            "is_loop": is_loop,
            "units": units,
            "unit_query": _unit_query(units),
        }
        yield describe(
            dataset, "restarts", "critical" if is_loop else "warning" if by_unit else "note", service, figures
        )
    for service, by_unit in sorted(_unit_restarts(dataset, "base").items()):
        if service not in units_now:
            replicas = sorted(by_unit)
            query = _unit_query([f"vantage-{one}.service" for one in replicas])
            figures = {"replicas": replicas, "starts": max(by_unit.values()), "unit_query": query}
            yield describe(dataset, "restarts_earlier", "note", service, figures, until=dataset.begin("short"))


def _process_starts(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Return service -> replica -> starts of its process in the short range."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (service, instance), number in dataset.values("starts@short", "service_name", "instance").items():
        if number >= 1:
            replica = replica_of(service, instance, len(dataset.instances.get(service, [])))
            found[service][replica] = max(number, found[service].get(replica, 0.0))
    return found


def _unit_restarts(dataset: Dataset, window: str) -> dict[str, dict[str, float]]:
    """Return service -> replica -> restarts of its unit by systemd in a time range."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    service_of = {one.partition(":")[0]: service for service, many in dataset.instances.items() for one in many}
    for unit, number in dataset.by_label(f"auto_restarts@{window}", "name").items():
        if number >= 0.5:
            name = unit.removeprefix("vantage-").removesuffix(".service")
            found[service_of.get(name) or _app_of(name, dataset) or name][name] = number
    return found


def _app_of(name: str, dataset: Dataset) -> str:
    """Return the app of a replica on another host: the instances of that host are addresses and name no unit."""
    app, _, number = name.rpartition("-")
    is_own = name in dataset.instances or not number.isdigit()
    return "" if is_own or not 2 <= int(number) <= len(dataset.instances.get(app, [])) else app


def _unit_query(units: list[str]) -> str:
    """Return the beginning of the query for systemd's restarts of some units, up to the range."""
    names = f'name="{units[0]}"' if len(units) == 1 else f'name=~"{"|".join(units)}"'
    return f"increase(node_systemd_service_restart_total{{{names}}}"


def _is_replica(service: str, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(service)}(-\d+)?", name) is not None


def replica_of(service: str, instance: str, total: int) -> str:
    """Return blog-2 for blog-2:8000, the address for an instance on another host, the service when it is the only one."""
    name = instance.partition(":")[0]
    return service if total < 2 else name if _is_replica(service, name) else instance


def unit_of(service: str, replica: str, total: int) -> str:
    """Return the unit of a replica, or the pattern of all of them when the replica's is unknown."""
    if total < 2:
        return f"vantage-{service}.service"
    return f"vantage-{replica}.service" if _is_replica(service, replica) else f"'vantage-{service}*'"


# -- Lost signals


def _lost_ranges(dataset: Dataset) -> Iterator[tuple[str, str, float | None]]:
    """Yield (time range, severity, until)."""
    yield "short", "warning", None
    yield "base", "note", dataset.begin("short")


def lost_spans(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find spans that never reached Jaeger's store."""
    for window, severity, until in _lost_ranges(dataset):
        dropped = [item for item in sorted(dataset.by_label(f"spans_dropped@{window}").items()) if item[1] >= 0.5]
        refused = sum(dataset.values(f"jaeger_refused@{window}").values())
        if dropped or refused >= 0.5:
            figures = {"dropped": dropped, "refused": refused}
            yield describe(dataset, "lost_spans", severity, "jaeger", figures, until=until)


def lost_lines(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find log lines that never reached Loki's store."""
    for window, severity, until in _lost_ranges(dataset):
        values = dataset.values(f"lines_dropped@{window}", "service_name", "reason")
        lost = {key: number for key, number in values.items() if number >= 0.5}
        if lost:
            dropped = [(", ".join(filter(None, key)), number) for key, number in sorted(lost.items())]
            yield describe(dataset, "lost_lines", severity, next(iter(lost))[0], {"dropped": dropped}, until=until)


# -- Limits and alerts


def memory(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find processes close to their container's memory limit."""
    for service, ratio in dataset.by_label("memory").items():
        if ratio >= limit.MAX_MEMORY_USE:
            yield describe(dataset, "memory", "warning", service, {"ratio": ratio})


def disks(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find file systems that are almost full."""
    for device, free in dataset.by_label("disk_free", "device").items():
        if free < limit.MIN_FREE_DISK:
            figures = {"device": device, "free": free, "query": dataset.query("disk_free")}
            yield describe(dataset, "disk", "critical", "host", figures)


def alerts(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find firing alerts that no other rule covers. An alert goes on for minutes after its cause has ended."""
    for alert in dataset.data["metrics"].get("alerts", {}).get("alerts", []):
        labels, annotations = alert["labels"], alert.get("annotations", {})
        name = labels.get("alertname", "")
        if alert.get("state") == "firing" and name not in COVERED_ALERTS:
            severity = "critical" if labels.get("severity") == "critical" else "warning"
            said = [annotations[key] for key in ("summary", "description") if annotations.get(key)]
            figures = {"alert": name, "annotations": said}
            yield describe(dataset, "alert", severity, labels.get("service_name") or "host", figures)
