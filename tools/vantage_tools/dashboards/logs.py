"""Logs: volume, raw log lines, and the same lines as a table of their fields."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from vantage_tools.dashboards import board, links
from vantage_tools.dashboards.panels import (
    BAD,
    NOTICE,
    PLAIN,
    PanelOptions,
    Panels,
    colour,
    graph,
    listing,
    log_lines,
    named,
    transform,
)
from vantage_tools.dashboards.queries import LOKI, counted, counted_now, lines

# Backticks: a regular expression typed by a user needs no further escaping.
STREAMS = '{service_name=~"$service", level=~"$level", host=~"$host"} |~ `(?i)$search` | trace_id=~`$trace_id.*`'
FIELDS = f'{STREAMS} | json | http_route=~"$route" | http_response_status_code=~"$status"'

# The pattern of a line: its exception, or its message without the parts that differ from line to line.
MESSAGE = "{{if .exception_type}}{{.exception_type}}: {{.exception_message}}{{else if .message}}{{.message}}{{else}}{{__line__}}{{end}}"
COLUMNS = {
    "Time": "Time",
    "level": "Level",
    "service_name": "Service",
    "message": "Message",
    "http_route": "Route",
    "http_response_status_code": "Status",
    "duration_ms": "Duration",
    "exception_type": "Exception",
    "trace": "Trace",
}
LEVEL_COLOURS = {
    "debug": "super-light-blue",
    "info": PLAIN,
    "unknown": "gray",
    "warn": NOTICE,
    "warning": NOTICE,
    "error": BAD,
    "critical": "dark-red",
    "fatal": "dark-red",
}


def build() -> Dashboard:
    """The dashboard."""
    logs = board.create(links.LOGS, "Logs", "Log volume, raw log lines, and log lines by field.")
    for name, label in (("service", "Service"), ("level", "Level"), ("host", "Host")):
        stream = '{service_name=~"$service"}' if name == "level" else ""
        logs.with_variable(
            board.log_label("service_name" if name == "service" else name, name, label, f"{label}s to show.", stream)
        )
    logs.with_variable(board.route_variable())
    logs.with_variable(board.status_variable())
    logs.with_variable(
        board.text_variable("trace_id", "Trace id", "Log lines of one trace; the first digits of the id are enough.")
    )
    logs.with_variable(board.text_variable("search", "Text", "Regular expression to find in a line; case-insensitive."))
    for panel in _volume():
        logs.with_panel(panel)
    logs.with_row(Row("Raw log lines"))
    for panel in _raw():
        logs.with_panel(panel)
    logs.with_row(Row("Log lines by JSON field"))
    for panel in _parsed():
        logs.with_panel(panel)
    return logs


def _volume() -> Panels:
    explore = links.to_explore(
        "These lines in Explore", "loki", {"expr": '{level="${__field.labels.level}"}', "queryType": "range"}
    )
    yield graph(
        PanelOptions(
            title="Log lines by level",
            description="Log lines in each interval, by level. Lines without a level are unknown. The filters for route "
            "and status do not apply.",
            source=LOKI, width=12, height=7, unit="locale", minimum=0, decimals=0, data_links=[explore],
            overrides=[named(level, color=colour(name)) for level, name in LEVEL_COLOURS.items()],
        ),
        counted(f"sum by (level) (count_over_time({STREAMS} [$__auto]))", "{{level}}"),
        stacked=True, bars=True, calcs=("sum",),
    )  # fmt: skip
    explore = links.to_explore(
        "These lines in Explore",
        "loki",
        {"expr": '{service_name="${__field.labels.service_name}"}', "queryType": "range"},
    )
    yield graph(
        PanelOptions(
            title="Log lines by service",
            description="Log lines in each interval, by service. The filters for route and status do not apply.",
            source=LOKI, width=12, height=7, unit="locale", minimum=0, decimals=0, data_links=[explore],
        ),
        counted(f"sum by (service_name) (count_over_time({STREAMS} [$__auto]))", "{{service_name}}"),
        stacked=True, bars=True, calcs=("sum",),
    )  # fmt: skip


def _raw() -> Panels:
    yield log_lines(
        PanelOptions(
            title="Log lines",
            description="The newest 200 log lines as written. Click a line to see its fields; trace_id links to the "
            "trace. The filters for route and status do not apply.",
            source=LOKI, width=24, height=12, empty="No matching log lines",
        ),
        lines(STREAMS, 200),
    )  # fmt: skip


def _parsed() -> Panels:
    here = f"/d/{links.LOGS}?${{__url_time_range}}&${{service:queryparam}}"
    yield listing(
        PanelOptions(
            title="Requests and events by field",
            description="The newest 200 JSON log lines by field, with all filters applied. Click a trace id to open "
            "the trace.",
            source=LOKI, width=24, height=12, empty="No matching JSON lines",
            transformations=[
                transform("extractFields", source="labels", format="json", replace=False, keepTime=False),
                transform("filterFieldsByName", include={"names": list(COLUMNS)}),
                transform(
                    "organize",
                    indexByName={name: position for position, name in enumerate(COLUMNS)},
                    renameByName={name: shown for name, shown in COLUMNS.items() if name != shown},
                ),
            ],
            overrides=[
                named("Time", custom__width=180),
                named(
                    "Level", custom__width=80, custom__cellOptions={"type": "color-text"}, mappings=_level_mappings()
                ),
                named("Service", custom__width=110),
                named("Message", custom__minWidth=240),
                named("Route", custom__width=200),
                named("Status", custom__width=75),
                named("Duration", unit="ms", custom__width=100),
                named(
                    "Trace", custom__width=290,
                    links=[
                        links.trace_in_explore("Open the trace", "${__value.raw}"),
                        {"title": "All lines of this trace", "url": f"{here}&var-trace_id=${{__value.raw}}"},
                    ],
                ),
            ],
        ),
        lines(f'{FIELDS} | __error__="" | label_format trace=trace_id', 200),
        sort="Time",
    )  # fmt: skip
    yield listing(
        PanelOptions(
            title="Error and warning patterns",
            description="Errors and warnings of the time range, counted by message; digits are replaced by #.",
            source=LOKI, width=24, height=9, empty="No errors or warnings",
            transformations=[
                transform("labelsToFields"),
                transform("merge"),
                transform("filterFieldsByName", include={"pattern": "service_name|level|text|Value.*"}),
                transform(
                    "organize",
                    indexByName={"Value #A": 0, "level": 1, "service_name": 2, "text": 3},
                    renameByName={"Value #A": "Lines", "level": "Level", "service_name": "Service", "text": "Message"},
                ),
            ],
            overrides=[
                named("Lines", custom__width=80, decimals=0),
                named(
                    "Level", custom__width=80, custom__cellOptions={"type": "color-text"}, mappings=_level_mappings()
                ),
                named("Service", custom__width=110),
            ],
        ),
        counted_now(_patterns()), sort="Lines",
    )  # fmt: skip


def _level_mappings() -> list[dict[str, object]]:
    options = {level: {"color": name, "index": index} for index, (level, name) in enumerate(LEVEL_COLOURS.items())}
    return [{"type": "value", "options": options}]


def _patterns() -> str:
    selector = '{service_name=~"$service", level=~"error|critical|fatal|warn|warning", host=~"$host"} |~ `(?i)$search`'
    return (
        f"topk(30, sum by (service_name, level, text) (count_over_time({selector} | json"
        f' | http_route=~"$route" | drop __error__, __error_details__ | label_format text=`{MESSAGE}`'
        ' | label_format text=`{{ regexReplaceAll "[0-9a-fA-F]{8,}|[0-9]+" .text "#" | trunc 160 }}` [$__range])))'
    )
