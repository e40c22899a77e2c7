"""Rules on request metrics: errors, refusals, latency, surges, error budgets."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import ByWindow, Dataset, Route, Service, Traffic
from vantage_tools.report.findings import Finding, Findings, describe
from vantage_tools.report.spans import by_operation, self_us
from vantage_tools.report.stats import at_least, wilson


def errors(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services whose requests fail (5xx)."""
    for name, service in dataset.services.items():
        now, before = service.all["short"], service.all["base"]
        failed = now.count("5")
        low = at_least(failed, now.requests)
        if failed < limit.MIN_FAILED_REQUESTS or low < limit.MIN_ERROR_RATE:
            continue
        traces = [t for t in dataset.sample("failed@short") if any(s.service == name and s.failed for s in t.spans)]
        # A failing call without spans below it blames the callee.
        found = [span for trace in traces if (span := trace.failing_span)]
        kinds = Counter((span.callee or span.service, span.label, span.tags.get("error.type", "")) for span in found)
        origin: dict[str, Any] = {}
        for (owner, operation, error), _number in kinds.most_common(1):
            number = sum(number for (other, *_), number in kinds.items() if other == owner)
            origin = {"service": owner, "operation": operation, "traces": number, "total": len(traces)}
            origin["error"] = "" if error.isdigit() else error
        is_blamed = origin and origin["service"] != name and origin["traces"] >= limit.CAUSE_SHARE * origin["total"]
        figures = {
            "now": now,
            "before": before,
            "is_new": before.requests < limit.MIN_FAILED_REQUESTS
            or low > wilson(before.count("5"), before.requests)[1],
            "routes": routes_by_status(service, "5"),
            "origin": origin,
            "ended": None,
        }
        cause = origin["service"] if is_blamed else ""
        ids = [trace.id for trace in traces[:3]]
        yield describe(dataset, "errors", "critical", name, figures, of=cause, traces=ids)


def refusals(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services that refuse (4xx) far more requests than before."""
    calls = dataset.values("calls@short", "service_name", "server_address")
    for name, service in dataset.services.items():
        now, before = service.all["short"], service.all["base"]
        refused = now.count("4")
        usual = before.ratio("4") if before.requests >= limit.MIN_REQUESTS else 0.0
        least = max(limit.MIN_REFUSAL_RATE, limit.REFUSAL_GROWTH * usual)
        if refused < limit.MIN_REFUSED_REQUESTS or at_least(refused, now.requests) < least:
            continue
        # The calling service that passes on most of the refused requests.
        callers = sorted(caller for caller, callee in calls if callee == name and caller in dataset.services)
        passed_on = [c for c in callers if dataset.services[c].all["short"].count("4") >= limit.CAUSE_SHARE * refused]
        statuses = [item for item in now.by_status.items() if item[0].startswith("4")]
        figures = {
            "now": now,
            "usual": usual,
            "statuses": sorted(statuses, key=lambda item: -item[1]),
            "routes": routes_by_status(service, "4"),
        }
        yield describe(dataset, "refusals", "warning", name, figures, of=next(iter(passed_on), ""))


def routes_by_status(service: Service, digit: str) -> list[tuple[str, float]]:
    """Return (route, requests) with a status that begins with this digit, the most frequent first."""
    counts = {" ".join(route): traffics["short"].count(digit) for route, traffics in service.routes.items()}
    return sorted(((route, n) for route, n in counts.items() if n >= 1), key=lambda item: -item[1])


# -- Latency


def latency(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services that are slower than before, or slower than their objective all the time."""
    slow = {name: found for name, service in dataset.services.items() if (found := slow_traffic(dataset, service))}
    grown = self_time_growth(dataset)
    for name, (traffics, is_new, route) in slow.items():
        threshold = dataset.latency_threshold(name)
        is_relevant = grown and grown["seconds"] >= 0.5 * limit.NOTICEABLE_RATIO * threshold
        growth = grown if is_relevant else {}
        cause = growth["service"] if growth and growth["service"] != name and growth["service"] in slow else ""
        now, before = traffics["short"], traffics["base"]
        p95 = now.quantile(0.95) or 0.0
        figures = {
            "now": now,
            "before": before,
            "is_new": is_new,
            "route": route,
            "growth": growth,
            # When the slowest requests were as slow before, the others have changed.
            "is_tail": not is_new or p95 >= limit.P95_GROWTH * (before.quantile(0.95) or 0.0),
            "routes": [] if route else routes_by_latency(dataset.services[name]),
        }
        traces = dataset.sample("slow@short") + dataset.sample("short")
        lengths = {trace.id: trace.us for trace in traces if name in trace.services}
        slowest = sorted(lengths, key=lengths.__getitem__, reverse=True)[:3]
        severity = "critical" if p95 > threshold else "warning"
        yield describe(dataset, "latency", severity, name, figures, of=cause, traces=slowest)


def slow_traffic(dataset: Dataset, service: Service) -> tuple[ByWindow, bool, Route | None] | None:
    """Return what is slow, of a service or of its only slow route, and whether it is new."""
    threshold = dataset.latency_threshold(service.name)
    if is_slower(service.all, threshold):
        return service.all, True, None
    for route, traffics in sorted(service.routes.items(), key=lambda item: -item[1]["short"].requests):
        if is_slower(traffics, threshold):
            return traffics, True, route
    for histogram in (service.all[window].histogram for window in ("short", "base")):
        is_slow = at_least(histogram.above(threshold), histogram.total) > limit.MAX_SLOW_RATE
        if histogram.total < limit.MIN_REQUESTS or not is_slow:
            return None
    return service.all, False, None


def is_slower(traffics: ByWindow, threshold: float) -> bool:
    """Whether requests take longer than before, for certain and noticeably."""
    now, before = traffics["short"], traffics["base"]
    if min(now.histogram.total, before.histogram.total) < limit.MIN_REQUESTS:
        return False
    least = limit.NOTICEABLE_RATIO * threshold
    return any(exceeds_quantile(now, before, quantile) for quantile in limit.COMPARED_QUANTILES) and (
        has_grown(now, before, 0.5, limit.MEDIAN_GROWTH, least) or has_grown(now, before, 0.95, limit.P95_GROWTH, least)
    )


def exceeds_quantile(now: Traffic, before: Traffic, quantile: float) -> bool:
    """Whether far more requests than before are beyond a former quantile.

    Several quantiles are compared: what began before the short range has changed the former ones, too.
    """
    bound = before.histogram.bound_of(quantile)
    if bound is None:
        return False
    usual = before.histogram.above(bound) / before.histogram.total
    low = at_least(now.histogram.above(bound), now.histogram.total)
    return low >= max(limit.MIN_SLOW_RATE, min(2 * usual, (1 + usual) / 2))


def has_grown(now: Traffic, before: Traffic, quantile: float, factor: float, least: float) -> bool:
    """Whether a quantile has grown by a factor and by this many seconds."""
    new, old = now.quantile(quantile) or 0.0, before.quantile(quantile) or 0.0
    return new >= factor * old and new - old >= least


def self_time_growth(dataset: Dataset) -> dict[str, Any]:
    """Return the service whose self time per trace grew most, its worst operation, and by how many seconds."""
    now, before = dataset.sample("short"), dataset.sample("base")
    if len(now) < limit.MIN_SLOW_TRACES:
        return {}
    was = {key: self_us(spans) / len(before) for key, spans in by_operation(before).items()}
    grown = {key: self_us(spans) / len(now) for key, spans in by_operation(now).items()}
    # A service can be slow on all its routes alike: the sum is compared before its worst operation is named.
    total: dict[str, float] = defaultdict(float)
    for key in grown:
        grown[key] -= was.get(key, 0.0)
        total[key[0]] += grown[key]
    owner = max(total, key=lambda service: total[service])
    operation = max((key for key in grown if key[0] == owner), key=lambda key: grown[key])[1]
    return {"service": owner, "operation": operation, "seconds": total[owner] / 1e6}


def routes_by_latency(service: Service) -> list[tuple[str, float]]:
    """Return (route, p95 in seconds), the slowest first."""
    busy = {route: t["short"] for route, t in service.routes.items() if t["short"].requests >= limit.MIN_ROUTE_REQUESTS}
    found = sorted(((traffic.quantile(0.95) or 0.0, route) for route, traffic in busy.items()), reverse=True)
    return [(" ".join(route), p95) for p95, route in found]


# -- Traffic and objectives


def surges(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find routes that get several times as many requests as before."""
    refusing = {finding.service for finding in so_far if finding.kind == "refusals"}
    for name, service in dataset.services.items():
        if name in refusing or service.all["base"].requests < limit.MIN_SURGE_REQUESTS:
            continue
        for route, traffics in service.routes.items():
            now, before = traffics["short"], traffics["base"]
            if now.requests < limit.MIN_SURGE_REQUESTS or before.seconds < dataset.short:
                continue
            expected = before.rate * now.seconds
            chance = expected + limit.SURGE_SIGMAS * expected**0.5
            ratio = now.requests / service.all["short"].requests
            if now.requests > max(limit.SURGE_GROWTH * expected, chance) and ratio > limit.MIN_SURGE_SHARE:
                figures = {"route": route, "now": now, "before": before, "ratio": ratio}
                yield describe(dataset, "surge", "warning", name, figures)


def error_budgets(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find objectives whose error budget is spent, or is burning fast."""
    for slo in dataset.slos:
        is_fast = slo.burns(limit.FAST_BURN_RATE, "5m", "1h") or slo.burns(limit.SLOW_BURN_RATE, "30m", "6h")
        service = dataset.services.get(slo.service)
        enough = service and service.all["long"].requests >= limit.MIN_REQUESTS
        if enough and (is_fast or (slo.left or 0) < 0):
            cause = next((finding.of for finding in so_far if finding.service == slo.service and finding.of), "")
            severity = "critical" if is_fast else "warning"
            yield describe(dataset, "slo", severity, slo.service, {"slo": slo, "is_fast": is_fast}, of=cause)
