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
from vantage_tools.report.formats import format_duration
from vantage_tools.report.spans import by_operation, self_us

# Okabe and Ito's colours, which people with any kind of colour vision tell apart. https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
BAD, INK = "#D55E00", "#222222"
WIDTH = 9.0
MAX_SERVICES, MAX_OPERATIONS = 6, 9


def colour(names: Iterable[str], name: str) -> str:
    """Return the colour of a service, the same in every picture of a report."""
    return COLOURS[sorted(names).index(name) % len(COLOURS)]


def figures(dataset: Dataset, findings: list[Finding]) -> Iterator[tuple[str, str, Figure]]:
    """Yield the name, the alternative text and the picture of everything that there is data for."""
    busiest = sorted(dataset.services.values(), key=lambda service: -service.all["long"].requests)
    if shown := sorted(s.name for s in busiest[:MAX_SERVICES] if s.all["long"].requests >= 1):
        yield "requests", "Requests per second by service", _requests(dataset, shown)
        yield "errors", "Ratio of failed and refused requests by service", _errors(dataset, findings, shown)
        yield "latency", "Median, 95th and 99th percentile of the latency", _latency(dataset, findings, shown)
    if operations := _operations(dataset):
        alt = "Self time per request of the operations that take most, now and before"
        yield "time", alt, _self_time(dataset, operations)


def _pair(dataset: Dataset, titles: list[str], height: float) -> tuple[Figure, list[list[Axes]]]:
    """Return a row of axes for each title: the short range on the left, the long one on the right, to one scale."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(titles), 2, sharey="row", squeeze=False, width_ratios=[2, 3])
    for line, title in zip(grid, titles, strict=True):
        for axes, window in _windows(line):
            begin = max(dataset.begin(window), min(dataset.first_seen.values(), default=0.0) - 60)
            axes.set_xlim(_date(begin), _date(dataset.end))
            locator = dates.AutoDateLocator(minticks=3, maxticks=6)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC, show_offset=False))
            axes.set_title(f"{title}, last {format_duration(getattr(dataset, window))}")
    return figure, [list(line) for line in grid]


def _windows(line: Iterable[Axes]) -> Iterator[tuple[Axes, str]]:
    return zip(line, ("short", "long"), strict=True)


def _date(at: float) -> float:
    return float(dates.date2num(datetime.fromtimestamp(at, UTC)))


def _shade(axes: Axes, dataset: Dataset, findings: list[Finding], kind: str, service: str = "") -> None:
    """Mark when findings of a rule went on."""
    for finding in findings:
        if finding.kind == kind and finding.since and service in ("", finding.service):
            for begin, end in finding.periods or [(finding.since, finding.until or dataset.end)]:
                axes.axvspan(_date(begin), _date(end), color=BAD, alpha=0.08, linewidth=0)


def _line(axes: Axes, points: Points, step: float, **style: Any) -> list[float]:
    """Draw a line with a gap where points are missing; return its values."""
    drawn: Points = []
    for at, value in points:
        if drawn and at - drawn[-1][0] > 1.5 * step:
            drawn.append((at - step, float("nan")))
        drawn.append((at, value))
    if drawn:
        axes.plot([_date(at) for at, _ in drawn], [value for _, value in drawn], **{"linewidth": 1.6, **style})
    return [value for _, value in points]


def _legend(figure: Figure, axes: Axes) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _requests(dataset: Dataset, shown: list[str]) -> Figure:
    figure, ((left, right),) = _pair(dataset, ["Requests per second"], 2.7)
    for axes, window in _windows((left, right)):
        rates = dataset.timeline("rate", window)
        for name in shown:
            style = {"color": colour(dataset.apps, name), "label": name}
            _line(axes, rates.get(name, []), dataset.step(window), **style)
    left.set_ylim(bottom=0)
    return _legend(figure, right)


def _errors(dataset: Dataset, findings: list[Finding], shown: list[str]) -> Figure:
    figure, ((left, right),) = _pair(dataset, ["Ratio of requests"], 2.7)
    values: list[float] = []
    for axes, window in _windows((left, right)):
        rates = dataset.timeline("rate", window)
        for metric, linestyle, label in (("failed", "-", "errors (5xx)"), ("refused", ":", "refused (4xx)")):
            found = dataset.timeline(metric, window)
            for name in shown:
                bad = dict(found.get(name, []))
                points = [(at, 100 * bad.get(at, 0.0) / rate) for at, rate in rates.get(name, []) if rate > 0]
                style = {"color": colour(dataset.apps, name), "linestyle": linestyle, "label": f"{name} {label}"}
                values += _line(axes, points, dataset.step(window), **style)
        _shade(axes, dataset, findings, "errors")
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0, symbol=" %"))
    # A single refused request does not fill the picture.
    left.set_ylim(0, max(10.0, 1.08 * max(values, default=0.0)))
    return _legend(figure, right)


def _latency(dataset: Dataset, findings: list[Finding], shown: list[str]) -> Figure:
    figure, grid = _pair(dataset, shown, 0.35 + 2.15 * len(shown))
    for line, name in zip(grid, shown, strict=True):
        values: list[float] = []
        for axes, window in _windows(line):
            for quantile, linestyle in (("p50", "-"), ("p95", "--"), ("p99", ":")):
                points = [(at, v * 1000) for at, v in dataset.timeline(quantile, window).get(name, []) if v > 0]
                style = {"color": colour(dataset.apps, name), "linestyle": linestyle}
                values += _line(axes, points, dataset.step(window), label=quantile, **style)
            _shade(axes, dataset, findings, "latency", name)
        if values:
            # Logarithmic, so that a median of 2 ms and a percentile of 2 s can both be read.
            line[0].set_yscale("log")
            line[0].set_ylim(min(values) / 1.6, max(values) * 1.8)
            for axes in line:
                axes.yaxis.set_major_formatter(_milliseconds)
                axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
                axes.yaxis.set_minor_locator(ticker.NullLocator())
    return _legend(figure, grid[0][1])


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
    axes.set_title(f"Self time per traced request: last {format_duration(dataset.short)} in colour, before in grey")
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
