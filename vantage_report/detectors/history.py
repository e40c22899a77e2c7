"""What happened earlier in the long window and is over."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from vantage_report import queries
from vantage_report.analyse import FEW, Facts, spoken
from vantage_report.detectors.requests import FAILING, LEAST, NOTICEABLE
from vantage_report.findings import Finding
from vantage_report.stats import median, wilson
from vantage_report.words import clock, count, listed, percent, seconds

Run = list[tuple[float, float, float]]
# More episodes of one kind than these are told as one finding: nobody reads thirty of them.
MANY = 3
WHAT = {"errors": "failed requests", "latency": "slowness"}


def episodes(facts: Facts, so_far: tuple[Finding, ...]) -> Iterator[Finding]:
    """Minutes in which a service failed or was slow, that ended before the short window."""
    found = [*_failures(facts, so_far), *_slowness(facts)]
    for _, group in groupby(found, key=lambda finding: (finding.kind, finding.service)):
        alike = list(group)
        yield from alike if len(alike) <= MANY else [_together(alike)]


def _together(alike: list[Finding]) -> Finding:
    """Many episodes of one kind and service as one finding; the longest keeps its words."""
    first, last = alike[0], alike[-1]
    periods = [(f.since, f.until) for f in alike if f.since is not None and f.until is not None]
    longest = max(alike, key=lambda f: (f.until or 0) - (f.since or 0))
    while_bad = spoken(sum(until - since for since, until in periods))
    when = listed([f"{clock(since)} to {clock(until)}" for since, until in periods], 6)
    return Finding(
        first.kind, first.severity, first.service,
        f"{first.service} had {len(alike)} spells of {WHAT[first.kind]}, earlier, {while_bad} in all",
        f"From {when}. The longest: {longest.text}", first.proof, since=first.since, until=last.until, periods=periods,
    )  # fmt: skip


def _failures(facts: Facts, so_far: tuple[Finding, ...]) -> Iterator[Finding]:
    step = facts.step("long")
    rates, failed = facts.timeline("rate", "long"), dict(facts.timeline("failed", "long"))
    for service, points in rates.items():
        fails = dict(failed.get(service, []))
        bad = [
            (at, fails[at] * step, rate * step)
            for at, rate in points
            if fails.get(at, 0.0) * step >= LEAST and wilson(fails[at] * step, rate * step)[0] >= FAILING
        ]
        for run in _runs(bad, step):
            begin, end = run[0][0] - step, run[-1][0]
            of_now = next((f for f in so_far if f.kind == "errors" and f.service == service), None)
            if end > facts.end - facts.short:
                # It goes on: the finding of now learns when it began.
                if of_now is not None:
                    if begin > facts.begin("short") - step:
                        begin = _first(facts, service) or begin
                    of_now.since = begin
                    of_now.text += f" It began about {clock(begin)}.{_stopped(facts, service)}"
                continue
            hits, of = sum(p[1] for p in run), sum(p[2] for p in run)
            yield Finding(
                "errors", "warning", service, f"{service} failed {percent(hits / of)} of its requests for {spoken(end - begin)}, earlier",
                f"Between {clock(begin)} and {clock(end)} about {count(hits)} of {count(of)} requests failed. It is over.",
                ("prometheus", _ratio(service, step)), since=begin, until=end,
            )  # fmt: skip


def _first(facts: Facts, service: str) -> float | None:
    """When the first failure of the short window was, as finely as it is plotted."""
    points = facts.timeline("failed", "short").get(service, [])
    return next((max(at - facts.step("short"), facts.begin("short")) for at, value in points if value > 0), None)


def _stopped(facts: Facts, service: str) -> str:
    """Says so where the last minute had no failure any more."""
    points = facts.timeline("failed", "short").get(service, [])
    last = max((at for at, value in points if value > 0), default=facts.end)
    # A rate of a minute still holds what was a minute ago.
    return f" None failed after about {clock(last - 60)}." if facts.end - last > 1.5 * facts.step("short") else ""


def _slowness(facts: Facts) -> Iterator[Finding]:
    step = facts.step("long")
    rates = facts.timeline("rate", "long")
    for service, points in facts.timeline("p95", "long").items():
        usual, least = median(value for _, value in points), NOTICEABLE * facts.patience(service)
        rate = dict(rates.get(service, []))
        bad = [
            (at, value, rate.get(at, 0.0))
            for at, value in points
            if value >= 1.5 * usual and value - usual >= least and rate.get(at, 0.0) * step >= FEW
        ]
        for run in _runs(bad, step):
            begin, end = run[0][0] - step, run[-1][0]
            # A rate spreads one hiccup of the machine over its own length.
            if end > facts.end - facts.short or end - begin < 2 * max(60.0, step):
                continue
            worst = max(value for _, value, _ in run)
            yield Finding(
                "latency", "warning", service, f"{service} was slow for {spoken(end - begin)}, earlier",
                f"Between {clock(begin)} and {clock(end)} one request in twenty took up to {seconds(worst)} or more; "
                f"{seconds(usual)} is usual. It is over.",
                ("prometheus", f'histogram_quantile(0.95, sum by (le) (rate({queries.BUCKETS}{{service_name="{service}"}}[{step:.0f}s])))'),
                since=begin, until=end,
            )  # fmt: skip


def _runs(points: Run, step: float) -> list[Run]:
    """Points in a row; a single gap does not end a run."""
    runs: list[Run] = []
    for point in points:
        if runs and point[0] - runs[-1][-1][0] <= 2.5 * step:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _ratio(service: str, step: float) -> str:
    labels = f'service_name="{service}"'
    failed = f'sum (rate({queries.REQUESTS}{{{labels}, http_response_status_code=~"5.."}}[{step:.0f}s]))'
    return f"{failed} / sum (rate({queries.REQUESTS}{{{labels}}}[{step:.0f}s]))"
