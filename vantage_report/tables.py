"""The report's tables, as rows of words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vantage_report.analyse import FEW, Facts, Pattern, Traffic, spoken
from vantage_report.spans import shares
from vantage_report.words import clock, count, percent, rate, seconds


@dataclass
class Table:
    """Headings and rows; `numbers` are the columns whose text stands at the right."""

    head: list[str]
    rows: list[list[str]]
    numbers: tuple[int, ...] = ()


def by_service(facts: Facts) -> Table:
    """Both windows side by side, a line for each service and window."""
    head = ["Service", "Window", "Requests", "Per second", "Fails (5xx)", "Refuses (4xx)", "p50", "p95", "p99"]
    rows = []
    for name, service in facts.services.items():
        for window in ("short", "long"):
            shown = f"last {spoken(getattr(facts, window))}"
            rows.append([name if window == "short" else "", shown, *_figures(service.all[window])])
    return Table(head, rows, (2, 3, 4, 5, 6, 7, 8))


def by_route(facts: Facts, most: int = 14) -> Table:
    """The routes that are asked for most, in the short window and before."""
    short, before = f"last {spoken(facts.short)}", "before"
    head = ["Service", "Route", f"Requests, {short}", f"Fails, {short}", before, f"p95, {short}", before]
    found = [
        (traffics["short"].requests + traffics["base"].requests, name, route, traffics)
        for name, service in facts.services.items()
        for route, traffics in service.routes.items()
    ]
    rows = []
    for _, name, route, traffics in sorted(found, key=lambda item: -item[0])[:most]:
        now, was = traffics["short"], traffics["base"]
        rows.append(
            [
                name, " ".join(route), count(now.requests),
                percent(now.share("5")) if now.requests >= 0.5 else "–", percent(was.share("5")) if was.requests >= 0.5 else "–",
                seconds(now.quantile(0.95)), seconds(was.quantile(0.95)),
            ]
        )  # fmt: skip
    return Table(head, rows, (2, 3, 4, 5, 6))


def differences(facts: Facts) -> list[str]:
    """How the two windows differ, a sentence for each service."""
    found = []
    for name, service in facts.services.items():
        now, long = service.all["short"], service.all["long"]
        if long.requests < FEW:
            continue
        if now.requests < 1:
            found.append(
                f"{name}: no request in the last {spoken(facts.short)}; {rate(long.rate)} per second over the last {spoken(facts.long)}."
            )
            continue
        parts = [_moved("requests per second", now.rate, long.rate, rate, 1.25)]
        parts.append(_moved("failing", now.share("5"), long.share("5"), percent, 1.5))
        for quantile in (50, 95):
            new, old = now.quantile(quantile / 100), long.quantile(quantile / 100)
            if new is not None and old is not None:
                parts.append(_moved(f"p{quantile}", new, old, seconds, 1.25))
        found.append(f"{name}: {'; '.join(parts)}.")
    return found


def _moved(what: str, now: float, long: float, shown: Any, factor: float) -> str:
    if shown(now) == shown(long) or (long and 1 / factor < now / long < factor):
        return f"{what} {shown(now)}, as over the whole window"
    return f"{what} {shown(now)}, {'up from' if now > long else 'down from'} {shown(long)}"


def time_by_service(facts: Facts) -> Table:
    """Self time of the sampled traces by service and operation."""
    now, before = facts.sample("short"), facts.sample("base")
    whole = {
        window: sum(s.self_us for s in shares(traces)) or 1 for window, traces in (("short", now), ("base", before))
    }
    was = {(s.service, s.operation): s for s in shares(before)}
    rows = []
    for share in (shares(now) or shares(before))[:12]:
        old = was.get((share.service, share.operation))
        rows.append(
            [
                share.service, share.operation + (" (database)" if share.database else ""), count(share.spans),
                percent(share.self_us / whole["short" if now else "base"]), percent(old.self_us / whole["base"]) if old and before else "–",
                seconds(share.self_us / share.spans / 1e6), seconds(old.self_us / old.spans / 1e6) if old else "–",
            ]
        )  # fmt: skip
    head = ["Service", "Operation", "Spans", "Share of all own time", "before", "Own time each", "before"]
    return Table(head, rows, (2, 3, 4, 5, 6))


def patterns(facts: Facts, apps: bool) -> list[Pattern]:
    """Patterns of the apps or of everything else, those that were said most."""
    return [p for p in facts.patterns if (p.service in facts.apps) == apps and p.example]


def slos(facts: Facts) -> Table:
    """Objectives, what is left of their budgets and how fast they are spent."""
    head = ["Service", "Objective", "Budget left", "Spent in 5 min", "1 h", "6 h", "State"]
    rows = []
    for slo in facts.slos:
        what = "without failure" if slo.kind == "availability" else f"within {seconds(slo.threshold)}"
        burns = [f"{slo.burn[w]:.1f}×" if w in slo.burn else "–" for w in ("5m", "1h", "6h")]
        if slo.left is None:
            state = "unknown"
        elif slo.left < 0:
            state = "overspent"
        else:
            state = "burning fast" if min(slo.burn.get("5m", 0), slo.burn.get("1h", 0)) > 14.4 else "kept"
        left = "–" if slo.left is None else percent(slo.left) if slo.left >= 0 else f"overspent by {percent(-slo.left)}"
        rows.append([slo.service, f"{slo.objective * 100:g} % {what}", left, *burns, state])
    return Table(head, rows, (2, 3, 4, 5))


def targets(facts: Facts) -> Table:
    """Every target: whether it answers, how much of the time it did, and starts."""
    share = {w: facts.values(f"up_share@{w}", "service_name", "job", "instance") for w in ("short", "long")}
    starts, memory = facts.values("starts@long", "service_name", "instance"), facts.by_service("memory")
    rows = []
    for series in facts.series("up"):
        metric = series["metric"]
        key = tuple(metric.get(label, "") for label in ("service_name", "job", "instance"))
        # What has no name of its own is told by its instance, and so is a replica.
        name = key[0] if key[0] and len(facts.instances.get(key[0], [])) < 2 else f"{key[0] or key[1]} ({key[2]})"
        started = starts.get((key[0], key[2]))
        rows.append(
            [
                name, "up" if float(series["value"][1]) else "DOWN", percent(share["short"].get(key, 0.0)), percent(share["long"].get(key, 0.0)),
                count(started) if started is not None else "–", percent(memory[key[0]]) if key[0] in memory else "–",
            ]
        )  # fmt: skip
    head = [
        "Target",
        "Now",
        f"Answered, last {spoken(facts.short)}",
        f"last {spoken(facts.long)}",
        "Starts",
        "Memory of its limit",
    ]
    return Table(head, sorted(rows), (2, 3, 4, 5))


def volume(facts: Facts) -> Table:
    """Lines by service, by level in both windows."""
    short, long = facts.volume("short"), facts.volume("long")
    rows = []
    for service in sorted({service for service, _ in long} | {service for service, _ in short}):
        cells = [service]
        for found in (short, long):
            bad = sum(n for (s, level), n in found.items() if s == service and level in ("error", "critical", "fatal"))
            odd = sum(n for (s, level), n in found.items() if s == service and level.startswith("warn"))
            cells += [count(sum(n for (s, _), n in found.items() if s == service)), count(odd), count(bad)]
        rows.append(cells)
    head = ["Service"]
    for window in ("short", "long"):
        head += [f"Lines, last {spoken(getattr(facts, window))}", "warnings", "errors"]
    return Table(head, rows, (1, 2, 3, 4, 5, 6))


FIELDS = (
    "level",
    "service",
    "http_request_method",
    "http_route",
    "http_response_status_code",
    "duration_ms",
    "trace_id",
)


def filtered(facts: Facts, most: int = 12) -> Table:
    """JSON lines by field: those of failed requests, or of all where none failed."""
    rows = []
    for at, fields in parsed(facts)[:most]:
        shown = [str(fields.get(name, "")) for name in FIELDS]
        rows.append([clock(at), *shown[:2], " ".join(shown[2:4]).strip(), *shown[4:6], shown[6]])
    return Table(["Time (UTC)", "Level", "Service", "Route", "Status", "Duration, ms", "Trace"], rows, (4, 5))


def parsed(facts: Facts) -> list[tuple[float, dict[str, Any]]]:
    """The JSON lines behind `filtered`, parsed."""
    found = []
    for at, line, _ in facts.lines("failed") or facts.lines("raw"):
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict):
            found.append((at, fields))
    return found


def _figures(traffic: Traffic) -> list[str]:
    return [
        count(traffic.requests), rate(traffic.rate), percent(traffic.share("5")), percent(traffic.share("4")),
        *(seconds(traffic.quantile(q)) for q in (0.5, 0.95, 0.99)),
    ]  # fmt: skip
