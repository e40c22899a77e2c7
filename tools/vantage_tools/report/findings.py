"""Findings: what is wrong, each with the query that shows it. Their words are in texts.yml."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from vantage_tools.report import formats
from vantage_tools.report.dataset import Dataset

SEVERITIES = ("critical", "warning", "note")
FOLDER = Path(__file__).resolve().parent


@dataclass
class Finding:
    """One thing that is wrong.

    `kind` names the rule. `of` is the service that causes it, when that is another one. `proof` is (engine, query).
    `since` and `until` are seconds since 1970; without `until` it goes on. `periods` are the episodes within these two.
    `figures` are the values that the text was made of.
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
    figures: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return the finding as data for machines."""
        return {
            "kind": self.kind, "severity": self.severity, "service": self.service, "title": self.title, "text": self.text,
            "because_of": self.of, "since": self.since, "until": self.until, "periods": self.periods,
            "proof": {"engine": self.proof[0], "query": self.proof[1]}, "traces": self.traces, "link": self.link,
        }  # fmt: skip


Findings = Iterator[Finding]


@cache
def texts() -> dict[str, dict[str, str]]:
    """Return the texts by name, each with its parts."""
    found: dict[str, dict[str, str]] = yaml.safe_load((FOLDER / "texts.yml").read_text(encoding="utf-8"))
    return found


@cache
def environment(autoescape: bool = False) -> Environment:
    """Return what renders the texts and the pages."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= formats.FILTERS
    return found


@cache
def _template(name: str, part: str) -> Template:
    return environment().from_string(texts()[name][part])


def text(name: str, part: str, /, **values: Any) -> str:
    """Return a part of a text with its values filled in; words are separated by single spaces, queries are kept."""
    found = _template(name, part).render(values)
    return found.strip() if part == "query" else " ".join(found.split())


def describe(
    dataset: Dataset,
    rule: str,
    severity: str,
    service: str,
    figures: dict[str, Any],
    *,
    of: str = "",
    since: float | None = None,
    until: float | None = None,
    traces: Sequence[str] = (),
) -> Finding:
    """Return the finding of a rule, in the words of texts.yml."""
    times = {"short": dataset.short, "long": dataset.long, "since": since, "until": until}
    values = {"service": service, "of": of, "traces": traces, **times, **figures}
    title, body, query = (text(rule, part, **values) for part in ("title", "text", "query"))
    kind, engine = (texts()[rule].get(key, default) for key, default in (("kind", rule), ("engine", "prometheus")))
    return Finding(
        kind, severity, service, title, body, (engine, query), of, since, until, traces=list(traces), figures=figures
    )


def ordered(findings: list[Finding]) -> list[Finding]:
    """Return ongoing findings before those that are over, then by severity, causes before their effects."""
    return sorted(
        findings, key=lambda f: (f.until is not None, SEVERITIES.index(f.severity), bool(f.of), -(f.until or 0))
    )
