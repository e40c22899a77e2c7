"""The calls between services as a picture: services from left to right in the order of calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from vantage_tools.report.charts import BAD, INK, WIDTH, colour
from vantage_tools.report.dataset import Dataset
from vantage_tools.report.formats import percent, rate, seconds
from vantage_tools.report.spans import Span
from vantage_tools.report.thresholds import MIN_ERROR_RATE


@dataclass
class Call:
    """An arrow of the map; `rate` in calls per second, None when only traces show it; `mean` in seconds."""

    source: str
    target: str
    rate: float | None
    failed: float
    mean: float


def calls(dataset: Dataset) -> list[Call]:
    """Return the calls of the short range: as counted by the span metrics, and others as the sampled traces show them."""
    total, failed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    counted = dataset.values("calls@short", "service_name", "server_address", "status_code")
    for (source, target, status), number in counted.items():
        total.update({(source, target): number})
        failed.update({(source, target): number * (status == "STATUS_CODE_ERROR")})
    spent = dataset.values("call_ms@short", "service_name", "server_address")
    found = {
        key: Call(*key, number / dataset.short, failed[key] / number, spent.get(key, 0.0) / 1000 / number)
        for key, number in total.items()
        if number >= 0.5
    }
    traced: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in (span for trace in dataset.sample("short") for span in trace.spans):
        if span.kind in ("client", "producer") or span.database:
            answered = next((child.service for child in span.children if child.service != span.service), "")
            database = f"{span.database} of {span.service}" if span.database else ""
            if target := answered or database or span.tags.get("server.address", ""):
                traced[span.service, target].append(span)
    for key, spans in traced.items():
        mean = sum(span.us for span in spans) / 1e6 / len(spans)
        found.setdefault(key, Call(*key, None, sum(span.failed for span in spans) / len(spans), mean))
    return sorted(found.values(), key=lambda call: (call.source, call.target))


def draw(dataset: Dataset, found: list[Call]) -> Figure:
    """Return the picture of some calls."""
    columns = _columns(found)
    members: dict[int, list[str]] = defaultdict(list)
    for name in sorted(columns):
        members[columns[name]].append(name)
    figure = Figure(figsize=(WIDTH, 1.25 * max(map(len, members.values())) + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.set(xlim=(-0.5, len(members) - 0.5), ylim=(0, 1))
    boxes = {
        name: _box(axes, dataset, name, column, (row + 1) / (len(names) + 1))
        for column, names in members.items()
        for row, name in enumerate(names)
    }
    # An arrow ends at the edge of a box, whose size is known after this.
    figure.draw_without_rendering()
    for call in found:
        if call.source != call.target:
            _arrow(axes, call, boxes[call.source], boxes[call.target])
    return figure


def _box(axes: Any, dataset: Dataset, name: str, x: float, y: float) -> Any:
    """Return the text in a box, with the service's figures."""
    text, is_bad = name.replace(" of ", "\nof "), False
    if service := dataset.services.get(name):
        now = service.all["short"]
        is_bad = now.ratio("5") >= MIN_ERROR_RATE
        text += f"\n{rate(now.rate)}/s, p95 {seconds(now.quantile(0.95))}"
        text += f"\n{percent(now.ratio('5'))} errors" if is_bad else ""
    edge = colour(dataset.apps, name) if name in dataset.apps else "#666666"
    box = {"boxstyle": "round,pad=0.6", "facecolor": "white", "edgecolor": edge, "linewidth": 2.2}
    return axes.text(x, y, text, ha="center", va="center", color=BAD if is_bad else INK, bbox=box, zorder=3)


def _arrow(axes: Any, call: Call, source: Any, target: Any) -> None:
    (x1, y1), (x2, y2) = source.get_position(), target.get_position()
    is_bad = call.failed >= MIN_ERROR_RATE
    text = f"{rate(call.rate)}/s, " if call.rate is not None else ""
    text += f"mean {seconds(call.mean)}" + (f"\n{percent(call.failed)} errors" if is_bad else "")
    arrow = {
        "arrowstyle": "-|>",
        "color": BAD if is_bad else "#555555",
        # A call back, or to a neighbour above, must not lie on another arrow.
        "connectionstyle": f"arc3,rad={0 if x2 > x1 else -0.3}",
        "patchA": source.get_bbox_patch(),
        "patchB": target.get_bbox_patch(),
    }
    axes.annotate("", (x2, y2), (x1, y1), arrowprops=arrow)
    middle, style = ((x1 + x2) / 2, (y1 + y2) / 2), {"ha": "center", "va": "bottom", "fontsize": 8}
    axes.annotate(text, middle, (0, 6), textcoords="offset points", color=BAD if is_bad else INK, **style)


def _columns(found: list[Call]) -> dict[str, int]:
    """Return the column of each node: right of its callers; a cycle of calls ends where it began."""
    columns = {name: 0 for call in found for name in (call.source, call.target)}
    for _ in columns:
        for call in found:
            if call.source != call.target and columns[call.target] <= columns[call.source] < len(columns) - 1:
                columns[call.target] = columns[call.source] + 1
    # A cycle pushes its members further each time; closing the gaps puts them beside each other again.
    used = sorted(set(columns.values()))
    return {name: used.index(column) for name, column in columns.items()}
