"""Links to Grafana's Explore with the query and the time range filled in."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from vantage_tools.report.dataset import Dataset

# The field that holds the query, and the rest of it, for the data sources that the role grafana provisions.
QUERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "prometheus": ("expr", {"range": True}),
    "loki": ("expr", {"queryType": "range"}),
    "jaeger": ("query", {}),
}


def grafana_address(dataset: Dataset) -> str:
    """Return the address of Grafana; without one, links are empty."""
    return str(dataset.meta.get("grafana") or "").rstrip("/")


def explore(dataset: Dataset, engine: str, query: str) -> str:
    """Return a link to the query of an engine, or to a trace by its id, over the long time range."""
    address = grafana_address(dataset)
    if not address:
        return ""
    field, more = QUERIES[engine]
    uid = f"vantage-{engine}"
    pane = {
        "datasource": uid,
        "queries": [{"refId": "A", "datasource": {"type": engine, "uid": uid}, field: query, **more}],
        "range": {"from": str(int(dataset.begin("long") * 1000)), "to": str(int(dataset.end * 1000))},
    }
    panes = quote(json.dumps({"vantage": pane}, separators=(",", ":")))
    return f"{address}/explore?schemaVersion=1&orgId=1&panes={panes}"
