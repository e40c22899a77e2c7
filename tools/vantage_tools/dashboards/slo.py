"""Service level objectives: targets, remaining error budgets, burn rates, and what consumed the budget."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from vantage_tools.dashboards import board, links
from vantage_tools.dashboards.panels import (
    NEUTRAL,
    PanelOptions,
    Panels,
    Steps,
    bars,
    graph,
    listing,
    matching,
    named,
    steps_of,
    transform,
)
from vantage_tools.dashboards.queries import PROMETHEUS, over_time, rows

SERVICE = 'service_name=~"$service"'
BUDGET: Steps = ((None, "red"), (0, "orange"), (0.25, "green"))
# 1 spends the budget within the window of the objective; 6 and 14.4 are where the alerts begin.
BURN: Steps = ((None, "green"), (1, "orange"), (6, "red"))
BY_ROUTE = "service_name_http_route:http_server"


def build() -> Dashboard:
    """The dashboard."""
    slo = board.create(
        links.SLO,
        "Service level objectives",
        "Objectives, remaining error budgets, burn rates, and what consumed the budget.",
        start="now-6h",
        refresh="1m",
    )
    slo.with_variable(board.service_variable("service_name:slo_availability_objective:ratio"))
    for panel in _state():
        slo.with_panel(panel)
    slo.with_row(Row("Burn rate"))
    for panel in _burn():
        slo.with_panel(panel)
    slo.with_row(Row("Budget consumption"))
    for panel in _consumption():
        slo.with_panel(panel)
    return slo


def _state() -> Panels:
    for kind, verb in (("availability", "fail"), ("latency", "be slow")):
        yield bars(
            PanelOptions(
                title=f"{kind.capitalize()} budget remaining",
                description=f"Remaining share of the error budget in the objective's window: the requests that may "
                f"still {verb}. Below 0 the objective is missed.",
                source=PROMETHEUS, width=6, height=6, unit="percentunit", decimals=1, minimum=0, maximum=1,
                steps=BUDGET, empty="No objectives configured",
                data_links=[
                    links.to_dashboard("Overview", links.OVERVIEW, "var-service=${__field.labels.service_name}")
                ],
            ),
            over_time(f"service_name:slo_{kind}_error_budget_left:ratio{{{SERVICE}}}", "{{service_name}}"),
        )  # fmt: skip
    columns = {
        "A": ("Availability", "service_name:slo_availability_objective:ratio"),
        "B": ("Latency", "service_name:slo_latency_objective:ratio"),
        "C": ("Threshold", "service_name:slo_latency_threshold:seconds"),
        "D": ("Error burn", "service_name:slo_availability_burn:rate1h"),
        "E": ("Latency burn", "service_name:slo_latency_burn:rate1h"),
    }
    yield listing(
        PanelOptions(
            title="Objectives",
            description="Objectives of each service and the burn rates of the last hour. Objectives are set by "
            "prometheus_slos.",
            source=PROMETHEUS, width=12, height=6, empty="No objectives configured",
            transformations=[
                transform("joinByField", byField="service_name", mode="outer"),
                transform("filterFieldsByName", include={"pattern": "service_name|Value.*"}),
                transform(
                    "organize",
                    renameByName={"service_name": "Service"}
                    | {f"Value #{ref}": name for ref, (name, _) in columns.items()},
                ),
            ],
            overrides=[
                matching("Availability|Latency", unit="percentunit", decimals=2, thresholds=steps_of(NEUTRAL)),
                named("Threshold", unit="s", thresholds=steps_of(NEUTRAL), custom__width=80),
                matching(
                    ".*burn", unit="suffix:×", decimals=2, thresholds=steps_of(BURN),
                    custom__cellOptions={"type": "color-background", "mode": "basic"},
                ),
            ],
        ),
        *(rows(f"{metric}{{{SERVICE}}}", ref) for ref, (_, metric) in columns.items()),
    )  # fmt: skip
    for kind in ("availability", "latency"):
        yield graph(
            PanelOptions(
                title=f"{kind.capitalize()} budget remaining over time",
                description="Remaining share of the error budget at each moment, over the window that ends there.",
                source=PROMETHEUS, width=12, height=7, unit="percentunit", maximum=1, steps=BUDGET,
            ),
            over_time(f"service_name:slo_{kind}_error_budget_left:ratio{{{SERVICE}}}", "{{service_name}}"),
            line_at=True, calcs=("lastNotNull", "min"),
        )  # fmt: skip


def _burn() -> Panels:
    for kind in ("availability", "latency"):
        for words, windows, alert in (
            ("fast", ("5m", "1h"), "The fast-burn alert fires if both exceed 14.4"),
            ("slow", ("6h", "3d"), "The slow-burn alert fires if both exceed 1"),
        ):
            yield graph(
                PanelOptions(
                    title=f"{kind.capitalize()}, {words} burn",
                    description=f"Burn rate of the {kind} budget (1 spends it exactly within the window), over a short "
                    f"and a long window. {alert}.",
                    source=PROMETHEUS, width=12, height=7, unit="suffix:×", decimals=1, minimum=0,
                    soft_maximum=16 if words == "fast" else 1.2,
                    steps=((None, "green"), (14.4, "red")) if words == "fast" else ((None, "green"), (1, "red")),
                    links=[links.to_dashboard("Failed requests", links.OVERVIEW, "${service:queryparam}")],
                ),
                *(
                    over_time(f"service_name:slo_{kind}_burn:rate{window}{{{SERVICE}}}", f"{{{{service_name}}}} {window}", ref)
                    for window, ref in zip(windows, "AB", strict=True)
                ),
                line_at=True,
            )  # fmt: skip


def _consumption() -> Panels:
    # Minute by minute: a mean of a route that was known for ten minutes, times six hours, would be far too many.
    failed = f"sum_over_time({BY_ROUTE}_errors:rate5m{{{SERVICE}}}[$__range:1m]) * 60"
    here = "var-service=${__data.fields.Service:percentencode}&var-route=${__data.fields.Route:percentencode}"
    yield listing(
        PanelOptions(
            title="Failed requests by route",
            description="Estimated number of requests answered with a 5xx in the time range, by route, largest first: "
            "they consumed the availability budget.",
            source=PROMETHEUS, width=12, height=8, empty="No failed requests in this time range",
            transformations=[
                transform(
                    "organize",
                    excludeByName={"Time": True},
                    indexByName={"Value": 0, "service_name": 1, "http_request_method": 2, "http_route": 3},
                    renameByName={
                        "Value": "Failed", "service_name": "Service", "http_request_method": "Method",
                        "http_route": "Route",
                    },
                ),
            ],
            overrides=[
                named("Failed", decimals=0, custom__width=90),
                named("Method", custom__width=90),
                named(
                    "Route",
                    links=[
                        {"title": "Overview of this route", "url": f"/d/{links.OVERVIEW}?${{__url_time_range}}&{here}"},
                        {"title": "Its error lines", "url": f"/d/{links.LOGS}?${{__url_time_range}}&{here}&var-status=5.."},
                    ],
                ),
            ],
        ),
        rows(f"topk(15, {failed} > 0.5)"),
        sort="Failed",
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Failed and slow requests",
            description="Requests per second that consume a budget: answered with a 5xx, or slower than the latency "
            "objective.",
            source=PROMETHEUS, width=12, height=8, unit="reqps", minimum=0,
        ),
        over_time(f"service_name:http_server_errors:rate5m{{{SERVICE}}}", "{{service_name}} failed", "A"),
        over_time(f"service_name:http_server_slow:rate5m{{{SERVICE}}}", "{{service_name}} slow", "B"),
        stacked=True,
    )  # fmt: skip
