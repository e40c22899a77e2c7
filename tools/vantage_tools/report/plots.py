"""Pictures of requests, errors, latency and self time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# matplotlib needs a folder that it can write to.
os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir() + "/vantage-matplotlib")

import matplotlib

matplotlib.use("Agg")

from matplotlib import dates, ticker
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vantage_tools.report.dataset import Dataset, Points
from vantage_tools.report.findings import Finding
from vantage_tools.report.formats import format_duration
from vantage_tools.report.spans import by_operation, self_us

# Okabe and Ito's colours, which people with any kind of colour vision tell apart. https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
BAD, INK, PALE = "#D55E00", "#222222", "#8a8a8a"
WIDTH, DPI = 9.0, 110
MAX_SERVICES = 6
MAX_OPERATIONS = 9

STYLE = {
    **{"font.family": "DejaVu Sans", "font.size": 9, "legend.fontsize": 9, "legend.frameon": False},
    **{"axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.axisbelow": True},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": PALE, "axes.labelcolor": INK},
    **{"axes.grid": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.7, "xtick.color": INK, "ytick.color": INK},
    **{"figure.facecolor": "white", "savefig.facecolor": "white"},
}


def colour(names: Iterable[str], name: str) -> str:
    """Return the colour of a service, the same in every picture of a report."""
    return COLOURS[sorted(names).index(name) % len(COLOURS)]


def save(figure: Figure, path: Path) -> None:
    """Write the picture with few colours: it looks the same and is several times smaller."""
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def draw_all(dataset: Dataset, findings: list[Finding], folder: Path) -> dict[str, str]:
    """Write the plots that there is data for; return name -> alternative text."""
    drawn: dict[str, str] = {}
    # The services with the most requests.
    ranked = sorted(dataset.services.values(), key=lambda s: -s.all["long"].requests)[:MAX_SERVICES]
    shown = sorted(service.name for service in ranked if service.all["long"].requests >= 1)
    operations = _operations(dataset)
    with plt.rc_context(STYLE):
        if shown:
            save(_requests(dataset, shown), folder / "requests.png")
            save(_errors(dataset, findings, shown), folder / "errors.png")
            save(_latency(dataset, findings, shown), folder / "latency.png")
            drawn["requests"] = "Requests per second by service, in both time ranges"
            drawn["errors"] = "Ratio of failed and refused requests by service, in both time ranges"
            drawn["latency"] = "Median, 95th and 99th percentile of the latency by service, in both time ranges"
        if operations:
            save(_self_time(dataset, operations), folder / "time.png")
            drawn["time"] = "Self time per request of the operations that take most, now and before"
    return drawn


def _pair(dataset: Dataset, titles: list[str], height: float) -> tuple[Figure, list[list[Axes]]]:
    """Return a row of axes for each title: the short range on the left, the long one on the right, to one scale."""
    size = (WIDTH, height)
    layout: dict[str, Any] = {"sharey": "row", "squeeze": False, "layout": "constrained", "width_ratios": [2, 3]}
    figure, grid = plt.subplots(len(titles), 2, figsize=size, **layout)
    for line, title in zip(grid, titles, strict=True):
        for axes, window in _windows(line):
            begin = max(dataset.begin(window), min(dataset.first_seen.values(), default=0.0) - 60)
            axes.set_xlim(_date(begin), _date(dataset.end))
            fewest, most, pattern = (2, 4, "%H:%M:%S") if dataset.end - begin < 180 else (3, 7, "%H:%M")
            axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=fewest, maxticks=most))
            axes.xaxis.set_major_formatter(dates.DateFormatter(pattern, tz=UTC))
            axes.set_title(f"{title}, last {format_duration(getattr(dataset, window))}")
    return figure, [list(line) for line in grid]


def _windows(line: Iterable[Axes]) -> Iterator[tuple[Axes, str]]:
    return zip(line, ("short", "long"), strict=True)


def _shade(axes: Axes, dataset: Dataset, findings: list[Finding], kind: str, service: str = "") -> None:
    """Mark when findings of a rule went on."""
    for finding in findings:
        if finding.kind == kind and finding.since and service in ("", finding.service):
            for begin, end in finding.periods or [(finding.since, finding.until or dataset.end)]:
                axes.axvspan(_date(begin), _date(end), color=BAD, alpha=0.08, linewidth=0)


def _date(seconds: float) -> float:
    return float(dates.date2num(datetime.fromtimestamp(seconds, UTC)))


def _line(axes: Axes, points: Points, step: float, **style: Any) -> list[float]:
    """Draw a line with a gap where points are missing; return its values."""
    drawn: Points = []
    for (at, value), (before, _) in zip(points, points[:1] + points, strict=False):
        if at - before > 1.5 * step:
            drawn.append((before + step, float("nan")))
        drawn.append((at, value))
    if drawn:
        axes.plot([_date(at) for at, _ in drawn], [value for _, value in drawn], **{"linewidth": 1.6, **style})
    return [value for _, value in points]


def _legend(figure: Figure, axes: Axes) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(handles)))
    return figure


def _requests(dataset: Dataset, shown: list[str]) -> Figure:
    figure, ((left, right),) = _pair(dataset, ["Requests per second"], 2.7)
    values: list[float] = []
    for axes, window in _windows((left, right)):
        rates = dataset.timeline("rate", window)
        for name in shown:
            style = {"color": colour(dataset.apps, name), "label": name}
            values += _line(axes, rates.get(name, []), dataset.step(window), **style)
    left.set_ylim(0, 1.08 * max(values, default=0.0) or 1.0)
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
            for quantile, linestyle, width in (("p50", "-", 1.8), ("p95", "--", 1.5), ("p99", ":", 1.5)):
                points = [(at, v * 1000) for at, v in dataset.timeline(quantile, window).get(name, []) if v > 0]
                style = {"color": colour(dataset.apps, name), "linestyle": linestyle, "linewidth": width}
                values += _line(axes, points, dataset.step(window), label=quantile, **style)
            _shade(axes, dataset, findings, "latency", name)
        if values:
            # Logarithmic, so that a median of 2 ms and a percentile of 2 s can both be read.
            line[0].set_yscale("log")
            line[0].set_ylim(min(values) / 1.6, max(values) * 1.8)
            for axes in line:
                axes.yaxis.set_major_formatter(ticker.FuncFormatter(_milliseconds))
                axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
                axes.yaxis.set_minor_formatter(ticker.NullFormatter())
                axes.yaxis.set_minor_locator(ticker.NullLocator())
    return _legend(figure, grid[0][1])


def _self_time(dataset: Dataset, operations: list[tuple[str, str, list[float]]]) -> Figure:
    figure: Figure
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.42 * len(operations)), layout="constrained")
    labels = []
    style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": INK}
    for position, (service, operation, values) in enumerate(reversed(operations)):
        labels.append(f"{service}: {operation if len(operation) <= 38 else operation[:37] + '…'}")
        for value, offset, fill in zip(values, (0.19, -0.19), (colour(dataset.apps, service), "#c4c4c4"), strict=True):
            axes.barh(position + offset, value, height=0.36, color=fill)
            shown = _milliseconds(value) if value else "–"
            axes.annotate(shown, (value, position + offset), xytext=(4, 0), **style)
    axes.set_yticks(range(len(operations)), labels)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.12 * max(max(values) for _, _, values in operations) or 1.0)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(_milliseconds))
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


def _milliseconds(value: float, _: int = 0) -> str:
    if value >= 1000:
        return f"{value / 1000:g} s" if value % 1000 < 1 else f"{value / 1000:.1f} s"
    if value >= 10:
        return f"{value:.0f} ms"
    return f"{value:.1g} ms" if value < 1 else f"{value:.2g} ms"
