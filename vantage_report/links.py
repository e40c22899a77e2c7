"""Links into Grafana's Explore with the query and the time range filled in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote

from vantage_report.analyse import Facts

# The data sources that roles/grafana provisions; their uids never change.
SOURCES = {"prometheus": "vantage-prometheus", "loki": "vantage-loki", "jaeger": "vantage-jaeger"}


@dataclass(frozen=True)
class Grafana:
    """Where Grafana is; without an address no links are made."""

    address: str

    @classmethod
    def of(cls, facts: Facts) -> Grafana:
        return cls(str(facts.meta.get("grafana") or "").rstrip("/"))

    def explore(self, proof: tuple[str, str], facts: Facts) -> str:
        """A link to a query over the long window."""
        return self._link(proof, facts.begin("long"), facts.end)

    def trace(self, trace_id: str, facts: Facts) -> str:
        """A link to one trace."""
        return self._link(("jaeger", trace_id), facts.begin("long"), facts.end)

    def _link(self, proof: tuple[str, str], begin: float, end: float) -> str:
        engine, query = proof
        if not self.address or engine not in SOURCES:
            return ""
        field = "query" if engine == "jaeger" else "expr"
        more = {"queryType": "range"} if engine == "loki" else {"range": True} if engine == "prometheus" else {}
        source = {"type": engine, "uid": SOURCES[engine]}
        pane = {
            "datasource": SOURCES[engine],
            "queries": [{"refId": "A", "datasource": source, field: query, **more}],
            "range": {"from": str(int(begin * 1000)), "to": str(int(end * 1000))},
        }
        panes = quote(json.dumps({"vantage": pane}, separators=(",", ":")))
        return f"{self.address}/explore?schemaVersion=1&orgId=1&panes={panes}"
