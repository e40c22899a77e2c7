"""Warnings about figures that rest on too little data."""

from __future__ import annotations

from collections.abc import Iterator

from vantage_tools.report import thresholds as limit
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.formats import format_duration, plural


def data_quality_warnings(dataset: Dataset) -> Iterator[str]:
    """Yield a sentence for each figure that rests on too little data."""
    for name, engine in dataset.engines.items():
        if not engine["ok"]:
            yield f"{name.capitalize()} did not answer ({engine['error']}): its data is missing."
    for problem in dataset.data["problems"][: limit.MAX_LISTED_PROBLEMS]:
        yield f"{problem}."
    first = min(dataset.first_seen.values(), default=0.0)
    if first - dataset.begin("long") > max(limit.YOUNG_SECONDS, limit.YOUNG_RATIO * dataset.long):
        covered = format_duration(dataset.end - first)
        yield f"Prometheus has data of the last {covered} only; the {dataset.last['long']} is incomplete."
    if dataset.engines["prometheus"]["ok"]:
        for name, service in dataset.services.items():
            few = [w for w in ("short", "long") if service.all[w].requests < limit.MIN_REQUESTS]
            if few:
                requests, last = service.all[few[0]].requests, dataset.last[few[0]]
                yield f"{name} had {plural(requests, 'request')} in the {last}: percentiles are unreliable."
        if of_spans := [name for name, service in dataset.services.items() if service.of_spans]:
            yield f"No request metrics of {', '.join(of_spans)}: rates and percentiles are those of the spans in Jaeger."
        if of_lines := [name for name, service in dataset.services.items() if service.of_lines]:
            yield f"No request metrics of {', '.join(of_lines)}: rates and percentiles are those of the access lines."
        if without_metrics := sorted(set(dataset.apps) - set(dataset.services)):
            names = ", ".join(without_metrics)
            yield f"Traces, but no request metrics: {names}. Rates and percentiles are missing."
    if dataset.engines["jaeger"]["ok"]:
        for window, when in (("short", dataset.last["short"]), ("base", "time before")):
            traces = len(dataset.sample(window))
            if traces < limit.MIN_TRACES:
                yield f"{plural(traces, 'trace').capitalize()} in the {when}: shares of time are unreliable."
