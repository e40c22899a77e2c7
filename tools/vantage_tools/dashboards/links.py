"""Links between dashboards, and from a figure to the raw data behind it in Explore."""

from __future__ import annotations

import json
from urllib.parse import quote

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

Link = Builder[dashboard.DashboardLink]

TAG = "vantage"

OVERVIEW = "vantage-service-overview"
LOGS = "vantage-logs"
TRACES = "vantage-traces"
SLO = "vantage-slo"
HOST = "vantage-host"
STACK = "vantage-observability"

# Links keep the selected data sources.
_SOURCES = "${prometheus:queryparam}&${loki:queryparam}&${jaeger:queryparam}"
# The service and the route of a table's row.
OF_SERVICE = "var-service=${__data.fields.Service:percentencode}"
OF_ROUTE = f"{OF_SERVICE}&var-route=${{__data.fields.Route:percentencode}}"


def dashboard_menu() -> list[Link]:
    """Return the menu of all dashboards, which keeps variables and time range."""
    menu = DashboardLink("Other dashboards").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return [menu.as_dropdown(True).include_vars(True).keep_time(True).icon("external link").tooltip("")]


def _link(title: str, url: str, new_tab: bool = False) -> Link:
    return DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(new_tab).icon("").tooltip("")


def to_dashboard(title: str, uid: str, variables: str) -> Link:
    """A link that keeps the time range; `variables` is more of the query, as `var-service=${…}`."""
    return _link(title, f"/d/{uid}?{_SOURCES}&${{__url_time_range}}&{variables}")


def in_cell(title: str, uid: str, variables: str) -> dict[str, object]:
    """A link of a field, for an override, to a dashboard."""
    return {"title": title, "url": f"/d/{uid}?${{__url_time_range}}&{variables}"}


def _explore_url(kind: str, query: dict[str, str]) -> str:
    pane = {
        "datasource": f"${{{kind}}}",
        "queries": [{"refId": "A", "datasource": {"type": kind, "uid": f"${{{kind}}}"}, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    # Grafana fills ${…} in before the browser decodes the rest, so those stay as they are.
    panes = quote(json.dumps({"vantage": pane}, separators=(",", ":")), safe="${}:,.[]")
    return f"/explore?schemaVersion=1&orgId=1&panes={panes}"


def to_explore(title: str, kind: str, query: dict[str, str]) -> Link:
    """A link to Explore with the query filled in, on the data source of the variable `kind`."""
    return _link(title, _explore_url(kind, query), new_tab=True)


def lines_in_explore(title: str, expr: str) -> Link:
    """A link to Explore with a LogQL query."""
    return to_explore(title, "loki", {"expr": expr, "queryType": "range"})


def trace_in_explore(title: str, trace_id: str) -> dict[str, object]:
    """A link of a field, for an override, that opens the trace."""
    return {"title": title, "url": _explore_url("jaeger", {"query": trace_id}), "targetBlank": True}
