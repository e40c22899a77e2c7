"""Findings: what is wrong, in plain sentences, each with the query that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("critical", "warning", "note")


@dataclass
class Finding:
    """One thing that is wrong.

    `kind` names the rule that found it. `of` is the service whose fault it follows from, where another one causes it.
    `proof` is a query: (engine, text). `since` and `until` are seconds since 1970; without `until` it goes on.
    `periods` are the times within these two where it came and went.
    """

    kind: str
    severity: str
    service: str
    title: str
    text: str
    proof: tuple[str, str]
    of: str = ""
    since: float | None = None
    until: float | None = None
    periods: list[tuple[float, float]] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    link: str = ""

    def plain(self) -> dict[str, Any]:
        """The finding as data, for machines."""
        return {
            "kind": self.kind, "severity": self.severity, "service": self.service, "title": self.title, "text": self.text,
            "because_of": self.of, "since": self.since, "until": self.until, "periods": self.periods,
            "proof": {"engine": self.proof[0], "query": self.proof[1]}, "traces": self.traces, "link": self.link,
        }  # fmt: skip


def ordered(findings: list[Finding]) -> list[Finding]:
    """Causes before what follows from them, what goes on before what is over, the severe first."""
    return sorted(
        findings,
        key=lambda f: (f.until is not None, SEVERITIES.index(f.severity), bool(f.of), -(f.until or 0)),
    )
