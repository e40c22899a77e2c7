"""Service overview: rate, errors and duration of every service, and the way from there to the cause."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import BigValueTextMode
from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import board, links
from dashboards.links import Link
from dashboards.panels import (
    DURATION_STEPS,
    ERROR_STEPS,
    NEUTRAL,
    About,
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
from dashboards.queries import JAEGER, LOKI, PROMETHEUS, buckets, lines, now, over_time, rows, traces

SERVICE = 'service_name=~"$service"'
ROUTE = f'{SERVICE}, http_route=~"$route"'
RAW = f'{ROUTE}, instance=~"$instance"'
NO_REQUESTS = "No requests in this time range"
FAILED = 'http_response_status_code=~"5.."'
COUNT, BUCKET = f"{board.REQUESTS}_count", f"{board.REQUESTS}_bucket"
BY_ROUTE = "service_name_http_route:http_server"
BY_SERVICE = "service_name:http_server"
DURATION = f"{BY_SERVICE}_request_duration_seconds"

# The steps of the share of an error budget that is left.
BUDGET_STEPS = ((None, "red"), (0, "orange"), (0.25, "green"))

ORDER = {
    name: position
    for position, name in enumerate(
        ("service_name", "http_request_method", "http_route", "Value #A", "Value #B", "Value #C")
    )
}


def build() -> Dashboard:
    """The dashboard."""
    overview = board.new(
        links.OVERVIEW,
        "Service overview",
        "Which service is slow or failing, since when, on which route, and the lines and traces that say why.",
    )
    # The engines write lines, too, but are no services of this page: "All" is all that answer requests.
    overview.with_variable(board.service_variable(everything="")).with_variable(board.route_variable())
    overview.with_variable(board.instance_variable())
    overview.with_variable(board.traced_variable(COUNT, SERVICE))
    slow = f"query_result(round(max({DURATION}:p95_5m{{{SERVICE}}}), 0.001) > 0 or vector(0))"
    overview.with_variable(
        board.hidden(
            board.single("slow", "Slow", slow, "Seconds above which a trace counts as slow.", r"/\}\s+([0-9.]+)\s/")
        )
    )
    for panel in (*_figures(), _services(), *_over_time(), *_side_by_side()):
        overview.with_panel(panel)
    overview.with_row(Row("Where: routes"))
    for panel in _routes():
        overview.with_panel(panel)
    overview.with_row(Row("Why: lines and traces"))
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
        About(
            title="Firing alerts",
            description="Alerts that fire now, over all services; the Watchdog, which always fires, is not counted; "
            "where even it is missing, nothing is known.",
            source=PROMETHEUS, width=4, height=5, unit="none", steps=((None, "green"), (1, "red")), links=to_slo,
        ),
        now(
            'count(ALERTS{alertstate="firing", alertname!="Watchdog"}) or 0 * count(ALERTS{alertname="Watchdog"})', "now"
        ),
        text=BigValueTextMode.VALUE,
    )  # fmt: skip
    yield number(
        About(
            title="Requests",
            description="Requests per second of the chosen services and routes, averaged over 5 minutes and 6 hours.",
            source=PROMETHEUS, width=4, height=5, unit="reqps", decimals=1, links=to_traces,
        ),
        _pair(f"sum({BY_ROUTE}_requests:rate{{0}}{{{ROUTE}}})"), pair=True,
    )  # fmt: skip
    yield number(
        About(
            title="Errors",
            description="Share of the requests that were answered with a status of 500 or above.",
            source=PROMETHEUS, width=4, height=5, unit="percentunit", decimals=2, steps=ERROR_STEPS, links=to_logs,
        ),
        _pair(
            f"sum({BY_ROUTE}_errors:rate{{0}}{{{ROUTE}}}) / (sum({BY_ROUTE}_requests:rate{{0}}{{{ROUTE}}}) > 0)"
            f" or 0 * sum({BY_ROUTE}_requests:rate{{0}}{{{ROUTE}}})"
        ),
        pair=True,
    )  # fmt: skip
    for quantile, words in (("50", "Half"), ("95", "95 %"), ("99", "99 %")):
        yield number(
            About(
                title=f"Duration p{quantile}",
                description=f"{words} of the requests of the slowest chosen service were answered within this time, "
                "whatever the route.",
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
        "service_name:slo_availability_error_budget_left:ratio": "Error budget left",
        "service_name:slo_latency_error_budget_left:ratio": "Latency budget left",
    }
    first = r"service_name\__name__"
    filled = {"type": "color-background", "mode": "basic"}
    only = "var-service=${__data.fields.Service:percentencode}"
    return listing(
        About(
            title="Services",
            description="Every chosen service: its figures over 5 minutes and over 6 hours, and how much of its error "
            "budgets is left. A click on a name shows that service alone.",
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
                        {"title": "This service alone", "url": f"/d/{links.OVERVIEW}?${{__url_time_range}}&{only}"},
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
                    ".*left", unit="percentunit", decimals=1, thresholds=steps_of(BUDGET_STEPS),
                    custom__cellOptions=filled,
                ),
            ],
        ),
        rows(f'{{__name__=~"{"|".join(columns)}", {SERVICE}}}'), sort="Service", descending=False,
    )  # fmt: skip


def _more() -> list[Link]:
    """Where a point on a graph leads."""
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
        About(
            title="Requests over time",
            description="Requests per second by service.",
            source=PROMETHEUS, width=8, unit="reqps", minimum=0, data_links=_more(), empty=NO_REQUESTS,
        ),
        over_time(_rate(), "{{service_name}}"),
    )  # fmt: skip
    yield graph(
        About(
            title="Errors over time",
            description="Share of the requests that were answered with a status of 500 or above, by service. A dot is one "
            "such request, whatever its height: a click on it opens its trace.",
            source=PROMETHEUS, width=8, unit="percentunit",
            soft_maximum=0.02, minimum=0, steps=ERROR_STEPS, data_links=_more(), empty=NO_REQUESTS,
        ),
        over_time(_error_share(), "{{service_name}}", exemplars=True),
    )  # fmt: skip
    yield graph(
        About(
            title="Duration over time",
            description="Quantiles of all chosen services together. A dot is one request: a click on it opens its trace.",
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
        About(
            title="How long requests take",
            description="Requests per second by duration; the scale of colours is below. A dot is one request: a click on it "
            "opens its trace.",
            source=PROMETHEUS, width=24, height=10, unit="s", empty=NO_REQUESTS,
        ),
        buckets(f"sum by (le) (rate({BUCKET}{{{RAW}}}[$__rate_interval]))"),
    )  # fmt: skip


def _side_by_side() -> Panels:
    six_hours = "from the recording rules, each point over 5 minutes"
    for last, words, origin in (("5m", "5 minutes", "each point over a minute"), ("6h", "6 hours", six_hours)):
        short = last == "5m"
        rate = _rate(window="1m") if short else f"{BY_SERVICE}_requests:rate5m{{{SERVICE}}}"
        errors = f"{_rate(f', {FAILED}', '1m')} or 0 * {rate}" if short else f"{BY_SERVICE}_errors:rate5m{{{SERVICE}}}"
        yield graph(
            About(
                title=f"Requests and errors, last {words}",
                description=f"Requests and failed requests per second by service over the last {words}, {origin}; "
                "whatever time range is chosen above.",
                source=PROMETHEUS, width=12, unit="reqps", minimum=0, last=last, data_links=_more(), empty=NO_REQUESTS,
                overrides=[
                    matching(".* errors", color={"mode": "shades", "fixedColor": "red"}, custom__fillOpacity=40),
                ],
            ),
            over_time(rate, "{{service_name}}"),
            over_time(errors, "{{service_name}} errors", "B"),
        )  # fmt: skip
    for last, words, origin in (("5m", "5 minutes", "each point over a minute"), ("6h", "6 hours", six_hours)):
        per_service = f"sum by (le, service_name) (rate({BUCKET}{{{RAW}}}[1m]))"
        yield graph(
            About(
                title=f"Duration p95, last {words}",
                description=f"95 % of the requests were answered within this time, by service, over the last {words}, "
                f"{origin}; whatever time range is chosen above.",
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
            {"title": "This route alone", "url": f"/d/{links.OVERVIEW}?${{__url_time_range}}&{here}"},
            {"title": "Its log lines", "url": f"/d/{links.LOGS}?${{__url_time_range}}&{here}"},
        ],
    )
    narrow = matching("Method|Service", custom__width=90)
    yield listing(
        About(
            title="Slowest routes",
            description="The ten routes with the longest p95 over the last 5 minutes, beside the same over 6 hours and "
            "how often they are called.",
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
        About(
            title="Most failing routes",
            description="The ten routes with the largest share of failed requests over the last 5 minutes or 6 hours; "
            "routes without a failure are left out.",
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
        About(
            title="Newest errors",
            description="The newest error lines of the chosen services and routes. A click on a line shows its fields; "
            "trace_id leads to the trace.",
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
        ("Newest traces", "The newest requests that passed through the service", {}, "Start time"),
        (
            "Slowest traces",
            "Requests that took at least the p95 of the last 5 minutes, the slowest of the newest 100",
            {"minDuration": "${slow}s"},
            "Duration",
        ),
    ):
        yield listing(
            About(
                title=title,
                description=f"{words} of the variable “Traces of”. A click on an id opens the trace.",
                source=JAEGER, width=12, height=9, empty="No traces in this time range", links=more,
                overrides=trace_overrides(),
            ),
            traces("${traced}", 20 if not conditions else 100, **conditions),
            sort=order,
        )  # fmt: skip
