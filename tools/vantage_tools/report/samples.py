"""Log lines and traces of a real run, as files for docs/samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vantage_tools.errors import UserError
from vantage_tools.report import pictures
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import environment

RAW, FILTERED = "logs-as-they-are.txt", "logs-filtered.jsonl"
LINES = 40
# The fields of a filtered line; a stack trace is in the raw lines.
FIELDS = (
    *("timestamp", "level", "service", "http_request_method", "http_route", "http_response_status_code"),
    *("duration_ms", "exception_type", "exception_message", "trace_id"),
)


def write(data: dict[str, Any], folder: Path) -> list[str]:
    """Write the samples and return their names; raises UserError without lines or traces."""
    dataset = Dataset(data)
    raw, filtered = dataset.lines("raw")[:LINES], dataset.parsed_lines()[:LINES]
    if not raw or not pictures.choose_traces(dataset):
        raise UserError("the data has no log lines or no traces.", "send requests first: make traffic")
    folder.mkdir(parents=True, exist_ok=True)
    # The oldest first.
    (folder / RAW).write_text("".join(f"{line}\n" for _, line, _ in reversed(raw)), encoding="utf-8")
    fields = [{name: line[name] for name in FIELDS if name in line} for _, line in reversed(filtered)]
    lines = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in fields)
    (folder / FILTERED).write_text(lines, encoding="utf-8")
    drawn = pictures.draw_traces(dataset, folder)
    values = {"raw": len(raw), "filtered": len(filtered), "raw_file": RAW, "filtered_file": FILTERED, "traces": drawn}
    readme = environment().get_template("samples.md.j2").render(dataset=dataset, titles=pictures.TRACE_TITLES, **values)
    (folder / "README.md").write_text(readme.rstrip() + "\n", encoding="utf-8")
    return [RAW, FILTERED, *(picture.file for picture in drawn.values()), "README.md"]
