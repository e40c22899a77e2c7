"""Rules on episodes of errors and latency that ended before the short time range."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, Findings
from vantage_tools.report.formats import clock, count, format_duration, listed, percent, seconds
from vantage_tools.report.rules.requests import METRIC, by_source, query_p95
from vantage_tools.report.stats import at_least, median

# (time, figure, figure) of a plot.
Points = list[tuple[float, float, float]]


def episodes(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find times in which a service failed or was slow; many of one kind become one finding."""
    found = [*_error_episodes(dataset, so_far), *_latency_episodes(dataset)]
    for (kind, service), group in groupby(found, key=lambda finding: (finding.kind, finding.service)):
        alike = list(group)
        if len(alike) <= limit.MAX_LISTED_EPISODES:
            yield from alike
            continue
        periods = [(f.since or 0.0, f.until or 0.0) for f in alike]
        lengths = [until - since for since, until in periods]
        longest = alike[lengths.index(max(lengths))]
        ranges = listed((f"{clock(since)} to {clock(until)}" for since, until in periods), limit.MAX_LISTED_TIMES)
        what = "failed requests" if kind == "errors" else "high latency"
        total = format_duration(sum(lengths))
        title = f"{service} had {len(periods)} episodes of {what}, earlier, {total} in total"
        text = f"From {ranges}. The longest: {longest.text}"
        since, until = periods[0][0], periods[-1][1]
        yield Finding(
            kind, "warning", service, title, text, alike[0].query, since=since, until=until, periods=periods
        )  # fmt: skip


def _error_episodes(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    step = dataset.step("long")
    failures = dataset.timeline("failed", "long")
    for service, points in dataset.timeline("rate", "long").items():
        failed = dict(failures.get(service, []))
        counts = [(at, failed.get(at, 0.0) * step, rate * step) for at, rate in points]
        bad = [p for p in counts if p[1] >= limit.MIN_FAILED_REQUESTS and at_least(p[1], p[2]) >= limit.MIN_ERROR_RATE]
        for begin, end, run in _episodes(bad, step):
            if end > dataset.end - dataset.short:
                _record_begin(dataset, so_far, service, begin)
                continue
            bad_requests, requests = sum(p[1] for p in run), sum(p[2] for p in run)
            length, ratio = format_duration(end - begin), percent(bad_requests / requests)
            title = f"{service} failed {ratio} of its requests for {length}, earlier"
            times = f"From {clock(begin)} to {clock(end)}"
            text = f"{times}, about {count(bad_requests)} of {count(requests)} requests failed."
            selector = f'service_name="{service}"'
            failed_rate, total_rate = (
                f"sum (rate({METRIC}_count{{{selector}{status}}}[{step:.0f}s]))"
                for status in (', http_response_status_code=~"5.."', "")
            )
            query = by_source(dataset, service, f"{failed_rate} / {total_rate}")
            yield Finding("errors", "warning", service, title, text, query, since=begin, until=end)


def _record_begin(dataset: Dataset, so_far: tuple[Finding, ...], service: str, begin: float) -> None:
    """Add the begin of an episode that goes on, or its recent end, to the finding of the rule `errors`."""
    failed = [at for at, value in dataset.timeline("failed", "short").get(service, []) if value > 0]
    step, begin_short = dataset.step("short"), dataset.begin("short")
    if failed and begin > begin_short - dataset.step("long"):
        begin = max(failed[0] - step, begin_short)
    for finding in so_far:
        if (finding.kind, finding.service) == ("errors", service):
            finding.since = begin
            finding.text += f" It began about {clock(begin)}."
            if failed and dataset.end - failed[-1] > 1.5 * step:
                # A rate over a minute still contains what was a minute ago.
                finding.text += f" No request failed after about {clock(failed[-1] - 60)}."


def _latency_episodes(dataset: Dataset) -> Findings:
    step = dataset.step("long")
    rates = dataset.timeline("rate", "long")
    for service, points in dataset.timeline("p95", "long").items():
        usual = median(value for _, value in points)
        noticeable = limit.NOTICEABLE_RATIO * dataset.latency_threshold(service)
        least = max(limit.EPISODE_P95_GROWTH * usual, usual + noticeable)
        rate = dict(rates.get(service, []))
        with_requests = [(at, p95, rate.get(at, 0.0) * step) for at, p95 in points]
        bad = [p for p in with_requests if p[1] >= least and p[2] >= limit.MIN_REQUESTS]
        for begin, end, run in _episodes(bad, step):
            is_over = end <= dataset.end - dataset.short
            if is_over and end - begin >= max(limit.MIN_SLOW_EPISODE_SECONDS, 2 * step):
                title = f"{service} was slow for {format_duration(end - begin)}, earlier"
                worst = seconds(max(p95 for _, p95, _ in run))
                text = f"From {clock(begin)} to {clock(end)}, the p95 latency was up to {worst}; {seconds(usual)} is usual."
                query = by_source(dataset, service, query_p95(f'service_name="{service}"', step))
                yield Finding("latency", "warning", service, title, text, query, since=begin, until=end)


def _episodes(points: Points, step: float) -> Iterator[tuple[float, float, Points]]:
    """Yield (begin, end, points) of each episode; one missing point does not end it."""
    runs: list[Points] = []
    for point in points:
        if not runs or point[0] - runs[-1][-1][0] > limit.MAX_GAP_STEPS * step:
            runs.append([])
        runs[-1].append(point)
    return ((run[0][0] - step, run[-1][0], run) for run in runs)
