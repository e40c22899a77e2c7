"""One click from a signal to the next, done by a mouse in a real browser; what the page then shows is what counts."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from urllib.error import HTTPError

import pytest
from boards import LOGS, OVERVIEW, TRACES, dots, pin
from explore import TRACE_ID, address, address_of, assert_a_trace
from grafana import Grafana, View

SCRAPE_SECONDS = 15


@pytest.fixture(scope="module", autouse=True)
def visitors(grafana: Grafana) -> None:
    """Requests that were made, scraped and stored, so that there is something to click on."""

    def visit() -> None:
        for path in ("/", "/products", "/products/1"):
            # A shop that fails now and then is as good a place to look at.
            with suppress(HTTPError):
                urllib.request.urlopen(grafana.shop + path).close()

    for _ in range(40):
        visit()
    sent = time.time()
    # Two scrapes of requests from after this moment; traces and lines are stored sooner.
    count = 'http_server_request_duration_seconds_count{service_name="storefront", http_route="/products"}'
    query = f"sum(increase({count}[1m]) and timestamp({count}) > {sent + SCRAPE_SECONDS}) > 0"
    while not grafana.instant(query):
        assert time.time() - sent < 120, query
        visit()


@pytest.fixture
def trace(grafana: Grafana) -> Iterator[View]:
    """A trace of our own through both services, opened in Explore."""
    trace_id = ""
    while not trace_id:
        with suppress(HTTPError), urllib.request.urlopen(f"{grafana.shop}/products") as answer:
            trace_id = answer.headers["X-Trace-Id"]
    deadline = time.monotonic() + 60
    while True:
        with grafana.look(address_of(trace_id)) as view:
            # Both services export their spans, each in its own time.
            if (
                view.page.get_by_text("SELECT products").count()
                and view.page.get_by_test_id("SpanLinksMenu").count() > 2
            ):
                yield view
                return
        assert time.monotonic() < deadline, f"Jaeger has no complete trace {trace_id}"


def test_exemplar_on_a_line_leads_to_its_trace(grafana: Grafana) -> None:
    with grafana.board(OVERVIEW, "now-5m", whole=False) as view:
        panel = view.panel("Duration over time")
        view.settle()
        panel.get_by_test_id("data-testid Exemplar marker").last.click(force=True)
        link = view.page.get_by_text("Open the trace").last
        link.wait_for()
        trace_id = TRACE_ID.findall(view.text)[-1]
        grafana.picture(view.page, "exemplar")
        with view.follow(link) as target:
            assert_a_trace(grafana, target, trace_id, "exemplar-to-trace")


def test_exemplar_on_the_heatmap_leads_to_its_trace(grafana: Grafana) -> None:
    with grafana.board(OVERVIEW, "now-5m", whole=False) as view:
        panel = view.panel("Request duration heatmap")
        view.settle()
        found = dots(panel)
        link = pin(view, found[len(found) // 2])
        trace_id = TRACE_ID.findall(view.text)[-1]
        grafana.picture(view.page, "heatmap")
        with view.follow(link) as target:
            assert_a_trace(grafana, target, trace_id, "heatmap-to-trace")


def test_log_line_leads_to_its_trace(grafana: Grafana) -> None:
    with grafana.board(LOGS, "now-15m", whole=False, service="storefront") as view:
        panel = view.panel("Log lines")
        view.settle()
        line = panel.get_by_text("GET /products").first
        found = TRACE_ID.search(line.inner_text())
        assert found
        # Near its beginning: a line is far longer than the window.
        line.click(position={"x": 300, "y": 5})
        link = view.page.get_by_role("link", name="Open the trace").first
        link.wait_for()
        grafana.picture(view.page, "log-line")
        with view.follow(link) as target:
            assert_a_trace(grafana, target, found[0], "log-line-to-trace")


def test_row_of_the_table_of_lines_leads_to_its_trace(grafana: Grafana) -> None:
    with grafana.board(LOGS, "now-15m", whole=False, service="storefront") as view:
        panel = view.panel("Requests and events by field")
        view.settle()
        cell = panel.get_by_text(re.compile(r"^[0-9a-f]{32}$")).first
        trace_id = cell.inner_text().strip()
        cell.click()
        with view.follow(view.page.get_by_text("Open the trace").last) as target:
            assert_a_trace(grafana, target, trace_id, "table-of-lines-to-trace")


def test_trace_in_a_list_opens(grafana: Grafana) -> None:
    with grafana.board(TRACES, "now-15m", whole=False) as view:
        panel = view.panel("Traces")
        view.settle()
        link = panel.get_by_role("link").first
        trace_id = link.inner_text().strip()
        # The next column may hide the middle of an id.
        with view.follow(link, at={"x": 20, "y": 8}) as target:
            assert_a_trace(grafana, target, trace_id, "list-to-trace")


def span_link(view: View, span: int, text: str) -> View:
    """What opens by the link of this name beside a span; 2 is the warehouse's."""
    view.page.get_by_test_id("SpanLinksMenu").nth(span).click()
    return view.follow(view.page.get_by_text(text).last)


def test_span_leads_to_its_lines(grafana: Grafana, trace: View) -> None:
    found = TRACE_ID.search(trace.text)
    assert found
    with span_link(trace, 2, "Related logs") as target:
        assert f"trace_id = `{found[0]}`" in address(target)
        target.page.get_by_text("GET /products 200").first.wait_for()
        assert '"service":"warehouse"' in re.sub(r"\s", "", target.text)
        grafana.picture(target.page, "span-to-lines")


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("Request rate of this route", "http_server_request_duration_seconds_count"),
        ("95th percentile of this route's duration", "http_server_request_duration_seconds_bucket"),
    ],
)
def test_span_leads_to_the_metrics_of_its_route(grafana: Grafana, trace: View, text: str, metric: str) -> None:
    with span_link(trace, 2, text) as target:
        found = address(target)
        assert metric in found
        assert 'http_route="/products"' in found
        # The legend of the graph: the query was filled in, run, and found the services.
        target.page.get_by_text('{http_route="/products", service_name="warehouse"}').first.wait_for()
        grafana.picture(target.page, f"span-to-{metric.rsplit('_', 1)[1]}")


@pytest.mark.parametrize(
    ("text", "uid", "title"),
    [("Overview of this service", OVERVIEW, "Services"), ("Logs of this service", LOGS, "Log lines by service")],
    ids=["overview", "logs"],
)
def test_circle_of_the_service_graph_leads_to_the_dashboard_of_its_service(
    grafana: Grafana, text: str, uid: str, title: str
) -> None:
    with grafana.board(TRACES, "now-5m", whole=False) as view:
        panel = view.panel("Service graph")
        view.settle()
        panel.get_by_label("Node: warehouse").get_by_text("warehouse").click(force=True)
        view.page.get_by_text(text).last.wait_for()
        grafana.picture(view.page, "circle")
        with view.follow(view.page.get_by_text(text).last) as target:
            assert f"/d/{uid}" in target.page.url
            assert "var-service=warehouse" in target.page.url
            services = target.panel(title).inner_text()
            assert "warehouse" in services
            assert "storefront" not in services
            grafana.picture(target.page, f"circle-to-{uid.removeprefix('vantage-')}")


def test_arrow_of_the_service_graph_says_how_many_calls_and_how_long(grafana: Grafana) -> None:
    with grafana.board(TRACES, "now-5m", whole=False) as view:
        panel = view.panel("Service graph")
        view.settle()
        arrow = panel.get_by_label("Edge from: storefront to: warehouse")
        arrow.first.hover(force=True)
        view.page.wait_for_timeout(500)
        # The words are drawn beside the arrow; those in the circles have units.
        words = [text.strip() for text in panel.locator("svg text").all_text_contents()]
        figures = [float(text) for text in words if re.fullmatch(r"\d+\.\d+", text)]
        grafana.picture(view.page, "arrow")
        assert len(figures) == 2, words
        assert min(figures) > 0, "calls per second, and their mean duration in milliseconds"


def test_line_of_a_graph_leads_to_explore_with_its_query(grafana: Grafana) -> None:
    with grafana.board(LOGS, "now-15m", whole=False) as view:
        panel = view.panel("Log lines by service")
        view.settle()
        # The foot of a bar: a click there keeps the tooltip with the links open; between two bars there is none.
        box = panel.locator(".u-over").first.bounding_box()
        assert box
        link = view.page.get_by_text("These lines in Explore").last
        for right in range(12, 60, 3):
            view.page.mouse.move(box["x"] + box["width"] - right, box["y"] + box["height"] - 3)
            view.page.mouse.click(box["x"] + box["width"] - right, box["y"] + box["height"] - 3)
            view.page.wait_for_timeout(500)
            if link.count():
                break
            view.page.keyboard.press("Escape")
        grafana.picture(view.page, "graph")
        with view.follow(link) as target:
            assert "/explore" in target.page.url
            found = address(target)
            assert re.search(r'\{service_name="[a-z-]+"\}', found), found
            target.page.get_by_text("Logs volume").first.wait_for()
            assert "No logs found" not in target.text
            grafana.picture(target.page, "graph-to-explore")


def test_panel_opens_in_explore_with_its_query_filled_in(grafana: Grafana) -> None:
    with grafana.board(OVERVIEW, "now-15m", whole=False, service="storefront") as view:
        panel = view.panel("Requests over time")
        view.settle()
        panel.hover()
        # The keys of the panel's menu, "Explore".
        view.page.keyboard.press("p")
        view.page.keyboard.press("x")
        view.page.wait_for_url("**/explore**")
        view.settle()
        found = address(view)
        assert 'service_name=~"storefront"' in found
        assert "$service" not in found
        view.page.get_by_text("storefront", exact=True).first.wait_for()
        grafana.picture(view.page, "panel-to-explore")
