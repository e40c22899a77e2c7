"""docs/walkthrough.md by a mouse: trouble in the warehouse, and the clicks that lead to the span that is to blame.

The demo's switch for trouble is used, and off again whatever happens; the alerts of that time are part of the show.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.error import HTTPError

import pytest
from boards import BOARDS, OVERVIEW, assert_well_drawn, dots, pin
from explore import TRACE_ID, Span, assert_a_trace, spans
from grafana import Grafana, View

SLOW_MS = 800
# Two scrapes, a rate over them, and the engines' own pace.
SEEN_SECONDS = 60


@contextmanager
def fault(grafana: Grafana, **what: float) -> Iterator[None]:
    """The warehouse in this trouble, with visitors in the shop, for so long that it can be seen."""
    switch, over = f"{grafana.warehouse}/faults", threading.Event()

    def visit() -> None:
        while not over.wait(0.3):
            for path in ("/products", "/products/1"):
                # To fail is what the shop is here for.
                with suppress(HTTPError):
                    urllib.request.urlopen(grafana.shop + path, timeout=30).close()

    def turn(method: str, body: bytes | None = None) -> None:
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(switch, body, headers, method=method), timeout=30).close()

    try:
        turn("PUT", json.dumps(what).encode())
    except HTTPError as error:
        pytest.skip(f"{switch} answers {error.code}: is vantage_demo_faults on?")
    visitors = [threading.Thread(target=visit, daemon=True) for _ in range(3)]
    try:
        for visitor in visitors:
            visitor.start()
        over.wait(SEEN_SECONDS)
        yield
    finally:
        turn("DELETE")
        over.set()
        for visitor in visitors:
            visitor.join()


@pytest.fixture(scope="module")
def errors(grafana: Grafana) -> Iterator[None]:
    """A fifth of the warehouse's requests fails."""
    with fault(grafana, error_rate=0.2):
        yield


@pytest.fixture
def latency(grafana: Grafana) -> Iterator[None]:
    """The warehouse takes its time; this takes the place of the errors, where they are still on."""
    with fault(grafana, latency_ms=SLOW_MS):
        yield


def of_both(view: View) -> tuple[Span, Span]:
    """The storefront's span on top, and the warehouse's of its answer below."""
    lines = spans(view)
    top, below = lines[0], next(span for span in lines if span.service == "warehouse")
    assert top.service == "storefront"
    return top, below


def of_database(view: View) -> list[Span]:
    """The spans of what the warehouse asks of its database."""
    return [span for span in spans(view) if span.operation.startswith(("SELECT ", "INSERT ", "UPDATE "))]


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "light")])
@pytest.mark.parametrize("uid", BOARDS)
@pytest.mark.usefixtures("errors")
def test_every_panel_is_drawn_in_a_burst_of_errors(grafana: Grafana, uid: str, width: int, theme: str) -> None:
    assert_well_drawn(grafana, uid, "now-5m", width=width, theme=theme, name="errors-")


@pytest.mark.usefixtures("errors")
def test_exemplar_of_a_failed_request_leads_to_the_span_that_failed(grafana: Grafana) -> None:
    with grafana.board(OVERVIEW, "now-5m", whole=False, service="storefront") as view:
        panel = view.panel("Errors over time")
        view.settle()
        panel.get_by_test_id("data-testid Exemplar marker").last.click(force=True)
        link = view.page.get_by_text("Open the trace").last
        link.wait_for()
        trace_id = TRACE_ID.findall(view.text)[-1]
        grafana.picture(view.page, "failed-exemplar")
        with view.follow(link) as target:
            assert_a_trace(grafana, target, trace_id, "failed-exemplar-to-trace")
            top, below = of_both(target)
            assert top.failed
            assert below.failed
            assert not of_database(target), "it failed before it got there"
            # The span opened: what it says of itself.
            target.page.locator('button[role="switch"]').filter(has_text="warehouse").first.click()
            target.page.get_by_text("InjectedFault").first.wait_for()
            grafana.picture(target.page, "failed-span")


@pytest.mark.usefixtures("latency")
def test_exemplar_of_a_slow_request_leads_to_the_span_that_is_slow(grafana: Grafana) -> None:
    with grafana.board(OVERVIEW, "now-5m", whole=False, service="storefront") as view:
        panel = view.panel("Request duration heatmap")
        view.settle()
        link = pin(view, dots(panel)[0])
        trace_id = TRACE_ID.findall(view.text)[-1]
        grafana.picture(view.page, "slow-exemplar")
        with view.follow(link) as target:
            assert_a_trace(grafana, target, trace_id, "slow-exemplar-to-trace")
            top, below = of_both(target)
            assert top.milliseconds >= SLOW_MS
            assert below.milliseconds >= SLOW_MS
            database = of_database(target)
            assert database
            assert max(span.milliseconds for span in database) < SLOW_MS / 4, "the time goes before the database"
