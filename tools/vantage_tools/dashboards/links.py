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


def dashboard_menu() -> list[Link]:
    """Return the menu of all dashboards, which keeps variables and time range."""
    menu = DashboardLink("Other dashboards").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return [menu.as_dropdown(True).include_vars(True).keep_time(True).icon("external link").tooltip("")]


def to_dashboard(title: str, uid: str, variables: str = "", *, new_tab: bool = False) -> Link:
    """A link that keeps the time range; `variables` is more of the query, as `var-service=${…}`."""
    more = f"&{variables}" if variables else ""
    url = f"/d/{uid}?{_SOURCES}&${{__url_time_range}}{more}"
    return DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(new_tab).icon("").tooltip("")


def to_explore(title: str, kind: str, query: dict[str, str]) -> Link:
    """A link to Explore with the query filled in, on the data source of the variable `kind`."""
    pane = {
        "datasource": f"${{{kind}}}",
        "queries": [{"refId": "A", "datasource": {"type": kind, "uid": f"${{{kind}}}"}, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    # Grafana fills ${…} in before the browser decodes the rest, so those stay as they are.
    panes = quote(json.dumps({"vantage": pane}, separators=(",", ":")), safe="${}:,.[]")
    url = f"/explore?schemaVersion=1&orgId=1&panes={panes}"
    return DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(True).icon("").tooltip("")


def trace_in_explore(title: str, trace_id: str) -> dict[str, object]:
    """A link of a field, for an override, that opens the trace."""
    link = to_explore(title, "jaeger", {"query": trace_id}).build()
    return {"title": title, "url": link.url, "targetBlank": True}
