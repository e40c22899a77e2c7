"""Rules on request metrics: errors, refusals, latency, surges, error budgets."""

from __future__ import annotations

from collections import Counter, defaultdict

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import ByWindow, Dataset, Route, Service, Traffic
from vantage_tools.report.findings import Finding, Findings, sentences
from vantage_tools.report.formats import count, listed, percent, rate, seconds, with_counts
from vantage_tools.report.spans import Trace, by_operation, self_us
from vantage_tools.report.stats import at_least, wilson

METRIC = "http_server_request_duration_seconds"


def by_source(dataset: Dataset, service: str, query: str) -> str:
    """Return the query; of a service without metrics of its own with those of its spans or access lines instead."""
    found = dataset.services.get(service)
    if found is None:
        return query
    if found.of_lines:
        query = query.replace(', http_route="_unknown"', "")
        query = query.replace(f"{METRIC}_count{{", "promtail_custom_http_server_requests_total{")
        return query.replace(f"{METRIC}_bucket{{", f"promtail_custom_{METRIC}_bucket{{")
    if not found.of_spans:
        return query
    for own, of_spans in (("_count", "calls_total"), ("_bucket", "duration_milliseconds_bucket")):
        query = query.replace(f"{METRIC}{own}{{", f'traces_span_metrics_{of_spans}{{span_kind="SPAN_KIND_SERVER", ')
    return f"{query} / 1000" if query.startswith("histogram_quantile") else query


def errors(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services whose requests fail (5xx)."""
    for name, service in dataset.services.items():
        now, before = service.all["short"], service.all["base"]
        failed = now.count("5")
        low = at_least(failed, now.requests)
        if failed < limit.MIN_FAILED_REQUESTS or low < limit.MIN_ERROR_RATE:
            continue
        was = "there are no earlier requests to compare with"
        if before.requests:
            is_new = before.requests < limit.MIN_FAILED_REQUESTS or low > wilson(before.count("5"), before.requests)[1]
            was = f"before: {percent(before.ratio('5'))}{'' if is_new else ' (no change)'}"
        traces = [t for t in dataset.sample("failed@short") if any(s.service == name and s.failed for s in t.spans)]
        cause, origin = _origin(name, traces)
        text = sentences(
            f"In the {dataset.last['short']}, {count(failed)} of {count(now.requests)} requests failed; {was}.",
            f"Routes: {with_counts(routes_by_status(service, '5'))}.",
            origin,
        )
        title = f"{name} fails {percent(now.ratio('5'))} of its requests"
        query, ids = _query_by_status(dataset, name, "5.."), [trace.id for trace in traces[:3]]
        yield Finding("errors", "critical", name, title, text, query, of=cause, traces=ids)


def _origin(name: str, traces: list[Trace]) -> tuple[str, str]:
    """Return the other service that is to blame, if any, and a sentence on where the traces begin to fail."""
    found = [span for trace in traces if (span := trace.failing_span)]
    if not found:
        return "", ""
    # A failing call without spans below it blames the callee.
    kinds = Counter((span.callee or span.service, span.label, span.error_type) for span in found)
    (owner, operation, error), _ = kinds.most_common(1)[0]
    number = sum(number for (other, *_), number in kinds.items() if other == owner)
    where = f"{owner} ({operation}{f', with {error}' if error else ''})"
    is_blamed = owner != name and number >= limit.CAUSE_SHARE * len(traces)
    return (
        owner if is_blamed else "",
        f"In {number} of {len(traces)} failing traces, the failure begins in {where}.",
    )


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
        cause = next(iter(passed_on), "")
        statuses = [item for item in now.by_status.items() if item[0].startswith("4")]
        text = sentences(
            f"In the {dataset.last['short']}, {count(refused)} of {count(now.requests)} requests were",
            f"answered with 4xx; before: {percent(usual)}.",
            f"Statuses: {with_counts(sorted(statuses, key=lambda item: -item[1]))}.",
            f"Routes: {with_counts(routes_by_status(service, '4'))}.",
            f"The requests come from {cause}."
            if cause
            else "Clients ask for what does not exist or is not valid; the service itself works.",
        )
        title = f"{name} rejects {percent(now.ratio('4'))} of its requests (4xx)"
        yield Finding("refusals", "warning", name, title, text, _query_by_status(dataset, name, "4.."), of=cause)


def _query_by_status(dataset: Dataset, service: str, statuses: str) -> str:
    labels = "http_request_method, http_route, http_response_status_code"
    selector = f'service_name="{service}", http_response_status_code=~"{statuses}"'
    query = f"sum by ({labels}) (increase({METRIC}_count{{{selector}}}[{dataset.short:.0f}s]))"
    return by_source(dataset, service, query)


def routes_by_status(service: Service, digit: str) -> list[tuple[str, float]]:
    """Return (route, requests) with a status that begins with this digit, the most frequent first."""
    counts = {" ".join(route): traffics["short"].count(digit) for route, traffics in service.routes.items()}
    return sorted(((route, n) for route, n in counts.items() if n >= 1), key=lambda item: -item[1])


# -- Latency


def latency(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find services that are slower than before, or slower than their objective all the time."""
    slow = {name: found for name, service in dataset.services.items() if (found := slow_traffic(dataset, service))}
    owner, operation, grown = self_time_growth(dataset)
    for name, (traffics, is_new, route) in slow.items():
        threshold = dataset.latency_threshold(name)
        is_explained = grown >= 0.5 * limit.NOTICEABLE_RATIO * threshold
        cause = owner if is_explained and owner != name and owner in slow else ""
        now, before = traffics["short"], traffics["base"]
        median, p95, median_before, p95_before = (t.quantile(q) for t in (now, before) for q in (0.5, 0.95))
        # When the slowest requests were as slow before, the others have changed.
        is_tail = not is_new or (p95 or 0.0) >= limit.P95_GROWTH * (p95_before or 0.0)
        where = f"It waits for {owner}" if cause else f"The time is spent in {owner} itself"
        slowest = [f"{route} ({seconds(p95)})" for route, p95 in routes_by_latency(dataset.services[name])]
        text = sentences(
            f"In the {dataset.last['short']}: p50 {seconds(median)} (before: {seconds(median_before)}),",
            f"p95 {seconds(p95)} (before: {seconds(p95_before)}).",
            f"Slowest routes by p95: {listed(slowest)}." if slowest and not route else "",
            f"{where}: {operation} has {seconds(grown)} more self time per trace than before." if is_explained else "",
        )
        title = f"{name} is {'slower than before' if is_new else 'slow, as before'}"
        selector = f'service_name="{name}"'
        if route:
            title += f" on {' '.join(route)}"
            selector += f', http_request_method="{route[0]}", http_route="{route[1]}"'
        title += f": p95 {seconds(p95)}" if is_tail else f": median {seconds(median)}"
        traces = dataset.sample("slow@short") + dataset.sample("short")
        lengths = {trace.id: trace.us for trace in traces if name in trace.services}
        ids = sorted(lengths, key=lengths.__getitem__, reverse=True)[:3]
        severity = "critical" if (p95 or 0.0) > threshold else "warning"
        query = by_source(dataset, name, query_p95(selector, dataset.short))
        yield Finding("latency", severity, name, title, text, query, of=cause, traces=ids)


def query_p95(selector: str, seconds: float) -> str:
    """Return the query for the p95 latency over some seconds."""
    return f"histogram_quantile(0.95, sum by (le) (rate({METRIC}_bucket{{{selector}}}[{seconds:.0f}s])))"


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


def self_time_growth(dataset: Dataset) -> tuple[str, str, float]:
    """Return the service whose self time per trace grew most, its worst operation, and by how many seconds."""
    now, before = dataset.sample("short"), dataset.sample("base")
    if len(now) < limit.MIN_SLOW_TRACES:
        return "", "", 0.0
    was = {key: self_us(spans) / len(before) for key, spans in by_operation(before).items()}
    grown = {key: self_us(spans) / len(now) - was.get(key, 0.0) for key, spans in by_operation(now).items()}
    # A service can be slow on all its routes alike: the sum is compared before its worst operation is named.
    total: dict[str, float] = defaultdict(float)
    for (service, _), growth in grown.items():
        total[service] += growth
    owner = max(total, key=lambda service: total[service])
    operation = max((key for key in grown if key[0] == owner), key=lambda key: grown[key])[1]
    return owner, operation, total[owner] / 1e6


def routes_by_latency(service: Service) -> list[tuple[str, float]]:
    """Return (route, p95 in seconds), the slowest first."""
    busy = {route: t["short"] for route, t in service.routes.items() if t["short"].requests >= limit.MIN_ROUTE_REQUESTS}
    found = [(" ".join(route), traffic.quantile(0.95) or 0.0) for route, traffic in busy.items()]
    return sorted(found, key=lambda item: -item[1])


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
                title = f"{' '.join(route)} of {name} gets far more requests than before"
                text = sentences(
                    f"{rate(now.rate)} requests/s in the {dataset.last['short']};",
                    f"before: {rate(before.rate)}. The route has {percent(ratio)} of the service's requests.",
                )
                query = f'sum by (http_route) (rate({METRIC}_count{{service_name="{name}"}}[1m]))'
                yield Finding("surge", "warning", name, title, text, by_source(dataset, name, query))


def error_budgets(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find objectives whose error budget is spent, or is burning fast."""
    for slo in dataset.slos:
        is_fast = slo.burns(limit.FAST_BURN_RATE, "5m", "1h") or slo.burns(limit.SLOW_BURN_RATE, "30m", "6h")
        service = dataset.services.get(slo.service)
        enough = service and service.all["long"].requests >= limit.MIN_REQUESTS
        if not enough or not (is_fast or (slo.left or 0) < 0):
            continue
        cause = next((finding.of for finding in so_far if finding.service == slo.service and finding.of), "")
        burn_1h, burn_6h = (slo.burn.get(window, 0.0) for window in ("1h", "6h"))
        text = sentences(
            f"Objective: {slo.goal}. Burn rate: {burn_1h:.1f} over 1 hour, {burn_6h:.1f} over 6 hours.",
            f"Error budget left: {percent(slo.left)}." if slo.left is not None and slo.left >= 0 else "",
        )
        budget = f"its {slo.kind} error budget"
        title = f"{slo.service} {f'burns {budget} fast' if is_fast else f'has spent {budget}'}"
        query = f'service_name:slo_{slo.kind}_burn:rate1h{{service_name="{slo.service}"}}'
        yield Finding("slo", "critical" if is_fast else "warning", slo.service, title, text, query, of=cause)
