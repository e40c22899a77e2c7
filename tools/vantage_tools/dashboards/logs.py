"""Logs: volume, raw log lines, and the same lines as a table of their fields."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from vantage_tools.dashboards import board, links, panels
from vantage_tools.dashboards.panels import BAD, NOTICE, PLAIN, Options, Panels, colour, graph, named, transform
from vantage_tools.dashboards.queries import LOKI, counted, lines

# Backticks: a regular expression typed by a user needs no further escaping.
STREAMS = '{service_name=~"$service", level=~"$level", host=~"$host"} |~ `(?i)$search` | trace_id=~`$trace_id.*`'
FIELDS = f'{STREAMS} | json | http_route=~"$route" | http_response_status_code=~"$status"'

# The pattern of a line: its exception, or its message without the parts that differ from line to line.
MESSAGE = (
    "{{if .exception_type}}{{.exception_type}}: {{.exception_message}}"
    "{{else if .message}}{{.message}}{{else}}{{__line__}}{{end}}"
)
PATTERNS = (
    'topk(30, sum by (service_name, level, text) (count_over_time({service_name=~"$service", '
    'level=~"error|critical|fatal|warn|warning", host=~"$host"} |~ `(?i)$search` | json'
    f' | http_route=~"$route" | drop __error__, __error_details__ | label_format text=`{MESSAGE}`'
    ' | label_format text=`{{ regexReplaceAll "[0-9a-fA-F]{8,}|[0-9]+" .text "#" | trunc 160 }}` [$__range])))'
)
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
    return board.create(
        links.LOGS,
        "Logs",
        "Log volume, raw log lines, and log lines by field.",
        [
            board.log_label("service_name", "service", "Service"),
            board.log_label("level", "level", "Level", '{service_name=~"$service"}'),
            board.log_label("host", "host", "Host"),
            board.route_variable(),
            board.status_variable(),
            board.text_variable(
                "trace_id", "Trace id", "Log lines of one trace; the first digits of the id are enough."
            ),
            board.text_variable("search", "Text", "Regular expression to find in a line; case-insensitive."),
        ],
        {"": _volume(), "Raw log lines": _raw(), "Log lines by JSON field": _parsed()},
    )


def _volume() -> Panels:
    for label, name, more, overrides in (
        (
            "level",
            "level",
            "Lines without a level are unknown. ",
            [named(level, color=colour(shade)) for level, shade in LEVEL_COLOURS.items()],
        ),
        ("service_name", "service", "", []),
    ):
        selector = f'{{{label}="${{__field.labels.{label}}}"}}'
        yield graph(
            f"Log lines by {name}",
            f"Log lines in each interval, by {name}. {more}The filters for route and status do not apply.",
            Options(
                source=LOKI,
                width=12,
                height=7,
                unit="locale",
                minimum=0,
                decimals=0,
                data_links=[links.lines_in_explore("These lines in Explore", selector)],
                overrides=overrides,
                stacked=True,
                bars=True,
                calcs=("sum",),
            ),
            {f"{{{{{label}}}}}": f"sum by ({label}) (count_over_time({STREAMS} [$__auto]))"},
        )


def _raw() -> Panels:
    yield panels.log_lines(
        "Log lines",
        "The newest 200 log lines as written. Click a line to see its fields; trace_id links to the trace. "
        "The filters for route and status do not apply.",
        Options(source=LOKI, width=24, height=12, empty="No matching log lines"),
        lines(STREAMS, 200),
    )


def _parsed() -> Panels:
    here = f"/d/{links.LOGS}?${{__url_time_range}}&${{service:queryparam}}"
    trace_links = [
        links.trace_in_explore("Open the trace", "${__value.raw}"),
        {"title": "All lines of this trace", "url": f"{here}&var-trace_id=${{__value.raw}}"},
    ]
    shades = {level: {"color": name, "index": index} for index, (level, name) in enumerate(LEVEL_COLOURS.items())}
    level = named(
        "Level",
        custom__width=80,
        custom__cellOptions={"type": "color-text"},
        mappings=[{"type": "value", "options": shades}],
    )
    service = named("Service", custom__width=110)
    yield panels.listing(
        "Requests and events by field",
        "The newest 200 JSON log lines by field, with all filters applied. Click a trace id to open the trace.",
        Options(
            source=LOKI,
            width=24,
            height=12,
            empty="No matching JSON lines",
            transformations=[
                transform("extractFields", source="labels", format="json", replace=False, keepTime=False),
                transform("filterFieldsByName", include={"names": list(COLUMNS)}),
                panels.organize(COLUMNS),
            ],
            overrides=[
                named("Time", custom__width=180),
                level,
                service,
                named("Message", custom__minWidth=240),
                named("Route", custom__width=200),
                named("Status", custom__width=75),
                named("Duration", unit="ms", custom__width=100),
                named("Trace", custom__width=290, links=trace_links),
            ],
            sort="Time",
        ),
        lines(f'{FIELDS} | __error__="" | label_format trace=trace_id', 200),
    )
    columns = {"Value #A": "Lines", "level": "Level", "service_name": "Service", "text": "Message"}
    yield panels.listing(
        "Error and warning patterns",
        "Errors and warnings of the time range, counted by message; digits are replaced by #.",
        Options(
            source=LOKI,
            width=24,
            empty="No errors or warnings",
            transformations=[
                transform("labelsToFields"),
                transform("merge"),
                transform("filterFieldsByName", include={"pattern": "service_name|level|text|Value.*"}),
                panels.organize(columns),
            ],
            overrides=[named("Lines", custom__width=80, decimals=0), level, service],
            sort="Lines",
        ),
        counted(PATTERNS, "", "instant"),
    )
