"""What the tests ask of a dashboard: that it is well drawn, and where its dots are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from grafana import Grafana, View
from playwright.sync_api import Locator

FOLDER = Path(__file__).resolve().parents[2] / "roles/grafana/files/dashboards"
BOARDS = [json.loads(path.read_text())["uid"] for path in sorted(FOLDER.glob("*.json"))]
OVERVIEW, LOGS, TRACES = "vantage-service-overview", "vantage-logs", "vantage-traces"
# On load and down to the foot of the page: of panels, marks and variables.
MOST_QUERIES = 40
# Where a heatmap draws exemplars: the points of the canvas that have their colour.
_DOTS = """panel => {
  const canvas = panel.querySelector('canvas'), box = canvas.getBoundingClientRect();
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height), found = [];
  for (let i = 0; i < data.length; i += 4)
    if (data[i] > 235 && Math.abs(data[i + 1] - 115) < 30 && data[i + 2] < 50)
      found.push([box.x + (i / 4 % canvas.width) * box.width / canvas.width,
                  box.y + Math.floor(i / 4 / canvas.width) * box.height / canvas.height]);
  return found;
}"""


def assert_well_drawn(grafana: Grafana, uid: str, start: str, *, width: int, theme: str, name: str = "") -> None:
    """Every panel is there, none in error, none outside of the window or on top of another, and few queries were enough."""
    with grafana.board(uid, start, theme=theme, width=width) as view:
        span = start.removeprefix("now-")
        grafana.picture(view.page, f"{name}{uid.removeprefix('vantage-')}-{span}-{width}-{theme}")
        panels = view.panels()
        wanted = {
            p["title"] for p in grafana.get(f"/api/dashboards/uid/{uid}")["dashboard"]["panels"] if p["type"] != "row"
        }
        assert {panel.title for panel in panels} == wanted
        assert not [panel.title for panel in panels if panel.crashed], "a panel's component crashed"
        assert not [panel.title for panel in panels if panel.error], view.failures
        assert not view.failures
        hidden = [
            panel.title for panel in panels if panel.x < 0 or panel.x + panel.width > width + 1 or panel.width < 100
        ]
        assert not hidden, f"outside of a window of {width} pixels"
        pairs = [(a.title, b.title) for i, a in enumerate(panels) for b in panels[i + 1 :] if a.overlaps(b)]
        assert not pairs, "one panel covers another"
        of_panels = sum(len(body["queries"]) for panel, body in view.queries if panel)
        of_marks = sum(len(body["queries"]) for panel, body in view.queries if not panel)
        assert of_panels, "no panel asked anything"
        assert of_marks, "no mark was asked for"
        names = {p["id"]: p["title"] for p in grafana.get(f"/api/dashboards/uid/{uid}")["dashboard"]["panels"]}
        asked = Counter(names[panel] for panel, _ in view.queries if panel)
        assert of_panels + of_marks + len(view.lookups) <= MOST_QUERIES, (
            f"{of_panels} queries of panels, {of_marks} of marks, {len(view.lookups)} of variables; "
            f"asked more than once: {[name for name, times in asked.items() if times > 1]}"
        )


def dots(panel: Locator) -> list[tuple[float, float]]:
    """Where a heatmap shows exemplars, from the slowest request to the quickest."""
    found = [(float(x), float(y)) for x, y in panel.evaluate(_DOTS)]
    assert found, "the heatmap has no dots"
    return found


def pin(view: View, dot: tuple[float, float]) -> Locator:
    """Clicks a heatmap's dot, so that its words stay; the link in them that opens the trace."""
    link = view.page.get_by_text("Open the trace").last
    # A dot is a few pixels wide, and its rim does not react to a click.
    for right, down in ((1, 1), (2, 2), (0, 0), (3, 1), (-1, 1)):
        view.page.mouse.move(dot[0] + right, dot[1] + down)
        view.page.mouse.click(dot[0] + right, dot[1] + down)
        view.page.wait_for_timeout(500)
        if link.count():
            break
    return link
