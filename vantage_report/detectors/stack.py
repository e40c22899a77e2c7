"""What the machine and the engines show: who is down, who restarts, what is lost, what runs out."""

from __future__ import annotations

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
    """A target that does not answer Prometheus' scrapes now."""
    told = {finding.service for finding in so_far}
    last_up = facts.values("last_up", "service_name", "job", "instance")
    down = [s["metric"] for s in facts.series("up") if float(s["value"][1]) == 0]
    names = {metric.get("service_name", "") for metric in down}
    for metric in down:
        name = metric.get("service_name", "")
        # Jaeger's second port, with the span metrics, has no name of its own.
        if name in told or (not name and "jaeger" in names | told):
            continue
        shown, instance = name or metric.get("job", ""), metric.get("instance", "")
        since = last_up.get((name, metric.get("job", ""), instance))
        when = f"since {clock(since)}" if since else f"for {spoken(facts.long)} or longer"
        app = name in facts.services
        text = f"Prometheus gets no answer from {instance} {when}. "
        text += (
            "Requests to it fail, and its callers with them." if app else "Its own figures are missing since."
        ) + f" See systemctl status vantage-{shown}.service."
        yield Finding(
            "down", "critical", shown, f"{shown} is down {when}", text,
            ("prometheus", f'up{{service_name="{name}"}}' if name else f'up{{job="{metric.get("job", "")}"}}'), since=since,
        )  # fmt: skip


def restarts(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """Services that were started again: by systemd because they ended, or again and again."""
    starts = facts.by_service("starts@short")
    again = {_service(name): n for (name,), n in facts.values("auto_restarts@short", "name").items() if n >= 0.5}
    earlier = {_service(name): n for (name,), n in facts.values("auto_restarts@base", "name").items() if n >= 0.5}
    for name in sorted({*(n for n, number in starts.items() if number >= 1), *again}):
        by_systemd, seen = again.get(name, 0.0), starts.get(name, 0.0)
        number = max(by_systemd, seen)
        # An increase between scrapes is no whole number.
        loop = round(number) >= LOOP
        if by_systemd:
            text = f"In the last {spoken(facts.short)} its process ended by itself and systemd started it again {times(by_systemd)}."
        else:
            text = f"In the last {spoken(facts.short)} its process was started anew {times(seen)}, not by systemd's own accord: somebody restarted or deployed it."
        text += f" See journalctl -u vantage-{name}.service."
        yield Finding(
            "restarts", "critical" if loop else "warning" if by_systemd else "note", name,
            f"{name} restarts again and again" if loop else f"{name} was restarted {times(number)}", text,
            ("prometheus", f'changes(process_start_time_seconds{{service_name="{name}"}}[{facts.short:.0f}s])'
             if not by_systemd else f'increase(node_systemd_service_restart_total{{name="vantage-{name}.service"}}[{facts.short:.0f}s])'),
        )  # fmt: skip
    for name, number in sorted(earlier.items()):
        if name not in again:
            yield Finding(
                "restarts", "note", name, f"{name} ended by itself {times(number)}, earlier",
                f"Within the last {spoken(facts.long)} systemd started it again {times(number)}; not in the last {spoken(facts.short)}.",
                ("prometheus", f'increase(node_systemd_service_restart_total{{name="vantage-{name}.service"}}[{facts.long:.0f}s])'),
                until=facts.end - facts.short,
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


def _service(unit: str) -> str:
    return unit.removeprefix("vantage-").removesuffix(".service")
