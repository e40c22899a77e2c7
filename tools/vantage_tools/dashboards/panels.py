"""Panels in the house style: one function per kind, so that every dashboard reads alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import bargauge, heatmap, logs, nodegraph, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.dashboard import (
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    MatcherConfig,
    Panel,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMappingResult,
)

from vantage_tools.dashboards.links import Link
from vantage_tools.dashboards.queries import PROMETHEUS, now

Panels = Iterator[Builder[Panel]]
Queries = Sequence[Builder[Dataquery]]
Steps = Sequence[tuple[float | None, str]]

# The same colour means the same thing on every dashboard.
GOOD, NOTICE, BAD, PLAIN = "green", "orange", "red", "blue"
# Shares of failed requests, from which a person should look.
ERROR_STEPS: Steps = ((None, GOOD), (0.001, NOTICE), (0.01, BAD))
# Seconds; the middle step is the default of the latency objective.
DURATION_STEPS: Steps = ((None, GOOD), (0.25, NOTICE), (1, BAD))
NEUTRAL: Steps = ((None, PLAIN),)
RATES = ("reqps", "cps")


@dataclass(kw_only=True)
class PanelOptions:
    """Options of every panel: title, size, unit, thresholds, links."""

    title: str
    description: str
    source: DataSourceRef
    width: int
    # High enough for a legend of three.
    height: int = 9
    unit: str = "short"
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    # The axis reaches this far even when all values are far below.
    soft_maximum: float | None = None
    steps: Steps = NEUTRAL
    links: list[Link] = field(default_factory=list)
    data_links: list[Link] = field(default_factory=list)
    empty: str = ""
    # Shows this much time up to now, whatever the dashboard shows.
    last: str = ""
    transformations: list[DataTransformerConfig] = field(default_factory=list)
    overrides: list[tuple[MatcherConfig, list[DynamicConfigValue]]] = field(default_factory=list)


def transform(name: str, only: str = "", **options: Any) -> DataTransformerConfig:
    """A step between query and picture; `only` is a pattern of the queries that take it."""
    chosen = MatcherConfig(id_val="byRefId", options=f"/^({only})$/") if only else None
    return DataTransformerConfig(id_val=name, options=options, filter_val=chosen)


def named(name: str, **properties: Any) -> tuple[MatcherConfig, list[DynamicConfigValue]]:
    """Other properties for the field `name`; `__` in a property stands for a dot."""
    return MatcherConfig(id_val="byName", options=name), _properties(properties)


def matching(regexp: str, **properties: Any) -> tuple[MatcherConfig, list[DynamicConfigValue]]:
    """Other properties for the fields whose name matches."""
    return MatcherConfig(id_val="byRegexp", options=regexp), _properties(properties)


def _properties(properties: dict[str, Any]) -> list[DynamicConfigValue]:
    return [DynamicConfigValue(id_val=key.replace("__", "."), value=value) for key, value in properties.items()]


def colour(name: str) -> dict[str, str]:
    """The value of a `color` override."""
    return {"mode": "fixed", "fixedColor": name}


def steps_of(steps: Steps) -> dict[str, Any]:
    """The value of a `thresholds` override."""
    return {"mode": "absolute", "steps": [{"value": value, "color": name} for value, name in steps]}


def trace_overrides() -> list[tuple[MatcherConfig, list[DynamicConfigValue]]]:
    """Widths and units of the columns of Jaeger's search."""
    return [
        named("Trace ID", custom__width=140),
        named("Start time", custom__width=175),
        named("Duration", unit="µs", custom__width=100),
    ]


_AnyPanel = (
    timeseries.Panel
    | stat.Panel
    | table.Panel
    | bargauge.Panel
    | heatmap.Panel
    | logs.Panel
    | nodegraph.Panel
    | statetimeline.Panel
)


def _apply_options(panel: _AnyPanel, options: PanelOptions, queries: Queries) -> None:
    panel.title(options.title).description(options.description).datasource(options.source)
    panel.height(options.height).span(options.width).targets(list(queries)).unit(options.unit)
    thresholds = [Threshold(value=value, color=name) for value, name in options.steps]
    panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds))
    panel.links(options.links).data_links(options.data_links).transformations(options.transformations)
    if options.decimals is not None:
        panel.decimals(options.decimals)
    if options.minimum is not None:
        panel.min(options.minimum)
    if options.maximum is not None:
        panel.max(options.maximum)
    if options.empty:
        panel.no_value(options.empty)
    if options.last:
        panel.time_from(options.last)
    for matcher, properties in options.overrides:
        panel.with_override(matcher, properties)


def graph(
    options: PanelOptions,
    *queries: Builder[Dataquery],
    stacked: bool = False,
    bars: bool = False,
    line_at: bool = False,
    calcs: Sequence[str] = ("lastNotNull", "max"),
) -> Builder[Panel]:
    """Lines over time; `line_at` draws the thresholds as dashed lines."""
    panel = timeseries.Panel()
    _apply_options(panel, options, queries)
    panel.line_width(2 if not stacked else 1).fill_opacity(60 if bars else 25 if stacked else 8)
    panel.show_points(common.VisibilityMode.NEVER).axis_soft_min(0)
    # A gap of up to three scrapes is bridged; a longer one is shown.
    panel.span_nulls(60_000)
    if bars:
        # Fewer, so that each bar is wide enough to be seen and clicked.
        panel.draw_style(common.GraphDrawStyle.BARS).max_data_points(90)
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if line_at:
        panel.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    # Without data, Grafana's default axis of a rate ends at 100.
    soft_maximum = 1 if options.soft_maximum is None and options.unit in RATES else options.soft_maximum
    if soft_maximum is not None:
        panel.axis_soft_max(soft_maximum)
    # A service has the same colour on every graph; lines with fixed names are told apart by their order.
    by_name = any("{{" in str(getattr(query.build(), "legend_format", "")) for query in queries)
    mode_of_colours = FieldColorModeId.PALETTE_CLASSIC_BY_NAME if by_name else FieldColorModeId.PALETTE_CLASSIC
    panel.color_scheme(FieldColor().mode(mode_of_colours))
    legend = common_builders.VizLegendOptions().show_legend(True).calcs(list(calcs))
    mode = common.LegendDisplayMode.TABLE if calcs else common.LegendDisplayMode.LIST
    panel.legend(legend.display_mode(mode).placement(common.LegendPlacement.BOTTOM))
    panel.tooltip(
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    return panel


def number(
    options: PanelOptions,
    *queries: Builder[Dataquery],
    background: bool = True,
    spark: bool = False,
    vertical: bool = True,
    pair: bool = False,
    text: common.BigValueTextMode = common.BigValueTextMode.AUTO,
) -> Builder[Panel]:
    """Big figures; the colour of their thresholds fills the panel. `pair`: one query answers with two of them."""
    panel = stat.Panel()
    _apply_options(panel, options, queries)
    panel.color_mode(common.BigValueColorMode.BACKGROUND_SOLID if background else common.BigValueColorMode.VALUE)
    panel.graph_mode(common.BigValueGraphMode.AREA if spark else common.BigValueGraphMode.NONE)
    panel.text_mode(text).color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
    panel.orientation(common.VizOrientation.HORIZONTAL if vertical else common.VizOrientation.AUTO)
    # Without this mapping, a missing value is green.
    unknown = ValueMappingResult(text="No data", color="#6b7280")
    panel.mappings([SpecialValueMap(options=DashboardSpecialValueMapOptions(SpecialValueMatch.NULL_AND_NAN, unknown))])
    if pair or len(queries) > 1:
        # Otherwise each value picks its own size.
        panel.text(common_builders.VizTextDisplayOptions().title_size(14).value_size(26))
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    return panel


# Title, description, unit, thresholds and query of one big figure.
Figure = tuple[str, str, str, Steps, str]


def figures(*row: Figure) -> Panels:
    """The row of figures that a page begins with, from Prometheus, as they are now."""
    for title, words, unit, steps, expr in row:
        options = PanelOptions(
            title=title,
            description=words,
            source=PROMETHEUS,
            width=24 // len(row),
            height=4,
            unit=unit,
            steps=steps,
            decimals=0 if unit == "none" else 1,
        )
        yield number(options, now(expr))


def days_until_full(disks: str) -> Figure:
    """Return the figure for the time until a file system is full; it needs half an hour of data."""
    left = f"node_filesystem_avail_bytes{{{disks}}}"
    return (
        "Disk full in",
        "Days until the first file system is full at the rate of the last hour, at most 365. Needs half an hour "
        "of data.",
        "d",
        ((None, BAD), (2, NOTICE), (7, GOOD)),
        f"min(clamp({left} / clamp_min(-deriv({left}[1h]), 1) / 86400, 0, 365) and {left} offset 30m)",
    )


def listing(
    options: PanelOptions, *queries: Builder[Dataquery], sort: str = "", descending: bool = True
) -> Builder[Panel]:
    """A table; a cell without a value shows a dash instead of the text of the empty table."""
    options.overrides.insert(0, matching(".*", noValue="–"))
    panel = table.Panel()
    _apply_options(panel, options, queries)
    panel.show_header(True).cell_height(common.TableCellHeight.SM).color_scheme(
        FieldColor().mode(FieldColorModeId.THRESHOLDS)
    )
    # Grafana's own 150 pixels push the last columns out of half a screen.
    panel.min_width(85)
    if sort:
        panel.sort_by([common_builders.TableSortByFieldState().display_name(sort).desc(descending)])
    return panel


def bars(options: PanelOptions, *queries: Builder[Dataquery], name: str = "") -> Builder[Panel]:
    """One horizontal bar per series; without a `name` of its own, a bar that is alone has none."""
    panel = bargauge.Panel()
    _apply_options(panel, options, queries)
    if name:
        panel.display_name(name)
    panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)
    panel.value_mode(common.BarGaugeValueMode.TEXT).color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    return panel


def density(options: PanelOptions, *queries: Builder[Dataquery]) -> Builder[Panel]:
    """A heatmap of buckets that Prometheus counted."""
    panel = heatmap.Panel()
    _apply_options(panel, options, queries)
    panel.calculate(False).cell_gap(1).show_legend().show_y_histogram().mode(common.TooltipDisplayMode.SINGLE)
    panel.y_axis(heatmap.YAxisConfig().unit(options.unit))
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
    )
    panel.cell_values(heatmap.CellValues().unit("reqps")).filter_values(heatmap.FilterValueRange().le(1e-9))
    # Exemplars stand out from the blue of the cells in both themes.
    panel.exemplars_color("rgba(255,120,10,0.9)")
    return panel


def log_lines(options: PanelOptions, *queries: Builder[Dataquery], wrap: bool = False) -> Builder[Panel]:
    """Log lines, newest first; a click on a line opens its fields."""
    panel = logs.Panel()
    _apply_options(panel, options, queries)
    panel.show_time(True).wrap_log_message(wrap).enable_log_details(True).prettify_log_message(False)
    panel.sort_order(common.LogsSortOrder.DESCENDING).dedup_strategy(common.LogsDedupStrategy.NONE)
    panel.show_labels(False).show_common_labels(False)
    return panel


def network(
    options: PanelOptions, *queries: Builder[Dataquery], units: tuple[str, str], arcs: dict[str, str]
) -> Builder[Panel]:
    """Nodes and the arrows between them; `units` of a node's two figures, `arcs` with the colours of a node's ring."""
    panel = nodegraph.Panel()
    _apply_options(panel, options, queries)
    ring = [nodegraph.ArcOption().field(name).color(shade) for name, shade in arcs.items()]
    panel.nodes(nodegraph.NodeOptions().main_stat_unit(units[0]).secondary_stat_unit(units[1]).arcs([*ring]))
    # An arrow has no unit: it shows a rate or a count, as its source can tell.
    panel.edges(nodegraph.EdgeOptions())
    return panel


def states(options: PanelOptions, *queries: Builder[Dataquery]) -> Builder[Panel]:
    """One coloured band per series, which changes colour when the state changes."""
    panel = statetimeline.Panel()
    _apply_options(panel, options, queries)
    panel.show_value(common.VisibilityMode.NEVER).merge_values(True).row_height(0.8).per_page(50)
    panel.color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS)).legend(
        common_builders.VizLegendOptions()
        .show_legend(False)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
    )
    return panel
