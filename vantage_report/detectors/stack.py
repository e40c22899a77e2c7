"""What the machine and the engines show: who is down, who restarts, what is lost, what runs out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vantage_report.analyse import Facts, spoken
from vantage_report.findings import Finding
from vantage_report.words import clock, count, listed, percent, times

FULL = 0.9
DISK_FREE = 0.1
# From so many starts in the short window on it is a loop and no deployment.
LOOP = 3
# Alerts that say what a rule here says in its own words.
SAID_ELSEWHERE = {
    "ErrorSpike": "errors", "LatencySpike": "latency", "TargetDown": "down", "RestartLoop": "restarts",
    "SloAvailabilityFastBurn": "slo", "SloLatencyFastBurn": "slo", "SloAvailabilitySlowBurn": "slo", "SloLatencySlowBurn": "slo",
    "AppDropsSpans": "lost_spans", "JaegerDropsSpans": "lost_spans", "PromtailDropsLines": "lost_lines",
    "LokiDropsLines": "lost_lines", "DiskAlmostFull": "disk",
}  # fmt: skip
HOLDS = {"prometheus": "metrics", "loki": "logs", "jaeger": "traces"}


def silent_engines(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """An engine that did not answer the report."""
    for name, engine in facts.engines.items():
        if not engine["ok"]:
            yield Finding(
                "silent", "critical", name, f"{name.capitalize()} did not answer",
                f"It said: {engine['error']}. This report is without {HOLDS[name]}, and nobody can look at them. "
                f"See journalctl -u vantage-{name}.service.",
                ("prometheus", f'up{{service_name="{name}"}}'),
            )  # fmt: skip


def targets_down(facts: Facts, so_far: tuple[Finding, ...]) -> Iterator[Finding]:
    """Targets that do not answer Prometheus' scrapes now; the replicas of an app are one finding."""
    told = {finding.service for finding in so_far}
    last_up = facts.values("last_up", "service_name", "job", "instance")
    down = [s["metric"] for s in facts.series("up") if float(s["value"][1]) == 0]
    names = {metric.get("service_name", "") for metric in down}
    groups: dict[tuple[str, ...], list[str]] = {}
    for metric in down:
        name, job, instance = (metric.get(label, "") for label in ("service_name", "job", "instance"))
        # Jaeger's second port, with the span metrics, has no name of its own.
        if name not in told and (name or "jaeger" not in names | told):
            groups.setdefault((name, job) if job == "apps" else (name, job, instance), []).append(instance)
    for (name, job, *_), instances in groups.items():
        shown, of = name or job, len(facts.instances[name]) if job == "apps" else 1
        app, some = name in facts.services, len(instances) < of
        # So many are down since the last of them went.
        since = max((last_up[key] for key in ((name, job, one) for one in instances) if key in last_up), default=None)
        when = f"since {clock(since)}" if since else f"for {spoken(facts.long)} or longer"
        text = f"Prometheus gets no answer from {listed(instances)} {when}. "
        if some:
            text += "The others answer; requests fail where a caller keeps to one that does not."
        elif app:
            text += "Requests to it fail, and its callers with them."
        else:
            text += "Its own figures are missing since."
        units = dict.fromkeys(_unit(shown, _replica(shown, instance, of), of) for instance in instances)
        yield Finding(
            "down", "warning" if some else "critical", shown,
            f"{len(instances)} of {of} replicas of {shown} {'does' if len(instances) == 1 else 'do'} not answer {when}"
            if some else f"{shown} is down {when}",
            f"{text} See systemctl status {' '.join(units)}.",
            ("prometheus", f'up{{service_name="{name}"}}' if name else f'up{{job="{job}"}}'), since=since,
        )  # fmt: skip


def restarts(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """Services that were started again: by systemd because they ended, or again and again. Replicas are one finding."""
    starts = _starts(facts)
    again, earlier = _restarted_units(facts, "short"), _restarted_units(facts, "base")
    for name in sorted({*starts, *again}):
        ended = again.get(name, {})
        replicas, of = sorted(ended or starts[name]), len(facts.instances.get(name, []))
        # What one process did: replicas that are each started once are no loop.
        number = max(max(ended.get(one, 0.0), starts.get(name, {}).get(one, 0.0)) for one in replicas)
        # An increase between scrapes is no whole number.
        loop, several = round(number) >= LOOP, len(replicas) > 1
        who, many = (f"{len(replicas)} of {of} replicas of {name}", several) if len(replicas) < of else (name, False)
        process = f"the process{'es' * several} of {listed(replicas)}" if of > 1 else "its process"
        if ended:
            often = times(max(ended.values()))
            done = (
                f"ended by themselves and systemd started them again, each {often} at most"
                if several
                else f"ended by itself and systemd started it again {often}"
            )
        else:
            done = f"{'were' if several else 'was'} started anew{', each' * several} {times(number)}{' at most' * several}, not by systemd's own accord: somebody restarted or deployed it"
        units = list(dict.fromkeys(_unit(name, replica, of) for replica in replicas))
        yield Finding(
            "restarts", "critical" if loop else "warning" if ended else "note", name,
            f"{who} {'restart' if many else 'restarts'} again and again" if loop else f"{who} {'were' if many else 'was'} restarted {times(number)}",
            f"In the last {spoken(facts.short)} {process} {done}. See journalctl {' '.join(f'-u {unit}' for unit in units)}.",
            _started_again(units, facts.short) if ended
            else ("prometheus", f'changes(process_start_time_seconds{{service_name="{name}"}}[{facts.short:.0f}s])'),
        )  # fmt: skip
    for name, ended in sorted(earlier.items()):
        if name not in again:
            often = times(max(ended.values()))
            for_whom = "" if [*ended] == [name] else f" ({listed(sorted(ended))})"
            yield Finding(
                "restarts", "note", name, f"{name} ended by itself {often}, earlier",
                f"Within the last {spoken(facts.long)} systemd started it{for_whom} again {often}; not in the last {spoken(facts.short)}.",
                _started_again([f"vantage-{replica}.service" for replica in sorted(ended)], facts.long), until=facts.end - facts.short,
            )  # fmt: skip


def lost_signals(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """Spans and log lines that never reached their store."""
    for window, severity in (("short", "warning"), ("base", "note")):
        when = (
            f"in the last {spoken(facts.short)}" if window == "short" else f"earlier in the last {spoken(facts.long)}"
        )
        until = None if window == "short" else facts.end - facts.short
        dropped: dict[str, float] = {}
        for (service, _reason), number in facts.values(f"spans_dropped@{window}", "service_name", "reason").items():
            dropped[service] = dropped.get(service, 0.0) + number
        dropped = {service: number for service, number in dropped.items() if number >= 0.5}
        if dropped:
            who = listed([f"{service} {count(number)}" for service, number in sorted(dropped.items())])
            yield Finding(
                "lost_spans", severity, "jaeger", f"Spans were dropped {when}",
                f"Jaeger did not take them: {who}. Requests were served all the same, but their traces have holes or are missing.",
                ("prometheus", "sum by (service_name, reason) (rate(vantage_spans_dropped_total[1m]))"), until=until,
            )  # fmt: skip
        refused = sum(facts.values(f"jaeger_refused@{window}").values())
        if refused >= 0.5 and not dropped:
            yield Finding(
                "lost_spans", severity, "jaeger", f"Jaeger did not keep all spans {when}",
                f"It refused or could not store {count(refused)} spans.",
                ("prometheus", "sum (rate(otelcol_exporter_send_failed_spans_total[1m]))"), until=until,
            )  # fmt: skip
        lines = {k: n for k, n in facts.values(f"lines_dropped@{window}", "service_name", "reason").items() if n >= 0.5}
        if lines:
            who = listed(
                [f"{name} {count(n)}{f' ({reason})' if reason else ''}" for (name, reason), n in sorted(lines.items())]
            )
            yield Finding(
                "lost_lines", severity, next(iter(lines))[0], f"Log lines were lost {when}",
                f"They were given up by {who}; the host's journal may still have them.",
                ("prometheus", "sum by (service_name, reason) (rate(promtail_dropped_entries_total[1m]))"), until=until,
            )  # fmt: skip


def memory(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """A process close to its container's limit."""
    for name, share in facts.by_service("memory").items():
        if share >= FULL:
            yield Finding(
                "memory", "warning", name, f"{name} uses {percent(share)} of its memory limit",
                "Beyond the limit the kernel ends it. Give it more (its role's memory variable) or find what grows.",
                ("prometheus", f'process_resident_memory_bytes{{service_name="{name}"}} / on (service_name) service_name:memory_limit:bytes'),
            )  # fmt: skip


def disks(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """A file system that is almost full."""
    for (device,), free in facts.values("disk_free", "device").items():
        if free < DISK_FREE:
            yield Finding(
                "disk", "critical", "host", f"{device} has {percent(free)} of its room left",
                "Stores that cannot write lose what arrives. docs/operations.md says how to free room.",
                ("prometheus", facts.query("disk_free")),
            )  # fmt: skip


def alerts(facts: Facts, so_far: tuple[Finding, ...]) -> Iterator[Finding]:
    """Firing alerts that no other rule has said in its own words."""
    told = {(finding.kind, finding.service) for finding in so_far}
    for alert in facts.data["metrics"].get("alerts", {}).get("alerts", []):
        labels = alert["labels"]
        name, service = labels.get("alertname", ""), labels.get("service_name", "")
        # An alert goes on for minutes after what it tells of is over: a kind that is told of elsewhere needs no second word.
        if alert.get("state") != "firing" or name == "Watchdog" or name in SAID_ELSEWHERE or ("alert", service) in told:
            continue
        yield Finding(
            "alert", "critical" if labels.get("severity") == "critical" else "warning", service or "host",
            f"The alert {name} fires", " ".join(alert.get("annotations", {}).get(k, "") for k in ("summary", "description")).strip(),
            ("prometheus", f'ALERTS{{alertname="{name}", alertstate="firing"}}'),
        )  # fmt: skip


def _starts(facts: Facts) -> dict[str, dict[str, float]]:
    """service -> replica -> how often its process began in the short window, where it did."""
    found: dict[str, dict[str, float]] = {}
    for (service, instance), number in facts.values("starts@short", "service_name", "instance").items():
        if number >= 1:
            replica = _replica(service, instance, len(facts.instances.get(service, [])))
            replicas = found.setdefault(service, {})
            replicas[replica] = max(number, replicas.get(replica, 0.0))
    return found


def _restarted_units(facts: Facts, window: str) -> dict[str, dict[str, float]]:
    """service -> replica -> how often systemd started its unit again in a window."""
    found: dict[str, dict[str, float]] = {}
    service_of = {one.partition(":")[0]: service for service, many in facts.instances.items() for one in many}
    for (unit,), number in facts.values(f"auto_restarts@{window}", "name").items():
        if number >= 0.5:
            name = unit.removeprefix("vantage-").removesuffix(".service")
            found.setdefault(service_of.get(name) or _app(name, facts) or name, {})[name] = number
    return found


def _app(name: str, facts: Facts) -> str:
    """The app that a unit of another host is a replica of: that host's instances are addresses and name no unit."""
    app, _, number = name.rpartition("-")
    own = name in facts.instances or not number.isdigit()
    return "" if own or not 2 <= int(number) <= len(facts.instances.get(app, [])) else app


def _replica(service: str, instance: str, of: int) -> str:
    """blog-2 of blog-2:8000; the address, where the instance is that of another host; the service, where it is one."""
    if of < 2:
        return service
    name = instance.partition(":")[0]
    return name if re.fullmatch(rf"{re.escape(service)}(-\d+)?", name) else instance


def _unit(service: str, replica: str, of: int) -> str:
    """The unit of a replica, or of all of them where nothing tells which."""
    known = of < 2 or re.fullmatch(rf"{re.escape(service)}(-\d+)?", replica)
    return f"vantage-{replica if of > 1 else service}.service" if known else f"'vantage-{service}*'"


def _started_again(units: list[str], seconds: float) -> tuple[str, str]:
    """The query that shows systemd's own restarts of some units."""
    names = f'name="{units[0]}"' if len(units) == 1 else f'name=~"{"|".join(units)}"'
    return "prometheus", f"increase(node_systemd_service_restart_total{{{names}}}[{seconds:.0f}s])"
