"""What the traces show: calls in a loop, slow databases, calls that time out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from vantage_report.analyse import Facts, spoken
from vantage_report.detectors.requests import NOTICEABLE
from vantage_report.findings import Finding
from vantage_report.spans import Span, Trace, repeated_calls
from vantage_report.stats import median
from vantage_report.words import percent, seconds

# From so many equal calls below one span on it is a loop that one call could replace.
LOOP = 8
LEAST = 3
OFTEN = 0.2


def repeated(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """N+1: one operation that makes the same call once for each of its items."""
    seen: dict[tuple[str, str, str], list[tuple[Trace, int]]] = defaultdict(list)
    operations: dict[tuple[str, str], int] = defaultdict(int)
    recent = {(span.service, span.label) for trace in facts.sample("short") for span in trace.spans}
    for window in ("short", "base"):
        for trace in facts.sample(window):
            # The time before has its say on what was not asked for lately.
            keys = {(span.service, span.label) for span in trace.spans}
            for key in keys if window == "short" else keys - recent:
                operations[key] += 1
            for parent, label, number in repeated_calls(trace, LOOP):
                if window == "short" or (parent.service, parent.label) not in recent:
                    seen[(parent.service, parent.label, label)].append((trace, number))
    for (service, operation, label), found in seen.items():
        if len(found) < LEAST or len(found) < OFTEN * operations[(service, operation)]:
            continue
        usual = median(number for _, number in found)
        yield Finding(
            "repeated_calls", "warning", service, f"{operation} of {service} calls “{label}” {usual:.0f} times per request",
            f"In {len(found)} of {operations[(service, operation)]} sampled traces it makes the same call again and again (N+1). "
            "One call for all items would save the round trips.",
            ("jaeger", found[0][0].id), traces=[trace.id for trace, _ in found[:3]],
        )  # fmt: skip


def slow_databases(facts: Facts, _: tuple[Finding, ...]) -> Iterator[Finding]:
    """Database calls that take noticeably long."""
    now, before = (_database(facts.sample(window)) for window in ("short", "base"))
    for (service, label), spans in now.items():
        times = sorted(span.us / 1e6 for span in spans)
        if len(times) < LEAST:
            continue
        typical, was = median(times), median(span.us / 1e6 for span in before.get((service, label), []))
        # Half of what the whole request has until it is noticed as slow.
        if typical < NOTICEABLE * facts.patience(service) or typical < 1.5 * was:
            continue
        slowest = max(spans, key=lambda span: span.us)
        yield Finding(
            "slow_database", "warning", service, f"“{label}” of {service} takes {seconds(typical)}",
            f"The median of {len(times)} sampled calls in the last {spoken(facts.short)}"
            + (f"; before it was {seconds(was)}." if was else "; there is nothing before to compare with.")
            + " An index, a lock or a smaller question may help.",
            ("jaeger", slowest.trace), traces=[slowest.trace],
        )  # fmt: skip


def timeouts(facts: Facts, so_far: tuple[Finding, ...]) -> Iterator[Finding]:
    """Outgoing calls that fail without an answer: refused, timed out, or tried again and again."""
    told = {finding.service for finding in so_far if finding.kind in ("down", "silent")}
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    calls: dict[tuple[str, str], int] = defaultdict(int)
    sampled = {trace.id: trace for trace in facts.sample("short")}
    traces = {**sampled, **{trace.id: trace for trace in facts.chosen("failed", "short")}}
    for trace in traces.values():
        for span in trace.spans:
            callee = span.tags.get("server.address", "")
            if span.kind != "client" or span.database or not callee:
                continue
            calls[(span.service, callee)] += 1
            if span.failed and not span.status:
                found[(span.service, callee)].append(span)
    for (service, callee), spans in found.items():
        if len(spans) < LEAST or callee in told:
            continue
        kinds = sorted({span.tags.get("error.type", "") for span in spans} - {""})
        took = median(span.us / 1e6 for span in spans)
        yield Finding(
            "no_answer", "critical", service, f"Calls of {service} to {callee} get no answer",
            f"{len(spans)} of {calls[(service, callee)]} looked at ended without a status after {seconds(took)} "
            f"({percent(len(spans) / calls[(service, callee)])}{'; ' + ', '.join(kinds) if kinds else ''}). "
            "Each one's caller waits as long.",
            ("jaeger", spans[0].trace), traces=[span.trace for span in spans[:3]], of=callee if callee in facts.services else "",
        )  # fmt: skip


def _database(traces: list[Trace]) -> dict[tuple[str, str], list[Span]]:
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for trace in traces:
        for span in trace.spans:
            if span.database:
                found[(span.service, span.label)].append(span)
    return found
