"""Rules on traces: repeated calls, slow databases, calls without an answer."""

from __future__ import annotations

from collections import Counter, defaultdict

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, Findings, describe
from vantage_tools.report.spans import Span, Trace, repeated_calls
from vantage_tools.report.stats import median


def repeated(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find operations that repeat the same call for each of their items (N+1)."""
    seen: dict[tuple[str, str, str], list[tuple[Trace, int]]] = defaultdict(list)
    operations: Counter[tuple[str, str]] = Counter()
    recent = {(span.service, span.label) for trace in dataset.sample("short") for span in trace.spans}
    for window in ("short", "base"):
        # The time before counts for operations without recent traces.
        ignored = recent if window == "base" else set()
        for trace in dataset.sample(window):
            operations.update({(span.service, span.label) for span in trace.spans} - ignored)
            for parent, label, number in repeated_calls(trace, limit.N_PLUS_ONE_CALLS):
                if (parent.service, parent.label) not in ignored:
                    seen[parent.service, parent.label, label].append((trace, number))
    for (service, operation, label), found in seen.items():
        total = operations[service, operation]
        if len(found) >= max(limit.MIN_N_PLUS_ONE_TRACES, limit.MIN_N_PLUS_ONE_SHARE * total):
            ids = [trace.id for trace, _ in found[:3]]
            yield describe(
                dataset, "repeated_calls", "warning", service, traces=ids, operation=operation, call=label, found=len(found),
                total=total, usual=median(number for _, number in found), trace=ids[0],
            )  # fmt: skip


def slow_databases(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find database calls that are noticeably slow."""
    now, before = (_database_calls(dataset.sample(window)) for window in ("short", "base"))
    for (service, call), spans in now.items():
        typical, was = (median(span.us / 1e6 for span in many) for many in (spans, before.get((service, call), [])))
        least = max(limit.NOTICEABLE_RATIO * dataset.latency_threshold(service), limit.DATABASE_GROWTH * was)
        if len(spans) >= limit.MIN_DATABASE_CALLS and typical >= least:
            trace = max(spans, key=lambda span: span.us).trace
            yield describe(
                dataset, "slow_database", "warning", service, traces=[trace], call=call, calls=len(spans), typical=typical,
                before=was, trace=trace,
            )  # fmt: skip


def _database_calls(traces: list[Trace]) -> dict[tuple[str, str], list[Span]]:
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in (span for trace in traces for span in trace.spans if span.database):
        found[span.service, span.label].append(span)
    return found


def unanswered_calls(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find outgoing calls that fail without an answer: refused or timed out."""
    reported = {finding.service for finding in so_far if finding.kind in ("down", "silent")}
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    calls: Counter[tuple[str, str]] = Counter()
    traces = {trace.id: trace for trace in dataset.sample("short") + dataset.extremes("failed", "short")}
    for span in (span for trace in traces.values() for span in trace.spans if span.callee):
        calls[span.service, span.callee] += 1
        if span.failed and not span.status:
            found[span.service, span.callee].append(span)
    for (service, callee), spans in found.items():
        if len(spans) < limit.MIN_UNANSWERED_CALLS or callee in reported:
            continue
        yield describe(
            dataset, "no_answer", "critical", service, of=callee if callee in dataset.services else "",
            traces=[span.trace for span in spans[:3]], callee=callee, found=len(spans), calls=calls[service, callee],
            took=median(span.us / 1e6 for span in spans), trace=spans[0].trace,
            errors=sorted({span.tags.get("error.type", "") for span in spans} - {""}),
        )  # fmt: skip
