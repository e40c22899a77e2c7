"""Every dashboard as a person sees it: drawn from top to bottom, at two time ranges, on a desk and on a phone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from grafana import Grafana

FOLDER = Path(__file__).resolve().parents[2] / "roles/grafana/files/dashboards"
BOARDS = [json.loads(path.read_text())["uid"] for path in sorted(FOLDER.glob("*.json"))]
# A desk with both themes, and a phone; each with the short and the long range.
LOOKS = [
    pytest.param(width, theme, start, id=f"{width}-{theme}-{start.removeprefix('now-')}")
    for width, theme in ((1440, "dark"), (1440, "light"), (390, "dark"))
    for start in ("now-5m", "now-6h")
]
# On load; what a person scrolls to or filters comes on top.
MOST_REQUESTS = 40
# The frame of the page: Grafana itself, its menu of dashboards, a narrow window's margins.
MARGIN = 40


@pytest.mark.parametrize(("width", "theme", "start"), LOOKS)
@pytest.mark.parametrize("uid", BOARDS)
def test_every_panel_is_drawn(grafana: Grafana, uid: str, width: int, theme: str, start: str) -> None:
    with grafana.board(uid, start, theme=theme, width=width) as view:
        grafana.picture(view.page, f"{uid.removeprefix('vantage-')}-{start.removeprefix('now-')}-{width}-{theme}")
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


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_asks_a_bounded_number_of_questions(grafana: Grafana, uid: str) -> None:
    with grafana.board(uid, "now-6h") as view:
        asked = len(view.queries)
    assert 0 < asked <= MOST_REQUESTS, f"{asked} requests for data, from top to bottom of the page"


def test_marks_of_crashed_panels_are_noticed(grafana: Grafana) -> None:
    """Grafana counts a crashed panel as no error, so the look for its words must work."""
    with grafana.board(BOARDS[0]) as view:
        view.page.evaluate(
            """() => document.querySelector('section[data-testid^="data-testid Panel header"]')
              .append('An unexpected error happened')"""
        )
        assert [panel.crashed for panel in view.panels()].count(True) == 1
