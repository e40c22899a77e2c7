"""What the tests read in Explore: traces, and the queries that a link filled in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from grafana import Grafana, View

TRACE_ID = re.compile(r"\b[0-9a-f]{32}\b")
_UNITS = {"μs": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
# Each span's line in the trace: its words, and whether it bears the sign of an error.
_SPANS = """() => [...document.querySelectorAll('[data-testid="TimelineRowCell"] button[role="switch"]')].map(
  button => ({words: button.innerText, failed: !!button.querySelector('svg')}))"""


@dataclass
class Span:
    """One line of a trace as it is drawn."""

    service: str
    operation: str
    milliseconds: float
    failed: bool


def address(view: View) -> str:
    """The page's address as a person would write it."""
    return unquote(view.page.url).replace('\\"', '"')


def address_of(trace_id: str) -> str:
    """Where Explore shows this trace."""
    query = {"refId": "A", "datasource": {"type": "jaeger", "uid": "vantage-jaeger"}, "query": trace_id}
    panes = {"trace": {"datasource": "vantage-jaeger", "queries": [query], "range": {"from": "now-15m", "to": "now"}}}
    return f"/explore?schemaVersion=1&orgId=1&panes={quote(json.dumps(panes))}"


def assert_a_trace(grafana: Grafana, view: View, trace_id: str, name: str) -> None:
    """The page is Explore with this very trace drawn, span by span."""
    assert "/explore" in address(view)
    assert trace_id in address(view)
    view.page.get_by_text("Service & Operation").first.wait_for()
    assert re.search(r"\d+ spans?\b", view.text), view.text[-800:]
    assert trace_id in view.text
    grafana.picture(view.page, name)


def spans(view: View) -> list[Span]:
    """The lines of the trace, callers before those they call."""
    found: list[Span] = []
    for line in view.page.evaluate(_SPANS):
        # `storefront GET /products (12.5ms)`; where a service goes on, its name is left out.
        matched = re.fullmatch(
            r"(?:(storefront|warehouse) )?(.+?) \(([\d.]+)(μs|µs|ms|s)\)", " ".join(line["words"].split())
        )
        assert matched, f"not the line of a span: {line['words']!r}"
        service, operation, amount, unit = matched.groups()
        milliseconds = float(amount) * _UNITS[unit]
        found.append(Span(service or found[-1].service, operation, milliseconds, line["failed"]))
    return found
