"""Every dashboard as a person sees it: drawn from top to bottom, at two time ranges, on a desk and on a phone."""

from __future__ import annotations

import pytest
from boards import BOARDS, assert_well_drawn
from grafana import Grafana

# A desk with both themes, and a phone; each with the short and the long range.
LOOKS = [
    pytest.param(width, theme, start, id=f"{width}-{theme}-{start.removeprefix('now-')}")
    for width, theme in ((1440, "dark"), (1440, "light"), (390, "dark"))
    for start in ("now-5m", "now-6h")
]


@pytest.mark.parametrize(("width", "theme", "start"), LOOKS)
@pytest.mark.parametrize("uid", BOARDS)
def test_every_panel_is_drawn(grafana: Grafana, uid: str, width: int, theme: str, start: str) -> None:
    assert_well_drawn(grafana, uid, start, width=width, theme=theme)


def test_marks_of_crashed_panels_are_noticed(grafana: Grafana) -> None:
    """Grafana counts a crashed panel as no error, so the look for its words must work."""
    with grafana.board(BOARDS[0]) as view:
        view.page.evaluate(
            """() => document.querySelector('section[data-testid^="data-testid Panel header"]')
              .append('An unexpected error happened')"""
        )
        assert [panel.crashed for panel in view.panels()].count(True) == 1
