"""Pictures of requests, failures, durations and where the time goes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

# A home that cannot be written to is no reason to draw nothing.
os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir() + "/vantage-matplotlib")

import matplotlib

matplotlib.use("Agg")

from matplotlib import dates, ticker
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vantage_report.analyse import Facts, spoken
from vantage_report.findings import Finding
from vantage_report.spans import shares

# Okabe and Ito's colours, which people with any kind of colour vision tell apart. https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
BAD, INK, PALE = "#D55E00", "#222222", "#8a8a8a"
WIDTH, DPI = 9.0, 110
# More services than these would hide each other.
MOST = 6

STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": PALE, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.7,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 9, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip

Points = list[tuple[float, float]]


def colour(names: Iterable[str], name: str) -> str:
    """The colour of a service: the same in every picture of a report."""
    return COLOURS[sorted(names).index(name) % len(COLOURS)]


def save(figure: Figure, path: Path) -> None:
    """Write the picture with few colours, which makes it several times smaller and looks the same."""
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def draw_all(facts: Facts, findings: list[Finding], folder: Path) -> dict[str, str]:
    """Write the plots there is data for; name -> what a person sees, for those who do not."""
    drawn: dict[str, str] = {}
    with plt.rc_context(STYLE):
        for name, draw, says in (
            ("requests", _requests, "Requests per second by service, in both windows"),
            ("errors", _errors, "Share of failing and refused requests by service, in both windows"),
            ("latency", _latency, "Median, 95th and 99th percentile of the duration by service, in both windows"),
            ("time", _time, "Own time per request of the operations that take most, now and before"),
        ):
            figure = draw(facts, findings)
            if figure is not None:
                save(figure, folder / f"{name}.png")
                drawn[name] = says
    return drawn


def _pair(rows: int, height: float, facts: Facts) -> tuple[Figure, list[list[Axes]]]:
    """Axes for the short window at the left and the long one at the right, with the same scale in a row."""
    figure, grid = plt.subplots(
        rows, 2, figsize=(WIDTH, height), sharey="row", squeeze=False, layout="constrained",
        gridspec_kw={"width_ratios": [2, 3]},
    )  # fmt: skip
    for line in grid:
        for axes, window in zip(line, ("short", "long"), strict=True):
            _time_axis(axes, facts, window)
    return figure, [list(line) for line in grid]


def _time_axis(axes: Axes, facts: Facts, window: str) -> None:
    begin = max(facts.begin(window), min(facts.first_seen.values(), default=0.0) - 60)
    axes.set_xlim(_date(begin), _date(facts.end))
    fine = facts.end - begin < 180
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=2 if fine else 3, maxticks=4 if fine else 7))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S" if fine else "%H:%M", tz=UTC))


def _title(axes: Axes, facts: Facts, window: str, text: str) -> None:
    axes.set_title(f"{text}, last {spoken(getattr(facts, window))}")


def _shade(axes: Axes, facts: Facts, findings: list[Finding], kinds: tuple[str, ...], service: str = "") -> None:
    """Mark when findings of these kinds went on."""
    for finding in findings:
        if finding.kind in kinds and finding.since and (not service or finding.service == service):
            for begin, end in finding.periods or [(finding.since, finding.until or facts.end)]:
                axes.axvspan(_date(begin), _date(end), color=BAD, alpha=0.08, linewidth=0)


def _date(seconds: float) -> float:
    return float(dates.date2num(datetime.fromtimestamp(seconds, UTC)))


def _line(axes: Axes, points: Points, step: float, **style: object) -> None:
    """A line that breaks where points are missing: a gap is not a slope."""
    xs: list[float] = []
    ys: list[float] = []
    for (at, value), (before, _) in zip(points, [points[0], *points], strict=False):
        if at - before > 1.5 * step:
            xs.append(_date(before + step))
            ys.append(float("nan"))
        xs.append(_date(at))
        ys.append(value)
    axes.plot(xs, ys, **style)  # type: ignore[arg-type]


def _shown(facts: Facts) -> list[str]:
    """The services that are drawn: those with most requests."""
    ranked = sorted(facts.services.values(), key=lambda s: -s.all["long"].requests)
    return sorted(service.name for service in ranked[:MOST] if service.all["long"].requests >= 1)


def _requests(facts: Facts, _: list[Finding]) -> Figure | None:
    shown = _shown(facts)
    if not shown:
        return None
    figure, grid = _pair(1, 2.7, facts)
    highest = 0.0
    for axes, window in zip(grid[0], ("short", "long"), strict=True):
        for name, points in facts.timeline("rate", window).items():
            if name in shown:
                highest = max(highest, *(value for _, value in points))
                _line(axes, points, facts.step(window), color=colour(facts.apps, name), label=name, linewidth=1.6)
        _title(axes, facts, window, "Requests per second")
    grid[0][0].set_ylim(0, 1.08 * highest or 1.0)
    _legend(figure, grid[0][1])
    return figure


def _errors(facts: Facts, findings: list[Finding]) -> Figure | None:
    shown = _shown(facts)
    if not shown:
        return None
    figure, grid = _pair(1, 2.7, facts)
    highest = 0.0
    for axes, window in zip(grid[0], ("short", "long"), strict=True):
        step = facts.step(window)
        rates = {name: dict(points) for name, points in facts.timeline("rate", window).items()}
        for what, style, text in (("failed", "-", "fails (5xx)"), ("refused", ":", "refuses (4xx)")):
            found = facts.timeline(what, window)
            for name in shown:
                values = dict(found.get(name, []))
                points = [
                    (at, 100 * values.get(at, 0.0) / rate)
                    for at, rate in sorted(rates.get(name, {}).items())
                    if rate > 0
                ]
                if points:
                    highest = max(highest, *(value for _, value in points))
                    _line(
                        axes,
                        points,
                        step,
                        color=colour(facts.apps, name),
                        linestyle=style,
                        label=f"{name} {text}",
                        linewidth=1.6,
                    )
        _shade(axes, facts, findings, ("errors",))
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0, symbol=" %"))
        _title(axes, facts, window, "Share of requests")
    # A calm system looks calm: a single refusal does not fill the picture.
    grid[0][0].set_ylim(0, max(10.0, 1.08 * highest))
    _legend(figure, grid[0][1])
    return figure


def _latency(facts: Facts, findings: list[Finding]) -> Figure | None:
    shown = _shown(facts)
    if not shown:
        return None
    figure, grid = _pair(len(shown), 0.35 + 2.15 * len(shown), facts)
    for line, name in zip(grid, shown, strict=True):
        drawn, top, low = False, 0.0, 1e9
        for axes, window in zip(line, ("short", "long"), strict=True):
            for quantile, style, width in (("p50", "-", 1.8), ("p95", "--", 1.5), ("p99", ":", 1.5)):
                points = [(at, v * 1000) for at, v in facts.timeline(quantile, window).get(name, []) if v > 0]
                if points:
                    drawn = True
                    top, low = max(top, *(v for _, v in points)), min(low, *(v for _, v in points))
                    _line(
                        axes,
                        points,
                        facts.step(window),
                        color=colour(facts.apps, name),
                        linestyle=style,
                        label=quantile,
                        linewidth=width,
                    )
            _shade(axes, facts, findings, ("latency",), name)
            _title(axes, facts, window, name)
        if drawn:
            # Logarithmic: a median of 2 ms and a percentile of 2 s are both to be read.
            line[0].set_yscale("log")
            line[0].set_ylim(low / 1.6, top * 1.8)
            for axes in line:
                axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _milliseconds(value)))
                axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
                axes.yaxis.set_minor_formatter(ticker.NullFormatter())
                axes.yaxis.set_minor_locator(ticker.NullLocator())
    _legend(figure, grid[0][1])
    return figure


def _time(facts: Facts, _: list[Finding]) -> Figure | None:
    now, before = facts.sample("short"), facts.sample("base")
    if not now and not before:
        return None
    rows = top_operations(facts, 9)
    figure: Figure
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.42 * len(rows)), layout="constrained")
    for position, (service, _operation, new, old) in enumerate(reversed(rows)):
        for value, offset, style in (
            (new, 0.19, {"color": colour(facts.apps, service)}),
            (old, -0.19, {"color": "#c4c4c4"}),
        ):
            axes.barh(position + offset, value, height=0.36, **style)
            axes.annotate(
                _milliseconds(value) if value else "–", (value, position + offset), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=8, color=INK,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [f"{service}: {_cut(operation)}" for service, operation, _, _ in reversed(rows)])
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.12 * max((max(new, old) for _, _, new, old in rows), default=1.0) or 1.0)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _milliseconds(value)))
    axes.set_title(f"Own time per traced request: last {spoken(facts.short)} in colour, before in grey", loc="left")
    return figure


def top_operations(facts: Facts, most: int) -> list[tuple[str, str, float, float]]:
    """(service, operation, ms now, ms before) of own time per trace, the largest first."""
    values: dict[tuple[str, str], list[float]] = {}
    for position, window in enumerate(("short", "base")):
        traces = facts.sample(window)
        for share in shares(traces):
            pair = values.setdefault((share.service, share.operation), [0.0, 0.0])
            pair[position] = share.self_us / 1000 / len(traces)
    ranked = sorted(values.items(), key=lambda item: -max(item[1]))
    return [(service, operation, new, old) for (service, operation), (new, old) in ranked[:most]]


def _cut(text: str, most: int = 38) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _milliseconds(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:g} s" if value % 1000 < 1 else f"{value / 1000:.1f} s"
    if value >= 10:
        return f"{value:.0f} ms"
    return f"{value:.1g} ms" if value < 1 else f"{value:.2g} ms"


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(handles)))
