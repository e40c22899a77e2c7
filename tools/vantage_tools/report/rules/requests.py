"""Rules on request metrics: errors, refusals, latency, surges, error budgets."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import ByWindow, Dataset, Route, Service, Traffic
from vantage_tools.report.findings import Finding, Findings, describe
from vantage_tools.report.spans import shares
from vantage_tools.report.stats import at_least, wilson


def errors(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services whose requests fail (5xx)."""
    for service in dataset.services.values():
        now, before = service.all["short"], service.all["base"]
        failed = now.count("5")
        low = at_least(failed, now.requests)
        if failed < limit.MIN_FAILED_REQUESTS or low < limit.MIN_ERROR_RATE:
            continue
        origin = failure_origin(dataset, service.name)
        blamed = origin and origin.service != service.name and origin.traces >= limit.CAUSE_SHARE * origin.total
        is_new = before.requests < limit.MIN_FAILED_REQUESTS or low > wilson(before.count("5"), before.requests)[1]
        yield describe(
            dataset, "errors", "critical", service.name, of=origin.service if origin and blamed else "",
            traces=[trace.id for trace in dataset.failed_traces(service.name)[:3]],
            now=now, before=before, is_new=is_new, routes=routes_by_status(service, "5"), origin=origin,
            ended=None,
        )  # fmt: skip


@dataclass
class Origin:
    """The service in which most failing traces of a service begin to fail, with its most frequent failure."""

    service: str
    operation: str
    error: str
    traces: int
    total: int


def failure_origin(dataset: Dataset, service: str) -> Origin | None:
    """Return where the failures of a service begin; a failing call without spans below it blames the callee."""
    failed = dataset.failed_traces(service)
    found = [span for trace in failed if (span := trace.failing_span)]
    kinds = Counter((span.callee or span.service, span.label, span.tags.get("error.type", "")) for span in found)
    if not kinds:
        return None
    (owner, operation, error), _ = kinds.most_common(1)[0]
    traces = sum(number for (name, _, _), number in kinds.items() if name == owner)
    return Origin(owner, operation, "" if error.isdigit() else error, traces, len(failed))


def refusals(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services that refuse (4xx) far more requests than before."""
    for service in dataset.services.values():
        now, before = service.all["short"], service.all["base"]
        usual = before.ratio("4") if before.requests >= limit.MIN_REQUESTS else 0.0
        least = max(limit.MIN_REFUSAL_RATE, limit.REFUSAL_GROWTH * usual)
        if now.count("4") >= limit.MIN_REFUSED_REQUESTS and at_least(now.count("4"), now.requests) >= least:
            statuses = {status: number for status, number in now.by_status.items() if status.startswith("4")}
            yield describe(
                dataset, "refusals", "warning", service.name, of=refused_caller(dataset, service), now=now, usual=usual,
                statuses=sorted(statuses.items(), key=lambda item: -item[1]), routes=routes_by_status(service, "4"),
            )  # fmt: skip


def refused_caller(dataset: Dataset, service: Service) -> str:
    """Return the calling service that passes on most of the refused requests."""
    callers = {caller for caller, callee in dataset.values("calls@short", "service_name", "server_address") if callee == service.name}  # fmt: skip
    least = limit.CAUSE_SHARE * service.all["short"].count("4")
    known = (dataset.services[caller] for caller in sorted(callers) if caller in dataset.services)
    return next((caller.name for caller in known if caller.all["short"].count("4") >= least), "")


def routes_by_status(service: Service, digit: str) -> list[tuple[str, float]]:
    """Return (route, requests) with a status that begins with this digit, the most frequent first."""
    counts = {" ".join(route): traffics["short"].count(digit) for route, traffics in service.routes.items()}
    return sorted(((route, n) for route, n in counts.items() if n >= 1), key=lambda item: -item[1])


# -- Latency


def latency(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services that are slower than before, or slower than their objective all the time."""
    slow = {name: found for name, service in dataset.services.items() if (found := latency_change(dataset, service))}
    growth = self_time_growth(dataset)
    for name, change in slow.items():
        threshold = dataset.latency_threshold(name)
        relevant = growth if growth and growth.seconds >= 0.5 * limit.NOTICEABLE_RATIO * threshold else None
        cause = relevant.service if relevant and relevant.service != name and relevant.service in slow else ""
        now, before = change.traffics["short"], change.traffics["base"]
        p95 = now.quantile(0.95) or 0.0
        yield describe(
            dataset, "latency", "critical" if p95 > threshold else "warning", name, of=cause, traces=slowest_traces(dataset, name),
            now=now, before=before, is_new=change.is_new, route=change.route, growth=relevant,
            # When the slowest requests were as slow before, the others have changed.
            is_tail=not change.is_new or p95 >= limit.P95_GROWTH * (before.quantile(0.95) or 0.0),
            routes=[] if change.route else routes_by_latency(dataset.services[name]),
        )  # fmt: skip


@dataclass
class LatencyChange:
    """Slow requests of a service, or of its only slow route; new, or as slow before."""

    traffics: ByWindow
    is_new: bool
    route: Route | None = None


def latency_change(dataset: Dataset, service: Service) -> LatencyChange | None:
    """Return what is slow in a service."""
    threshold = dataset.latency_threshold(service.name)
    if is_slower(service.all, threshold):
        return LatencyChange(service.all, True)
    for route, traffics in sorted(service.routes.items(), key=lambda item: -item[1]["short"].requests):
        if is_slower(traffics, threshold):
            return LatencyChange(traffics, True, route)
    if all(is_beyond_threshold(service.all[window], threshold) for window in ("short", "base")):
        return LatencyChange(service.all, False)
    return None


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


def is_beyond_threshold(traffic: Traffic, threshold: float) -> bool:
    """Whether too many requests take longer than the latency threshold."""
    histogram = traffic.histogram
    enough = histogram.total >= limit.MIN_REQUESTS
    return enough and at_least(histogram.above(threshold), histogram.total) > limit.MAX_SLOW_RATE


@dataclass
class Growth:
    """More self time per trace than before, in seconds, of a service and its operation that grew most."""

    service: str
    operation: str
    seconds: float


def self_time_growth(dataset: Dataset) -> Growth | None:
    """Return the service whose self time grew most."""
    now, before = dataset.sample("short"), dataset.sample("base")
    if len(now) < limit.MIN_SLOW_TRACES:
        return None
    was = {(s.service, s.operation): s.self_us / len(before) for s in shares(before)}
    grown = {
        (s.service, s.operation): s.self_us / len(now) - was.get((s.service, s.operation), 0.0) for s in shares(now)
    }
    # A service can be slow on all its routes alike: the sum is compared before its worst operation is named.
    total: dict[str, float] = defaultdict(float)
    for (service, _), more in grown.items():
        total[service] += more
    owner = max(total, key=lambda service: total[service])
    operation = max((key for key in grown if key[0] == owner), key=lambda key: grown[key])[1]
    return Growth(owner, operation, total[owner] / 1e6)


def routes_by_latency(service: Service) -> list[tuple[str, float]]:
    """Return (route, p95 in seconds), the slowest first."""
    busy = {route: t["short"] for route, t in service.routes.items() if t["short"].requests >= limit.MIN_ROUTE_REQUESTS}
    found = sorted(((traffic.quantile(0.95) or 0.0, route) for route, traffic in busy.items()), reverse=True)
    return [(" ".join(route), p95) for p95, route in found]


def slowest_traces(dataset: Dataset, service: str) -> list[str]:
    """Return the ids of the three slowest traces through a service."""
    traces = dataset.extremes("slow", "short") + dataset.sample("short")
    found = {trace.id: trace for trace in traces if service in trace.services}
    return sorted(found, key=lambda trace_id: -found[trace_id].us)[:3]


# -- Traffic and objectives


def surges(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find routes that get several times as many requests as before."""
    refusing = {finding.service for finding in so_far if finding.kind == "refusals"}
    for service in dataset.services.values():
        if service.name in refusing or service.all["base"].requests < limit.MIN_SURGE_REQUESTS:
            continue
        for route, traffics in service.routes.items():
            now, before = traffics["short"], traffics["base"]
            if now.requests < limit.MIN_SURGE_REQUESTS or before.seconds < dataset.short:
                continue
            expected = before.rate * now.seconds
            chance = expected + limit.SURGE_SIGMAS * expected**0.5
            ratio = now.requests / service.all["short"].requests
            if now.requests > max(limit.SURGE_GROWTH * expected, chance) and ratio > limit.MIN_SURGE_SHARE:
                yield describe(
                    dataset, "surge", "warning", service.name, route=route, now=now, before=before, ratio=ratio
                )


def error_budgets(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find objectives whose error budget is spent, or is burning fast."""
    for slo in dataset.slos:
        is_fast = slo.burns(limit.FAST_BURN_RATE, "5m", "1h") or slo.burns(limit.SLOW_BURN_RATE, "30m", "6h")
        service = dataset.services.get(slo.service)
        enough = service and service.all["long"].requests >= limit.MIN_REQUESTS
        if enough and (is_fast or (slo.left or 0) < 0):
            cause = next((finding.of for finding in so_far if finding.service == slo.service and finding.of), "")
            severity = "critical" if is_fast else "warning"
            yield describe(dataset, "slo", severity, slo.service, of=cause, slo=slo, is_fast=is_fast)
