"""The report as one HTML page that needs no other file, as Markdown beside its pictures, and its findings as JSON."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from vantage_tools.report import links, pictures, tables
from vantage_tools.report.dataset import ERROR_LEVELS, Dataset
from vantage_tools.report.findings import Finding, environment, text
from vantage_tools.report.formats import clip, clock
from vantage_tools.report.quality import data_quality_warnings
from vantage_tools.report.rules import detect

MAX_RAW_LINES = 14
HTML, MARKDOWN, FINDINGS = "report.html", "report.md", "findings.json"


def write(data: dict[str, Any], folder: Path) -> list[Finding]:
    """Write the report into the folder, replacing an earlier one, and return its findings."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in pictures.NAMES:
        (folder / f"{name}.png").unlink(missing_ok=True)
    dataset = Dataset(data)
    findings = detect(dataset)
    drawn = pictures.draw(dataset, findings, folder)
    context = _context(dataset, findings, drawn, folder)
    html = environment(autoescape=True).get_template("report.html.j2").render(context, layout="html.j2")
    (folder / HTML).write_text(html, encoding="utf-8")
    markdown = environment().get_template("report.j2").render(context, layout="markdown.j2")
    (folder / MARKDOWN).write_text(re.sub(r"\n[ \n]*\n\n", "\n\n", markdown).strip() + "\n", encoding="utf-8")
    plain = json.dumps([finding.plain() for finding in findings], indent=1, ensure_ascii=False)
    (folder / FINDINGS).write_text(plain + "\n", encoding="utf-8")
    return findings


def _context(
    dataset: Dataset, findings: list[Finding], drawn: dict[str, pictures.Picture], folder: Path
) -> dict[str, Any]:
    now = [finding for finding in findings if finding.until is None]
    critical = sum(finding.severity == "critical" for finding in now)
    requests = sum(service.all["short"].requests for service in dataset.services.values())
    embedded = {
        name: base64.b64encode((folder / picture.file).read_bytes()).decode() for name, picture in drawn.items()
    }
    parsed = dataset.parsed_lines()
    raw = dataset.lines("raw")[:MAX_RAW_LINES]
    return {
        "dataset": dataset,
        "meta": dataset.meta,
        "findings": findings,
        "summary": text(
            "summary", "text", now=now, critical=critical, over=len(findings) - len(now), requests=requests
        ),
        "warnings": list(data_quality_warnings(dataset)),
        "pictures": drawn,
        "embedded": {name: f"data:image/png;base64,{content}" for name, content in embedded.items()},
        "tables": tables,
        "titles": pictures.TRACE_TITLES,
        "bad": ERROR_LEVELS,
        "grafana": links.grafana_address(dataset),
        "trace_link": lambda trace_id: links.explore(dataset, "jaeger", trace_id),
        "raw": [(f"{clock(at)} {labels.get('service_name', '')}", clip(line)) for at, line, labels in raw],
        "first_line": [(key, clip(str(value), 900)) for key, value in parsed[0][1].items()] if parsed else [],
    }
