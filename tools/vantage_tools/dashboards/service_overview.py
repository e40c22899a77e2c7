"""Service overview: rate, errors and duration of every service, with links to the cause."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import BigValueTextMode
from grafana_foundation_sdk.models.dashboard import Panel

from vantage_tools.dashboards import board, links
from vantage_tools.dashboards.links import Link
from vantage_tools.dashboards.panels import (
    DURATION_STEPS,
    ERROR_STEPS,
    NEUTRAL,
    PanelOptions,
    Panels,
    colour,
    density,
    graph,
    listing,
    log_lines,
    matching,
    named,
    number,
    steps_of,
    trace_overrides,
    transform,
)
from vantage_tools.dashboards.queries import JAEGER, LOKI, PROMETHEUS, buckets, lines, now, over_time, rows, traces

SERVICE = 'service_name=~"$service"'
ROUTE = f'{SERVICE}, http_route=~"$route"'
RAW = f'{ROUTE}, instance=~"$instance"'
NO_REQUESTS = "No requests in this time range"
FAILED = 'http_response_status_code=~"5.."'
COUNT, BUCKET = f"{board.REQUESTS}_count", f"{board.REQUESTS}_bucket"
BY_ROUTE = "service_name_http_route:http_server"
BY_SERVICE = "service_name:http_server"
DURATION = f"{BY_SERVICE}_request_duration_seconds"

# Thresholds of the remaining share of an error budget.
BUDGET_STEPS = ((None, "red"), (0, "orange"), (0.25, "green"))

ORDER = {
    name: position
    for position, name in enumerate(
        ("service_name", "http_request_method", "http_route", "Value #A", "Value #B", "Value #C")
    )
}


def build() -> Dashboard:
    """The dashboard."""
    overview = board.create(
        links.OVERVIEW,
        "Service overview",
        "Which service is slow or failing, since when, on which route, with the log lines and traces that show why.",
    )
    # Engines write log lines too but are not apps: "All" means every service that answers requests.
    overview.with_variable(board.service_variable(everything="")).with_variable(board.route_variable())
    overview.with_variable(board.instance_variable())
    overview.with_variable(board.traced_variable(COUNT, SERVICE))
    slow = f"query_result(round(max({DURATION}:p95_5m{{{SERVICE}}}), 0.001) > 0 or vector(0))"
    overview.with_variable(
        board.hidden(
            board.single("slow", "Slow", slow, "Minimum duration of a slow trace, in seconds.", r"/\}\s+([0-9.]+)\s/")
        )
    )
    for panel in (*_figures(), _services(), *_over_time(), *_side_by_side()):
        overview.with_panel(panel)
    overview.with_row(Row("Routes"))
    for panel in _routes():
        overview.with_panel(panel)
    overview.with_row(Row("Logs and traces"))
    for panel in _evidence():
        overview.with_panel(panel)
    return overview


def _pair(expr: str) -> Builder[Dataquery]:
    """One query for a figure over both windows; in `expr`, `{0}` stands for the window."""
    short, long = (
        f'label_replace({expr.replace("{0}", window)}, "window", "{words}", "", "")'
        for window, words in (("5m", "5 min"), ("6h", "6 h"))
    )
    return now(f"{short} or {long}", "{{window}}")


def _figures() -> Panels:
    to_slo = [links.to_dashboard("Service level objectives", links.SLO, "${service:queryparam}")]
    to_logs = [links.to_dashboard("Logs of these services", links.LOGS, "${service:queryparam}&var-level=error")]
    to_traces = [links.to_dashboard("Traces", links.TRACES, "${service:queryparam}")]
    yield number(
        PanelOptions(
            title="Firing alerts",
            description="Alerts that are firing, over all services, without the Watchdog, which always fires. No data: "
            "the Watchdog is missing too.",
            source=PROMETHEUS, width=4, height=5, unit="none", steps=((None, "green"), (1, "red")), links=to_slo,
        ),
        now(
            'count(ALERTS{alertstate="firing", alertname!="Watchdog"}) or 0 * count(ALERTS{alertname="Watchdog"})', "now"
        ),
        text=BigValueTextMode.VALUE,
    )  # fmt: skip
    yield number(
        PanelOptions(
            title="Requests",
            description="Requests per second of the selected services and routes, averaged over 5 minutes and 6 hours.",
            source=PROMETHEUS, width=4, height=5, unit="reqps", decimals=1, links=to_traces,
        ),
        _pair(f"sum({BY_ROUTE}_requests:rate{{0}}{{{ROUTE}}})"), pair=True,
    )  # fmt: skip
    yield number(
        PanelOptions(
            title="Errors",
            description="Share of requests answered with a 5xx status.",
            source=PROMETHEUS, width=4, height=5, unit="percentunit", decimals=2, steps=ERROR_STEPS, links=to_logs,
        ),
        _pair(
            f"sum({BY_ROUTE}_errors:rate{{0}}{{{ROUTE}}}) / (sum({BY_ROUTE}_requests:rate{{0}}{{{ROUTE}}}) > 0)"
            f" or 0 * sum({BY_ROUTE}_requests:rate{{0}}{{{ROUTE}}})"
        ),
        pair=True,
    )  # fmt: skip
    for quantile in ("50", "95", "99"):
        yield number(
            PanelOptions(
                title=f"Duration p{quantile}",
                description=f"{quantile} % of requests took at most this time, over all routes of the slowest "
                "selected service.",
                source=PROMETHEUS, width=4, height=5, unit="s", decimals=0, steps=DURATION_STEPS, links=to_traces,
            ),
            _pair(f"max({DURATION}:p{quantile}_{{0}}{{{SERVICE}}})"), pair=True,
        )  # fmt: skip


def _services() -> Builder[Panel]:
    columns = {
        f"{BY_SERVICE}_requests:rate5m": "Requests 5 min",
        f"{BY_SERVICE}_requests:rate6h": "Requests 6 h",
        f"{BY_SERVICE}_errors:ratio5m": "Errors 5 min",
        f"{BY_SERVICE}_errors:ratio6h": "Errors 6 h",
        f"{DURATION}:p95_5m": "p95 5 min",
        f"{DURATION}:p95_6h": "p95 6 h",
        "service_name:slo_availability_error_budget_left:ratio": "Error budget remaining",
        "service_name:slo_latency_error_budget_left:ratio": "Latency budget remaining",
    }
    first = r"service_name\__name__"
    filled = {"type": "color-background", "mode": "basic"}
    only = "var-service=${__data.fields.Service:percentencode}"
    return listing(
        PanelOptions(
            title="Services",
            description="Rate, errors and p95 of each selected service over 5 minutes and 6 hours, and its remaining "
            "error budgets. Click a name to show only that service.",
            source=PROMETHEUS, width=24, height=6, empty="No service has been scraped yet",
            transformations=[
                # One query for all columns: each metric becomes one.
                transform(
                    "groupingToMatrix", rowField="service_name", columnField="__name__", valueField="Value", emptyValue="null"
                ),
                transform(
                    "organize",
                    indexByName={name: position for position, name in enumerate((first, *columns))},
                    renameByName={first: "Service"} | columns,
                ),
            ],
            overrides=[
                named(
                    "Service",
                    links=[
                        {"title": "Only this service", "url": f"/d/{links.OVERVIEW}?${{__url_time_range}}&{only}"},
                        {"title": "Its logs", "url": f"/d/{links.LOGS}?${{__url_time_range}}&{only}"},
                        {"title": "Its objectives", "url": f"/d/{links.SLO}?${{__url_time_range}}&{only}"},
                    ],
                ),
                matching("Requests.*", unit="reqps", decimals=1, thresholds=steps_of(NEUTRAL)),
                matching(
                    "Errors.*", unit="percentunit", decimals=2, thresholds=steps_of(ERROR_STEPS),
                    custom__cellOptions=filled,
                ),
                matching(
                    "p95.*", unit="s", decimals=0, thresholds=steps_of(DURATION_STEPS), custom__cellOptions=filled
                ),
                matching(
                    ".*remaining", unit="percentunit", decimals=1, thresholds=steps_of(BUDGET_STEPS),
                    custom__cellOptions=filled,
                ),
            ],
        ),
        rows(f'{{__name__=~"{"|".join(columns)}", {SERVICE}}}'), sort="Service", descending=False,
    )  # fmt: skip


def _more() -> list[Link]:
    """Return the links of a point on a graph."""
    service = "${__field.labels.service_name}"
    return [
        links.to_dashboard("Logs of ${__field.labels.service_name}", links.LOGS, f"var-service={service}"),
        links.to_explore(
            "Error lines in Explore",
            "loki",
            {"expr": f'{{service_name="{service}", level="error"}}', "queryType": "range"},
        ),
    ]


def _rate(extra: str = "", window: str = "$__rate_interval") -> str:
    return f"sum by (service_name) (rate({COUNT}{{{RAW}{extra}}}[{window}]))"


def _error_share() -> str:
    # Of the buckets, as these carry exemplars: the largest one counts all.
    failed = f"sum by (service_name) (max without (le) (rate({BUCKET}{{{RAW}, {FAILED}}}[$__rate_interval])))"
    return f"({failed} or 0 * {_rate()}) / ({_rate()} > 0)"


def _over_time() -> Panels:
    yield graph(
        PanelOptions(
            title="Requests over time",
            description="Requests per second by service.",
            source=PROMETHEUS, width=8, unit="reqps", minimum=0, data_links=_more(), empty=NO_REQUESTS,
        ),
        over_time(_rate(), "{{service_name}}"),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Errors over time",
            description="Share of requests answered with a 5xx status, by service. A dot is one such request (its height "
            "has no meaning): click it to open its trace.",
            source=PROMETHEUS, width=8, unit="percentunit",
            soft_maximum=0.02, minimum=0, steps=ERROR_STEPS, data_links=_more(), empty=NO_REQUESTS,
        ),
        over_time(_error_share(), "{{service_name}}", exemplars=True),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Duration over time",
            description="Quantiles over all selected services. A dot is one request: click it to open its trace.",
            source=PROMETHEUS, width=8, unit="s", minimum=0, empty=NO_REQUESTS,
            overrides=[
                named("p50", color=colour("blue")),
                named("p95", color=colour("orange")),
                named("p99", color=colour("red")),
            ],
        ),
        *(
            over_time(
                f"histogram_quantile(0.{quantile}, sum by (le) (rate({BUCKET}{{{RAW}}}[$__rate_interval])))",
                f"p{quantile}", ref, exemplars=quantile == "99",
            )
            for quantile, ref in (("50", "A"), ("95", "B"), ("99", "C"))
        ),
    )  # fmt: skip
    yield density(
        PanelOptions(
            title="Request duration heatmap",
            description="Requests per second by duration; the colour scale is below. A dot is one request: click it to "
            "open its trace.",
            source=PROMETHEUS, width=24, height=10, unit="s", empty=NO_REQUESTS,
        ),
        buckets(f"sum by (le) (rate({BUCKET}{{{RAW}}}[$__rate_interval]))"),
    )  # fmt: skip


def _side_by_side() -> Panels:
    six_hours = "from the recording rules, averaged over 5 minutes"
    for last, words, origin in (("5m", "5 minutes", "averaged over a minute"), ("6h", "6 hours", six_hours)):
        short = last == "5m"
        rate = _rate(window="1m") if short else f"{BY_SERVICE}_requests:rate5m{{{SERVICE}}}"
        errors = f"{_rate(f', {FAILED}', '1m')} or 0 * {rate}" if short else f"{BY_SERVICE}_errors:rate5m{{{SERVICE}}}"
        yield graph(
            PanelOptions(
                title=f"Requests and errors, last {words}",
                description=f"Requests and failed requests per second by service over the last {words}, {origin}. "
                "Independent of the dashboard's time range.",
                source=PROMETHEUS, width=12, unit="reqps", minimum=0, last=last, data_links=_more(), empty=NO_REQUESTS,
                overrides=[
                    matching(".* errors", color={"mode": "shades", "fixedColor": "red"}, custom__fillOpacity=40),
                ],
            ),
            over_time(rate, "{{service_name}}"),
            over_time(errors, "{{service_name}} errors", "B"),
        )  # fmt: skip
    for last, words, origin in (("5m", "5 minutes", "averaged over a minute"), ("6h", "6 hours", six_hours)):
        per_service = f"sum by (le, service_name) (rate({BUCKET}{{{RAW}}}[1m]))"
        yield graph(
            PanelOptions(
                title=f"Duration p95, last {words}",
                description=f"95 % of requests took at most this time, by service, over the last {words}, "
                f"{origin}. Independent of the dashboard's time range.",
                source=PROMETHEUS, width=12, unit="s", minimum=0, last=last, data_links=_more(), empty=NO_REQUESTS,
            ),
            over_time(
                f"histogram_quantile(0.95, {per_service})" if last == "5m" else f"{DURATION}:p95_5m{{{SERVICE}}}",
                "{{service_name}}",
            ),
        )  # fmt: skip


def _routes() -> Panels:
    filled = {"type": "color-background", "mode": "basic"}
    shown = {"service_name": "Service", "http_request_method": "Method", "http_route": "Route"}
    here = "var-service=${__data.fields.Service:percentencode}&var-route=${__data.fields.Route:percentencode}"
    route_links = named(
        "Route",
        links=[
            {"title": "Only this route", "url": f"/d/{links.OVERVIEW}?${{__url_time_range}}&{here}"},
            {"title": "Its log lines", "url": f"/d/{links.LOGS}?${{__url_time_range}}&{here}"},
        ],
    )
    narrow = matching("Method|Service", custom__width=90)
    yield listing(
        PanelOptions(
            title="Slowest routes",
            description="The ten routes with the highest p95 over 5 minutes, with their p95 over 6 hours and request "
            "rate.",
            source=PROMETHEUS, width=12, height=9, empty="No requests in the last 6 hours",
            transformations=[
                transform("merge"),
                transform("sortBy", fields={}, sort=[{"field": "Value #A", "desc": True}]),
                transform("limit", limitField=10),
                transform(
                    "organize",
                    excludeByName={"Time": True, "__name__": True},
                    indexByName=ORDER,
                    renameByName=shown | {"Value #A": "p95 5 min", "Value #B": "p95 6 h", "Value #C": "Requests 5 min"},
                ),
            ],
            overrides=[
                route_links, narrow,
                matching(
                    "p95.*", unit="s", decimals=0, thresholds=steps_of(DURATION_STEPS), custom__cellOptions=filled,
                    custom__width=85,
                ),
                matching("Requests.*", unit="reqps", decimals=1, thresholds=steps_of(NEUTRAL), custom__width=130),
            ],
        ),
        rows(f"max by (service_name, http_request_method, http_route) ({BY_ROUTE}_request_duration_seconds:p95_5m{{{ROUTE}}})", "A"),
        rows(f"max by (service_name, http_request_method, http_route) ({BY_ROUTE}_request_duration_seconds:p95_6h{{{ROUTE}}})", "B"),
        rows(f"max by (service_name, http_request_method, http_route) ({BY_ROUTE}_requests:rate5m{{{ROUTE}}})", "C"),
    )  # fmt: skip
    yield listing(
        PanelOptions(
            title="Routes with the highest error rate",
            description="The ten routes with the highest error rate over 5 minutes or 6 hours. Routes without errors are "
            "omitted.",
            source=PROMETHEUS, width=12, height=9, empty="No route failed in the last 6 hours",
            transformations=[
                transform("merge"),
                transform("sortBy", fields={}, sort=[{"field": "Value #A", "desc": True}]),
                transform("limit", limitField=10),
                transform(
                    "organize",
                    excludeByName={"Time": True, "__name__": True},
                    indexByName=ORDER,
                    renameByName=shown | {"Value #A": "Errors 5 min", "Value #B": "Errors 6 h"},
                ),
            ],
            overrides=[
                route_links, narrow,
                matching(
                    "Errors.*", unit="percentunit", decimals=2, thresholds=steps_of(ERROR_STEPS),
                    custom__cellOptions=filled, custom__width=105,
                ),
            ],
        ),
        rows(f"max by (service_name, http_request_method, http_route) ({BY_ROUTE}_errors:ratio5m{{{ROUTE}}}) > 0", "A"),
        rows(f"max by (service_name, http_request_method, http_route) ({BY_ROUTE}_errors:ratio6h{{{ROUTE}}}) > 0", "B"),
    )  # fmt: skip


def _evidence() -> Panels:
    yield log_lines(
        PanelOptions(
            title="Newest errors",
            description="The newest error lines of the selected services and routes. Click a line to see its fields; "
            "trace_id links to the trace.",
            source=LOKI, width=24, height=9, empty="No error lines in this time range",
            links=[links.to_dashboard("All error lines", links.LOGS, "${service:queryparam}&var-level=error")],
        ),
        lines(
            f'{{{SERVICE}, level=~"error|critical|fatal"}} | json | drop __error__, __error_details__ | http_route=~"$route"'
            ' | line_format "{{if .message}}{{.message}}{{else}}{{__line__}}{{end}}{{if .exception_type}} — {{.exception_type}}: {{.exception_message}}{{end}}"',
            50,
        ),
    )  # fmt: skip
    more = [links.to_dashboard("Search traces", links.TRACES, "var-service=${traced}")]
    for title, words, conditions, order in (
        ("Newest traces", "The newest traces of the service", {}, "Start time"),
        (
            "Slowest traces",
            "The slowest of the newest 100 traces that took at least the p95 of the last 5 minutes, for the service",
            {"minDuration": "${slow}s"},
            "Duration",
        ),
    ):
        yield listing(
            PanelOptions(
                title=title,
                description=f"{words} selected in “Traces of”. Click an id to open the trace.",
                source=JAEGER, width=12, height=9, empty="No traces in this time range", links=more,
                overrides=trace_overrides(),
            ),
            traces("${traced}", 20 if not conditions else 100, **conditions),
            sort=order,
        )  # fmt: skip
