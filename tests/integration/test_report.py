"""The report on the machine under test: it finds a fault and has all parts. Other faults: test_report_faults.py."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from machine import Machine, succeeded, wait

PICTURES = ["requests", "errors", "latency", "time", "services", "trace-slowest", "trace-typical", "trace-failing"]
SEND = "for i in $(seq 40); do curl -sS -o /dev/null http://127.0.0.1:8000/products; done"
FAILURES = 'http_server_request_duration_seconds_count{http_response_status_code=~"5.."}'


def send_and_wait_until_counted(vm: Machine) -> None:
    """Sends requests of which about half fails, and waits until Prometheus has scraped those of both services."""
    vm.sh(SEND)
    # No comparison with a count from before: after a reboot, which ends Prometheus and the apps at once, the series of the
    # old processes are answered for five more minutes.
    sent = vm.now()
    counted = f"sum by (service_name) ({FAILURES} and timestamp({FAILURES}) > {sent}) >= 10"

    def both() -> bool:
        # Each is scraped at a moment of its own.
        return {found["metric"]["service_name"] for found in vm.instant(counted)} == {"warehouse", "storefront"}

    wait(both, 40, lambda: f"{vm.instant(FAILURES)}\n{vm.instant('up')}\n{vm.explain()}")


def test_report_finds_errors_in_the_warehouse_and_needs_no_other_file(
    vm: Machine, playbook: Any, tmp_path: Path
) -> None:
    vm.wait_ready()
    with vm.faults(error_rate=0.5):
        send_and_wait_until_counted(vm)
        # A counter that was there before the window needs a second scrape to be seen growing.
        send_and_wait_until_counted(vm)
    begin = time.monotonic()
    succeeded(playbook("playbooks/report.yml", report_dir=str(tmp_path), report_short="3m", report_long="15m"))
    assert time.monotonic() - begin < 60

    found = {
        (f["kind"], f["service"]): f for f in json.loads((tmp_path / "findings.json").read_text()) if f["until"] is None
    }
    assert found["errors", "warehouse"]["because_of"] == ""
    assert "InjectedFault" in found["errors", "warehouse"]["text"]
    assert found["errors", "storefront"]["because_of"] == "warehouse"

    page = (tmp_path / "report.html").read_text()
    assert not re.findall(r'(?:src|srcset)="(?!data:)|<link|@import|url\(', page)
    for name in PICTURES:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
        assert f"({name}.png)" in (tmp_path / "report.md").read_text()
    assert page.count("data:image/png;base64,") == len(PICTURES)
    # The error's pattern, its lines and an example trace.
    assert "shop.faults.InjectedFault: injected by /faults" in page
    assert "http_response_status_code &gt;= 500" in page
