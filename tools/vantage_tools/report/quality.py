"""Warnings about figures that rest on too little data."""

from __future__ import annotations

from collections.abc import Iterator

from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import text
from vantage_tools.report.thresholds import MAX_LISTED_PROBLEMS, MIN_REQUESTS, MIN_TRACES, YOUNG_RATIO, YOUNG_SECONDS


def data_quality_warnings(dataset: Dataset) -> Iterator[str]:
    """Yield a sentence for each figure that rests on too little data."""
    for name, engine in dataset.engines.items():
        if not engine["ok"]:
            yield text("quality", "engine", name=name, error=engine["error"])
    for problem in dataset.data["problems"][:MAX_LISTED_PROBLEMS]:
        yield text("quality", "problem", problem=problem)
    first = min(dataset.first_seen.values(), default=0.0)
    if first - dataset.begin("long") > max(YOUNG_SECONDS, YOUNG_RATIO * dataset.long):
        yield text("quality", "young", covered=dataset.end - first, long=dataset.long)
    if dataset.engines["prometheus"]["ok"]:
        yield from _few_requests(dataset)
    if dataset.engines["jaeger"]["ok"]:
        for window in ("short", "base"):
            traces = len(dataset.sample(window))
            if traces < MIN_TRACES:
                yield text("quality", "few_traces", traces=traces, window=window, short=dataset.short)


def _few_requests(dataset: Dataset) -> Iterator[str]:
    for name, service in dataset.services.items():
        for window, seconds in (("short", dataset.short), ("long", dataset.long)):
            requests = service.all[window].requests
            if requests < MIN_REQUESTS:
                yield text("quality", "few_requests", service=name, requests=requests, window=seconds)
                break
    if without_metrics := sorted(set(dataset.apps) - set(dataset.services)):
        yield text("quality", "no_metrics", services=without_metrics)
