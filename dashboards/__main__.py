"""Write the dashboards: `python -m dashboards [--check]`, from the root of the repository."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import board, host, links, logs, observability, service_overview, slo, traces

FOLDER = Path(__file__).resolve().parents[1] / "roles/grafana/files/dashboards"

DASHBOARDS = {
    "service-overview.json": service_overview.build,
    "logs.json": logs.build,
    "traces.json": traces.build,
    "slo.json": slo.build,
    "host.json": host.build,
    "observability.json": observability.build,
}

# Where services are chosen, starts and alerts of others would only hide theirs.
_CHOSEN = '{service_name=~"$service"}'
_OF_CHOSEN = f" and on (service_name) service_name:http_server_requests:rate5m{_CHOSEN}"
MARKS = dict.fromkeys((links.OVERVIEW, links.TRACES, links.SLO), (_CHOSEN, _OF_CHOSEN))


def document(builder: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana reads it, with stable panel ids and the annotations."""
    result: dict[str, Any] = json.loads(JSONEncoder().encode(board.add_sources(builder).build()))
    result["annotations"] = {"list": board.marks(*MARKS.get(result["uid"], ()))}
    for number, panel in enumerate(result["panels"], start=1):
        panel["id"] = number
        # What Grafana 12 would complete by itself; without it, a provisioned file differs from what is shown.
        panel.setdefault("fieldConfig", {"defaults": {}, "overrides": []})
    return result


def rendered(builder: Dashboard) -> str:
    """The text of the file."""
    return json.dumps(document(builder), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the files, or with --check say how they differ from the sources."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a file is not up to date")
    check = parser.parse_args().check
    wanted = {FOLDER / name: rendered(build()) for name, build in DASHBOARDS.items()}
    stale = [path for path in FOLDER.glob("*.json") if path not in wanted]
    differing = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if check:
        for path in differing:
            old = path.read_text().splitlines() if path.exists() else []
            print(
                "\n".join(difflib.unified_diff(old, wanted[path].splitlines(), str(path), "sources", n=1, lineterm=""))
            )
        for path in stale:
            print(f"{path} has no source in dashboards/")
        if stale or differing:
            print("Run `make dashboards` and commit the result.")
        return 1 if stale or differing else 0
    for path in differing:
        path.write_text(wanted[path])
        print(f"wrote {path.relative_to(FOLDER.parents[3])}")
    for path in stale:
        path.unlink()
        print(f"removed {path.relative_to(FOLDER.parents[3])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
