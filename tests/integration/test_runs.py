"""site.yml on a converged host: no change, exact differences in check mode, invalid input changes nothing."""

from __future__ import annotations

import re

import pytest
from machine import Machine, refused, succeeded

# Everything that site.yml writes, and what runs.
SNAPSHOT = (
    "{ find /etc/vantage /etc/systemd/system /usr/local/lib/vantage -type f -exec sha256sum {} +; "
    "docker ps --no-trunc --format '{{.ID}} {{.Names}}' | sort -k2; }"
)
# What the next run would apply.
PENDING = "for service in loki prometheus; do /usr/local/lib/vantage/vantage_unit.py --check apply $service; done"


def changed(output: str) -> int:
    return sum(int(count) for count in re.findall(r"changed=(\d+)", output))


def test_check_mode_reports_exactly_the_drift_and_the_next_run_applies_it(vm: Machine, playbook) -> None:
    vm.sh("sed -i 's/retention_period: .*/retention_period: 1h/' /etc/vantage/loki/loki.yml")
    # The file is what site.yml would write, but Prometheus has not read it: as after a run that died in between.
    vm.sh("touch /etc/vantage/prometheus/rules/left-over.yml")
    vm.sh("systemctl reload vantage-prometheus && rm /etc/vantage/prometheus/rules/left-over.yml")
    before = vm.sh(SNAPSHOT)
    output = succeeded(playbook("site.yml", "--check", "--diff"))
    assert re.findall(r"^\+(\s*retention_period.*)$", output, re.MULTILINE), output
    assert output.count("+++ after") == 1, output
    assert "prometheus reload" in output, output
    # The tasks of Loki and Prometheus.
    assert changed(output) == 2, output
    assert vm.sh(SNAPSHOT) == before
    assert vm.sh(PENDING).split("\n") == ["loki restart", "prometheus reload", ""]
    repaired = ("--tags", "loki,prometheus")
    succeeded(playbook("site.yml", *repaired))
    assert "retention_period: 1h" not in vm.sh("cat /etc/vantage/loki/loki.yml")
    assert vm.sh(PENDING) == ""
    assert changed(succeeded(playbook("site.yml", "--check", "--diff", *repaired))) == 0


BAD = {
    "wrong type of a shared setting": ("preflight", {"vantage_ready_seconds": "soon"}, ["vantage_ready_seconds", "soon"]),
    "too little memory": ("preflight", {"preflight_memory_mb": 99999999}, ["99999999", "preflight_memory_mb"]),
    "missing image": ("prometheus", {"prometheus_image": "docker.io/prom/prometheus:v0.0.0"}, ["prom/prometheus:v0.0.0", "image", "make images"]),
    "broken Prometheus config": ("prometheus", {"prometheus_config_overrides": {"scrape_configs": [{"job_name": 7, "nonsense": 1}]}}, ["nonsense"]),
    "broken Loki config": ("loki", {"loki_config_overrides": {"ingester": {"nonsense": True}}}, ["nonsense"]),
    "broken Promtail config": ("promtail", {"promtail_config_overrides": {"clients": [{"urll": "x"}]}}, ["urll"]),
    "broken Jaeger config": ("jaeger", {"jaeger_config_overrides": {"exporters": {"nonsense": {}}}}, ["nonsense"]),
    "broken Alertmanager config": ("alertmanager", {"alertmanager_config_overrides": {"route": {"receiver": "missing-one"}}}, ["missing-one"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_invalid_input_changes_nothing(vm: Machine, playbook, case: str) -> None:
    tags, variables, words = BAD[case]
    before = vm.sh(SNAPSHOT)
    refused(playbook("site.yml", "--tags", tags, **variables), *words)
    assert vm.sh(SNAPSHOT) == before
    assert not vm.not_ready(), vm.explain()


def test_port_in_use_is_refused_with_the_program_that_uses_it(vm: Machine, playbook) -> None:
    vm.sh("systemd-run --quiet --unit=port-thief /usr/bin/python3 -m http.server 9999 --bind 127.0.0.1")
    before = vm.sh(SNAPSHOT)
    try:
        vm.sh("for i in $(seq 50); do ss -Hltn 'sport = :9999' | grep -q . && break; sleep 0.1; done")
        output = refused(playbook("site.yml", "--tags", "preflight", loki_port=9999), "python3")
    finally:
        vm.sh("systemctl stop port-thief")
    assert re.search(r"loki_port: (127\.0\.0\.1|0\.0\.0\.0):9999", output), output
    files = [line for line in vm.sh(SNAPSHOT).splitlines() if "/" in line]
    assert files == [line for line in before.splitlines() if "/" in line]
