"""Spans and traces, and what one trace or a sample of traces shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass
class Span:
    """One span; `start` and `us` in microseconds."""

    trace: str
    id: str
    parent: str
    service: str
    name: str
    start: int
    us: int
    kind: str
    error: bool
    tags: dict[str, str]
    children: list[Span] = field(default_factory=list, repr=False, compare=False)
    depth: int = field(default=0, compare=False)

    @property
    def end(self) -> int:
        return self.start + self.us

    @property
    def status(self) -> int:
        """Return the HTTP status, 0 without one."""
        text = self.tags.get("http.response.status_code", "")
        return int(text) if text.isdigit() else 0

    @property
    def failed(self) -> bool:
        """Whether it failed. By OpenTelemetry's conventions a caller's span is an error at 4xx, too; that is an answer."""
        return self.error and not 400 <= self.status < 500

    @property
    def error_type(self) -> str:
        """Return the type of the error, without a status that is given as one."""
        kind = self.tags.get("error.type", "")
        return "" if kind.isdigit() else kind

    @property
    def database(self) -> str:
        """Return the database system, empty for other spans."""
        return self.tags.get("db.system.name") or self.tags.get("db.system") or ""

    @property
    def callee(self) -> str:
        """Return the host that an outgoing call other than to a database goes to."""
        return self.tags.get("server.address", "") if self.kind == "client" and not self.database else ""

    @property
    def label(self) -> str:
        """Return the operation, for an outgoing call with its callee."""
        return f"{self.name} → {self.callee}" if self.callee else self.name

    @cached_property
    def self_us(self) -> int:
        """Return the microseconds in which none of its children ran."""
        covered, reached = 0, self.start
        for child in sorted(self.children, key=lambda c: c.start):
            begin, end = max(child.start, reached), min(child.end, self.end)
            if end > begin:
                covered += end - begin
                reached = end
        return max(self.us - covered, 0)


class Trace:
    """The spans of one trace, in the order of a waterfall: each below its parent, siblings by time."""

    def __init__(self, spans: Iterable[dict[str, Any]]) -> None:
        by_time = sorted((Span(**span) for span in spans), key=lambda span: (span.start, -span.us))
        by_id = {span.id: span for span in by_time}
        self.id, self.start = by_time[0].trace, by_time[0].start
        self.us = max(span.end for span in by_time) - self.start
        self.roots = [span for span in by_time if span.parent not in by_id]
        for span in by_time:
            if span.parent in by_id:
                by_id[span.parent].children.append(span)
        self.spans: list[Span] = []
        stack = [(root, 0) for root in reversed(self.roots)]
        while stack:
            span, span.depth = stack.pop()
            self.spans.append(span)
            stack += [(child, span.depth + 1) for child in reversed(span.children)]
        self.root = self.roots[0]
        self.failed = any(span.failed for span in self.spans)
        self.services = {span.service for span in self.spans}

    @property
    def is_complete(self) -> bool:
        """Whether no span between the root and the others is missing."""
        return len(self.roots) == 1 and not self.root.parent

    @property
    def failing_span(self) -> Span | None:
        """Return the deepest failing span: its callers fail because it does."""
        found = [span for span in self.spans if span.failed and not any(child.failed for child in span.children)]
        return max(found, key=lambda span: (span.depth, span.us), default=None)


def by_operation(traces: Iterable[Trace]) -> dict[tuple[str, str], list[Span]]:
    """Return the spans of all traces by service and operation."""
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in (span for trace in traces for span in trace.spans):
        found[span.service, span.label].append(span)
    return dict(found)


def self_us(spans: Iterable[Span]) -> int:
    """Return the self time of spans in microseconds."""
    return sum(span.self_us for span in spans)
