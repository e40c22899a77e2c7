"""All pictures of a report, and the traces that get one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from vantage_tools.report import charts, service_map, waterfall
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.findings import Finding, sentences
from vantage_tools.report.formats import listed, seconds
from vantage_tools.report.spans import Trace
from vantage_tools.report.stats import median

TRACE_TITLES = {"slowest": "The slowest", "typical": "A typical one", "failing": "A failing one"}
NAMES = {"requests", "errors", "latency", "time", "services", *(f"trace-{name}" for name in TRACE_TITLES)}
STYLE = {
    **{"font.family": "DejaVu Sans", "font.size": 9, "legend.frameon": False, "axes.edgecolor": "#8a8a8a"},
    **{"axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.axisbelow": True},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e3e3e3"},
}


@dataclass
class Picture:
    """A picture's file, its alternative text, and a sentence on what to see in it."""

    file: str
    alt: str
    text: str = ""
    trace: str = ""


def draw(dataset: Dataset, findings: list[Finding], folder: Path) -> dict[str, Picture]:
    """Write every picture that there is data for; return them by name."""
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for name, alt, figure in charts.figures(dataset, findings):
            drawn[name] = _save(figure, folder, Picture(f"{name}.png", alt))
        if calls := service_map.calls(dataset):
            picture = Picture("services.png", "Services and the calls between them")
            drawn["services"] = _save(service_map.draw(dataset, calls), folder, picture)
    return drawn | draw_traces(dataset, folder)


def draw_traces(dataset: Dataset, folder: Path) -> dict[str, Picture]:
    """Write the pictures of the chosen traces; return them by name."""
    drawn = {}
    for name, (trace, text) in choose_traces(dataset).items():
        alt = f"Waterfall of a trace: {len(trace.spans)} spans, {seconds(trace.us / 1e6)}"
        with matplotlib.rc_context(STYLE):
            picture = Picture(f"trace-{name}.png", alt, text, trace.id)
            drawn[f"trace-{name}"] = _save(waterfall.draw(trace, dataset.apps), folder, picture)
    return drawn


def _save(figure: Figure, folder: Path, picture: Picture) -> Picture:
    figure.savefig(folder / picture.file, dpi=110)
    # With few colours it looks the same and is several times smaller.
    with Image.open(folder / picture.file) as image:
        image.convert("RGB").quantize(128).save(folder / picture.file, optimize=True)
    return picture


def choose_traces(dataset: Dataset) -> dict[str, tuple[Trace, str]]:
    """Return the slowest, a typical and a failing trace with a sentence, as far as there are three different ones."""
    pool = {trace.id: trace for traces in dataset.traces.values() for trace in traces if trace.is_complete}
    searches = ("short", "slow@short", "failed@short")
    ids = dict.fromkeys(trace.id for search in searches for trace in dataset.sample(search))
    recent = [pool[trace_id] for trace_id in ids if trace_id in pool]
    traces, last = (recent, dataset.last["short"]) if recent else (list(pool.values()), dataset.last["long"])
    slowest = max(traces, key=lambda trace: trace.us, default=None)
    found: dict[str, tuple[Trace, str]] = {}
    for candidates, when in ((traces, last), (list(pool.values()), dataset.last["long"])):
        if "failing" not in found and any(trace.failed for trace in candidates):
            found["failing"] = _choose_failing(candidates, slowest, when)
    chosen = {trace.id for trace, _ in found.values()}
    if others := [trace for trace in traces if trace.id not in chosen]:
        second = max(others, key=lambda trace: trace.us)
        besides = "" if second is slowest else ", besides the failing one"
        text = f"The slowest of {len(traces)} traces from the {last}{besides}."
        found["slowest"] = second, sentences(text, _spent(second))
        chosen.add(second.id)
    sample = [t for t in dataset.sample("short") or dataset.sample("base") if t.is_complete and t.id not in chosen]
    if fine := [trace for trace in sample if not trace.failed]:
        found["typical"] = _choose_typical(fine)
    return {name: found[name] for name in TRACE_TITLES if name in found}


def _choose_failing(traces: list[Trace], slowest: Trace | None, last: str) -> tuple[Trace, str]:
    """Return a trace of the most frequent failure: of those, one that is not the slowest and has the most spans."""
    spans = {trace.id: span for trace in traces if (span := trace.failing_span)}
    kinds = {key: (span.service, span.label, span.error_type) for key, span in spans.items()}
    usual, _ = Counter(kinds.values()).most_common(1)[0]
    same = [trace for trace in traces if kinds.get(trace.id) == usual]
    trace = max(same, key=lambda t: (t is not slowest, len(t.spans), t.start))
    service, label, error = usual
    text = sentences(
        f"It fails in {service}, in {label}{f', with {error}' if error else ''}.",
        f"{len(same)} of {len(kinds)} failing traces from the {last} fail the same way.",
    )
    return trace, text


def _choose_typical(traces: list[Trace]) -> tuple[Trace, str]:
    """Return the trace of median length of the most frequent operation; operations with calls are preferred."""
    calling = [trace for trace in traces if len(trace.services) > 1] or traces
    names = [(trace.root.service, trace.root.label) for trace in calling]
    usual = max(names, key=names.count)
    same = [trace for trace, name in zip(calling, names, strict=True) if name == usual]
    middle = median(trace.us for trace in same)
    trace = min(same, key=lambda t: abs(t.us - middle))
    return trace, sentences(f"The median of {len(same)} sampled traces of {usual[1]}.", _spent(trace))


def _spent(trace: Trace) -> str:
    """Return the spans with the most self time, as a sentence."""
    longest = sorted(trace.spans, key=lambda span: -span.self_us)[:2]
    shown = [f"{span.label} of {span.service} ({seconds(span.self_us / 1e6)})" for span in longest if span.self_us]
    return f"Most self time: {listed(shown)}." if shown else ""
