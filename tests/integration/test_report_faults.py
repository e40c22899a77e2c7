"""The report finds each fault that is injected into a running system, and nothing in a healthy one.

It takes a quarter of an hour: `vantage test-report` creates a machine for it. The time ranges are short, and each fault is the
only event in the short one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from machine import Machine, succeeded, wait

SHORT, LONG = 60, 900
# Rules that any failure triggers: error budgets, and alerts, which stay for some minutes. The disk is that of the test's machine.
FOLLOWS = {"slo", "alert", "disk"}

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

Report = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module", autouse=True)
def traffic(vm: Machine) -> Iterator[None]:
    """Send requests, the same ones each time, and wait until both time ranges have healthy ones."""
    vm.wait_ready()
    image = vm.sh("docker inspect --format '{{.Config.Image}}' vantage-storefront").strip()
    shop = "--url http://storefront:8000 --warehouse http://warehouse:8000"
    vm.sh("systemctl stop vantage-trial-traffic 2>/dev/null; docker rm -f trial-traffic >/dev/null 2>&1; true")
    vm.sh("curl -sS -o /dev/null -X DELETE http://127.0.0.1:8001/faults")
    vm.sh(
        "systemd-run --quiet --collect --unit=vantage-trial-traffic docker run --rm --name trial-traffic --network vantage "
        f"--entrypoint python3 {image} -m shop.traffic {shop} --rounds 0 --users 6 --pace 2 --seed 7"
    )
    # The starts and the first requests of a new machine have to leave the short range.
    since = now(vm)
    served = 'sum(increase(http_server_request_duration_seconds_count{service_name="storefront"}[3m]))'
    wait(lambda: now(vm) - since > SHORT * 3 and float(vm.instant(served)[0]["value"][1]) > 200, SHORT * 6, vm.explain)
    yield
    vm.sh("systemctl stop vantage-trial-traffic; docker rm -f trial-traffic >/dev/null 2>&1; true")


def now(vm: Machine) -> float:
    """Return the time of the machine's Prometheus."""
    return float(vm.get("http://127.0.0.1:9090/api/v1/query", query="time()")["data"]["result"][0])


def wait_for_short_range(vm: Machine) -> None:
    """Wait until the short range begins after this moment and every target was scraped at its end."""
    end = now(vm) + SHORT + 5
    wait(lambda: float(vm.instant("min(timestamp(up))")[0]["value"][1]) > end, 3 * SHORT, vm.explain)


@pytest.fixture
def report(playbook: Any, tmp_path: Path) -> Report:
    """Runs the playbook; returns the findings that are not over."""

    def run() -> list[dict[str, Any]]:
        ranges = {"report_short": f"{SHORT}s", "report_long": f"{LONG}s"}
        output = succeeded(playbook("playbooks/report.yml", report_dir=str(tmp_path), **ranges))
        assert (tmp_path / "report.html").stat().st_size > 20_000
        print("\n".join(line for line in output.splitlines() if line.startswith("report:")))
        found = json.loads((tmp_path / "findings.json").read_text())
        return [finding for finding in found if finding["until"] is None]

    return run


def by_rule(findings: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(finding["kind"], finding["service"]): finding for finding in findings}


def others(findings: list[dict[str, Any]], *expected: str) -> list[str]:
    """Return the findings that the fault does not explain."""
    return [f"{f['kind']}: {f['title']}. {f['text']}" for f in findings if f["kind"] not in {*expected, *FOLLOWS}]


@contextmanager
def fault(vm: Machine, inject: str, repair: str) -> Iterator[None]:
    """Inject a fault, wait until it fills the short range, and repair it at the end."""
    vm.sh(inject)
    try:
        wait_for_short_range(vm)
        yield
    finally:
        vm.sh(repair)
        vm.wait_ready()


@contextmanager
def shop_fault(vm: Machine, **values: Any) -> Iterator[None]:
    """Inject a fault into the warehouse, and wait until it fills the short range."""
    with vm.faults(**values):
        wait_for_short_range(vm)
        yield


def stopped(vm: Machine, service: str) -> AbstractContextManager[None]:
    """Stop a service."""
    return fault(vm, f"systemctl stop vantage-{service}", f"systemctl start vantage-{service}")


def test_a_healthy_system_gives_no_finding(report: Report) -> None:
    # A full disk is that of the machine which runs the test.
    assert [finding for finding in report() if finding["kind"] != "disk"] == []


def test_errors_in_the_warehouse_are_found(vm: Machine, report: Report) -> None:
    with shop_fault(vm, error_rate=0.25):
        findings = report()
    found = by_rule(findings)
    assert found["errors", "warehouse"]["because_of"] == ""
    assert "InjectedFault" in found["errors", "warehouse"]["text"]
    assert found["errors", "storefront"]["because_of"] == "warehouse"
    assert not others(findings, "errors")


def test_latency_in_the_warehouse_is_found(vm: Machine, report: Report) -> None:
    with shop_fault(vm, latency_ms=700):
        findings = report()
    found = by_rule(findings)
    assert found["latency", "warehouse"]["because_of"] == ""
    assert "in warehouse itself" in found["latency", "warehouse"]["text"]
    assert found["latency", "storefront"]["because_of"] == "warehouse"
    assert not others(findings, "latency")


def test_a_stopped_warehouse_is_found(vm: Machine, report: Report) -> None:
    with stopped(vm, "warehouse"):
        findings = report()
    found = by_rule(findings)
    assert found["down", "warehouse"]["severity"] == "critical"
    assert found["errors", "storefront"]["because_of"] == "warehouse"
    # A caller that waits for a missing name is slower, too.
    assert not others(findings, "down", "errors", "latency")


def test_many_invalid_orders_are_found(vm: Machine, report: Report) -> None:
    order = '{"product_id": 1, "quantity": 0}'
    send = "curl -sS -o /dev/null -H Content-Type:application/json -d @/run/vantage-trial-order.json http://127.0.0.1:8000/orders"
    start = f"systemd-run --quiet --collect --unit=vantage-trial-orders sh -c 'while true; do {send}; sleep 0.05; done'"
    with fault(
        vm,
        f"echo '{order}' > /run/vantage-trial-order.json && {start}",
        "systemctl stop vantage-trial-orders; rm /run/vantage-trial-order.json",
    ):
        findings = report()
    finding = by_rule(findings)["refusals", "storefront"]
    assert "POST /orders" in finding["text"]
    assert finding["because_of"] == ""
    assert not others(findings, "refusals", "one_client")


def test_a_restart_loop_is_found(vm: Machine, report: Report) -> None:
    kill = "while true; do docker kill --signal=KILL vantage-warehouse; sleep 15; done"
    start = f"systemd-run --quiet --collect --unit=vantage-trial-kill sh -c '{kill}'"
    with fault(vm, start, "systemctl stop vantage-trial-kill"):
        findings = report()
    finding = by_rule(findings)["restarts", "warehouse"]
    assert finding["severity"] == "critical"
    # Restarted by systemd, not by a deployment.
    assert "node_systemd_service_restart_total" in finding["proof"]["query"]
    assert not [f for f in findings if f["kind"] == "restarts" and f["service"] != "warehouse"]
    assert not others(findings, "restarts", "down", "errors", "latency", "no_answer")


def test_spans_that_a_stopped_jaeger_loses_are_found(vm: Machine, report: Report) -> None:
    with stopped(vm, "jaeger"):
        findings = report()
    found = by_rule(findings)
    assert found["silent", "jaeger"]["severity"] == "critical"
    assert "storefront" in found["lost_spans", "jaeger"]["text"]
    assert not others(findings, "silent", "lost_spans", "restarts")


def test_repeated_calls_are_found(vm: Machine, report: Report) -> None:
    """Send spans of an app that asks its database once for each of its items."""
    for number in range(12):
        vm.sh(
            f"curl -fsS -o /dev/null -H 'Content-Type: application/json' -d '{_looping_trace(number)}' http://127.0.0.1:4318/v1/traces"
        )
    wait(
        lambda: (
            len(vm.get("http://127.0.0.1:16686/api/traces", service="bookshop", lookback="5m", limit=20)["data"]) == 12
        ),
        30,
    )
    # The report leaves out the newest seconds.
    sent = now(vm)
    wait(lambda: now(vm) - sent > 8, 30)
    finding = by_rule(report())["repeated_calls", "bookshop"]
    assert "SELECT author" in finding["title"]
    assert "15 times" in finding["title"]


def _looping_trace(number: int) -> str:
    now = time.time_ns() - 2_000_000_000
    trace, root = f"{now:032x}"[-32:], f"{number + 1:016x}"

    def span(identity: str, parent: str, name: str, kind: int, start: int, length: int, **tags: str) -> dict[str, Any]:
        attributes = [{"key": key.replace("_", "."), "value": {"stringValue": value}} for key, value in tags.items()]
        return {
            "traceId": trace, "spanId": identity, "parentSpanId": parent, "name": name, "kind": kind,
            "startTimeUnixNano": str(now + start), "endTimeUnixNano": str(now + start + length), "attributes": attributes,
        }  # fmt: skip

    spans = [span(root, "", "GET /books", 2, 0, 80_000_000)]
    spans += [
        span(f"{(number + 1) * 100 + i:016x}", root, "SELECT author", 3, i * 5_000_000, 4_000_000, db_system="sqlite")
        for i in range(15)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "bookshop"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]})
