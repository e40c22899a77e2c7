"""All pictures of a report, and the traces that get one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vantage_tools.report import plots, servicemap, waterfall
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, text
from vantage_tools.report.formats import seconds
from vantage_tools.report.spans import Trace
from vantage_tools.report.stats import median

TRACE_TITLES = {"slowest": "The slowest", "typical": "A typical one", "failing": "A failing one"}
NAMES = {"requests", "errors", "latency", "time", "services", *(f"trace-{name}" for name in TRACE_TITLES)}


@dataclass
class Picture:
    """A picture's file, its alternative text, and a sentence on what to see in it."""

    file: str
    alt: str
    text: str = ""
    trace: str = ""


@dataclass
class ChosenTrace:
    """A trace and the reason why it was chosen."""

    trace: Trace
    text: str


def draw(dataset: Dataset, findings: list[Finding], folder: Path) -> dict[str, Picture]:
    """Write every picture that there is data for; return them by name."""
    drawn = {name: Picture(f"{name}.png", alt) for name, alt in plots.draw_all(dataset, findings, folder).items()}
    drawn |= draw_traces(dataset, folder)
    if servicemap.draw(dataset, servicemap.calls(dataset), folder / "services.png"):
        drawn["services"] = Picture("services.png", "Services and the calls between them")
    return drawn


def draw_traces(dataset: Dataset, folder: Path) -> dict[str, Picture]:
    """Write the pictures of the chosen traces; return them by name."""
    drawn = {}
    for name, chosen in choose_traces(dataset).items():
        trace, file = chosen.trace, f"trace-{name}.png"
        waterfall.draw(trace, dataset.apps, folder / file)
        alt = f"Waterfall of a trace: {len(trace.spans)} spans, {seconds(trace.us / 1e6)}"
        drawn[f"trace-{name}"] = Picture(file, alt, chosen.text, trace.id)
    return drawn


def choose_traces(dataset: Dataset) -> dict[str, ChosenTrace]:
    """Return the slowest, a typical and a failing trace, as far as there are three different ones."""
    pool = {trace.id: trace for traces in dataset.traces.values() for trace in traces if trace.is_complete}
    searches = ("short", "slow@short", "failed@short")
    ids = dict.fromkeys(trace.id for search in searches for trace in dataset.sample(search))
    recent = [pool[trace_id] for trace_id in ids if trace_id in pool]
    traces, window = (recent, dataset.short) if recent else (list(pool.values()), dataset.long)
    slowest = max(traces, key=lambda trace: trace.us, default=None)
    found: dict[str, ChosenTrace] = {}
    for candidates, length in ((traces, window), (list(pool.values()), dataset.long)):
        if not found and any(trace.failed for trace in candidates):
            found["failing"] = _choose_failing(candidates, slowest, length)
    others = [trace for trace in traces if trace.id not in _ids(found)]
    if others:
        second = max(others, key=lambda trace: trace.us)
        values = {"total": len(traces), "window": window, "besides": second is not slowest, "spent": _spent(second)}
        found["slowest"] = ChosenTrace(second, text("trace", "slowest", **values))
    sample = [t for t in dataset.sample("short") or dataset.sample("base") if t.is_complete and t.id not in _ids(found)]
    if typical := _choose_typical(sample):
        found["typical"] = typical
    return {name: found[name] for name in TRACE_TITLES if name in found}


def _ids(chosen: dict[str, ChosenTrace]) -> set[str]:
    return {one.trace.id for one in chosen.values()}


def _choose_failing(traces: list[Trace], slowest: Trace | None, window: float) -> ChosenTrace:
    """Return a trace of the most frequent failure: of those, one that is not the slowest and has the most spans."""
    spans = {trace.id: span for trace in traces if (span := trace.failing_span)}
    kinds = {key: (span.service, span.label, span.tags.get("error.type", "")) for key, span in spans.items()}
    usual = Counter(kinds.values()).most_common(1)[0][0]
    same = [trace for trace in traces if kinds.get(trace.id) == usual]
    trace = max(same, key=lambda t: (t is not slowest, len(t.spans), t.start))
    values = {"span": spans[trace.id], "same": len(same), "total": len(kinds), "window": window}
    return ChosenTrace(trace, text("trace", "failing", **values))


def _choose_typical(traces: list[Trace]) -> ChosenTrace | None:
    """Return the trace of median length of the most frequent operation; operations with calls are preferred."""
    fine = [trace for trace in traces if not trace.failed]
    calling = [trace for trace in fine if len(trace.services) > 1] or fine
    if not calling:
        return None
    names = [(trace.root.service, trace.root.label) for trace in calling]
    usual = max(names, key=names.count)
    same = [trace for trace, name in zip(calling, names, strict=True) if name == usual]
    middle = median(trace.us for trace in same)
    trace = min(same, key=lambda t: abs(t.us - middle))
    return ChosenTrace(trace, text("trace", "typical", total=len(same), operation=usual[1], spent=_spent(trace)))


def _spent(trace: Trace) -> str:
    """Return the spans with the most self time, as a sentence."""
    longest = sorted(trace.spans, key=lambda span: -span.self_us)[:2]
    shown = [f"{span.label} of {span.service} ({seconds(span.self_us / 1e6)})" for span in longest if span.self_us]
    return text("trace", "spent", spans=shown)
