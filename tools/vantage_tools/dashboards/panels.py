"""Panels in the house style: one function per kind, each called with title, description, options and queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import bargauge, heatmap, logs, nodegraph, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue, MatcherConfig, Panel
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale

from vantage_tools.dashboards.links import Link
from vantage_tools.dashboards.queries import LOKI, PROMETHEUS, counted, now, over_time, rows

Panels = Iterator[Builder[Panel]]
Query = Builder[Dataquery]
Steps = Sequence[tuple[float | None, str]]
Override = tuple[MatcherConfig, list[DynamicConfigValue]]
AnyPanel = (
    timeseries.Panel
    | stat.Panel
    | table.Panel
    | bargauge.Panel
    | heatmap.Panel
    | logs.Panel
    | nodegraph.Panel
    | statetimeline.Panel
)

# The same colour means the same thing on every dashboard.
GOOD, NOTICE, BAD, PLAIN = "green", "orange", "red", "blue"
# Shares of failed requests, from which a person should look.
ERROR_STEPS: Steps = ((None, GOOD), (0.001, NOTICE), (0.01, BAD))
# Seconds; the middle step is the default of the latency objective.
DURATION_STEPS: Steps = ((None, GOOD), (0.25, NOTICE), (1, BAD))
# The remaining share of an error budget.
BUDGET_STEPS: Steps = ((None, BAD), (0, NOTICE), (0.25, GOOD))
NONE: Steps = ((None, GOOD), (1, BAD))
NEUTRAL: Steps = ((None, PLAIN),)
RATES = ("reqps", "cps")
LAST = ("lastNotNull",)
BY_THRESHOLDS = FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


@dataclass(kw_only=True)
class Options:
    """Options of a panel."""

    source: dashboard.DataSourceRef = PROMETHEUS
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
    links: Sequence[Link] = ()
    data_links: Sequence[Link] = ()
    empty: str = ""
    # Shows this much time up to now, whatever the dashboard shows.
    last: str = ""
    transformations: Sequence[DataTransformerConfig] = ()
    overrides: Sequence[Override] = ()
    # Of graphs: `line_at` draws the thresholds as dashed lines, `exemplars` is the legend of the line that has them.
    stacked: bool = False
    bars: bool = False
    line_at: bool = False
    exemplars: str = ""
    calcs: Sequence[str] = ("lastNotNull", "max")
    # Of tables: the column that rows are sorted by.
    sort: str = ""
    descending: bool = True


def transform(name: str, only: str = "", **options: Any) -> DataTransformerConfig:
    """A step between query and picture; `only` is a pattern of the queries that take it."""
    chosen = MatcherConfig(id_val="byRefId", options=f"/^({only})$/") if only else None
    return DataTransformerConfig(id_val=name, options=options, filter_val=chosen)


def organize(columns: dict[str, str], *excluded: str, ordered: bool = True) -> DataTransformerConfig:
    """The step that renames, and by default orders, the columns of a table."""
    options: dict[str, Any] = {"excludeByName": dict.fromkeys(excluded, True)} if excluded else {}
    if ordered:
        options["indexByName"] = {name: position for position, name in enumerate(columns)}
    renamed = {name: shown for name, shown in columns.items() if name != shown}
    return transform("organize", **options, renameByName=renamed)


def joined(columns: dict[str, str]) -> list[DataTransformerConfig]:
    """The steps that join queries to one row per service; `columns` names their values."""
    return [
        transform("joinByField", byField="service_name", mode="outer"),
        transform("filterFieldsByName", include={"pattern": "service_name|Value.*"}),
        organize(columns, ordered=False),
    ]


def largest(limit: int) -> list[DataTransformerConfig]:
    """The steps that merge queries and keep the rows in which the first of them is largest."""
    by_first = transform("sortBy", fields={}, sort=[{"field": "Value #A", "desc": True}])
    return [transform("merge"), by_first, transform("limit", limitField=limit)]


def named(name: str, **properties: Any) -> Override:
    """Other properties for the field `name`; `__` in a property stands for a dot."""
    return MatcherConfig(id_val="byName", options=name), _properties(properties)


def matching(regexp: str, **properties: Any) -> Override:
    """Other properties for the fields whose name matches."""
    return MatcherConfig(id_val="byRegexp", options=regexp), _properties(properties)


def _properties(properties: dict[str, Any]) -> list[DynamicConfigValue]:
    return [DynamicConfigValue(id_val=key.replace("__", "."), value=value) for key, value in properties.items()]


def figure(unit: str = "", decimals: int | None = None, steps: Steps = NEUTRAL) -> dict[str, Any]:
    """Properties of a column of figures; thresholds other than NEUTRAL colour the cell."""
    properties: dict[str, Any] = {"unit": unit} if unit else {}
    if decimals is not None:
        properties["decimals"] = decimals
    properties["thresholds"] = {"mode": "absolute", "steps": [{"value": value, "color": name} for value, name in steps]}
    if steps is not NEUTRAL:
        properties["custom__cellOptions"] = {"type": "color-background", "mode": "basic"}
    return properties


def colour(name: str) -> dict[str, str]:
    """The value of a `color` override."""
    return {"mode": "fixed", "fixedColor": name}


def trace_overrides() -> list[Override]:
    """Widths and units of the columns of Jaeger's search."""
    return [
        named("Trace ID", custom__width=140),
        named("Start time", custom__width=175),
        named("Duration", unit="µs", custom__width=100),
    ]


def _apply(panel: AnyPanel, title: str, description: str, options: Options, queries: Sequence[Query]) -> None:
    panel.title(title).description(description).datasource(options.source)
    panel.height(options.height).span(options.width).targets(list(queries)).unit(options.unit)
    thresholds = [dashboard.Threshold(value=value, color=name) for value, name in options.steps]
    panel.thresholds(ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(thresholds))
    panel.links(list(options.links)).data_links(list(options.data_links))
    panel.transformations(list(options.transformations))
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


def graph(title: str, description: str, options: Options, expressions: dict[str, str]) -> Builder[Panel]:
    """Lines over time; `expressions` by legend, in LogQL if the source is Loki."""
    panel = timeseries.Panel()
    if options.source is LOKI:
        queries: list[Query] = [counted(expr, legend) for legend, expr in expressions.items()]
    else:
        queries = [
            query.exemplar(True) if legend == options.exemplars else query
            for (legend, expr), ref in zip(expressions.items(), ascii_uppercase, strict=False)
            for query in [over_time(expr, legend, ref)]
        ]
    _apply(panel, title, description, options, queries)
    panel.line_width(1 if options.stacked else 2).fill_opacity(60 if options.bars else 25 if options.stacked else 8)
    panel.show_points(common.VisibilityMode.NEVER).axis_soft_min(0)
    # A gap of up to three scrapes is bridged; a longer one is shown.
    panel.span_nulls(60_000)
    if options.bars:
        # Fewer, so that each bar is wide enough to be seen and clicked.
        panel.draw_style(common.GraphDrawStyle.BARS).max_data_points(90)
    if options.stacked:
        panel.stacking(build.StackingConfig().mode(common.StackingMode.NORMAL))
    if options.line_at:
        panel.thresholds_style(build.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    # Without data, Grafana's default axis of a rate ends at 100.
    soft_maximum = 1 if options.soft_maximum is None and options.unit in RATES else options.soft_maximum
    if soft_maximum is not None:
        panel.axis_soft_max(soft_maximum)
    # A service has the same colour on every graph; lines with fixed names are told apart by their order.
    modes = dashboard.FieldColorModeId
    by_name = any("{{" in legend for legend in expressions)
    panel.color_scheme(FieldColor().mode(modes.PALETTE_CLASSIC_BY_NAME if by_name else modes.PALETTE_CLASSIC))
    legend = build.VizLegendOptions().show_legend(True).calcs(list(options.calcs))
    panel.legend(legend.display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.BOTTOM))
    panel.tooltip(build.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    return panel


def number(
    title: str,
    description: str,
    options: Options,
    query: Query,
    pair: bool = False,
    text: common.BigValueTextMode = common.BigValueTextMode.AUTO,
) -> Builder[Panel]:
    """A big figure; the colour of its threshold fills the panel. `pair`: the query answers with two of them."""
    panel = stat.Panel()
    _apply(panel, title, description, options, [query])
    panel.color_mode(common.BigValueColorMode.BACKGROUND_SOLID).graph_mode(common.BigValueGraphMode.NONE)
    panel.text_mode(text).color_scheme(BY_THRESHOLDS).orientation(common.VizOrientation.HORIZONTAL)
    # Without this mapping, a missing value is green.
    unknown = dashboard.ValueMappingResult(text="No data", color="#6b7280")
    special = dashboard.DashboardSpecialValueMapOptions(dashboard.SpecialValueMatch.NULL_AND_NAN, unknown)
    panel.mappings([dashboard.SpecialValueMap(options=special)])
    if pair:
        # Otherwise each value picks its own size.
        panel.text(build.VizTextDisplayOptions().title_size(14).value_size(26))
    panel.reduce_options(build.ReduceDataOptions().calcs(list(LAST)).values(False))
    return panel


# Title, unit and thresholds of one big figure; its description; its query.
Figure = tuple[tuple[str, str, Steps], str, str]


def figures(*row: Figure) -> Panels:
    """The row of figures that a page begins with, from Prometheus, as they are now."""
    for (title, unit, steps), words, expr in row:
        decimals = 0 if unit == "none" else 1
        options = Options(width=24 // len(row), height=4, unit=unit, steps=steps, decimals=decimals)
        yield number(title, words, options, now(expr))


def days_until_full(disks: str) -> Figure:
    """Return the figure for the time until a file system is full; it needs half an hour of data."""
    left = f"node_filesystem_avail_bytes{{{disks}}}"
    return (
        ("Disk full in", "d", ((None, BAD), (2, NOTICE), (7, GOOD))),
        "Days until the first file system is full at the rate of the last hour, at most 365. Needs half an hour of data.",
        f"min(clamp({left} / clamp_min(-deriv({left}[1h]), 1) / 86400, 0, 365) and {left} offset 30m)",
    )


def listing(title: str, description: str, options: Options, *queries: str | Query) -> Builder[Panel]:
    """A table of PromQL expressions or other queries; a cell without a value shows a dash, not the table's `empty`."""
    asked = [
        rows(one, ref) if isinstance(one, str) else one for one, ref in zip(queries, ascii_uppercase, strict=False)
    ]
    options.overrides = [matching(".*", noValue="–"), *options.overrides]
    panel = table.Panel()
    _apply(panel, title, description, options, asked)
    panel.show_header(True).cell_height(common.TableCellHeight.SM).color_scheme(BY_THRESHOLDS)
    # Grafana's own 150 pixels push the last columns out of half a screen.
    panel.min_width(85)
    if options.sort:
        panel.sort_by([build.TableSortByFieldState().display_name(options.sort).desc(options.descending)])
    return panel


def bars(title: str, description: str, options: Options, query: Query, name: str = "") -> Builder[Panel]:
    """One horizontal bar per series; without a `name` of its own, a bar that is alone has none."""
    panel = bargauge.Panel()
    _apply(panel, title, description, options, [query])
    if name:
        panel.display_name(name)
    panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)
    panel.value_mode(common.BarGaugeValueMode.TEXT).color_scheme(BY_THRESHOLDS)
    panel.reduce_options(build.ReduceDataOptions().calcs(list(LAST)).values(False))
    return panel


def density(title: str, description: str, options: Options, query: Query) -> Builder[Panel]:
    """A heatmap of buckets that Prometheus counted."""
    panel = heatmap.Panel()
    _apply(panel, title, description, options, [query])
    panel.calculate(False).cell_gap(1).show_legend().show_y_histogram().mode(common.TooltipDisplayMode.SINGLE)
    panel.y_axis(heatmap.YAxisConfig().unit(options.unit))
    shades = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues")
    panel.color(shades.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5).steps(64))
    panel.cell_values(heatmap.CellValues().unit("reqps")).filter_values(heatmap.FilterValueRange().le(1e-9))
    # Exemplars stand out from the blue of the cells in both themes.
    panel.exemplars_color("rgba(255,120,10,0.9)")
    return panel


def log_lines(title: str, description: str, options: Options, query: Query) -> Builder[Panel]:
    """Log lines, newest first; a click on a line opens its fields."""
    panel = logs.Panel()
    _apply(panel, title, description, options, [query])
    panel.show_time(True).wrap_log_message(False).enable_log_details(True).prettify_log_message(False)
    panel.sort_order(common.LogsSortOrder.DESCENDING).dedup_strategy(common.LogsDedupStrategy.NONE)
    panel.show_labels(False).show_common_labels(False)
    return panel


def network(
    title: str,
    description: str,
    options: Options,
    queries: Sequence[Query],
    units: tuple[str, str],
    arcs: dict[str, str],
) -> Builder[Panel]:
    """Nodes and the arrows between them; `units` of a node's two figures, `arcs` with the colours of a node's ring."""
    panel = nodegraph.Panel()
    _apply(panel, title, description, options, queries)
    ring = [nodegraph.ArcOption().field(name).color(shade) for name, shade in arcs.items()]
    panel.nodes(nodegraph.NodeOptions().main_stat_unit(units[0]).secondary_stat_unit(units[1]).arcs([*ring]))
    # An arrow has no unit: it shows a rate or a count, as its source can tell.
    panel.edges(nodegraph.EdgeOptions())
    return panel


def states(title: str, description: str, options: Options, query: Query) -> Builder[Panel]:
    """One coloured band per series, which changes colour when the state changes."""
    panel = statetimeline.Panel()
    _apply(panel, title, description, options, [query])
    panel.show_value(common.VisibilityMode.NEVER).merge_values(True).row_height(0.8).per_page(50)
    legend = build.VizLegendOptions().show_legend(False).display_mode(common.LegendDisplayMode.LIST)
    panel.color_scheme(BY_THRESHOLDS).legend(legend.placement(common.LegendPlacement.BOTTOM))
    return panel
