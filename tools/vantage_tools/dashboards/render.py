"""The files of the dashboards, as `vantage render` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from vantage_tools.dashboards import board, host, links, logs, observability, service_overview, slo, traces
from vantage_tools.paths import ROLES

FOLDER = ROLES / "grafana/files/dashboards"

DASHBOARDS = {
    "service-overview.json": service_overview.build,
    "logs.json": logs.build,
    "traces.json": traces.build,
    "slo.json": slo.build,
    "host.json": host.build,
    "observability.json": observability.build,
}

# Dashboards with a service variable show only the annotations of the selected services.
_SELECTED = '{service_name=~"$service"}'
_OF_SELECTED = f" and on (service_name) service_name:http_server_requests:rate5m{_SELECTED}"
ANNOTATIONS = dict.fromkeys((links.OVERVIEW, links.TRACES, links.SLO), (_SELECTED, _OF_SELECTED))


def document(builder: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana reads it, with stable panel ids and the annotations."""
    result: dict[str, Any] = json.loads(JSONEncoder().encode(builder.build()))
    result["annotations"] = {"list": board.annotation_queries(*ANNOTATIONS.get(result["uid"], ()))}
    for number, panel in enumerate(result["panels"], start=1):
        panel["id"] = number
        # What Grafana 12 would complete by itself; without it, a provisioned file differs from what is shown.
        panel.setdefault("fieldConfig", {"defaults": {}, "overrides": []})
    return result


def rendered_files() -> dict[Path, str]:
    """Return the text of each dashboard's file, by its path. Other JSON files in FOLDER have no source."""
    texts = {name: json.dumps(document(build()), indent=2, ensure_ascii=False) for name, build in DASHBOARDS.items()}
    return {FOLDER / name: f"{text}\n" for name, text in texts.items()}
