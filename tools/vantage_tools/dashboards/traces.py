"""Traces: the service graph, operations by duration, and the traces themselves."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from vantage_tools.dashboards import board, links
from vantage_tools.dashboards.panels import (
    DURATION_STEPS,
    ERROR_STEPS,
    NEUTRAL,
    PanelOptions,
    Panels,
    graph,
    listing,
    matching,
    named,
    network,
    steps_of,
    trace_overrides,
    transform,
)
from vantage_tools.dashboards.queries import JAEGER, MIXED, PROMETHEUS, callers, over_time, rows, traces

CALLS = "traces_span_metrics_calls_total"
SPENT = "traces_span_metrics_duration_milliseconds"
# Jaeger traces its own searches; they are not the apps' traces.
OTHERS = 'service_name!="jaeger"'
SERVICE = 'service_name=~"$service"'
SERVER, CLIENT = f'{OTHERS}, span_kind="SPAN_KIND_SERVER"', f'{OTHERS}, span_kind="SPAN_KIND_CLIENT"'
FAILED = 'status_code="STATUS_CODE_ERROR"'
OPERATION = "service_name, span_name"
NO_SPANS = "No spans in this time range"


def build() -> Dashboard:
    """The dashboard."""
    board_ = board.create(links.TRACES, "Traces", "Service graph, operations by duration, and a trace search.")
    board_.with_variable(board.service_variable(f"{CALLS}{{{OTHERS}}}"))
    # An objective has no kind of span.
    board_.with_variable(board.traced_variable(CALLS, f'{SERVICE}, {OTHERS}, span_kind=~"SPAN_KIND_SERVER|"'))
    board_.with_variable(
        board.text_variable(
            "min_duration", "Min duration", "Only traces that took at least this long, such as 250ms or 1.5s."
        )
    )
    board_.with_variable(
        board.text_variable("tags", "Tags", "Only traces with these tags, such as error=true http.request.method=POST.")
    )
    for panel in _graph_and_traces():
        board_.with_panel(panel)
    board_.with_row(Row("Operations"))
    for panel in _operations():
        board_.with_panel(panel)
    return board_


def _named_node(expr: str, label: str) -> str:
    """The expression with the labels `id` and `title`, which the graph's nodes need."""
    named_once = f'label_replace({expr}, "id", "$1", "{label}", "(.+)")'
    return f'sum by (id, title) (label_replace({named_once}, "title", "$1", "{label}", "(.+)"))'


def _node(of_callee: str, of_service: str) -> str:
    """A figure per service: by its own account, or where it has no spans by that of its callers."""
    return f"{_named_node(of_service, 'service_name')} or {_named_node(of_callee, 'server_address')}"


def _edge(expr: str) -> str:
    """The expression with the labels of an arrow: source, target and id."""
    ends = f'label_replace({expr}, "source", "$1", "service_name", "(.+)")'
    ends = f'label_replace({ends}, "target", "$1", "server_address", "(.+)")'
    return f'sum by (id, source, target) (label_join({ends}, "id", "→", "source", "target"))'


def _by(condition: str, labels: str, metric: str = CALLS) -> str:
    return f"sum by ({labels}) (rate({metric}{{{condition}}}[$__rate_interval]))"


def _graph_and_traces() -> Panels:
    called = f'{CLIENT}, server_address!=""'
    # A service that is silent now but has traces in the time range is a node, too: arrows may lead to it.
    known = f"0 * sum by (service_name) (last_over_time({CALLS}{{{SERVER}}}[$__range]))"
    node_calls = _node(_by(called, "server_address"), f"({_by(SERVER, 'service_name')} or {known})")
    nodes_failed = _node(
        f"({_by(f'{called}, {FAILED}', 'server_address')} or 0 * {_by(called, 'server_address')})"
        f" / ({_by(called, 'server_address')} > 0)",
        f"({_by(f'{SERVER}, {FAILED}', 'service_name')} or 0 * {_by(SERVER, 'service_name')})"
        f" / ({_by(SERVER, 'service_name')} > 0) or {known}",
    )
    mean = "sum by ({0}) (rate({1}_sum{{{2}}}[$__rate_interval])) / (sum by ({0}) (rate({1}_count{{{2}}}[$__rate_interval])) > 0)"
    pair = "service_name, server_address"
    yield network(
        PanelOptions(
            title="Service graph",
            description="Services and the calls between them. In a node: requests per second and mean duration; the red "
            "part of its ring is the error rate. Hover over an edge for calls per second and mean duration in "
            "milliseconds.",
            source=MIXED, width=12, height=12, empty=NO_SPANS,
            transformations=[
                transform("merge", only="A|B|C|D"),
                transform("merge", only="E|F"),
                # The graph looks for these very names, and a renamed field keeps its old one underneath.
                *(
                    transform(
                        "calculateField", only=f"(merge-)?[{queries}].*", mode="reduceRow", alias=alias,
                        reduce={"include": [f"Value #{ref}"], "reducer": "sum"},
                    )
                    for queries, ref, alias in (
                        ("A-D", "A", "mainstat"), ("A-D", "B", "secondarystat"), ("A-D", "C", "arc__failed"),
                        ("A-D", "D", "arc__fine"), ("EF", "E", "mainstat"), ("EF", "F", "secondarystat"),
                    )
                ),
                # For the legend; the figures in the circle are found by their names, the ring by its fields' prefix.
                transform(
                    "organize", only="(merge-)?[A-D].*",
                    renameByName={
                        "mainstat": "requests", "secondarystat": "mean duration", "arc__failed": "failed", "arc__fine": "fine",
                    },
                ),
            ],
            overrides=[
                named(
                    "title",
                    links=[
                        {"title": f"{what} of this service", "url": f"/d/{uid}?${{__url_time_range}}&var-service=${{__data.fields.id}}"}
                        for what, uid in (("Overview", links.OVERVIEW), ("Logs", links.LOGS))
                    ],
                ),
            ],
        ),
        rows(node_calls, "A"),
        rows(_node(mean.format("server_address", SPENT, called), mean.format("service_name", SPENT, SERVER)), "B"),
        rows(nodes_failed, "C"),
        rows(f"1 - ({nodes_failed})", "D"),
        rows(_edge(_by(called, pair)), "E"),
        rows(_edge(mean.format(pair, SPENT, called)), "F"),
        callers("G"),
        units=("req/s", "ms"), arcs={"arc__failed": "red", "arc__fine": "green"},
    )  # fmt: skip
    yield listing(
        PanelOptions(
            title="Traces",
            description="The newest 50 traces of the service selected in “Traces of”, with the filters above. Click an "
            "id to open the trace.",
            source=JAEGER, width=12, height=12, empty="No matching traces",
            overrides=trace_overrides(),
        ),
        traces("${traced}", 50, minDuration="${min_duration}", tags="${tags}"),
        sort="Start time",
    )  # fmt: skip


def _operations() -> Panels:
    explore = [
        links.to_explore(
            "Traces of this operation in Explore",
            "jaeger",
            {
                "queryType": "search",
                "service": "${__field.labels.service_name}",
                "operation": "${__field.labels.span_name}",
            },
        )
    ]
    own = (
        f'sum by (service_name) (rate({SPENT}_sum{{{SERVICE}, {SERVER}}}[$__rate_interval])) '
        f'- (sum by (service_name) (rate({SPENT}_sum{{{SERVICE}, {CLIENT}, http_response_status_code!=""}}[$__rate_interval]))'
        f' or 0 * sum by (service_name) (rate({SPENT}_sum{{{SERVICE}, {SERVER}}}[$__rate_interval])))'
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Requests by operation",
            description="Server spans per second, by service and operation.",
            source=PROMETHEUS, width=8, unit="reqps", minimum=0, data_links=explore, empty=NO_SPANS,
        ),
        over_time(_by(f"{SERVICE}, {SERVER}", OPERATION), "{{service_name}} {{span_name}}"),
        calcs=("lastNotNull",),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Duration p95 by operation",
            description="95 % of the server spans of an operation took at most this time. A dot is one span: click it to "
            "open its trace.",
            source=PROMETHEUS, width=8, unit="ms", minimum=0, data_links=explore, empty=NO_SPANS,
        ),
        over_time(
            f"histogram_quantile(0.95, {_by(f'{SERVICE}, {SERVER}', f'le, {OPERATION}', f'{SPENT}_bucket')})",
            "{{service_name}} {{span_name}}", exemplars=True,
        ),
        calcs=("lastNotNull",),
    )  # fmt: skip
    yield graph(
        PanelOptions(
            title="Self time by service",
            description="Milliseconds of own work per second, by service: duration of its requests minus the time it "
            "waits for other services.",
            source=PROMETHEUS, width=8, unit="ms", minimum=0, empty=NO_SPANS,
        ),
        over_time(f"clamp_min({own}, 0)", "{{service_name}}"),
        stacked=True,
    )  # fmt: skip
    filled = {"type": "color-background", "mode": "basic"}
    in_ms = tuple((None if step is None else step * 1000, name) for step, name in DURATION_STEPS)
    both = f"{OPERATION}, span_kind"
    condition = f'{SERVICE}, {OTHERS}, span_kind=~"SPAN_KIND_(SERVER|CLIENT)"'
    yield listing(
        PanelOptions(
            title="Slowest operations",
            description="Operations by p95 of the last 5 minutes: requests a service answers (server) and calls it makes "
            "to others and its database (client).",
            source=PROMETHEUS, width=24, height=10, empty="No spans in the last 5 minutes",
            transformations=[
                transform("merge"),
                transform("sortBy", fields={}, sort=[{"field": "Value #A", "desc": True}]),
                transform("limit", limitField=20),
                transform(
                    "organize",
                    excludeByName={"Time": True},
                    indexByName={
                        "service_name": 0, "span_name": 1, "span_kind": 2, "Value #A": 3, "Value #B": 4, "Value #C": 5,
                    },
                    renameByName={
                        "service_name": "Service", "span_name": "Operation", "span_kind": "Kind",
                        "Value #A": "p95", "Value #B": "Errors", "Value #C": "Calls",
                    },
                ),
            ],
            overrides=[
                named("p95", unit="ms", decimals=1, thresholds=steps_of(in_ms), custom__cellOptions=filled),
                named(
                    "Errors", unit="percentunit", decimals=2, thresholds=steps_of(ERROR_STEPS),
                    custom__cellOptions=filled,
                ),
                named("Calls", unit="reqps", decimals=2, thresholds=steps_of(NEUTRAL)),
                matching(
                    "Kind", custom__width=100,
                    mappings=[
                        {"type": "regex", "options": {"pattern": "SPAN_KIND_(.*)", "result": {"text": "$1"}}},
                    ],
                ),
            ],
        ),
        rows(f"histogram_quantile(0.95, sum by (le, {both}) (rate({SPENT}_bucket{{{condition}}}[5m]))) > 0", "A"),
        rows(
            f"(sum by ({both}) (rate({CALLS}{{{condition}, {FAILED}}}[5m])) or 0 * sum by ({both}) "
            f"(rate({CALLS}{{{condition}}}[5m]))) / (sum by ({both}) (rate({CALLS}{{{condition}}}[5m])) > 0)", "B",
        ),
        rows(f"sum by ({both}) (rate({CALLS}{{{condition}}}[5m])) > 0", "C"),
    )  # fmt: skip
