"""One click from a signal to the next, done by a mouse in a real browser; what the page then shows is what counts."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from urllib.error import HTTPError
from urllib.parse import quote, unquote

import pytest
from grafana import Grafana, View

OVERVIEW, LOGS, TRACES = "vantage-service-overview", "vantage-logs", "vantage-traces"
TRACE_ID = re.compile(r"\b[0-9a-f]{32}\b")
# Where a heatmap draws exemplars: the points of the canvas that have their colour.
DOTS = """panel => {
  const canvas = panel.querySelector('canvas'), box = canvas.getBoundingClientRect();
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height), found = [];
  for (let i = 0; i < data.length; i += 4)
    if (data[i] > 235 && Math.abs(data[i + 1] - 115) < 30 && data[i + 2] < 50)
      found.push([box.x + (i / 4 % canvas.width) * box.width / canvas.width,
                  box.y + Math.floor(i / 4 / canvas.width) * box.height / canvas.height]);
  return found;
}"""


@pytest.fixture(scope="module", autouse=True)
def visitors(grafana: Grafana) -> None:
    """Requests that were made, scraped and stored, so that there is something to click on."""
    for _ in range(40):
        for path in ("/", "/products", "/products/1"):
            # A shop that fails now and then is as good a place to look at.
            with suppress(HTTPError):
                urllib.request.urlopen(grafana.shop + path).close()
    # Two scrapes, and the engines' own pace.
    time.sleep(35)


@pytest.fixture
def trace(grafana: Grafana) -> Iterator[View]:
    """A trace of our own through both services, opened in Explore."""
    trace_id = ""
    while not trace_id:
        with suppress(HTTPError), urllib.request.urlopen(f"{grafana.shop}/products") as answer:
            trace_id = answer.headers["X-Trace-Id"]
    time.sleep(4)
    query = {"refId": "A", "datasource": {"type": "jaeger", "uid": "vantage-jaeger"}, "query": trace_id}
    panes = {"trace": {"datasource": "vantage-jaeger", "queries": [query], "range": {"from": "now-15m", "to": "now"}}}
    with grafana.look(f"/explore?schemaVersion=1&orgId=1&panes={quote(json.dumps(panes))}") as view:
        view.page.get_by_text("SELECT products").first.wait_for()
        yield view


def shown(view: View) -> str:
    """What can be read on the page."""
    return view.page.inner_text("body")


def assert_a_trace(grafana: Grafana, view: View, trace_id: str, name: str) -> None:
    """The page is Explore with this very trace drawn, span by span."""
    address = unquote(view.page.url)
    assert "/explore" in address
    assert trace_id in address
    view.page.get_by_text("Service & Operation").first.wait_for()
    text = shown(view)
    assert re.search(r"\d+ spans?\b", text), text[-800:]
    assert trace_id in text
    grafana.picture(view.page, name)


def test_exemplar_on_a_line_leads_to_its_trace(grafana: Grafana) -> None:
    with grafana.board(OVERVIEW, "now-5m", whole=False) as view:
        panel = view.panel("Duration over time")
        view.settle()
        panel.get_by_test_id("data-testid Exemplar marker").last.click(force=True)
        link = view.page.get_by_text("Open the trace").last
        link.wait_for()
        trace_id = TRACE_ID.findall(shown(view))[-1]
        grafana.picture(view.page, "exemplar")
        with view.follow(link) as target:
            assert_a_trace(grafana, target, trace_id, "exemplar-to-trace")


def test_exemplar_on_the_heatmap_leads_to_its_trace(grafana: Grafana) -> None:
    with grafana.board(OVERVIEW, "now-5m", whole=False) as view:
        panel = view.panel("How long requests take")
        view.settle()
        dots = panel.evaluate(DOTS)
        assert dots, "the heatmap has no dots"
        x, y = dots[len(dots) // 2]
        link = view.page.get_by_text("Open the trace").last
        # A dot is a few pixels wide, and its rim is no part of it.
        for right, down in ((1, 1), (2, 2), (0, 0), (3, 1), (-1, 1)):
            view.page.mouse.move(x + right, y + down)
            view.page.mouse.click(x + right, y + down)
            view.page.wait_for_timeout(500)
            if link.count():
                break
        trace_id = TRACE_ID.findall(shown(view))[-1]
        grafana.picture(view.page, "heatmap")
        with view.follow(link) as target:
            assert_a_trace(grafana, target, trace_id, "heatmap-to-trace")


def test_log_line_leads_to_its_trace(grafana: Grafana) -> None:
    with grafana.board(LOGS, "now-15m", whole=False, service="storefront") as view:
        panel = view.panel("Lines")
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
        with view.follow(link) as target:
            assert_a_trace(grafana, target, trace_id, "list-to-trace")


def span_link(view: View, span: int, text: str) -> View:
    """What opens by the link of this name beside a span; 2 is the warehouse's."""
    view.page.get_by_test_id("SpanLinksMenu").nth(span).click()
    return view.follow(view.page.get_by_text(text).last)


def test_span_leads_to_its_lines(grafana: Grafana, trace: View) -> None:
    found = TRACE_ID.search(shown(trace))
    assert found
    with span_link(trace, 2, "Related logs") as target:
        assert f"trace_id = `{found[0]}`" in unquote(target.page.url).replace('\\"', '"')
        target.page.get_by_text("GET /products 200").first.wait_for()
        assert '"service":"warehouse"' in re.sub(r"\s", "", shown(target))
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
        address = unquote(target.page.url).replace('\\"', '"')
        assert metric in address
        assert 'http_route="/products"' in address
        # The legend of the graph: the query was filled in, run, and found the services.
        target.page.get_by_text('{http_route="/products", service_name="warehouse"}').first.wait_for()
        grafana.picture(target.page, f"span-to-{metric.rsplit('_', 1)[1]}")


def test_circle_of_the_service_graph_leads_to_the_dashboard_of_its_service(grafana: Grafana) -> None:
    with grafana.board(TRACES, "now-5m", whole=False) as view:
        panel = view.panel("Who calls whom")
        view.settle()
        panel.get_by_label("Node: warehouse").get_by_text("warehouse").click(force=True)
        view.page.get_by_text("Overview of this service").last.wait_for()
        grafana.picture(view.page, "circle")
        with view.follow(view.page.get_by_text("Overview of this service").last) as target:
            assert f"/d/{OVERVIEW}" in target.page.url
            assert "var-service=warehouse" in target.page.url
            services = target.panel("Services").inner_text()
            assert "warehouse" in services
            assert "storefront" not in services
            grafana.picture(target.page, "circle-to-dashboard")
