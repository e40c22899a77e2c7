"""Service level objectives: targets, remaining error budgets, burn rates, and what consumed the budget."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from vantage_tools.dashboards import board, links, panels
from vantage_tools.dashboards.panels import BUDGET_STEPS, Options, Panels, Steps, figure, graph, matching, named
from vantage_tools.dashboards.queries import over_time

SERVICE = 'service_name=~"$service"'
# 1 spends the budget within the window of the objective; 6 and 14.4 are where the alerts begin.
BURN: Steps = ((None, "green"), (1, "orange"), (6, "red"))
KINDS = {"availability": "fail", "latency": "be slow"}


def build() -> Dashboard:
    """The dashboard."""
    return board.create(
        links.SLO,
        "Service level objectives",
        "Objectives, remaining error budgets, burn rates, and what spent the budget.",
        [board.service_variable("service_name:slo_availability_objective:ratio")],
        {"": _state(), "Burn rate": _burn(), "Spent budget": _consumption()},
        start="now-6h",
        refresh="1m",
    )


def _left(kind: str) -> str:
    return f"service_name:slo_{kind}_error_budget_left:ratio{{{SERVICE}}}"


def _state() -> Panels:
    no_objectives = "No objectives configured"
    overview = links.to_dashboard("Overview", links.OVERVIEW, "var-service=${__field.labels.service_name}")
    for kind, verb in KINDS.items():
        yield panels.bars(
            f"{kind.capitalize()} budget remaining",
            "Remaining share of the error budget in the objective's window: the requests that may "
            f"still {verb}. Below 0 the objective is missed.",
            Options(
                width=6,
                height=6,
                unit="percentunit",
                decimals=1,
                minimum=0,
                maximum=1,
                steps=BUDGET_STEPS,
                empty=no_objectives,
                data_links=[overview],
            ),
            over_time(_left(kind), "{{service_name}}"),
        )
    columns = {
        "Availability": "availability_objective:ratio",
        "Latency": "latency_objective:ratio",
        "Threshold": "latency_threshold:seconds",
        "Error burn": "availability_burn:rate1h",
        "Latency burn": "latency_burn:rate1h",
    }
    fields = {f"Value #{ref}": name for ref, name in zip("ABCDE", columns, strict=True)}
    steps = panels.joined({"service_name": "Service", **fields})
    cells = [
        matching("Availability|Latency", **figure("percentunit", 2)),
        named("Threshold", **figure("s"), custom__width=80),
        matching(".*burn", **figure("suffix:×", 2, BURN)),
    ]
    yield panels.listing(
        "Objectives",
        "Objectives of each service and the burn rates of the last hour. Objectives are set by prometheus_slos.",
        Options(width=12, height=6, empty=no_objectives, transformations=steps, overrides=cells),
        *(f"service_name:slo_{metric}{{{SERVICE}}}" for metric in columns.values()),
    )
    calcs = ("lastNotNull", "min")
    over_window = Options(
        width=12, height=7, unit="percentunit", maximum=1, steps=BUDGET_STEPS, line_at=True, calcs=calcs
    )
    for kind in KINDS:
        yield graph(
            f"{kind.capitalize()} budget remaining over time",
            "Remaining share of the error budget at each moment, over the window that ends there.",
            over_window,
            {"{{service_name}}": _left(kind)},
        )


def _burn() -> Panels:
    failed = links.to_dashboard("Failed requests", links.OVERVIEW, "${service:queryparam}")
    for kind in KINDS:
        for words, windows, limit, reach in (("fast", ("5m", "1h"), 14.4, 16), ("slow", ("6h", "3d"), 1, 1.2)):
            burn = f"service_name:slo_{kind}_burn:rate{{}}{{{{{SERVICE}}}}}"
            yield graph(
                f"{kind.capitalize()}, {words} burn",
                f"Burn rate of the {kind} budget (1 spends it exactly within the window), over a short and a long "
                f"window. The {words}-burn alert fires if both exceed {limit}.",
                Options(
                    width=12,
                    height=7,
                    unit="suffix:×",
                    decimals=1,
                    minimum=0,
                    soft_maximum=reach,
                    steps=((None, "green"), (limit, "red")),
                    links=[failed],
                    line_at=True,
                ),
                {f"{{{{service_name}}}} {window}": burn.format(window) for window in windows},
            )


def _consumption() -> Panels:
    # Minute by minute: a mean of a route that was known for ten minutes, times six hours, would be far too many.
    failed = f"sum_over_time(service_name_http_route:http_server_errors:rate5m{{{SERVICE}}}[$__range:1m]) * 60"
    columns = {"Value": "Failed", "service_name": "Service", "http_request_method": "Method", "http_route": "Route"}
    of_route = [
        links.in_cell("Overview of this route", links.OVERVIEW, links.OF_ROUTE),
        links.in_cell("Its error lines", links.LOGS, f"{links.OF_ROUTE}&var-status=5.."),
    ]
    yield panels.listing(
        "Failed requests by route",
        "Estimated number of requests answered with a 5xx in the time range, by route, largest first: "
        "they spent the availability budget.",
        Options(
            width=12,
            height=8,
            empty="No failed requests in this time range",
            transformations=[panels.organize(columns, "Time")],
            overrides=[
                named("Failed", decimals=0, custom__width=90),
                named("Method", custom__width=90),
                named("Route", links=of_route),
            ],
            sort="Failed",
        ),
        f"topk(15, {failed} > 0.5)",
    )
    yield graph(
        "Failed and slow requests",
        "Requests per second that spend a budget: answered with a 5xx, or slower than the latency threshold.",
        Options(width=12, height=8, unit="reqps", minimum=0, stacked=True),
        {
            "{{service_name}} failed": f"service_name:http_server_errors:rate5m{{{SERVICE}}}",
            "{{service_name}} slow": f"service_name:http_server_slow:rate5m{{{SERVICE}}}",
        },
    )
