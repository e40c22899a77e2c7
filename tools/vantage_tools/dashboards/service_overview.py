"""Service overview: rate, errors and duration of every service, with links to the cause."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import BigValueTextMode
from grafana_foundation_sdk.models.dashboard import Panel, VariableHide

from vantage_tools.dashboards import board, links, panels
from vantage_tools.dashboards.links import LOGS, OVERVIEW, Link
from vantage_tools.dashboards.panels import ERROR_STEPS, NONE, Options, Panels, figure, graph, listing, matching, named
from vantage_tools.dashboards.queries import JAEGER, LOKI, buckets, lines, now, traces

SERVICE = 'service_name=~"$service"'
ROUTE = f'{SERVICE}, http_route=~"$route"'
RAW = f'{ROUTE}, instance=~"$instance"'
NO_REQUESTS = "No requests in this time range"
FAILED = 'http_response_status_code=~"5.."'
COUNT, BUCKET = f"{board.REQUESTS}_count", f"{board.REQUESTS}_bucket"
BY_ROUTE = "service_name_http_route:http_server"
BY_SERVICE = "service_name:http_server"
RECORDED_BUCKETS = f"service_name_http_route_le:{BUCKET}:rate5m"
DURATION = f"{BY_SERVICE}_request_duration_seconds"
# Label and figure of each graph that is shown for the last minutes and the last hours.
SIDES = (
    ("5m", "5 minutes", "averaged over a minute"),
    ("6h", "6 hours", "from the recording rules, averaged over 5 minutes"),
)


def build() -> Dashboard:
    """The dashboard."""
    slowest = f"query_result(round(max({DURATION}:p95_5m{{{SERVICE}}}), 0.001) > 0 or vector(0))"
    found = r"/\}\s+([0-9.]+)\s/"
    slow = board.single("slow", "Slow", slowest, "Minimum duration of a slow trace, in seconds.", found)
    return board.create(
        OVERVIEW,
        "Service overview",
        "Which service is slow or failing, since when, on which route, with the log lines and traces that show why.",
        [
            # Engines write log lines too but are not apps: "All" means every service that answers requests.
            board.service_variable(board.SERVICES, everything=""),
            board.route_variable(),
            board.instance_variable(),
            board.traced_variable(COUNT, SERVICE),
            slow.hide(VariableHide.HIDE_VARIABLE),
        ],
        {
            "": [*_figures(), _services(), *_over_time(), *_side_by_side()],
            "Routes": _routes(),
            "Logs and traces": _evidence(),
        },
    )


def _pair(expr: str) -> Builder[Dataquery]:
    """One query for a figure over both windows; in `expr`, `{0}` stands for the window."""
    short, long = (
        f'label_replace({expr.replace("{0}", window)}, "window", "{words}", "", "")'
        for window, words in (("5m", "5 min"), ("6h", "6 h"))
    )
    return now(f"{short} or {long}", "{{window}}")


def _figures() -> Panels:
    to_slo = [links.to_dashboard("Service level objectives", links.SLO, "${service:queryparam}")]
    to_logs = [links.to_dashboard("Logs of these services", LOGS, "${service:queryparam}&var-level=error")]
    to_traces = [links.to_dashboard("Traces", links.TRACES, "${service:queryparam}")]
    yield panels.number(
        "Firing alerts",
        "Alerts that are firing, over all services, without the Watchdog, which always fires. No data: "
        "the Watchdog is missing too.",
        Options(width=4, height=5, unit="none", steps=NONE, links=to_slo),
        now(
            'count(ALERTS{alertstate="firing", alertname!="Watchdog"}) or 0 * count(ALERTS{alertname="Watchdog"})',
            "now",
        ),
        text=BigValueTextMode.VALUE,
    )
    requests = f"sum({BY_ROUTE}_requests:rate{{0}}{{{ROUTE}}})"
    yield panels.number(
        "Requests",
        "Requests per second of the selected services and routes, averaged over 5 minutes and 6 hours.",
        Options(width=4, height=5, unit="reqps", decimals=1, links=to_traces),
        _pair(requests),
        pair=True,
    )
    yield panels.number(
        "Errors",
        "Share of requests answered with a 5xx status.",
        Options(width=4, height=5, unit="percentunit", decimals=2, steps=ERROR_STEPS, links=to_logs),
        _pair(f"sum({BY_ROUTE}_errors:rate{{0}}{{{ROUTE}}}) / ({requests} > 0) or 0 * {requests}"),
        pair=True,
    )
    for quantile in ("50", "95", "99"):
        yield panels.number(
            f"Duration p{quantile}",
            f"{quantile} % of requests took at most this time, over all routes of the slowest selected service.",
            Options(width=4, height=5, unit="s", decimals=0, steps=panels.DURATION_STEPS, links=to_traces),
            _pair(f"max({DURATION}:p{quantile}_{{0}}{{{SERVICE}}})"),
            pair=True,
        )


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
    # One query for all columns: each metric becomes one.
    matrix = {"rowField": "service_name", "columnField": "__name__", "valueField": "Value", "emptyValue": "null"}
    opens = (("Only this service", OVERVIEW), ("Its logs", LOGS), ("Its objectives", links.SLO))
    return listing(
        "Services",
        "Rate, errors and p95 of each selected service over 5 minutes and 6 hours, and its remaining "
        "error budgets. Click a name to show only that service.",
        Options(
            width=24,
            height=6,
            empty="No service has been scraped yet",
            transformations=[
                panels.transform("groupingToMatrix", **matrix),
                panels.organize({r"service_name\__name__": "Service", **columns}),
            ],
            overrides=[
                named("Service", links=[links.in_cell(title, uid, links.OF_SERVICE) for title, uid in opens]),
                matching("Requests.*", **figure("reqps", 1)),
                matching("Errors.*", **figure("percentunit", 2, ERROR_STEPS)),
                matching("p95.*", **figure("s", 0, panels.DURATION_STEPS)),
                matching(".*remaining", **figure("percentunit", 1, panels.BUDGET_STEPS)),
            ],
            sort="Service",
            descending=False,
        ),
        f'{{__name__=~"{"|".join(columns)}", {SERVICE}}}',
    )


def _more() -> list[Link]:
    """Return the links of a point on a graph."""
    service = "${__field.labels.service_name}"
    return [
        links.to_dashboard(f"Logs of {service}", LOGS, f"var-service={service}"),
        links.lines_in_explore("Error lines in Explore", f'{{service_name="{service}", level="error"}}'),
    ]


def _rate(extra: str = "", window: str = "$__rate_interval") -> str:
    return f"sum by (service_name) (rate({COUNT}{{{RAW}{extra}}}[{window}]))"


def _or_recorded(query: str, recorded: str) -> str:
    """Return the query; of an app without metrics of its own, what is recorded over five minutes from another source."""
    return f"{query} or ({recorded} unless on (service_name) {BY_SERVICE}_own_requests:rate5m)"


def _recorded(metric: str, by: str = "service_name") -> str:
    return f"sum by ({by}) ({metric}{{{ROUTE}}})"


def _over_time() -> Panels:
    yield graph(
        "Requests over time",
        "Requests per second by service.",
        Options(width=8, unit="reqps", minimum=0, data_links=_more(), empty=NO_REQUESTS),
        {"{{service_name}}": _or_recorded(_rate(), _recorded(board.ROUTES))},
    )
    # Of the buckets, as these carry exemplars: the largest one counts all.
    failed = f"sum by (service_name) (max without (le) (rate({BUCKET}{{{RAW}, {FAILED}}}[$__rate_interval])))"
    yield graph(
        "Errors over time",
        "Share of requests answered with a 5xx status, by service. A dot is one such request (its height "
        "has no meaning): click it to open its trace.",
        Options(
            width=8,
            unit="percentunit",
            soft_maximum=0.02,
            minimum=0,
            steps=ERROR_STEPS,
            data_links=_more(),
            empty=NO_REQUESTS,
            exemplars="{{service_name}}",
        ),
        {
            "{{service_name}}": _or_recorded(
                f"({failed} or 0 * {_rate()}) / ({_rate()} > 0)",
                f"{_recorded(f'{BY_ROUTE}_errors:rate5m')} / ({_recorded(board.ROUTES)} > 0)",
            )
        },
    )
    shades = [
        named(name, color=panels.colour(shade)) for name, shade in (("p50", "blue"), ("p95", "orange"), ("p99", "red"))
    ]
    per_service = f"sum by (service_name, le) (rate({BUCKET}{{{RAW}}}[$__rate_interval]))"
    by_bucket = f"sum by (le) ({_or_recorded(per_service, _recorded(RECORDED_BUCKETS, 'service_name, le'))})"
    yield graph(
        "Duration over time",
        "Quantiles over all selected services. A dot is one request: click it to open its trace.",
        Options(width=8, unit="s", minimum=0, empty=NO_REQUESTS, overrides=shades, exemplars="p99"),
        {f"p{quantile}": f"histogram_quantile(0.{quantile}, {by_bucket})" for quantile in (50, 95, 99)},
    )
    yield panels.density(
        "Request duration heatmap",
        "Requests per second by duration; the colour scale is below. A dot is one request: click it to open its trace.",
        Options(width=24, height=10, unit="s", empty=NO_REQUESTS),
        buckets(by_bucket),
    )


def _side_by_side() -> Panels:
    rate, red = _rate(window="1m"), {"mode": "shades", "fixedColor": "red"}
    requests = {"5m": _or_recorded(rate, _recorded(board.ROUTES)), "6h": f"{BY_SERVICE}_requests:rate5m{{{SERVICE}}}"}
    failed = f"{_rate(f', {FAILED}', '1m')} or 0 * {rate}"
    errors = {
        "5m": _or_recorded(failed, _recorded(f"{BY_ROUTE}_errors:rate5m")),
        "6h": f"{BY_SERVICE}_errors:rate5m{{{SERVICE}}}",
    }
    per_service = _or_recorded(
        f"sum by (le, service_name) (rate({BUCKET}{{{RAW}}}[1m]))", _recorded(RECORDED_BUCKETS, "service_name, le")
    )
    p95 = {"5m": f"histogram_quantile(0.95, {per_service})", "6h": f"{DURATION}:p95_5m{{{SERVICE}}}"}
    for last, words, origin in SIDES:
        yield graph(
            f"Requests and errors, last {words}",
            f"Requests and failed requests per second by service over the last {words}, {origin}. "
            "Independent of the dashboard's time range.",
            Options(
                width=12,
                unit="reqps",
                minimum=0,
                last=last,
                data_links=_more(),
                empty=NO_REQUESTS,
                overrides=[matching(".* errors", color=red, custom__fillOpacity=40)],
            ),
            {"{{service_name}}": requests[last], "{{service_name}} errors": errors[last]},
        )
    for last, words, origin in SIDES:
        yield graph(
            f"Duration p95, last {words}",
            f"95 % of requests took at most this time, by service, over the last {words}, {origin}. "
            "Independent of the dashboard's time range.",
            Options(width=12, unit="s", minimum=0, last=last, data_links=_more(), empty=NO_REQUESTS),
            {"{{service_name}}": p95[last]},
        )


def _routes() -> Panels:
    keys = {"service_name": "Service", "http_request_method": "Method", "http_route": "Route"}
    opens = (("Only this route", OVERVIEW), ("Its log lines", LOGS))
    routes = [
        named("Route", links=[links.in_cell(title, uid, links.OF_ROUTE) for title, uid in opens]),
        matching("Method|Service", custom__width=90),
    ]
    p95 = f"max by ({', '.join(keys)}) ({BY_ROUTE}_request_duration_seconds:p95_{{}}{{{{{ROUTE}}}}})"
    requests = f"max by ({', '.join(keys)}) ({BY_ROUTE}_requests:rate5m{{{ROUTE}}})"
    columns = {**keys, "Value #A": "p95 5 min", "Value #B": "p95 6 h", "Value #C": "Requests 5 min"}
    yield listing(
        "Slowest routes",
        "The ten routes with the highest p95 over 5 minutes, with their p95 over 6 hours and request rate.",
        Options(
            width=12,
            empty="No requests in the last 6 hours",
            transformations=[*panels.largest(10), panels.organize(columns, "Time", "__name__")],
            overrides=[
                *routes,
                matching("p95.*", **figure("s", 0, panels.DURATION_STEPS), custom__width=85),
                matching("Requests.*", **figure("reqps", 1), custom__width=130),
            ],
        ),
        p95.format("5m"),
        p95.format("6h"),
        requests,
    )
    errors = f"max by ({', '.join(keys)}) ({BY_ROUTE}_errors:ratio{{}}{{{{{ROUTE}}}}}) > 0"
    # Ordered as the columns of the other table.
    columns |= {"Value #A": "Errors 5 min", "Value #B": "Errors 6 h", "Value #C": "Value #C"}
    yield listing(
        "Routes with the highest error rate",
        "The ten routes with the highest error rate over 5 minutes or 6 hours. Routes without errors are omitted.",
        Options(
            width=12,
            empty="No route failed in the last 6 hours",
            transformations=[*panels.largest(10), panels.organize(columns, "Time", "__name__")],
            overrides=[*routes, matching("Errors.*", **figure("percentunit", 2, ERROR_STEPS), custom__width=105)],
        ),
        errors.format("5m"),
        errors.format("6h"),
    )


def _evidence() -> Panels:
    message = "{{if .message}}{{.message}}{{else}}{{__line__}}{{end}}"
    exception = "{{if .exception_type}} — {{.exception_type}}: {{.exception_message}}{{end}}"
    all_lines = links.to_dashboard("All error lines", LOGS, "${service:queryparam}&var-level=error")
    yield panels.log_lines(
        "Newest errors",
        "The newest error lines of the selected services and routes. Click a line to see its fields; "
        "trace_id links to the trace.",
        Options(source=LOKI, width=24, empty="No error lines in this time range", links=[all_lines]),
        lines(
            f'{{{SERVICE}, level=~"error|critical|fatal"}} | json | drop __error__, __error_details__'
            f' | http_route=~"$route" | line_format "{message}{exception}"',
            50,
        ),
    )
    search = [links.to_dashboard("Search traces", links.TRACES, "var-service=${traced}")]
    slowest = "The slowest of the newest 100 traces that took at least the p95 of the last 5 minutes, for the service"
    for title, words, query, order in (
        ("Newest traces", "The newest traces of the service", traces("${traced}", 20), "Start time"),
        ("Slowest traces", slowest, traces("${traced}", 100, minDuration="${slow}s"), "Duration"),
    ):
        yield listing(
            title,
            f"{words} selected in “Traces of”. Click an id to open the trace.",
            Options(
                source=JAEGER,
                width=12,
                empty="No traces in this time range",
                links=search,
                overrides=panels.trace_overrides(),
                sort=order,
            ),
            query,
        )
