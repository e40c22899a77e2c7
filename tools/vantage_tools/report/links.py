"""Links to Grafana's Explore with the query and the time range filled in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from vantage_tools.report.dataset import Dataset

# The uids of the data sources that the role grafana provisions, and what their queries look like.
SOURCES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "prometheus": ("vantage-prometheus", "expr", {"range": True}),
    "loki": ("vantage-loki", "expr", {"queryType": "range"}),
    "jaeger": ("vantage-jaeger", "query", {}),
}


@dataclass(frozen=True)
class Grafana:
    """The address of Grafana; without one, links are empty."""

    address: str

    @classmethod
    def of(cls, dataset: Dataset) -> Grafana:
        return cls(str(dataset.meta.get("grafana") or "").rstrip("/"))

    def trace(self, trace_id: str, dataset: Dataset) -> str:
        """Return a link to one trace."""
        return self.explore(("jaeger", trace_id), dataset)

    def explore(self, proof: tuple[str, str], dataset: Dataset) -> str:
        """Return a link to the query of an engine over the long time range."""
        engine, query = proof
        if not self.address or engine not in SOURCES:
            return ""
        uid, field, more = SOURCES[engine]
        pane = {
            "datasource": uid,
            "queries": [{"refId": "A", "datasource": {"type": engine, "uid": uid}, field: query, **more}],
            "range": {"from": str(int(dataset.begin("long") * 1000)), "to": str(int(dataset.end * 1000))},
        }
        panes = quote(json.dumps({"vantage": pane}, separators=(",", ":")))
        return f"{self.address}/explore?schemaVersion=1&orgId=1&panes={panes}"
