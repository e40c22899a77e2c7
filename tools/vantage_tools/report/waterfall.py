"""One trace as a picture: every span a bar below its parent, from left to right in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib import ticker

from vantage_tools.report.formats import clock, seconds
from vantage_tools.report.plots import BAD, INK, STYLE, WIDTH, colour, save
from vantage_tools.report.spans import Span, Trace

# Of a longer trace, the longest spans are shown.
MAX_ROWS = 30
MAX_LABEL = 54
ERROR_BAR = {"edgecolor": BAD, "linewidth": 1.4, "hatch": "////"}


def draw(trace: Trace, services: list[str], path: Path) -> None:
    """Write the picture; colours are services, hatched bars are errors."""
    rows = _rows(trace)
    unit, factor = ("s", 1e6) if trace.us >= 2e6 else ("ms", 1e3)
    total = trace.us / factor
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 1.05 + 0.32 * len(rows)), layout="constrained")
        for position, span in enumerate(rows):
            left, width = (span.start - trace.start) / factor, max(span.us / factor, total / 400)
            fill = colour(services, span.service)
            style: dict[str, Any] = {"color": _pale(fill), **ERROR_BAR} if span.error else {"color": fill}
            axes.barh(position, width, left=left, height=0.62, **style)
            _annotate(axes, position, left, width, total, seconds(span.us / 1e6) + _outcome(span))
        labels = [_label(span) for span in rows]
        axes.set_yticks(range(len(rows)), labels, ha="left")
        axes.tick_params(axis="y", length=0, pad=max(map(len, labels)) * 5.5 + 6)
        axes.invert_yaxis()
        axes.set_xlim(0, total * 1.01)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g} {unit}"))
        hidden = len(trace.spans) - len(rows)
        more = f"; {hidden} shorter spans are not shown" if hidden else ""
        title = f"{trace.root.service}: {trace.root.label}, {seconds(trace.us / 1e6)}, at {clock(trace.start / 1e6)} UTC{more}"
        figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
        shown = [service for service in services if service in trace.services]
        handles = [plt.Rectangle((0, 0), 1, 1, color=colour(services, service)) for service in shown]
        if any(span.error for span in trace.spans):
            handles.append(plt.Rectangle((0, 0), 1, 1, facecolor="white", edgecolor=BAD, hatch="////"))
            shown.append("error")
        figure.legend(handles, shown, loc="outside lower center", ncols=5)
        save(figure, path)


def _annotate(axes: plt.Axes, position: int, left: float, width: float, total: float, text: str) -> None:
    """Write text beside a bar on the side that has room, or on it."""
    style: dict[str, Any] = {"va": "center", "fontsize": 8, "color": INK, "textcoords": "offset points"}
    if left + width < 0.62 * total:
        axes.annotate(text, (left + width, position), xytext=(5, 0), **style)
    elif left > 0.3 * total:
        axes.annotate(text, (left, position), xytext=(-5, 0), ha="right", **style)
    else:
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.88}
        axes.annotate(text, (left + width / 2, position), xytext=(0, 0), ha="center", bbox=box, **style)


def _rows(trace: Trace) -> list[Span]:
    """Return the spans that are shown: the root, errors, and the longest."""
    ranked = sorted(trace.spans, key=lambda s: (not s.error, s is not trace.root, -s.us))
    longest = {id(span) for span in ranked[:MAX_ROWS]}
    return [span for span in trace.spans if id(span) in longest]


def _label(span: Span) -> str:
    text = "  " * min(span.depth, 6) + f"{span.service}: {span.label}"
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def _outcome(span: Span) -> str:
    """Return the error or the status of a span that did not succeed."""
    if span.error_type:
        return f"  {span.error_type.rsplit('.', 1)[-1]}"
    return f"  {span.status}" if span.status >= 400 else ""


def _pale(name: str) -> str:
    channels = (int(name[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(value + (255 - value) * 0.55):02x}" for value in channels)
