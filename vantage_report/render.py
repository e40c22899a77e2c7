"""The report as one HTML page that needs no other file, as Markdown beside its pictures, and its findings as JSON."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vantage_report import pictures, tables, words
from vantage_report.analyse import Facts, spoken
from vantage_report.detectors import detect
from vantage_report.findings import Finding
from vantage_report.links import Grafana

TEMPLATES = Path(__file__).resolve().parent / "templates"
RAW_LINES = 14
# A stack trace fills pages; the whole line is in Loki.
LINE = 600
HTML, MARKDOWN, FINDINGS = "report.html", "report.md", "findings.json"


def write(data: dict[str, Any], folder: Path) -> list[Finding]:
    """Analyse, draw and write everything into the folder; the findings. What an earlier report left there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        if old.stem in KNOWN:
            old.unlink()
    facts = Facts(data)
    findings = detect(facts)
    drawn = pictures.draw(facts, findings, folder)
    context = _context(facts, findings, drawn, folder)
    for template, name in (("report.html.j2", HTML), ("report.md.j2", MARKDOWN)):
        text = _environment(template.endswith(".html.j2")).get_template(template).render(context)
        (folder / name).write_text(text.rstrip() + "\n", encoding="utf-8")
    plain = [finding.plain() for finding in findings]
    (folder / FINDINGS).write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return findings


KNOWN = {"requests", "errors", "latency", "time", "services", "trace-slowest", "trace-typical", "trace-failing"}


def summary(facts: Facts, findings: list[Finding]) -> str:
    """One sentence on the whole."""
    now = [finding for finding in findings if finding.until is None]
    over = len(findings) - len(now)
    past = (
        f" {over} thing{'s' if over > 1 else ''} happened earlier and {'are' if over > 1 else 'is'} over."
        if over
        else ""
    )
    if not now:
        seen = sum(service.all["short"].requests for service in facts.services.values())
        calm = (
            "Nothing is wrong that the rules know of"
            if seen >= 1
            else "Nothing is wrong that the rules know of; nobody asked for anything, either"
        )
        return f"{calm}.{past}"
    severe = sum(finding.severity == "critical" for finding in now)
    return f"{len(now)} finding{'s' if len(now) > 1 else ''}, {severe or 'none'} of them critical.{past}"


def _environment(html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=html, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "clock": words.clock, "cell": _cell, "clip": _clip, "seconds": words.seconds, "count": words.count,
    }  # fmt: skip
    return environment


def _context(facts: Facts, findings: list[Finding], drawn: dict[str, pictures.Picture], folder: Path) -> dict[str, Any]:
    grafana = Grafana.of(facts)
    embedded = {
        name: "data:image/png;base64," + base64.b64encode((folder / picture.file).read_bytes()).decode()
        for name, picture in drawn.items()
    }
    fields = tables.filtered(facts)
    return {
        "facts": facts, "meta": facts.meta, "findings": findings, "summary": summary(facts, findings), "thin": list(facts.thin()),
        "pictures": drawn, "embedded": embedded, "tables": tables, "end": facts.end,
        "short": spoken(facts.short), "long": spoken(facts.long),
        "trace_link": lambda trace_id: grafana.trace(trace_id, facts),
        "raw": [(at, labels.get("service_name", ""), line) for at, line, labels in facts.lines("raw")[:RAW_LINES]],
        "filtered": fields, "filtered_failed": bool(facts.lines("failed")),
        "one": tables.parsed(facts)[0][1] if tables.parsed(facts) else None,
        "queries": _queries(facts), "grafana": grafana.address,
    }  # fmt: skip


def _queries(facts: Facts) -> list[tuple[str, str]]:
    """The queries behind the figures, by what they are for."""
    named = (
        ("Requests by route and status", "requests@short"), ("Durations by route", "buckets@short"),
        ("Requests per second, over time", "rate~short"), ("95th percentile, over time", "p95~short"),
        ("Calls between services", "calls@short"), ("Patterns of errors and warnings", "patterns@short"),
        ("Lines by service and level", "volume@short"),
    )  # fmt: skip
    return [(what, facts.query(name)) for what, name in named if facts.query(name)]


def _cell(text: object) -> str:
    """Text inside a Markdown table."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").replace("`", "'")


def _clip(text: str, most: int = LINE) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters)"
