"""Rules on traces: repeated calls, slow databases, calls without an answer."""

from __future__ import annotations

from collections import Counter, defaultdict

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, Findings, sentences
from vantage_tools.report.formats import count, percent, seconds
from vantage_tools.report.spans import Span, by_operation
from vantage_tools.report.stats import median


def repeated(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find operations that repeat the same call for each of their items (N+1)."""
    seen: dict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
    operations: Counter[tuple[str, str]] = Counter()
    recent = {(span.service, span.label) for trace in dataset.sample("short") for span in trace.spans}
    for window in ("short", "base"):
        # The time before counts for operations without recent traces.
        ignored = recent if window == "base" else set()
        for trace in dataset.sample(window):
            operations.update({(span.service, span.label) for span in trace.spans} - ignored)
            for parent in trace.spans:
                calls = Counter(child.label for child in parent.children if child.kind == "client" or child.database)
                for call, times in calls.items():
                    if times >= limit.N_PLUS_ONE_CALLS and (parent.service, parent.label) not in ignored:
                        seen[parent.service, parent.label, call].append((trace.id, times))
    for (service, operation, call), found in seen.items():
        total = operations[service, operation]
        if len(found) >= max(limit.MIN_N_PLUS_ONE_TRACES, limit.MIN_N_PLUS_ONE_SHARE * total):
            ids = [trace for trace, _ in found[:3]]
            usual = count(median(times for _, times in found))
            title = f"{operation} of {service} calls “{call}” {usual} times per request"
            text = sentences(
                f"In {len(found)} of {total} sampled traces, it repeats the same call (N+1).",
                "One call for all items would save the round trips.",
            )
            yield Finding("repeated_calls", "warning", service, title, text, ids[0], "jaeger", traces=ids)


def slow_databases(dataset: Dataset, _: tuple[Finding, ...]) -> Findings:
    """Find database calls that are noticeably slow."""
    now, before = (
        {key: [s for s in spans if s.database] for key, spans in by_operation(dataset.sample(window)).items()}
        for window in ("short", "base")
    )
    for (service, call), spans in now.items():
        typical, was = (median(span.us / 1e6 for span in many) for many in (spans, before.get((service, call), [])))
        least = max(limit.NOTICEABLE_RATIO * dataset.latency_threshold(service), limit.DATABASE_GROWTH * was)
        if len(spans) >= limit.MIN_DATABASE_CALLS and typical >= least:
            trace = max(spans, key=lambda span: span.us).trace
            title = f"“{call}” of {service} takes {seconds(typical)}"
            earlier = f"before: {seconds(was)}" if was else "there are no earlier calls to compare with"
            text = sentences(
                f"Median of {len(spans)} sampled calls in the {dataset.last['short']}; {earlier}.",
                "Check for a missing index, a lock, or a query that reads too much.",
            )
            yield Finding("slow_database", "warning", service, title, text, trace, "jaeger", traces=[trace])


def unanswered_calls(dataset: Dataset, so_far: tuple[Finding, ...]) -> Findings:
    """Find outgoing calls that fail without an answer: refused or timed out."""
    reported = {finding.service for finding in so_far if finding.kind in ("down", "silent")}
    calls: dict[tuple[str, str], list[Span]] = defaultdict(list)
    traces = {trace.id: trace for trace in dataset.sample("short") + dataset.sample("failed@short")}
    for span in (span for trace in traces.values() for span in trace.spans if span.callee):
        calls[span.service, span.callee].append(span)
    for (service, callee), spans in calls.items():
        found = [span for span in spans if span.failed and not span.status]
        if len(found) >= limit.MIN_UNANSWERED_CALLS and callee not in reported:
            took, ids = median(span.us / 1e6 for span in found), [span.trace for span in found[:3]]
            types = sorted({span.tags.get("error.type", "") for span in found} - {""})
            share = "; ".join([percent(len(found) / len(spans)), *([", ".join(types)] if types else [])])
            text = sentences(
                f"{len(found)} of {len(spans)} calls in the traces ended without a status after {seconds(took)} ({share}).",
                "Callers wait as long.",
            )
            title, cause = (
                f"Calls from {service} to {callee} get no answer",
                callee if callee in dataset.services else "",
            )
            yield Finding("no_answer", "critical", service, title, text, ids[0], "jaeger", of=cause, traces=ids)
