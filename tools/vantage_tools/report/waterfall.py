"""One trace as a picture: every span a bar below its parent, from left to right in time."""

from __future__ import annotations

from matplotlib.figure import Figure

from vantage_tools.report.charts import BAD, WIDTH, colour
from vantage_tools.report.formats import clock, seconds
from vantage_tools.report.spans import Span, Trace

# Of a longer trace, the longest spans are shown.
MAX_ROWS = 30
MAX_LABEL = 54


def draw(trace: Trace, services: list[str]) -> Figure:
    """Return the picture; colours are services, hatched bars are errors."""
    rows = _rows(trace)
    unit, factor = ("s", 1e6) if trace.us >= 2e6 else ("ms", 1e3)
    total = trace.us / factor
    figure = Figure(figsize=(WIDTH, 0.8 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        range(len(rows)),
        [max(span.us / factor, total / 400) for span in rows],
        left=[(span.start - trace.start) / factor for span in rows],
        height=0.62,
        color=[(colour(services, span.service), 0.45 if span.error else 1.0) for span in rows],
        edgecolor=[BAD if span.error else "none" for span in rows],
        hatch=["////" if span.error else "" for span in rows],
    )
    axes.bar_label(bars, [seconds(span.us / 1e6) + _outcome(span) for span in rows], padding=5, fontsize=8)
    axes.set_yticks(range(len(rows)), labels := [_label(span) for span in rows], ha="left")
    axes.tick_params(axis="y", length=0, pad=max(map(len, labels)) * 5.5 + 6)
    axes.invert_yaxis()
    # Room for the text beside the last bar.
    axes.set_xlim(0, total * 1.25)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} {unit}")
    hidden = len(trace.spans) - len(rows)
    more = f"; {hidden} shorter spans are not shown" if hidden else ""
    title = (
        f"{trace.root.service}: {trace.root.label}, {seconds(trace.us / 1e6)}, at {clock(trace.start / 1e6)} UTC{more}"
    )
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def _rows(trace: Trace) -> list[Span]:
    """Return the spans that are shown: the root, errors, and the longest."""
    ranked = sorted(trace.spans, key=lambda s: (not s.error, s is not trace.root, -s.us))
    shown = {id(span) for span in ranked[:MAX_ROWS]}
    return [span for span in trace.spans if id(span) in shown]


def _label(span: Span) -> str:
    text = "  " * min(span.depth, 6) + f"{span.service}: {span.label}"
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def _outcome(span: Span) -> str:
    """Return the error or the status of a span that did not succeed."""
    if span.error_type:
        return f"  {span.error_type.rsplit('.', 1)[-1]}"
    return f"  {span.status}" if span.status >= 400 else ""
