"""One trace as a picture: every span a bar below its parent, from left to right in time."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib import ticker

from vantage_report.plots import BAD, INK, STYLE, WIDTH, colour, save
from vantage_report.spans import Span, Trace
from vantage_report.words import clock, seconds

# A trace with hundreds of spans is told by its longest ones.
ROWS = 30
LABEL = 54


def draw(trace: Trace, services: list[str], path: Path) -> None:
    """Write the picture; colours tell services, hatching what failed, the dark line below a bar its own time."""
    rows, hidden = _rows(trace)
    begin = trace.spans[0].start
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 1.05 + 0.32 * len(rows)), layout="constrained")
        unit, factor = ("s", 1e6) if trace.us >= 2e6 else ("ms", 1e3)
        whole = trace.us / factor
        for position, (_, span) in enumerate(rows):
            left, width = (span.start - begin) / factor, max(span.us / factor, whole / 400)
            bad = {"edgecolor": BAD, "linewidth": 1.4, "hatch": "////"} if span.error else {}
            axes.barh(
                position,
                width,
                left=left,
                height=0.62,
                color=_pale(colour(services, span.service)) if span.error else colour(services, span.service),
                **bad,
            )
            text = seconds(span.us / 1e6) + _says(span)
            # Beside the bar, on the side that has room.
            right = left + width
            if right < 0.62 * whole:
                axes.annotate(
                    text,
                    (right, position),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color=INK,
                )
            elif left > 0.3 * whole:
                axes.annotate(
                    text,
                    (left, position),
                    xytext=(-5, 0),
                    textcoords="offset points",
                    va="center",
                    ha="right",
                    fontsize=8,
                    color=INK,
                )
            else:
                axes.annotate(
                    text, (left + width / 2, position), va="center", ha="center", fontsize=8, color=INK,
                    bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.88},
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), [_label(depth, span) for depth, span in rows], ha="left")
        axes.tick_params(axis="y", length=0)
        longest = max(len(_label(depth, span)) for depth, span in rows)
        axes.tick_params(axis="y", pad=min(longest, LABEL) * 5.5 + 6)
        axes.invert_yaxis()
        axes.set_xlim(0, whole * 1.01)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g} {unit}"))
        more = f"; {hidden} shorter spans are left out" if hidden else ""
        figure.suptitle(
            f"{trace.root.service}: {trace.root.label}, {seconds(trace.us / 1e6)}, at {clock(begin / 1e6)} UTC{more}",
            fontsize=10, fontweight="bold", x=0.01, ha="left",
        )  # fmt: skip
        handles = [
            plt.Rectangle((0, 0), 1, 1, color=colour(services, service))
            for service in services
            if any(span.service == service for span in trace.spans)
        ]
        labels = [service for service in services if any(span.service == service for span in trace.spans)]
        if any(span.error for span in trace.spans):
            handles.append(plt.Rectangle((0, 0), 1, 1, facecolor="white", edgecolor=BAD, hatch="////"))
            labels.append("marked as an error")
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        save(figure, path)


def _rows(trace: Trace) -> tuple[list[tuple[int, Span]], int]:
    rows = trace.in_order()
    if len(rows) <= ROWS:
        return rows, 0
    longest = {id(span) for span in sorted(trace.spans, key=lambda s: (not s.error, s is not trace.root, -s.us))[:ROWS]}
    return [row for row in rows if id(row[1]) in longest], len(rows) - ROWS


def _label(depth: int, span: Span) -> str:
    text = "  " * min(depth, 6) + f"{span.service}: {span.label}"
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def _says(span: Span) -> str:
    """Status or error of a span, as far as it adds something."""
    kind = span.tags.get("error.type", "")
    if kind and not kind.isdigit():
        return f"  {kind.rsplit('.', 1)[-1]}"
    return f"  {span.status}" if span.status >= 400 else ""


def _pale(name: str) -> str:
    red, green, blue = (int(name[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(value + (255 - value) * 0.55):02x}" for value in (red, green, blue))
