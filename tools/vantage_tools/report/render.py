"""The report as one HTML page that needs no other file, as Markdown beside its pictures, and its findings as JSON."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vantage_tools.report import pictures, tables
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import FOLDER, Finding, text
from vantage_tools.report.formats import FILTERS
from vantage_tools.report.links import Grafana
from vantage_tools.report.quality import data_quality_warnings
from vantage_tools.report.rules import detect

MAX_RAW_LINES = 14
HTML, MARKDOWN, FINDINGS = "report.html", "report.md", "findings.json"
# The queries that the report lists, by what they are for.
QUERIES = {
    "Requests by route and status": "requests@short", "Latency by route": "buckets@short",
    "Requests per second, over time": "rate~short", "95th percentile, over time": "p95~short",
    "Calls between services": "calls@short", "Patterns of errors and warnings": "patterns@short",
    "Lines by service and level": "volume@short",
}  # fmt: skip


def write(data: dict[str, Any], folder: Path) -> list[Finding]:
    """Write the report into the folder, replacing an earlier one, and return its findings."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        if old.stem in pictures.NAMES:
            old.unlink()
    dataset = Dataset(data)
    findings = detect(dataset)
    drawn = pictures.draw(dataset, findings, folder)
    context = _context(dataset, findings, drawn, folder)
    for name in (HTML, MARKDOWN):
        environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"), autoescape=name == HTML, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, keep_trailing_newline=True,
        )  # fmt: skip
        environment.filters |= FILTERS
        page = environment.get_template(f"{name}.j2").render(context).rstrip() + "\n"
        if name == MARKDOWN:
            page = re.sub(r"\n[ \n]*\n\n", "\n\n", page)
        (folder / name).write_text(page, encoding="utf-8")
    plain = json.dumps([finding.plain() for finding in findings], indent=1, ensure_ascii=False)
    (folder / FINDINGS).write_text(plain + "\n", encoding="utf-8")
    return findings


def summary(dataset: Dataset, findings: list[Finding]) -> str:
    """Return one sentence on the whole."""
    now = [finding for finding in findings if finding.until is None]
    return text(
        "summary", "text", now=now, critical=sum(finding.severity == "critical" for finding in now), over=len(findings) - len(now),
        requests=sum(service.all["short"].requests for service in dataset.services.values()),
    )  # fmt: skip


def _context(
    dataset: Dataset, findings: list[Finding], drawn: dict[str, pictures.Picture], folder: Path
) -> dict[str, Any]:
    grafana = Grafana.of(dataset)
    embedded = {
        name: "data:image/png;base64," + base64.b64encode((folder / picture.file).read_bytes()).decode()
        for name, picture in drawn.items()
    }
    parsed = dataset.parsed_lines()
    return {
        "dataset": dataset, "meta": dataset.meta, "findings": findings, "summary": summary(dataset, findings),
        "warnings": list(data_quality_warnings(dataset)), "pictures": drawn, "embedded": embedded, "tables": tables,
        "titles": pictures.TRACE_TITLES, "grafana": grafana.address,
        "trace_link": lambda trace_id: grafana.trace(trace_id, dataset),
        "raw": [(at, labels.get("service_name", ""), line) for at, line, labels in dataset.lines("raw")[:MAX_RAW_LINES]],
        "filtered": tables.filtered(dataset), "has_failed_lines": bool(dataset.lines("failed")), "first_line": parsed[0][1] if parsed else {},
        "queries": [(what, query) for what, name in QUERIES.items() if (query := dataset.query(name))],
    }  # fmt: skip
