"""Traces: spans in a compact shape, and what can be read off one trace or many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# Tags that say what a span did; the others only cost room.
KEPT = (
    "http.route", "http.request.method", "http.response.status_code", "url.full", "url.path", "server.address",
    "db.system", "db.system.name", "db.operation.name", "db.collection.name", "error.type", "client.address",
    "otel.status_description",
)  # fmt: skip


def compact(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """The spans of one trace as Jaeger's API gives it; times in microseconds."""
    services = {key: process["serviceName"] for key, process in (trace.get("processes") or {}).items()}
    found = []
    for span in trace.get("spans") or []:
        tags = {tag["key"]: tag["value"] for tag in span.get("tags") or []}
        parent = next((r["spanID"] for r in span.get("references") or [] if r["refType"] == "CHILD_OF"), "")
        found.append(
            {
                "trace": span["traceID"],
                "id": span["spanID"],
                "parent": parent,
                "service": services.get(span["processID"], "?"),
                "name": span["operationName"],
                "start": span["startTime"],
                "us": span["duration"],
                "kind": tags.get("span.kind", "internal"),
                "error": str(tags.get("error", "")).lower() == "true" or tags.get("otel.status_code") == "ERROR",
                "tags": {key: str(tags[key])[:300] for key in KEPT if key in tags},
            }
        )
    return found


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

    @property
    def end(self) -> int:
        return self.start + self.us

    @property
    def status(self) -> int:
        """The HTTP status, 0 where there is none."""
        text = self.tags.get("http.response.status_code", "")
        return int(text) if text.isdigit() else 0

    @property
    def failed(self) -> bool:
        """Whether it went wrong. By OpenTelemetry's conventions a caller marks every 4xx as an error as well; that is an answer."""
        return self.error and not 400 <= self.status < 500

    @property
    def database(self) -> bool:
        return "db.system" in self.tags or "db.system.name" in self.tags

    @property
    def label(self) -> str:
        """The operation as people know it; the name of an outgoing call says nothing without its callee."""
        callee = self.tags.get("server.address")
        return f"{self.name} → {callee}" if self.kind == "client" and callee and not self.database else self.name

    @cached_property
    def self_us(self) -> int:
        """Microseconds in which none of its children ran."""
        covered, reached = 0, self.start
        for child in sorted(self.children, key=lambda c: c.start):
            begin, end = max(child.start, reached), min(child.end, self.end)
            if end > begin:
                covered += end - begin
                reached = end
        return max(self.us - covered, 0)


class Trace:
    """Spans that belong together."""

    def __init__(self, spans: Iterable[dict[str, Any]]) -> None:
        self.spans = sorted((Span(**span) for span in spans), key=lambda span: (span.start, -span.us))
        by_id = {span.id: span for span in self.spans}
        self.roots = []
        for span in self.spans:
            parent = by_id.get(span.parent)
            if parent is None:
                self.roots.append(span)
            else:
                parent.children.append(span)

    @property
    def id(self) -> str:
        return self.spans[0].trace

    @property
    def root(self) -> Span:
        return self.roots[0]

    @property
    def whole(self) -> bool:
        """Whether no span is missing between the root and the others."""
        return len(self.roots) == 1 and not self.root.parent

    @property
    def us(self) -> int:
        return max(span.end for span in self.spans) - self.spans[0].start

    @property
    def failed(self) -> bool:
        return any(span.failed for span in self.spans)

    @property
    def culprit(self) -> Span | None:
        """The deepest failing span: what called it fails because it does."""
        found = [span for span in self.spans if span.failed and not any(child.failed for child in span.children)]
        return max(found, key=lambda span: (self.depth(span), span.us), default=None)

    def depth(self, span: Span) -> int:
        """How many spans are above this one."""
        by_id = {s.id: s for s in self.spans}
        depth = 0
        while span.parent in by_id and depth < len(by_id):
            span, depth = by_id[span.parent], depth + 1
        return depth

    def in_order(self) -> list[tuple[int, Span]]:
        """(depth, span) as a waterfall shows them: every span below its parent, siblings by time."""
        found: list[tuple[int, Span]] = []

        def walk(span: Span, depth: int) -> None:
            found.append((depth, span))
            for child in span.children:
                walk(child, depth + 1)

        for root in self.roots:
            walk(root, 0)
        return found


@dataclass
class Share:
    """What one operation cost in a sample of traces."""

    service: str
    operation: str
    spans: int = 0
    self_us: int = 0
    us: int = 0
    failed: int = 0
    database: bool = False


def shares(traces: Iterable[Trace]) -> list[Share]:
    """Self time by service and operation, the largest first."""
    found: dict[tuple[str, str], Share] = {}
    for trace in traces:
        for span in trace.spans:
            share = found.setdefault((span.service, span.label), Share(span.service, span.label))
            share.spans += 1
            share.self_us += span.self_us
            share.us += span.us
            share.failed += span.failed
            share.database = share.database or span.database
    return sorted(found.values(), key=lambda share: -share.self_us)


def repeated_calls(trace: Trace, least: int) -> list[tuple[Span, str, int]]:
    """(parent, operation, times) where one span makes the same outgoing call again and again."""
    found = []
    for parent in trace.spans:
        calls: dict[str, int] = defaultdict(int)
        for child in parent.children:
            if child.kind == "client" or child.database:
                calls[child.label] += 1
        found += [(parent, label, times) for label, times in calls.items() if times >= least]
    return found


@dataclass
class Edge:
    """Calls from one service to another, in a sample of traces."""

    source: str
    target: str
    calls: int = 0
    failed: int = 0
    us: int = 0
    database: bool = False


def edges(traces: Iterable[Trace]) -> list[Edge]:
    """Who calls whom: a span whose parent is of another service, and calls of databases and of what has no spans."""
    found: dict[tuple[str, str], Edge] = {}
    for trace in traces:
        for span in trace.spans:
            if span.kind not in ("client", "producer") and not span.database:
                continue
            answered = next((c.service for c in span.children if c.service != span.service), "")
            system = span.tags.get("db.system.name") or span.tags.get("db.system")
            target = answered or (f"{system} of {span.service}" if system else span.tags.get("server.address", ""))
            if not target:
                continue
            edge = found.setdefault((span.service, target), Edge(span.service, target, database=bool(system)))
            edge.calls += 1
            edge.failed += span.failed
            edge.us += span.us
    return sorted(found.values(), key=lambda edge: (edge.source, edge.target))
