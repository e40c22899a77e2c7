"""Pictures of requests, errors, latency and self time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from matplotlib import dates, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vantage_tools.report.dataset import Dataset, Points
from vantage_tools.report.findings import Finding
from vantage_tools.report.spans import by_operation, self_us

# Okabe and Ito's colours, which people with any kind of colour vision tell apart. https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
BAD, INK = "#D55E00", "#222222"
WIDTH = 9.0
MAX_SERVICES, MAX_OPERATIONS = 6, 9
# Of each picture: the metric, the style of its line, and the text in the legend.
CURVES = {
    "requests": [("rate", "-", "{}")],
    "errors": [("failed", "-", "{} errors (5xx)"), ("refused", ":", "{} refused (4xx)")],
    "latency": [("p50", "-", "p50"), ("p95", "--", "p95"), ("p99", ":", "p99")],
}


def colour(names: Iterable[str], name: str) -> str:
    """Return the colour of a service, the same in every picture of a report."""
    return COLOURS[sorted(names).index(name) % len(COLOURS)]


def figures(dataset: Dataset, findings: list[Finding]) -> Iterator[tuple[str, str, Figure]]:
    """Yield the name, the alternative text and the picture of everything that there is data for."""
    busiest = sorted(dataset.services.values(), key=lambda service: -service.all["long"].requests)
    if shown := sorted(s.name for s in busiest[:MAX_SERVICES] if s.all["long"].requests >= 1):
        rows = {"Requests per second": shown}
        yield "requests", "Requests per second by service", _curves(dataset, findings, "requests", rows)
        rows = {"Percent of requests": shown}
        yield "errors", "Percentage of failed and refused requests", _curves(dataset, findings, "errors", rows)
        alt, rows = "Median, 95th and 99th percentile of the latency", {name: [name] for name in shown}
        yield "latency", alt, _curves(dataset, findings, "latency", rows)
    if operations := _operations(dataset):
        alt = "Self time per request of the operations that take most, now and before"
        yield "time", alt, _self_time(dataset, operations)


def _curves(dataset: Dataset, findings: list[Finding], kind: str, rows: dict[str, list[str]]) -> Figure:
    """Return a row of plots for some services by title: the short range on the left, the long one on the right."""
    figure = Figure(figsize=(WIDTH, 0.5 + 2.15 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 2, sharey="row", squeeze=False, width_ratios=[2, 3])
    for line, (title, names) in zip(grid, rows.items(), strict=True):
        values: list[float] = []
        for axes, window in zip(line, ("short", "long"), strict=True):
            for metric, linestyle, label in CURVES[kind]:
                for name in names:
                    points = _points(dataset, kind, metric, window, name)
                    style = {"color": colour(dataset.apps, name), "linestyle": linestyle}
                    _line(axes, points, dataset.step(window), label=label.format(name), **style)
                    values += [value for _, value in points]
            for finding in findings:
                if finding.kind == kind and finding.since and finding.service in names:
                    for begin, end in finding.periods or [(finding.since, finding.until or dataset.end)]:
                        axes.axvspan(_date(begin), _date(end), color=BAD, alpha=0.08, linewidth=0)
            begin = max(dataset.begin(window), min(dataset.first_seen.values(), default=0.0) - 60)
            axes.set_xlim(_date(begin), _date(dataset.end))
            locator = dates.AutoDateLocator(minticks=3, maxticks=6)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC, show_offset=False))
            axes.set_title(f"{title}, {dataset.last[window]}")
        _scale(line, kind, values)
    handles, labels = grid[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _points(dataset: Dataset, kind: str, metric: str, window: str, service: str) -> Points:
    points = dataset.timeline(metric, window).get(service, [])
    if kind == "latency":
        return [(at, value * 1000) for at, value in points if value > 0]
    if kind == "errors":
        bad, rates = dict(points), dataset.timeline("rate", window).get(service, [])
        return [(at, 100 * bad.get(at, 0.0) / rate) for at, rate in rates if rate > 0]
    return points


def _line(axes: Axes, points: Points, step: float, **style: Any) -> None:
    """Draw a line with a gap where points are missing."""
    drawn: Points = []
    for at, value in points:
        if drawn and at - drawn[-1][0] > 1.5 * step:
            drawn.append((at - step, float("nan")))
        drawn.append((at, value))
    axes.plot([_date(at) for at, _ in drawn], [value for _, value in drawn], linewidth=1.6, **style)


def _scale(line: Iterable[Axes], kind: str, values: list[float]) -> None:
    if kind == "latency" and values:
        # Logarithmic, so that a median of 2 ms and a percentile of 2 s can both be read.
        for axes in line:
            axes.set_yscale("log")
            axes.set_ylim(min(values) / 1.6, max(values) * 1.8)
            axes.yaxis.set_major_formatter(_milliseconds)
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            axes.yaxis.set_minor_locator(ticker.NullLocator())
    elif kind != "latency":
        # A single refused request does not fill the picture.
        least = 10.0 if kind == "errors" else 0.1
        next(iter(line)).set_ylim(0, max(least, 1.08 * max(values, default=0.0)))


def _date(at: float) -> float:
    return float(dates.date2num(datetime.fromtimestamp(at, UTC)))


def _self_time(dataset: Dataset, operations: list[tuple[str, str, list[float]]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(operations)), layout="constrained")
    axes = figure.subplots()
    positions = range(len(operations))
    for index, offset in ((0, -0.19), (1, 0.19)):
        values = [found[index] for _, _, found in operations]
        fills = [colour(dataset.apps, service) if index == 0 else "#c4c4c4" for service, _, _ in operations]
        bars = axes.barh([position + offset for position in positions], values, height=0.36, color=fills)
        axes.bar_label(bars, [_milliseconds(value) if value else "–" for value in values], padding=4, fontsize=8)
    labels = [
        f"{service}: {operation if len(operation) <= 38 else operation[:37] + '…'}"
        for service, operation, _ in operations
    ]
    axes.set_yticks(positions, labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(_milliseconds)
    axes.set_title(f"Self time per traced request: {dataset.last['short']} in colour, before in grey")
    return figure


def _operations(dataset: Dataset) -> list[tuple[str, str, list[float]]]:
    """Return (service, operation, [ms of self time per trace now, before]), the largest first."""
    found: dict[tuple[str, str], list[float]] = {}
    for position, window in enumerate(("short", "base")):
        traces = dataset.sample(window)
        for key, spans in by_operation(traces).items():
            found.setdefault(key, [0.0, 0.0])[position] = self_us(spans) / 1000 / len(traces)
    ranked = sorted(found.items(), key=lambda item: -max(item[1]))
    return [(service, operation, values) for (service, operation), values in ranked[:MAX_OPERATIONS]]


def _milliseconds(value: float, _: float = 0) -> str:
    if value >= 1000:
        return f"{value / 1000:.3g} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"
