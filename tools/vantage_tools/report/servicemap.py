"""The calls between services as a picture: services from left to right in the order of calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from vantage_tools.report.dataset import Dataset
from vantage_tools.report.formats import percent, rate, seconds
from vantage_tools.report.plots import BAD, INK, STYLE, WIDTH, colour, save
from vantage_tools.report.spans import Span
from vantage_tools.report.thresholds import MIN_ERROR_RATE

Point = tuple[float, float]


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


def draw(dataset: Dataset, found: list[Call], path: Path) -> bool:
    """Write the picture; return False without calls."""
    if not found:
        return False
    columns = _columns(found)
    services = dataset.apps
    tallest = max(list(columns.values()).count(column) for column in set(columns.values()))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, max(1.6, 1.25 * tallest + 0.3)), layout="constrained")
        axes.axis("off")
        number = max(columns.values()) + 1
        places: dict[str, Point] = {}
        for column in range(number):
            here = sorted(name for name, at in columns.items() if at == column)
            x = column / (number - 1) if number > 1 else 0.5
            places |= {name: (x, (row + 1) / (len(here) + 1)) for row, name in enumerate(here)}
        width, height = min(0.30, 0.52 / number), min(0.5, 0.62 / tallest)
        for call in found:
            _arrow(axes, call, places, width)
        for name, centre in places.items():
            edge = colour(services, name) if name in services else "#666666"
            _box(axes, name, dataset, centre, (width, height), edge)
        axes.set_xlim(-width / 2 - 0.01, 1 + width / 2 + 0.01)
        axes.set_ylim(0, 1)
        save(figure, path)
    return True


def _box(axes: plt.Axes, name: str, dataset: Dataset, centre: Point, size: tuple[float, float], edge: str) -> None:
    (x, y), (width, height) = centre, size
    corner = (x - width / 2, y - height / 2)
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.02", "mutation_aspect": 2, "zorder": 3}
    axes.add_patch(FancyBboxPatch(corner, width, height, facecolor="white", edgecolor=edge, linewidth=2.2, **style))
    shown = name.replace(" of ", "\nof ")
    longest = max(map(len, shown.split("\n")))
    # A letter is about two thirds as wide as it is high; the box has its share of the picture's width, in points.
    font_size = min(10.0, 0.9 * width * WIDTH * 72 / (0.68 * longest))
    centred: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
    service = dataset.services.get(name)
    name_y = y + (0.13 * height if service else 0)
    axes.text(x, name_y, shown, fontsize=font_size, fontweight="bold", color=INK, **centred)
    if service:
        now = service.all["short"]
        is_bad = now.ratio("5") >= MIN_ERROR_RATE
        errors = f"\n{percent(now.ratio('5'))} errors" if is_bad else ""
        said = f"{rate(now.rate)}/s, p95 {seconds(now.quantile(0.95))}{errors}"
        axes.text(x, y - 0.2 * height, said, fontsize=8, color=BAD if is_bad else INK, **centred)


def _arrow(axes: plt.Axes, call: Call, places: dict[str, Point], width: float) -> None:
    (x1, y1), (x2, y2) = places[call.source], places[call.target]
    side = 1 if x2 >= x1 else -1
    is_bad = call.failed >= MIN_ERROR_RATE
    is_straight = side > 0 and x1 != x2
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 14, "linewidth": 1.6, "shrinkA": 2, "shrinkB": 2}
    style |= {"color": BAD if is_bad else "#555555", "connectionstyle": f"arc3,rad={0 if is_straight else -0.3}"}
    ends = (x1 + side * width / 2, y1), (x2 - side * width / 2, y2)
    axes.add_patch(FancyArrowPatch(*ends, zorder=2, **style))
    text = f"{rate(call.rate)}/s, " if call.rate is not None else ""
    text += f"mean {seconds(call.mean)}" + (f"\n{percent(call.failed)} errors" if is_bad else "")
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    above: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    axes.annotate(text, middle, fontsize=8, color=BAD if is_bad else INK, zorder=5, **above)


def _columns(found: list[Call]) -> dict[str, int]:
    """Return the column of each node: right of its callers; a cycle of calls ends where it began."""
    names = {name for call in found for name in (call.source, call.target)}
    columns = dict.fromkeys(names, 0)
    for _ in range(len(names)):
        moved = False
        for call in found:
            if call.source != call.target and columns[call.target] <= columns[call.source] < len(names) - 1:
                columns[call.target], moved = columns[call.source] + 1, True
        if not moved:
            break
    # A cycle pushes its members further each time; closing the gaps puts them beside each other again.
    used = sorted(set(columns.values()))
    return {name: used.index(column) for name, column in columns.items()}
