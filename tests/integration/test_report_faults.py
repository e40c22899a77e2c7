"""Each fault that is switched on in a running system is named by the report, and a quiet system gives nothing.

It takes a quarter of an hour: `vantage test-report` brings up a machine of its own for it. The windows are shorter than a
person's, and each fault is the only thing that goes on in the short one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import Machine, wait

SHORT, LONG = 60, 900
# The first scrape after the fault, and the last spans on their way.
SETTLE = 20
# What follows from failures by itself, budgets that burn and alerts that stay for some minutes; and the disk of whoever runs this.
FOLLOWS = {"slo", "alert", "disk"}

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

Report = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module", autouse=True)
def visitors(vm: Machine) -> Iterator[None]:
    """People in the shop, the same ones each time, long enough for a quiet window and a time before it."""
    vm.wait_ready()
    image = vm.sh("docker inspect --format '{{.Config.Image}}' vantage-storefront").strip()
    shop = "--url http://storefront:8000 --warehouse http://warehouse:8000"
    vm.sh("systemctl stop vantage-trial-visitors 2>/dev/null; docker rm -f trial-visitors >/dev/null 2>&1; true")
    vm.sh("curl -sS -o /dev/null -X DELETE http://127.0.0.1:8001/faults")
    vm.sh(
        "systemd-run --quiet --collect --unit=vantage-trial-visitors docker run --rm --name trial-visitors --network vantage "
        f"--entrypoint python3 {image} -m shop.traffic {shop} --rounds 0 --users 6 --pace 2 --seed 7"
    )
    begin = time.monotonic()
    served = 'sum(increase(http_server_request_duration_seconds_count{service_name="storefront"}[3m]))'
    # A machine that was just made has starts and first requests in the window; they have to leave it.
    wait(lambda: time.monotonic() - begin > SHORT * 3 and float(vm.instant(served)[0]["value"][1]) > 200, SHORT * 6)
    yield
    vm.sh("systemctl stop vantage-trial-visitors; docker rm -f trial-visitors >/dev/null 2>&1; true")


@pytest.fixture
def report(playbook: Any, tmp_path: Path) -> Report:
    """Runs the report as a person does; what it found that goes on."""

    def run() -> list[dict[str, Any]]:
        done = playbook(
            "playbooks/report.yml",
            "-e",
            f"report_dir={tmp_path}",
            "-e",
            f"report_short={SHORT}s",
            "-e",
            f"report_long={LONG}s",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "report.html").stat().st_size > 20_000
        print("\n".join(line for line in done.stdout.splitlines() if line.startswith("report:")))
        found = json.loads((tmp_path / "findings.json").read_text())
        return [finding for finding in found if finding["until"] is None]

    return run


def named(findings: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(finding["kind"], finding["service"]): finding for finding in findings}


def others(findings: list[dict[str, Any]], *expected: str) -> list[str]:
    """What was found besides the kinds that this fault explains."""
    return [f"{f['kind']}: {f['title']}. {f['text']}" for f in findings if f["kind"] not in {*expected, *FOLLOWS}]


def faults(vm: Machine, **values: Any) -> None:
    """Switch the warehouse's faults; without any, off."""
    url = "http://127.0.0.1:8001/faults"
    if values:
        vm.sh(f"curl -fsS -X PUT {url} -H 'Content-Type: application/json' -d '{json.dumps(values)}'")
    else:
        vm.sh(f"curl -fsS -X DELETE {url}")


def test_a_quiet_system_gives_no_finding(report: Report) -> None:
    # A disk that is almost full is that of the machine which runs the test: no fault of the system.
    assert [finding for finding in report() if finding["kind"] != "disk"] == []


def test_errors_in_the_warehouse_are_named(vm: Machine, report: Report) -> None:
    faults(vm, error_rate=0.25)
    try:
        time.sleep(SHORT + SETTLE)
        findings = report()
    finally:
        faults(vm)
    found = named(findings)
    assert found["errors", "warehouse"]["because_of"] == ""
    assert "InjectedFault" in found["errors", "warehouse"]["text"]
    assert found["errors", "storefront"]["because_of"] == "warehouse"
    assert not others(findings, "errors")


def test_latency_in_the_warehouse_is_named(vm: Machine, report: Report) -> None:
    faults(vm, latency_ms=700)
    try:
        time.sleep(SHORT + SETTLE)
        findings = report()
    finally:
        faults(vm)
    found = named(findings)
    assert "goes in warehouse itself" in found["latency", "warehouse"]["text"]
    assert found["latency", "storefront"]["because_of"] == "warehouse"
    assert not others(findings, "latency")


def test_a_stopped_warehouse_is_named(vm: Machine, report: Report) -> None:
    vm.sh("systemctl stop vantage-warehouse")
    try:
        time.sleep(SHORT + SETTLE)
        findings = report()
    finally:
        vm.sh("systemctl start vantage-warehouse")
        vm.wait_ready()
    found = named(findings)
    assert found["down", "warehouse"]["severity"] == "critical"
    assert found["errors", "storefront"]["because_of"] == "warehouse"
    # Who waits for a name that is gone is slower, too.
    assert not others(findings, "down", "errors", "latency")


def test_a_flood_of_invalid_orders_is_named(vm: Machine, report: Report) -> None:
    order = '{"product_id": 1, "quantity": 0}'
    ask = "curl -sS -o /dev/null -H Content-Type:application/json -d @/run/vantage-trial-order.json http://127.0.0.1:8000/orders"
    vm.sh(f"echo '{order}' > /run/vantage-trial-order.json")
    vm.sh(f"systemd-run --quiet --collect --unit=vantage-trial-flood sh -c 'while true; do {ask}; sleep 0.05; done'")
    try:
        time.sleep(SHORT + SETTLE)
        findings = report()
    finally:
        vm.sh("systemctl stop vantage-trial-flood; rm /run/vantage-trial-order.json")
    finding = named(findings)["refusals", "storefront"]
    assert "POST /orders" in finding["text"]
    assert finding["because_of"] == ""
    assert not others(findings, "refusals", "one_client")


def test_a_process_that_ends_again_and_again_is_named(vm: Machine, report: Report) -> None:
    end = time.monotonic() + SHORT + SETTLE
    while time.monotonic() < end:
        vm.try_sh("docker kill --signal=KILL vantage-warehouse")
        time.sleep(15)
    findings = report()
    vm.wait_ready()
    finding = named(findings)["restarts", "warehouse"]
    assert finding["severity"] == "critical"
    assert "ended by itself" in finding["text"]
    assert not [f for f in findings if f["kind"] == "restarts" and f["service"] != "warehouse"]
    assert not others(findings, "restarts", "down", "errors", "latency", "no_answer")


def test_spans_that_a_stopped_jaeger_cannot_take_are_named(vm: Machine, report: Report) -> None:
    vm.sh("systemctl stop vantage-jaeger")
    try:
        time.sleep(SHORT + SETTLE)
        findings = report()
    finally:
        vm.sh("systemctl start vantage-jaeger")
        vm.wait_ready()
    found = named(findings)
    assert found["silent", "jaeger"]["severity"] == "critical"
    assert "storefront" in found["lost_spans", "jaeger"]["text"]
    assert not others(findings, "silent", "lost_spans", "restarts")


def test_calls_in_a_loop_are_named(vm: Machine, report: Report) -> None:
    """Spans of an app that asks its database once for each of its items, sent as any app sends them."""
    begin = time.time()
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
    time.sleep(max(0.0, 10 - (time.time() - begin)))
    finding = named(report())["repeated_calls", "bookshop"]
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
