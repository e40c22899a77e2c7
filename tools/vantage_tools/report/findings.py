"""Findings: what is wrong, each with the query that shows it and a link to Grafana's Explore."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from vantage_tools.report.dataset import Dataset

SEVERITIES = ("critical", "warning", "note")
# The field that holds the query, and the rest of it, for the data sources that the role grafana provisions.
QUERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "prometheus": ("expr", {"range": True}),
    "loki": ("expr", {"queryType": "range"}),
    "jaeger": ("query", {}),
}


@dataclass
class Finding:
    """One thing that is wrong.

    `kind` names the rule. `query` is asked of `engine`. `of` is the service that causes it, when that is another one.
    `since` and `until` are seconds since 1970; without `until` it goes on. `periods` are the episodes within these two.
    """

    kind: str
    severity: str
    service: str
    title: str
    text: str
    query: str
    engine: str = "prometheus"
    of: str = ""
    since: float | None = None
    until: float | None = None
    periods: list[tuple[float, float]] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    link: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the finding as data for machines."""
        return {
            "kind": self.kind, "severity": self.severity, "service": self.service, "title": self.title, "text": self.text,
            "because_of": self.of, "since": self.since, "until": self.until, "periods": self.periods,
            "proof": {"engine": self.engine, "query": self.query}, "traces": self.traces, "link": self.link,
        }  # fmt: skip


Findings = Iterator[Finding]


def sentences(*parts: str) -> str:
    """Return the parts that are not empty as one text."""
    return " ".join(filter(None, parts))


def ordered(findings: list[Finding]) -> list[Finding]:
    """Return ongoing findings before those that are over, then by severity, causes before their effects."""
    return sorted(
        findings, key=lambda f: (f.until is not None, SEVERITIES.index(f.severity), bool(f.of), -(f.until or 0))
    )


def explore(dataset: Dataset, engine: str, query: str) -> str:
    """Return a link to a query, or to a trace by its id, over the long time range; empty without Grafana."""
    if not dataset.grafana:
        return ""
    field, more = QUERIES[engine]
    uid = f"vantage-{engine}"
    pane = {
        "datasource": uid,
        "queries": [{"refId": "A", "datasource": {"type": engine, "uid": uid}, field: query, **more}],
        "range": {"from": str(int(dataset.begin("long") * 1000)), "to": str(int(dataset.end * 1000))},
    }
    panes = quote(json.dumps({"vantage": pane}, separators=(",", ":")))
    return f"{dataset.grafana}/explore?schemaVersion=1&orgId=1&panes={panes}"
