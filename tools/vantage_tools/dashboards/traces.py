"""Traces: the service graph, operations by duration, and the traces themselves."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from vantage_tools.dashboards import board, links, panels
from vantage_tools.dashboards.panels import LAST, Options, Panels, figure, graph, listing, matching, named, transform
from vantage_tools.dashboards.queries import JAEGER, MIXED, JaegerQuery, rows, traces

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
    return board.create(
        links.TRACES,
        "Traces",
        "Service graph, operations by duration, and a trace search.",
        [
            board.service_variable(f"{CALLS}{{{OTHERS}}}"),
            # An objective has no kind of span.
            board.traced_variable(CALLS, f'{SERVICE}, {OTHERS}, span_kind=~"SPAN_KIND_SERVER|"'),
            board.text_variable(
                "min_duration", "Min duration", "Only traces that took at least this long, such as 250ms or 1.5s."
            ),
            board.text_variable(
                "tags", "Tags", "Only traces with these tags, such as error=true http.request.method=POST."
            ),
        ],
        {"": _graph_and_traces(), "Operations": _operations()},
    )


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
    node_mean = _node(mean.format("server_address", SPENT, called), mean.format("service_name", SPENT, SERVER))
    pair = "service_name, server_address"
    figures = (
        # For each node: requests, mean duration, error rate and its complement. For each arrow: calls, mean duration.
        ("A-D", "A", "mainstat", node_calls),
        ("A-D", "B", "secondarystat", node_mean),
        ("A-D", "C", "arc__failed", nodes_failed),
        ("A-D", "D", "arc__fine", f"1 - ({nodes_failed})"),
        ("EF", "E", "mainstat", _edge(_by(called, pair))),
        ("EF", "F", "secondarystat", _edge(mean.format(pair, SPENT, called))),
    )
    shown = {"mainstat": "requests", "secondarystat": "mean duration", "arc__failed": "failed", "arc__fine": "fine"}
    of_service = "var-service=${__data.fields.id}"
    opens = [
        links.in_cell(f"{what} of this service", uid, of_service)
        for what, uid in (("Overview", links.OVERVIEW), ("Logs", links.LOGS))
    ]
    yield panels.network(
        "Service graph",
        "Services and the calls between them. In a node: requests per second and mean duration; the red part of its ring "
        "is the error rate. Hover over an edge for calls per second and mean duration in milliseconds.",
        Options(
            source=MIXED,
            width=12,
            height=12,
            empty=NO_SPANS,
            transformations=[
                transform("merge", only="A|B|C|D"),
                transform("merge", only="E|F"),
                # The graph looks for these very names, and a renamed field keeps its old one underneath.
                *(
                    transform(
                        "calculateField",
                        only=f"(merge-)?[{queries}].*",
                        mode="reduceRow",
                        alias=alias,
                        reduce={"include": [f"Value #{ref}"], "reducer": "sum"},
                    )
                    for queries, ref, alias, _ in figures
                ),
                # For the legend; the figures in the circle are found by their names, the ring by its fields' prefix.
                transform("organize", only="(merge-)?[A-D].*", renameByName=shown),
            ],
            overrides=[named("title", links=opens)],
        ),
        [*(rows(expr, ref) for _, ref, _, expr in figures), JaegerQuery("dependencyGraph", "G")],
        units=("req/s", "ms"),
        arcs={"arc__failed": "red", "arc__fine": "green"},
    )
    columns = panels.trace_overrides()
    yield listing(
        "Traces",
        "The newest 50 traces of the service selected in “Traces of”, with the filters above. Click an id to open the "
        "trace.",
        Options(source=JAEGER, width=12, height=12, empty="No matching traces", overrides=columns, sort="Start time"),
        traces("${traced}", 50, minDuration="${min_duration}", tags="${tags}"),
    )


def _operations() -> Panels:
    search = {"service": "${__field.labels.service_name}", "operation": "${__field.labels.span_name}"}
    title = "Traces of this operation in Explore"
    explore = [links.to_explore(title, "jaeger", {"queryType": "search", **search})]
    server = f"{SERVICE}, {SERVER}"
    name = "{{service_name}} {{span_name}}"
    yield graph(
        "Requests by operation",
        "Server spans per second, by service and operation.",
        Options(width=8, unit="reqps", minimum=0, data_links=explore, empty=NO_SPANS, calcs=LAST),
        {name: _by(server, OPERATION)},
    )
    yield graph(
        "Duration p95 by operation",
        "95 % of the server spans of an operation took at most this time. A dot is one span: click it to open its trace.",
        Options(width=8, unit="ms", minimum=0, data_links=explore, empty=NO_SPANS, exemplars=name, calcs=LAST),
        {name: f"histogram_quantile(0.95, {_by(server, f'le, {OPERATION}', f'{SPENT}_bucket')})"},
    )
    spent = _by(server, "service_name", f"{SPENT}_sum")
    waited = _by(f'{SERVICE}, {CLIENT}, http_response_status_code!=""', "service_name", f"{SPENT}_sum")
    yield graph(
        "Self time by service",
        "Milliseconds of own work per second, by service: duration of its requests minus the time it waits for other "
        "services.",
        Options(width=8, unit="ms", minimum=0, empty=NO_SPANS, stacked=True),
        {"{{service_name}}": f"clamp_min({spent} - ({waited} or 0 * {spent}), 0)"},
    )
    columns = {
        "service_name": "Service",
        "span_name": "Operation",
        "span_kind": "Kind",
        "Value #A": "p95",
        "Value #B": "Errors",
        "Value #C": "Calls",
    }
    # SPAN_KIND_SERVER is shown as SERVER.
    kind = {"type": "regex", "options": {"pattern": "SPAN_KIND_(.*)", "result": {"text": "$1"}}}
    in_ms = tuple((None if step is None else step * 1000, name) for step, name in panels.DURATION_STEPS)
    both = f"{OPERATION}, span_kind"
    condition = f'{SERVICE}, {OTHERS}, span_kind=~"SPAN_KIND_(SERVER|CLIENT)"'
    calls = f"sum by ({both}) (rate({CALLS}{{{condition}}}[5m]))"
    failed = f"sum by ({both}) (rate({CALLS}{{{condition}, {FAILED}}}[5m]))"
    yield listing(
        "Slowest operations",
        "Operations by p95 of the last 5 minutes: requests a service answers (server) and calls it makes to others and "
        "its database (client).",
        Options(
            width=24,
            height=10,
            empty="No spans in the last 5 minutes",
            transformations=[*panels.largest(20), panels.organize(columns, "Time")],
            overrides=[
                named("p95", **figure("ms", 1, in_ms)),
                named("Errors", **figure("percentunit", 2, panels.ERROR_STEPS)),
                named("Calls", **figure("reqps", 2)),
                matching("Kind", custom__width=100, mappings=[kind]),
            ],
        ),
        f"histogram_quantile(0.95, sum by (le, {both}) (rate({SPENT}_bucket{{{condition}}}[5m]))) > 0",
        f"({failed} or 0 * {calls}) / ({calls} > 0)",
        f"{calls} > 0",
    )
