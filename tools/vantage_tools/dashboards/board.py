"""The frame around the panels: variables, annotations, links, time range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.dashboard import CustomVariable, Dashboard, QueryVariable, TextBoxVariable
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort

from vantage_tools.dashboards import links
from vantage_tools.dashboards.queries import LOKI, PROMETHEUS

REQUESTS = "http_server_request_duration_seconds"
# Recorded, and thus known of an app without metrics, too, whose spans or access lines are counted.
SERVICES, ROUTES = "service_name:http_server_requests:rate5m", "service_name_http_route:http_server_requests:rate5m"
EVERYTHING = VariableOption(text="All", value="$__all", selected=True)


def create(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[Builder[models.VariableModel]],
    rows: dict[str, Iterable[Builder[models.Panel]]],
    start: str = "now-1h",
    refresh: str = "30s",
) -> Dashboard:
    """A dashboard of panels by row; the first row has no title. Data sources are variables: it works in any Grafana."""
    board = Dashboard(title).uid(uid).description(description).tags([links.TAG]).readonly()
    board.time(start, "now").refresh(refresh).timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    board.timepicker(build.TimePicker().refresh_intervals(["5s", "10s", "30s", "1m", "5m", "15m"]))
    board.links(links.dashboard_menu())
    for variable in variables:
        board.with_variable(variable)
    # They come last, because few users change them.
    for name, label in (("prometheus", "Metrics"), ("loki", "Logs"), ("jaeger", "Traces")):
        source = build.DatasourceVariable(name).label(label).type(name)
        board.with_variable(source.description(f"The {label.lower()} data source."))
    for row, panels in rows.items():
        if row:
            board.with_row(build.Row(row))
        for panel in panels:
            board.with_panel(panel)
    return board


def service_variable(metric: str = f"{REQUESTS}_count", everything: str = ".+") -> QueryVariable:
    """Which services are shown; all of them at first. An empty `everything` stands for those that the metric names."""
    query = f"label_values({metric}, service_name)"
    return _choice("service", "Service", query, "Services to show.", everything)


def traced_variable(metric: str, condition: str) -> QueryVariable:
    """Of which service traces are listed. An app that has an objective can be chosen before its first request."""
    names = f"{metric}|service_name:slo_availability_objective:ratio"
    query = f'label_values({{__name__=~"{names}", {condition}}}, service_name)'
    return single(
        "traced", "Traces of", query, "Service whose traces are listed. Jaeger searches one service at a time."
    )


def route_variable() -> QueryVariable:
    """Which routes are shown. A line or series without a route belongs to "All", hence the `*`."""
    query = f'label_values({ROUTES}{{service_name=~"$service"}}, http_route)'
    return _choice("route", "Route", query, "Route templates to show.", ".*")


def instance_variable(metric: str = f"{REQUESTS}_count", condition: str = 'service_name=~"$service"') -> QueryVariable:
    """Which instances are shown."""
    query = f"label_values({metric}{{{condition}}}, instance)"
    return _choice("instance", "Instance", query, "Scrape targets to show.", ".+")


def _choice(name: str, label: str, query: str, description: str, everything: str) -> QueryVariable:
    variable = single(name, label, query, description).multi(True).include_all(True)
    if everything:
        variable.all_value(everything)
    return variable.current(EVERYTHING)


def single(name: str, label: str, query: str, description: str, regex: str = "") -> QueryVariable:
    """A variable with one value out of a query's results."""
    variable = QueryVariable(name).label(label).description(description).datasource(PROMETHEUS)
    variable.query({"query": query, "refId": name, "qryType": 5}).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.sort(VariableSort.ALPHABETICAL_ASC).regex(regex)


def log_label(label: str, name: str, shown: str, stream: str = "") -> QueryVariable:
    """Which values of one of Loki's labels are shown; all of them at first."""
    variable = QueryVariable(name).label(shown).description(f"{shown}s to show.").datasource(LOKI)
    variable.query({"refId": name, "type": 1, "label": label, "stream": stream})
    variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC).regex("")
    return variable.multi(True).include_all(True).all_value(".+").current(EVERYTHING)


def status_variable() -> CustomVariable:
    """Which HTTP status codes are shown; lines without one belong to all."""
    choices = {"All": ".*", "2xx": "2..", "3xx": "3..", "4xx": "4..", "5xx": "5.."}
    variable = CustomVariable("status").label("Status").description("HTTP status codes to show.")
    variable.values(", ".join(f"{text} : {value}" for text, value in choices.items()))
    options = [VariableOption(text=t, value=v, selected=t == "All") for t, v in choices.items()]
    return variable.options(options).current(options[0])


def text_variable(name: str, label: str, description: str) -> TextBoxVariable:
    """Free text; empty at first."""
    return TextBoxVariable(name).label(label).description(description).default_value("")


def annotation_queries(services: str = "", alerts: str = "") -> list[dict[str, object]]:
    """Return the annotations of every graph: deployments and alerts."""
    joined = "on (instance, service_name) group_left (version, python_version)"
    # The value is the moment of the start; all samples of one run fall on one mark.
    starts = f"process_start_time_seconds{services} * 1000 * {joined} vantage_build_info{services}"
    version = "version {{version}}, Python {{python_version}}"
    # When each that fires began: a mark as long as the alert is drawn over the lines, and five of them hide these.
    began = 'ALERTS_FOR_STATE{alertname!="Watchdog"} * 1000'
    firing = f'ALERTS{{alertstate="firing", alertname!="Watchdog"}}{alerts}'
    firing = f"{began} and ignoring (alertstate) {firing}"
    return [
        _mark("Starts and deployments", "blue", starts, "{{service_name}} started", version, "service_name,version"),
        _mark("Alerts", "red", firing, "{{alertname}}", "{{service_name}} {{instance}}", "severity,service_name"),
    ]


def _mark(name: str, shade: str, expr: str, title: str, text: str, tags: str) -> dict[str, object]:
    """Return an annotation whose value is its time; plain data, because the SDK's model lacks fields."""
    return {
        "name": name,
        "datasource": {"type": "prometheus", "uid": "${prometheus}"},
        "enable": True,
        "hide": False,
        "iconColor": shade,
        "expr": expr,
        "useValueForTime": True,
        "step": "60s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": tags,
    }
