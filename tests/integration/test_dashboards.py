"""Every query of every dashboard, asked of the live engines with its variables filled in."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from machine import Machine, wait

FOLDER = Path(__file__).resolve().parents[2] / "roles/grafana/files/dashboards"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
RANGE = 900  # seconds before now

# Queries that rightly return nothing on a healthy machine, by dashboard and panel.
MAY_BE_EMPTY = {
    ("host", "Disk full in"): "the disks have been watched for less than half an hour",
    ("observability", "Disk full in"): "as before",
}
# A single service-overview figure needs its 6-hour rules, which are evaluated once a minute.
SETTLED = 150

QUERIES = [
    pytest.param(name, panel["title"], target, id=f"{name}: {panel['title']} {target['refId']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    for target in panel.get("targets", [])
]
VARIABLES = [
    pytest.param(variable, id=f"{name}: {variable['name']}")
    for name, board in BOARDS.items()
    for variable in board["templating"]["list"]
    if variable["type"] == "query"
]


@pytest.fixture(scope="module", autouse=True)
def traffic(vm: Machine) -> None:
    """Requests of every kind, some of them failing, until the slowest rules have seen them."""
    vm.wait_ready()
    faults = "http://127.0.0.1:8001/faults"
    vm.sh(f"curl -fsS -X PUT -H 'Content-Type: application/json' -d '{{\"error_rate\": 0.3}}' {faults}")
    order = "curl -sS -o /dev/null -H 'Content-Type: application/json' -d '{\"product_id\":1,\"quantity\":1}' $b/orders"
    paths = "/ /products /products/1 /ping /nothing"
    once = f"for p in {paths}; do curl -sS -o /dev/null $b$p; done; {order}"
    rule = 'sum(service_name_http_route:http_server_requests:rate6h{service_name="storefront"}) > 0'
    spans = 'count(rate(traces_span_metrics_calls_total{service_name="warehouse"}[1m]) > 0)'
    failed = 'service_name_http_route:http_server_errors:rate6h{service_name="storefront"} > 0'
    begin = time.monotonic()
    try:
        while not (vm.instant(rule) and vm.instant(spans) and vm.instant(failed) and time.monotonic() - begin > 45):
            vm.sh(f"b=http://127.0.0.1:8000; for i in 1 2 3 4 5; do {once}; sleep 0.5; done")
            assert time.monotonic() - begin < SETTLED, "the recording rules have seen no traffic"
    finally:
        vm.sh(f"curl -fsS -X DELETE {faults}")


def filled(text: str, *, regular: bool = True) -> str:
    """The text with variables as a person finds them when the dashboard is opened."""
    values = {
        "service": ".+", "route": ".*", "instance": ".+", "level": ".+", "host": ".+", "status": ".*",
        "search": "", "trace_id": "", "traced": "storefront", "slow": "0", "min_duration": "", "tags": "",
        "__range": f"{RANGE}s", "__range_s": str(RANGE), "__rate_interval": "1m", "__auto": "30s", "__interval": "15s",
    }  # fmt: skip
    found = re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], match[0]), text) if regular else text
    left = [name for name in re.findall(r"\$\{?([a-z_]\w*)", found) if not name.isdigit()]
    assert not left, f"the test knows no value for {left}"
    return found


def ask(vm: Machine, target: dict[str, Any]) -> list[Any]:
    """What the engine answers: series, lines or traces."""
    kind = target["datasource"]["type"]
    now = time.time()
    if kind == "jaeger" and target["queryType"] == "dependencyGraph":
        url = "http://127.0.0.1:16686/api/dependencies"
        return list(vm.get(url, endTs=int(now * 1000), lookback=RANGE * 1000)["data"])
    if kind == "jaeger":
        wanted = {"minDuration": filled(target.get("minDuration", "")), "service": filled(target["service"])}
        parameters = {key: value for key, value in wanted.items() if value}
        return list(
            vm.get(
                "http://127.0.0.1:16686/api/traces", limit=target["limit"], lookback="custom",
                start=int((now - RANGE) * 1e6), end=int(now * 1e6), **parameters,
            )["data"]
        )  # fmt: skip
    query = filled(target["expr"])
    if kind == "loki":
        base = "http://127.0.0.1:3100/loki/api/v1"
        if target["queryType"] == "instant":
            return list(vm.get(f"{base}/query", query=query)["data"]["result"])
        start, end = int((now - RANGE) * 1e9), int(now * 1e9)
        answer = vm.get(f"{base}/query_range", query=query, start=start, end=end, limit=target.get("maxLines", 100))
        return list(answer["data"]["result"])
    if target.get("instant"):
        return vm.instant(query)
    base = "http://127.0.0.1:9090/api/v1/query_range"
    return list(vm.get(base, query=query, start=now - RANGE, end=now, step=15)["data"]["result"])


@pytest.mark.parametrize(("board", "title", "target"), QUERIES)
def test_query_of_a_panel_returns_data(vm: Machine, board: str, title: str, target: dict[str, Any]) -> None:
    if "memory_limit" in target.get("expr", ""):
        wait(lambda: vm.instant("service_name:memory_limit:bytes"), 60)
    if {(board, title), (board, f"{title} {target['refId']}")} & MAY_BE_EMPTY.keys():
        ask(vm, target)
        return

    def found() -> list[Any]:
        data = ask(vm, target)
        if not data:
            # Rates over a minute are empty without requests to the shop and to the engine.
            vm.trace_id()
            vm.get("http://127.0.0.1:16686/api/services")
        return data

    # It takes two scrapes until a rate shows.
    wait(found, 60, lambda: f"no data for {target.get('expr', target)}")


@pytest.mark.parametrize("variable", VARIABLES)
def test_query_of_a_variable_returns_values(vm: Machine, variable: dict[str, Any]) -> None:
    query = variable["query"]
    if variable["datasource"]["type"] == "loki":
        values = vm.get(f"http://127.0.0.1:3100/loki/api/v1/label/{query['label']}/values")["data"]
        assert values, query
        return
    wanted = filled(query["query"])
    if found := re.fullmatch(r"query_result\((.+)\)", wanted):
        result = vm.instant(found[1])
        shown = f"{{}} {result[0]['value'][1]} {int(result[0]['value'][0] * 1000)}"
        assert re.search(variable["regex"].strip("/"), shown), shown
        return
    metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", wanted).groups()  # type: ignore[union-attr]
    assert vm.get(f"http://127.0.0.1:9090/api/v1/label/{label}/values?match[]={quote(metric)}")["data"], wanted


def test_marks_of_starts_are_found(vm: Machine) -> None:
    for name, board in BOARDS.items():
        for mark in board["annotations"]["list"]:
            answer = vm.instant(filled(mark["expr"]))
            if mark["name"] == "Starts and deployments":
                assert answer, name
