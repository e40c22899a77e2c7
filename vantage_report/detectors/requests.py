"""What the requests' metrics show: failures, refusals, slowness, surges, spent budgets."""

from __future__ import annotations

from collections.abc import Iterator

from vantage_report import queries
from vantage_report.analyse import FEW, Facts, Route, Service, Traffic, spoken
from vantage_report.findings import Finding
from vantage_report.spans import Trace, shares
from vantage_report.stats import wilson
from vantage_report.words import count, listed, percent, rate, seconds

# Errors: at least so many, and for certain more than this share of the requests.
LEAST = 5
FAILING = 0.01
# Refusals (4xx) are everyday: dead links, typing mistakes. More than this, and twice as much as before.
REFUSING = 0.10
# Latency: at least this share of the requests beyond what nineteen of twenty stayed below before; 5 % would be no change.
BEYOND = 0.15
# What a person would not notice is no finding: a tenth of the time that a request may take.
NOTICEABLE = 0.1
SURGE = 3.0
FAST_BURN, BURN = 14.4, 6.0


def errors(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """Requests that fail (5xx) more than before, or all along."""
    for service in facts.services.values():
        now, before = service.all["short"], service.all["base"]
        failed = now.count("5")
        if failed < LEAST or wilson(failed, now.requests)[0] < FAILING:
            continue
        new = wilson(failed, now.requests)[0] > wilson(before.count("5"), before.requests)[1] or before.requests < LEAST
        cause, blamed = _blame(facts, service.name)
        share, was = percent(now.share("5")), percent(before.share("5"))
        compared = (
            f"before it was {was}"
            if new and before.requests
            else f"before it was {was} as well"
            if before.requests
            else "there is no time before to compare with"
        )
        text = (
            f"In the last {spoken(facts.short)} {count(failed)} of {count(now.requests)} requests failed; {compared}. "
            f"Most on {_routes(service, '5')}."
        )
        yield Finding(
            "errors", "critical", service.name,
            f"{service.name} fails {share} of its requests", f"{text}{blamed}",
            ("prometheus", _by_status(service.name, "5..", facts.short)),
            of=cause, traces=[trace.id for trace in _failed(facts, service.name)[:3]],
        )  # fmt: skip


def refusals(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """Requests that are refused (4xx) far more than before."""
    for service in facts.services.values():
        now, before = service.all["short"], service.all["base"]
        refused = now.count("4")
        low = wilson(refused, now.requests)[0]
        usual = before.share("4") if before.requests >= FEW else 0.0
        if refused < 2 * LEAST or low < max(REFUSING, 2 * usual):
            continue
        statuses = sorted((s for s in now.by_status if s.startswith("4")), key=lambda s: -now.by_status[s])
        kinds = listed([f"{status} ({count(now.by_status[status])})" for status in statuses])
        cause = _refused_for(facts, service)
        text = (
            f"In the last {spoken(facts.short)} {count(refused)} of {count(now.requests)} requests were answered with 4xx, "
            f"before it was {percent(usual)}. Statuses: {kinds}. Most on {_routes(service, '4')}."
        )
        if cause:
            text += f" It only answers what {cause} passes on."
        else:
            text += " The senders ask for what is not there or not valid; the service itself works."
        yield Finding(
            "refusals", "warning", service.name, f"{service.name} refuses {percent(now.share('4'))} of its requests", text,
            ("prometheus", _by_status(service.name, "4..", facts.short)), of=cause,
        )  # fmt: skip


def latency(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """Requests that take longer than before, or longer than they may all along."""
    slow = [found for service in facts.services.values() if (found := _slower(facts, service))]
    grown = _grown(facts)
    for service, whole, route in slow:
        shown = route[1] if route else ""
        now, before = (
            (service.routes[route] if route else service.all)["short"],
            (service.routes[route] if route else service.all)["base"],
        )
        cause, held = "", ""
        if grown is not None:
            owner, operation, growth = grown
            if growth >= 0.5 * NOTICEABLE * facts.patience(service.name):
                cause = owner if owner != service.name and owner in {one.name for one, _, _ in slow} else ""
                held = (
                    f" The time goes in {owner} itself, in {operation}: {seconds(growth)} more of its own time per trace than before."
                    if not cause
                    else f" It waits for {owner}: {seconds(growth)} more per trace go in {operation} of {owner}."
                )
        quantiles = ", ".join(
            f"p{q} {seconds(now.quantile(q / 100))} (before {seconds(before.quantile(q / 100))})" for q in (50, 95)
        )
        p50, p95 = (now.quantile(q) or 0.0 for q in (0.5, 0.95))
        # Where the slowest were as slow before, it is the others that changed.
        worse = not whole or p95 >= 1.5 * (before.quantile(0.95) or 0.0)
        takes = (
            f"one request in twenty takes {seconds(p95)} or more"
            if worse
            else f"half of the requests take {seconds(p50)} or more"
        )
        what = f"{service.name} is slower than before" if whole else f"{service.name} is slow all along"
        where = f" on {' '.join(route)}" if route else ""
        yield Finding(
            "latency", "critical" if (now.quantile(0.95) or 0) > facts.patience(service.name) else "warning",
            service.name, f"{what}{where}: {takes}",
            f"Last {spoken(facts.short)}: {quantiles}. {_slow_routes(facts, service) if not shown else ''}{held}".strip().replace("  ", " "),
            ("prometheus", _quantile(service.name, route, facts.short)), of=cause,
            traces=[trace.id for trace in _slowest(facts, service.name)[:3]],
        )  # fmt: skip


def surges(facts: Facts, so_far: tuple[Finding, ...]) -> Iterator[Finding]:
    """A route that is asked for several times as often as before."""
    told = {finding.service for finding in so_far if finding.kind == "refusals"}
    for service in facts.services.values():
        if service.name in told:
            continue
        for route, traffics in service.routes.items():
            now, before = traffics["short"], traffics["base"]
            if now.requests < 100 or service.all["base"].requests < 100 or before.seconds < facts.short:
                continue
            # Poisson: the count that would still be chance, from before.
            expected = before.rate * now.seconds
            share = now.requests / service.all["short"].requests
            if now.requests > max(SURGE * expected, expected + 4 * expected**0.5) and share > 0.5:
                yield Finding(
                    "surge", "warning", service.name, f"{' '.join(route)} of {service.name} is asked for far more than before",
                    f"{rate(now.rate)} requests/s in the last {spoken(facts.short)}, before {rate(before.rate)}; "
                    f"it has {percent(share)} of the service's requests now.",
                    ("prometheus", f'sum by (http_route) (rate({queries.REQUESTS}{{service_name="{service.name}"}}[1m]))'),
                )  # fmt: skip


def burning(facts: Facts, so_far: tuple[Finding, ...]) -> Iterator[Finding]:
    """Objectives whose budget is spent, or is being spent fast. https://sre.google/workbook/alerting-on-slos/"""
    for slo in facts.slos:
        burn = slo.burn
        fast = (
            min(burn.get("5m", 0), burn.get("1h", 0)) > FAST_BURN or min(burn.get("30m", 0), burn.get("6h", 0)) > BURN
        )
        enough = service.all["long"].requests >= FEW if (service := facts.services.get(slo.service)) else False
        if not enough or not (fast or (slo.left is not None and slo.left < 0)):
            continue
        promise = (
            f"{slo.objective * 100:g} % of requests without failure"
            if slo.kind == "availability"
            else f"{slo.objective * 100:g} % of requests within {seconds(slo.threshold)}"
        )
        left = "" if slo.left is None or slo.left < 0 else f" Of its budget {percent(slo.left)} is left."
        spent = f"the budget is spent {burn.get('1h', 0):.1f} times too fast in the last hour, {burn.get('6h', 0):.1f} times over six"
        cause = next((f.of for f in so_far if f.service == slo.service and f.of), "")
        yield Finding(
            "slo", "critical" if fast else "warning", slo.service,
            f"{slo.service} {'burns' if fast else 'has overspent'} its {slo.kind} budget",
            f"It promises {promise}; {spent}.{left}",
            ("prometheus", f'service_name:slo_{slo.kind}_burn:rate1h{{service_name="{slo.service}"}}'), of=cause,
        )  # fmt: skip


def _slower(facts: Facts, service: Service) -> tuple[Service, bool, Route | None] | None:
    """(service, whether it was faster before, the only route concerned) where requests take too long."""
    if _shifted(facts, service.name, service.all["short"], service.all["base"]):
        return service, True, None
    for route, traffics in sorted(service.routes.items(), key=lambda item: -item[1]["short"].requests):
        if _shifted(facts, service.name, traffics["short"], traffics["base"]):
            return service, True, route
    patience = facts.patience(service.name)
    shares = []
    for window in ("short", "base"):
        histogram = service.all[window].histogram
        shares.append(wilson(histogram.above(patience), histogram.total)[0] if histogram.total >= FEW else 0.0)
    # More than one in twenty beyond the objective's time, and that was so before as well.
    if min(shares) > 0.05:
        return service, False, None
    return None


def _shifted(facts: Facts, name: str, now: Traffic, before: Traffic) -> bool:
    """Whether requests take longer than before, for certain and noticeably so."""
    if now.histogram.total < FEW or before.histogram.total < FEW:
        return False
    if not any(_beyond(now, before, share) for share in (0.95, 0.75, 0.5)):
        return False
    least = NOTICEABLE * facts.patience(name)
    for quantile, factor in ((0.5, 2.0), (0.95, 1.5)):
        new, old = now.quantile(quantile) or 0.0, before.quantile(quantile) or 0.0
        if new >= factor * old and new - old >= least:
            return True
    return False


def _beyond(now: Traffic, before: Traffic, share: float) -> bool:
    """Whether far more requests than before take longer than what this share of them stayed below.

    Not only nineteen of twenty are looked at: of what began some time before the short window, the time before knows, too.
    """
    bound = before.histogram.bound_of(share)
    if bound is None:
        return False
    usual = before.histogram.above(bound) / before.histogram.total
    low = wilson(now.histogram.above(bound), now.histogram.total)[0]
    return low >= max(BEYOND, min(2 * usual, (1 + usual) / 2))


def _grown(facts: Facts) -> tuple[str, str, float] | None:
    """The operation whose own time per trace grew most: (service, operation, seconds)."""
    now, before = facts.sample("short"), facts.sample("base")
    if len(now) < LEAST:
        return None
    was = {(s.service, s.operation): s.self_us / len(before) for s in shares(before)} if before else {}
    growth = {
        (s.service, s.operation): s.self_us / len(now) - was.get((s.service, s.operation), 0.0) for s in shares(now)
    }
    if not growth:
        return None
    # A service is slow on all its routes alike: what grew is summed up before its worst operation is named.
    by_service: dict[str, float] = {}
    for (service, _), more in growth.items():
        by_service[service] = by_service.get(service, 0.0) + more
    owner = max(by_service, key=lambda service: by_service[service])
    operation = max((key for key in growth if key[0] == owner), key=lambda key: growth[key])[1]
    return owner, operation, by_service[owner] / 1e6


def _failed(facts: Facts, service: str) -> list[Trace]:
    """Failing traces through a service, of the short window."""
    return [t for t in facts.chosen("failed", "short") if any(s.service == service and s.failed for s in t.spans)]


def _slowest(facts: Facts, service: str) -> list[Trace]:
    found = {
        t.id: t
        for t in facts.chosen("slow", "short") + facts.sample("short")
        if any(s.service == service for s in t.spans)
    }
    return sorted(found.values(), key=lambda trace: -trace.us)


def _blame(facts: Facts, service: str) -> tuple[str, str]:
    """(the other service that causes the failures, a sentence on where they begin)."""
    culprits: dict[tuple[str, str, str], int] = {}
    found = _failed(facts, service)
    for trace in found:
        span = trace.culprit
        if span is not None:
            callee = span.tags.get("server.address", "") if span.kind == "client" and not span.database else ""
            key = (callee or span.service, span.label, span.tags.get("error.type", ""))
            culprits[key] = culprits.get(key, 0) + 1
    if not culprits:
        return "", ""
    owner, operation, error = max(culprits, key=lambda key: culprits[key])
    of_owner = sum(times for (name, _, _), times in culprits.items() if name == owner)
    what = f", with {error}" if error and not error.isdigit() else ""
    text = f" In {of_owner} of {len(found)} failing traces the failure begins in {owner} ({operation}{what})."
    cause = owner if owner != service and of_owner >= 0.8 * len(found) else ""
    return cause, text


def _refused_for(facts: Facts, service: Service) -> str:
    """The service that passes refused requests on, where this one is called by nobody else."""
    callers = {
        key[0] for key in facts.values("calls@short", "service_name", "server_address") if key[1] == service.name
    }
    for caller in sorted(callers):
        other = facts.services.get(caller)
        if other and other.all["short"].count("4") >= 0.8 * service.all["short"].count("4"):
            return caller
    return ""


def _routes(service: Service, digit: str) -> str:
    ranked = sorted(service.routes.items(), key=lambda item: -item[1]["short"].count(digit))
    shown = [
        f"{' '.join(route)} ({count(traffics['short'].count(digit))})"
        for route, traffics in ranked
        if traffics["short"].count(digit) >= 1
    ]
    return listed(shown)


def _slow_routes(facts: Facts, service: Service) -> str:
    found = [
        (traffics["short"].quantile(0.95) or 0.0, route)
        for route, traffics in service.routes.items()
        if traffics["short"].requests >= LEAST
    ]
    shown = [f"{' '.join(route)} (p95 {seconds(value)})" for value, route in sorted(found, reverse=True)]
    return f"Slowest: {listed(shown)}." if shown else ""


def _by_status(service: str, status: str, window: float) -> str:
    labels = f'service_name="{service}", http_response_status_code=~"{status}"'
    by = "http_request_method, http_route, http_response_status_code"
    return f"sum by ({by}) (increase({queries.REQUESTS}{{{labels}}}[{window:.0f}s]))"


def _quantile(service: str, route: Route | None, window: float) -> str:
    labels = f'service_name="{service}"'
    if route:
        labels += f', http_request_method="{route[0]}", http_route="{route[1]}"'
    return f"histogram_quantile(0.95, sum by (le) (rate({queries.BUCKETS}{{{labels}}}[{window:.0f}s])))"
