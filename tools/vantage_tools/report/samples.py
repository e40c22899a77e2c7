"""Log lines and traces of a real run, as files for docs/samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vantage_tools.errors import UserError
from vantage_tools.report import pictures
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.render import page

RAW, FILTERED = "logs-as-they-are.txt", "logs-filtered.jsonl"
LINES = 40
# The fields of a filtered line; a stack trace is in the raw lines.
FIELDS = (
    *("timestamp", "level", "service", "http_request_method", "http_route", "http_response_status_code"),
    *("duration_ms", "exception_type", "exception_message", "trace_id"),
)


def write(data: dict[str, Any], folder: Path) -> list[str]:
    """Write the samples, the oldest line first, and return their names; raises UserError without lines or traces."""
    dataset = Dataset(data)
    raw = [line for _, _, line in dataset.lines("raw")[:LINES]][::-1]
    filtered = [{name: fields[name] for name in FIELDS if name in fields} for _, fields in dataset.parsed_lines()]
    filtered = filtered[:LINES][::-1]
    if not raw or not pictures.choose_traces(dataset):
        raise UserError("the data has no log lines or no traces.", "send requests first: make traffic")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = pictures.draw_traces(dataset, folder)
    values = {"raw": len(raw), "filtered": len(filtered), "raw_file": RAW, "filtered_file": FILTERED, "traces": drawn}
    texts = {
        RAW: "".join(f"{line}\n" for line in raw),
        FILTERED: "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in filtered),
        "README.md": page("samples.md.j2", dataset=dataset, titles=pictures.TRACE_TITLES, **values),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*texts, *(picture.file for picture in drawn.values())]
