"""The report as Markdown beside its pictures, as one HTML page made of it, and its findings as JSON."""

from __future__ import annotations

import base64
import json
import re
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt

from vantage_tools.report import pictures, tables
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, explore
from vantage_tools.report.formats import clip, clock, escape, plural
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
    markdown = page("report.md.j2", **_values(dataset, findings), pictures=drawn)
    (folder / MARKDOWN).write_text(markdown, encoding="utf-8")
    (folder / HTML).write_text(_html(markdown, [folder / picture.file for picture in drawn.values()]), encoding="utf-8")
    plain = json.dumps([finding.plain() for finding in findings], indent=1, ensure_ascii=False)
    (folder / FINDINGS).write_text(plain + "\n", encoding="utf-8")
    return findings


def page(template: str, **values: Any) -> str:
    """Return a rendered page, with one empty line at most between two blocks."""
    text = _environment().get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"clock": clock, "escape": escape}
    return found


def _values(dataset: Dataset, findings: list[Finding]) -> dict[str, Any]:
    def trace(trace_id: str) -> str:
        link = explore(dataset, "jaeger", trace_id)
        return f"[{trace_id[:12]}…]({link})" if link else escape(trace_id)

    def grid(table: tables.Table) -> str:
        if not table.rows:
            return table.empty
        rules = ["---:" if column in table.numbers else "---" for column in range(len(table.head))]
        lines = [map(escape, table.head), rules]
        for row in table.rows:
            lines.append(
                [
                    trace(text) if head == "Trace" and text else escape(text)
                    for head, text in zip(table.head, row, strict=True)
                ]
            )
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    return {
        "dataset": dataset,
        "findings": findings,
        "summary": _summary(findings),
        "warnings": list(data_quality_warnings(dataset)),
        "tables": tables,
        "titles": pictures.TRACE_TITLES,
        "trace": trace,
        "grid": grid,
        "raw": [f"{clock(at)} {name} {clip(line)}" for at, name, line in islice(dataset.lines("raw"), MAX_RAW_LINES)],
    }


def _summary(findings: list[Finding]) -> str:
    severities = [finding.severity for finding in findings if finding.until is None]
    over = len(findings) - len(severities)
    text = f"{plural(len(severities), 'finding')}, {severities.count('critical') or 'none'} of them critical."
    text = text if severities else "No rule found a problem."
    return text + (f" Earlier and over: {plural(over, 'finding')}." if over else "")


def _html(markdown: str, files: list[Path]) -> str:
    """Return the page with its pictures inside; HTML in the data is shown as text."""
    body = str(MarkdownIt("js-default").render(markdown))
    for file in files:
        content = base64.b64encode(file.read_bytes()).decode()
        body = body.replace(f'src="{file.name}"', f'src="data:image/png;base64,{content}"')
    body = re.sub(r"<h3>(Critical|Warning|Note):", lambda m: f'<h3 class="{m[1].lower()}">{m[1]}:', body)
    # The menu leads to the headings as GitHub names them.
    body = re.sub(r"<h2>(\w+)", lambda m: f'<h2 id="{m[1].lower()}">{m[1]}', body)
    # Of the body, where its special characters are escaped for HTML, not for Markdown.
    title = re.search(r"<h1>(.*?)</h1>", body)
    return page("page.html.j2", title=title[1] if title else "", body=body)
