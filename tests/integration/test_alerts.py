"""Rules are evaluated without error, and an alert goes the whole way to a receiver on the machine."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from machine import Machine, wait

# A service of its own for each run: a group that was just told of waits five minutes before it says more.
SERVICE = f"trial-{uuid.uuid4().hex[:8]}"
RULE = f"""groups:
  - name: trial
    rules:
      - alert: VantageTrial
        expr: vector(1)
        labels: {{severity: critical, service_name: {SERVICE}}}
        annotations: {{summary: a trial}}
"""
RULE_FILE = "/etc/vantage/prometheus/rules/trial.yml"
# Where the scenario's receiver `trial` sends to: the Docker network's gateway, which is the machine itself.
RECEIVER = """
import http.server
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/run/vantage-trial.jsonl", "ab") as file:
            file.write(body.strip() + b"\\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("172.29.238.1", 9199), Receiver).serve_forever()
"""
SECONDS = 90


@pytest.fixture
def received(vm: Machine) -> Iterator[Any]:
    """Returns all messages that the receiver has got so far."""
    if "name: trial" not in vm.sh("cat /etc/vantage/alertmanager/alertmanager.yml"):
        pytest.skip("the inventory of this machine has no receiver `trial`; molecule's scenario has")
    vm.sh(f"rm -f /run/vantage-trial.jsonl; cat > /run/vantage-trial.py <<'END'\n{RECEIVER}\nEND")
    vm.sh("systemd-run --quiet --unit=vantage-trial-receiver /usr/bin/python3 /run/vantage-trial.py")
    yield lambda: [json.loads(line) for line in vm.try_sh("cat /run/vantage-trial.jsonl 2>/dev/null").splitlines()]
    vm.sh("systemctl stop vantage-trial-receiver; rm -f /run/vantage-trial.*")


def rules(vm: Machine) -> list[dict[str, Any]]:
    return [rule for group in vm.get("http://127.0.0.1:9090/api/v1/rules")["data"]["groups"] for rule in group["rules"]]


def reload(vm: Machine) -> None:
    vm.sh("docker kill --signal=HUP vantage-prometheus")


def test_every_rule_is_evaluated_without_error(vm: Machine) -> None:
    wait(lambda: all(rule["health"] != "unknown" for rule in rules(vm)), 150, lambda: str(rules(vm)))
    found = rules(vm)
    assert len(found) > 60
    assert not [(rule["name"], rule["lastError"]) for rule in found if rule["health"] != "ok"]


def test_a_request_shows_in_the_recorded_series(vm: Machine) -> None:
    recorded = [
        'service_name:http_server_requests:rate5m{service_name="warehouse"} > 0',
        'service_name_http_route:http_server_requests:rate5m{service_name="warehouse", http_route="/products"} > 0',
        'service_name:http_server_request_duration_seconds:p95_5m{service_name="storefront"} > 0',
        'service_name:slo_availability_burn:rate5m{service_name="storefront"} >= 0',
        'service_name:slo_latency_burn:rate1h{service_name="storefront"} >= 0',
    ]

    def missing() -> list[str]:
        vm.trace_id()
        return [query for query in recorded if not vm.instant(query)]

    wait(lambda: not missing(), 120, lambda: str(missing()))


def test_watchdog_reaches_alertmanager(vm: Machine) -> None:
    wait(
        lambda: "Watchdog" in {alert["labels"]["alertname"] for alert in vm.get("http://127.0.0.1:9093/api/v2/alerts")},
        SECONDS,
    )


def test_an_alert_reaches_a_webhook_within_90_seconds(vm: Machine, received: Any) -> None:
    begin = time.monotonic()
    vm.sh(f"cat > {RULE_FILE} <<'END'\n{RULE}END")
    try:
        reload(vm)
        wait(received, SECONDS, lambda: vm.try_sh("journalctl -u vantage-alertmanager -n 20 --no-pager -o cat"))
        took = time.monotonic() - begin
    finally:
        vm.sh(f"rm {RULE_FILE}")
        reload(vm)
    message = received()[0]
    assert message["receiver"] == "trial"
    assert message["status"] == "firing"
    (alert,) = message["alerts"]
    assert alert["labels"]["service_name"] == SERVICE
    assert alert["annotations"]["summary"] == "a trial"
    print(f"the alert took {took:.0f} s")
    # Nothing of the trial stays behind.
    wait(lambda: "VantageTrial" not in {rule["name"] for rule in rules(vm)}, 30)
    assert not vm.sh("/usr/local/lib/vantage/vantage_unit.py --check apply prometheus").strip()
