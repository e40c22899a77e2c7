"""Rules on the host and the engines: targets, restarts, lost signals, memory, disk, alerts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, Findings, sentences
from vantage_tools.report.formats import clock, listed, percent, plural, times, with_counts

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
            title = f"{name.capitalize()} did not answer"
            text = (
                f"Error: {engine['error']}. This report has no {HOLDS[name]}. See journalctl -u vantage-{name}.service."
            )
            yield Finding("silent", "critical", name, title, text, f'up{{service_name="{name}"}}')


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
        what, effect = service, "Its metrics are missing since then."
        if is_partial := len(instances) < total:
            what = f"{len(instances)} of {total} replicas of {service}"
            effect = "The other replicas answer; requests fail for callers that keep to one that is down."
        elif name in dataset.services:
            effect = "Its requests fail, and those of its callers."
        # All of them are down since the last one went down.
        since = max((last_up[key] for one in instances if (key := (name, job, one)) in last_up), default=None)
        length = f"since {clock(since)}" if since else f"for all of the {dataset.last['long']}"
        title = f"{what} {'is' if len(instances) == 1 or not is_partial else 'are'} down {length}"
        units = _units(service, (replica_of(service, one, total) for one in instances), total)
        text = f"Prometheus cannot scrape {listed(instances)}. {effect} See systemctl status {' '.join(units)}."
        query = f'up{{service_name="{name}"}}' if name else f'up{{job="{job}"}}'
        yield Finding("down", "warning" if is_partial else "critical", service, title, text, query, since=since)


# -- Restarts


def restarts(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services that were restarted; the replicas of an app are one finding."""
    processes, units_now = _process_starts(dataset), _unit_restarts(dataset, "short")
    for service in sorted({*processes, *units_now}):
        by_unit, by_process = units_now.get(service, {}), processes.get(service, {})
        counted = by_unit or by_process
        replicas, total = sorted(counted), len(dataset.instances.get(service, []))
        # The most of one replica: one restart of each replica is not a loop.
        starts = max(max(by_unit.get(one, 0.0), by_process.get(one, 0.0)) for one in replicas)
        # Prometheus extrapolates an increase, so it is not a whole number.
        is_loop = round(starts) >= limit.RESTART_LOOP_COUNT
        units = _units(service, replicas, total)
        who = f"{len(replicas)} of {total} replicas of {service}" if len(replicas) < total else service
        title = f"{who}: {'restart loop' if is_loop else f'restarted {times(starts)}'}"
        query = f'changes(process_start_time_seconds{{service_name="{service}"}}[{dataset.short:.0f}s])'
        how = "restarted by an operator or a deployment, not by systemd,"
        if by_unit:
            query = _query_restarts(units, dataset.short)
            how = "restarted by systemd after the process ended by itself,"
        text = sentences(
            f"In the {dataset.last['short']}, {listed(replicas)} {'was' if len(replicas) == 1 else 'were'} {how}",
            f"{_at_most(max(counted.values()), replicas)}. See journalctl -u {' -u '.join(units)}.",
        )
        severity = "critical" if is_loop else "warning" if by_unit else "note"
        yield Finding("restarts", severity, service, title, text, query)
    for service, by_unit in sorted(_unit_restarts(dataset, "base").items()):
        if service not in units_now:
            replicas, starts = sorted(by_unit), max(by_unit.values())
            text = sentences(
                f"In the {dataset.last['long']}, systemd restarted {listed(replicas)} after the process",
                f"ended by itself, {_at_most(starts, replicas)}; not in the {dataset.last['short']}.",
            )
            query = _query_restarts([f"vantage-{one}.service" for one in replicas], dataset.long)
            title, until = f"{service}: restarted {times(starts)}, earlier", dataset.begin("short")
            yield Finding("restarts", "note", service, title, text, query, until=until)


def _at_most(number: float, replicas: list[str]) -> str:
    return f"{times(number)}{' at most' if len(replicas) > 1 else ''}"


def _query_restarts(units: list[str], seconds: float) -> str:
    names = f'name="{units[0]}"' if len(units) == 1 else f'name=~"{"|".join(units)}"'
    return f"increase(node_systemd_service_restart_total{{{names}}}[{seconds:.0f}s])"


def _process_starts(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Return service -> replica -> starts of its process in the short range."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (service, instance), number in dataset.values("starts@short", "service_name", "instance").items():
        if number >= 1:
            found[service][replica_of(service, instance, len(dataset.instances.get(service, [])))] = number
    return found


def _unit_restarts(dataset: Dataset, window: str) -> dict[str, dict[str, float]]:
    """Return service -> replica -> restarts of its unit by systemd in a time range."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for unit, number in dataset.by_label(f"auto_restarts@{window}", "name").items():
        if number >= 0.5:
            name = unit.removeprefix("vantage-").removesuffix(".service")
            app, _, replica = name.rpartition("-")
            is_replica = replica.isdigit() and 2 <= int(replica) <= len(dataset.instances.get(app, []))
            found[app if is_replica and name not in dataset.instances else name][name] = number
    return found


def _is_replica(service: str, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(service)}(-\d+)?", name) is not None


def replica_of(service: str, instance: str, total: int) -> str:
    """Return blog-2 for blog-2:8000, the address for an instance on another host, the service when it is the only one."""
    name = instance.partition(":")[0]
    return service if total < 2 else name if _is_replica(service, name) else instance


def _units(service: str, replicas: Iterable[str], total: int) -> list[str]:
    """Return the units of replicas, or the pattern of all of them when a replica's is unknown."""
    if total < 2:
        return [f"vantage-{service}.service"]
    names = (f"vantage-{one}.service" if _is_replica(service, one) else f"'vantage-{service}*'" for one in replicas)
    return list(dict.fromkeys(names))


# -- Lost signals


def _lost_ranges(dataset: Dataset) -> Iterator[tuple[str, str, str, float | None]]:
    """Yield (time range, severity, its name, until)."""
    yield "short", "warning", f"in the {dataset.last['short']}", None
    yield "base", "note", f"earlier in the {dataset.last['long']}", dataset.begin("short")


def lost_spans(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find spans that never reached Jaeger's store."""
    for window, severity, when, until in _lost_ranges(dataset):
        dropped = [item for item in sorted(dataset.by_label(f"spans_dropped@{window}").items()) if item[1] >= 0.5]
        refused = sum(dataset.values(f"jaeger_refused@{window}").values())
        if not dropped and refused < 0.5:
            continue
        text = f"Jaeger refused or could not store {plural(refused, 'span')}."
        query = "sum (rate(otelcol_exporter_send_failed_spans_total[1m]))"
        if dropped:
            text = f"Jaeger did not accept them. Dropped: {with_counts(dropped)}."
            query = "sum by (service_name, reason) (rate(vantage_spans_dropped_total[1m]))"
        text += " Requests were served, but their traces are incomplete or missing."
        yield Finding("lost_spans", severity, "jaeger", f"Spans were lost {when}", text, query, until=until)


def lost_lines(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find log lines that never reached Loki's store."""
    for window, severity, when, until in _lost_ranges(dataset):
        values = dataset.values(f"lines_dropped@{window}", "service_name", "reason")
        lost = sorted((key, number) for key, number in values.items() if number >= 0.5)
        if lost:
            dropped = with_counts((", ".join(filter(None, key)), number) for key, number in lost)
            text = f"Dropped: {dropped}. The host's journal may still have them."
            query = "sum by (service_name, reason) (rate(promtail_dropped_entries_total[1m]))"
            yield Finding(
                "lost_lines", severity, lost[0][0][0], f"Log lines were lost {when}", text, query, until=until
            )


# -- Limits and alerts


def memory(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find processes close to their container's memory limit."""
    for service, ratio in dataset.by_label("memory").items():
        if ratio >= limit.MAX_MEMORY_USE:
            title = f"{service} uses {percent(ratio)} of its memory limit"
            text = "The kernel kills it at the limit. Raise the memory variable of its role, or find what grows."
            used = f'process_resident_memory_bytes{{service_name="{service}"}}'
            query = f"{used} / on (service_name) service_name:memory_limit:bytes"
            yield Finding("memory", "warning", service, title, text, query)


def disks(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find file systems that are almost full."""
    for device, free in dataset.by_label("disk_free", "device").items():
        if free < limit.MIN_FREE_DISK:
            title = f"{device} has {percent(free)} of its space left"
            text = "A store that cannot write loses what arrives. See docs/operations.md for how to free space."
            yield Finding("disk", "critical", "host", title, text, dataset.query("disk_free"))


def alerts(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find firing alerts that no other rule covers. An alert goes on for minutes after its cause has ended."""
    for alert in dataset.data["metrics"].get("alerts", {}).get("alerts", []):
        labels, annotations = alert["labels"], alert.get("annotations", {})
        name = labels.get("alertname", "")
        if alert.get("state") == "firing" and name not in COVERED_ALERTS:
            severity = "critical" if labels.get("severity") == "critical" else "warning"
            text = sentences(annotations.get("summary", ""), annotations.get("description", ""))
            query = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
            service = labels.get("service_name") or "host"
            yield Finding("alert", severity, service, f"The alert {name} fires", text, query)
