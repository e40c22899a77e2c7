"""python -m vantage_report.samples: log lines and traces of a real run, as files to show."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

from vantage_report import pictures, tables, waterfall
from vantage_report.analyse import Facts, spoken
from vantage_report.words import clock, seconds

RAW, FILTERED = "logs-as-they-are.txt", "logs-filtered.jsonl"
LINES = 40
# What is left of a line when it is read by its fields; a stack trace has its place in the raw lines.
SHOWN = (
    "timestamp", "level", "service", "http_request_method", "http_route", "http_response_status_code", "duration_ms",
    "exception_type", "exception_message", "trace_id",
)  # fmt: skip


def write(data: dict[str, Any], folder: Path) -> list[str]:
    """Write the samples; the names of the files. Raises ValueError where there is nothing to show."""
    facts = Facts(data)
    raw, filtered = facts.lines("raw")[:LINES], tables.parsed(facts)[:LINES]
    chosen = pictures.chosen(facts)
    if not raw or not chosen:
        raise ValueError("there are no lines or no traces to show; send visitors first, for example with: make traffic")
    folder.mkdir(parents=True, exist_ok=True)
    # As they are read: the oldest first.
    (folder / RAW).write_text("".join(f"{line}\n" for _, line, _ in reversed(raw)), encoding="utf-8")
    chosen_fields = [{name: fields[name] for name in SHOWN if name in fields} for _, fields in reversed(filtered)]
    (folder / FILTERED).write_text(
        "".join(f"{json.dumps(f, ensure_ascii=False)}\n" for f in chosen_fields), encoding="utf-8"
    )
    for name, trace, _ in chosen:
        waterfall.draw(trace, facts.apps, folder / f"trace-{name}.png")
    (folder / "README.md").write_text(_readme(facts, len(raw), len(filtered), chosen), encoding="utf-8")
    return [RAW, FILTERED, *(f"trace-{name}.png" for name, _, _ in chosen), "README.md"]


def _readme(facts: Facts, raw: int, filtered: int, chosen: list[tuple[str, Any, str]]) -> str:
    query = facts.query("failed" if facts.lines("failed") else "raw")
    what = "failed requests" if facts.lines("failed") else "requests; none had failed"
    parts = [
        "# Samples\n\n"
        f"From a real run that ended {clock(facts.end, True)} UTC; the last {spoken(facts.short)} beside the last {spoken(facts.long)}. "
        "`make samples` writes them anew from the VM of `make up`.\n\n"
        "## Log lines\n\n"
        "| file | what it has | query of Loki |\n|---|---|---|\n"
        f"| [{RAW}]({RAW}) | {raw} lines as they are | `{_cell(facts.query('raw'))}` |\n"
        f"| [{FILTERED}]({FILTERED}) | {filtered} lines filtered by a JSON field ({what}), with the fields that tell most | `{_cell(query)}` |\n\n"
        "## Traces\n"
    ]
    for name, trace, text in chosen:
        title = {"slowest": "The slowest", "typical": "A typical one", "failing": "A failing one"}[name]
        shown = f"Waterfall of a trace: {len(trace.spans)} spans, {seconds(trace.us / 1e6)}"
        parts.append(f"\n### {title}\n\n![{shown}](trace-{name}.png)\n\n{text} Trace {trace.id}.\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(argv: list[str] | None = None) -> int:
    """0, or 1 with what is wrong on stderr."""
    parser = argparse.ArgumentParser(prog="vantage_report.samples", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data.json.gz of a report with report_keep_data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the samples")
    options = parser.parse_args(argv)
    try:
        names = write(json.loads(gzip.decompress(options.data.read_bytes())), options.out)
    except (OSError, ValueError) as error:
        print(f"samples: {error}", file=sys.stderr)
        return 1
    print(f"samples: {', '.join(names)} in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
