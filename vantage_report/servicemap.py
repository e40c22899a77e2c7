"""Who calls whom, as a picture: services from left to right in the order of calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from vantage_report.analyse import Facts
from vantage_report.plots import BAD, INK, STYLE, WIDTH, colour, save
from vantage_report.spans import edges
from vantage_report.words import percent, rate, seconds


@dataclass
class Call:
    """An arrow of the map; `rate` in calls per second, `mean` in seconds."""

    source: str
    target: str
    rate: float | None
    failed: float
    mean: float
    database: bool = False


def calls(facts: Facts, window: str = "short") -> list[Call]:
    """Who calls whom: counted by the span metrics where they know the call, else as the sampled traces show it."""
    total: dict[tuple[str, str], float] = {}
    failed: dict[tuple[str, str], float] = {}
    for (source, target, status), number in facts.values(
        f"calls@{window}", "service_name", "server_address", "status_code"
    ).items():
        total[(source, target)] = total.get((source, target), 0.0) + number
        if status == "STATUS_CODE_ERROR":
            failed[(source, target)] = failed.get((source, target), 0.0) + number
    spent = facts.values(f"call_ms@{window}", "service_name", "server_address")
    found = {
        key: Call(
            *key, number / getattr(facts, window), failed.get(key, 0.0) / number, spent.get(key, 0.0) / 1000 / number
        )
        for key, number in total.items()
        if number >= 0.5
    }
    for edge in edges(facts.sample(window)):
        known = (edge.source, edge.target)
        if known not in found:
            found[known] = Call(*known, None, edge.failed / edge.calls, edge.us / 1e6 / edge.calls, edge.database)
    return sorted(found.values(), key=lambda call: (call.source, call.target))


def draw(facts: Facts, found: list[Call], path: Path) -> bool:
    """Write the picture; False where nobody calls anybody."""
    if not found:
        return False
    columns = _columns(found)
    services = facts.apps
    tallest = max(list(columns.values()).count(column) for column in set(columns.values()))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, max(1.6, 1.25 * tallest + 0.3)), layout="constrained")
        axes.axis("off")
        number = max(columns.values()) + 1
        places: dict[str, tuple[float, float]] = {}
        for column in range(number):
            here = sorted(name for name, at in columns.items() if at == column)
            for row, name in enumerate(here):
                places[name] = (column / max(1, number - 1) if number > 1 else 0.5, (row + 1) / (len(here) + 1))
        width, height = min(0.30, 0.52 / number), min(0.5, 0.62 / tallest)
        for call in found:
            _arrow(axes, call, places, width)
        for name, (x, y) in places.items():
            _box(axes, name, facts, (x, y), (width, height), colour(services, name) if name in services else "#666666")
        axes.set_xlim(-width / 2 - 0.01, 1 + width / 2 + 0.01)
        axes.set_ylim(0, 1)
        save(figure, path)
    return True


def _box(
    axes: plt.Axes, name: str, facts: Facts, centre: tuple[float, float], size: tuple[float, float], edge: str
) -> None:
    (x, y), (width, height) = centre, size
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.02", facecolor="white",
            edgecolor=edge, linewidth=2.2, zorder=3, mutation_aspect=2,
        )
    )  # fmt: skip
    service = facts.services.get(name)
    # A database belongs to its service; names that are too long for the box get smaller letters.
    shown = name.replace(" of ", "\nof ")
    longest = max(len(line) for line in shown.split("\n"))
    # A letter is about two thirds as wide as it is high; the box has its share of the picture's width, in points.
    size_of = min(10.0, 0.9 * width * WIDTH * 72 / (0.68 * longest))
    axes.text(
        x, y + (0.13 * height if service else 0), shown, ha="center", va="center", fontsize=size_of, fontweight="bold",
        color=INK, zorder=4,
    )  # fmt: skip
    if service:
        now = service.all["short"]
        said = f"{rate(now.rate)}/s, p95 {seconds(now.quantile(0.95))}"
        bad = now.share("5") >= 0.01
        said += f"\n{percent(now.share('5'))} fail" if bad else ""
        axes.text(x, y - 0.2 * height, said, ha="center", va="center", fontsize=8, color=BAD if bad else INK, zorder=4)


def _arrow(axes: plt.Axes, call: Call, places: dict[str, tuple[float, float]], width: float) -> None:
    (x1, y1), (x2, y2) = places[call.source], places[call.target]
    side = 1 if x2 >= x1 else -1
    bad = call.failed >= 0.01
    axes.add_patch(
        FancyArrowPatch(
            (x1 + side * width / 2, y1), (x2 - side * width / 2, y2), arrowstyle="-|>", mutation_scale=14, linewidth=1.6,
            color=BAD if bad else "#555555", zorder=2, shrinkA=2, shrinkB=2,
            connectionstyle="arc3,rad=0" if side > 0 and x1 != x2 else "arc3,rad=-0.3",
        )
    )  # fmt: skip
    said = [f"{rate(call.rate)}/s" if call.rate is not None else "", f"mean {seconds(call.mean)}"]
    text = ", ".join(part for part in said if part) + (f"\n{percent(call.failed)} fail" if bad else "")
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    axes.annotate(
        text, middle, xytext=(0, 6), textcoords="offset points", ha="center", va="bottom", fontsize=8,
        color=BAD if bad else INK, zorder=5,
    )  # fmt: skip


def _columns(found: list[Call]) -> dict[str, int]:
    """Each node right of all that call it; a circle of calls ends where it began."""
    names = {name for call in found for name in (call.source, call.target)}
    columns = dict.fromkeys(names, 0)
    for _ in range(len(names)):
        moved = False
        for call in found:
            if call.source != call.target and columns[call.target] <= columns[call.source] < len(names) - 1:
                columns[call.target], moved = columns[call.source] + 1, True
        if not moved:
            break
    # A circle pushes its members ever further; without gaps they stand beside each other again.
    used = sorted(set(columns.values()))
    return {name: used.index(column) for name, column in columns.items()}
