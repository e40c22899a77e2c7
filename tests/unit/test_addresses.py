"""Where hosts of an inventory find each other."""

from __future__ import annotations

import pytest
import yaml
from rendering import ROLES, Host, load

TWO = {
    "inventory_hostname": "mon",
    "groups": {"all": ["web", "mon", "stranger"], "app": ["web"], "monitoring": ["mon"]},
}
TEMPLATE = ROLES / "prometheus/templates/prometheus.yml.j2"


def targets(hostvars: dict[str, dict[str, object]], **given: object) -> dict[str, set[str]]:
    config = yaml.safe_load(Host("prometheus", **TWO, hostvars=hostvars, **given).render(TEMPLATE))
    return {
        job["job_name"]: {target for group in job["static_configs"] for target in group["targets"]}
        for job in config["scrape_configs"]
    }


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"ansible_host": "203.0.113.8"}, "203.0.113.8"),
        ({"ansible_host": "203.0.113.8", "vantage_engine_address": "10.0.0.8"}, "10.0.0.8"),
        ({"ansible_host": "203.0.113.8", "vantage_engine_address": "127.0.0.1"}, "203.0.113.8"),
        ({"vantage_engine_address": "10.0.0.8", "vantage_address": "10.9.9.9"}, "10.9.9.9"),
        ({}, "web"),
    ],
)
def test_the_private_address_comes_before_the_one_of_ssh(variables: dict[str, object], address: str) -> None:
    assert f"{address}:9100" in targets({"web": variables, "mon": {}, "stranger": {}})["node_exporter"]


def test_a_host_outside_both_groups_is_left_alone() -> None:
    found = targets({"web": {}, "mon": {}, "stranger": {"ansible_host": "203.0.113.99"}})
    assert not [target for job in found.values() for target in job if "203.0.113.99" in target or "stranger" in target]


def test_another_hosts_own_ports_are_used() -> None:
    found = targets({"web": {"ansible_host": "10.0.0.8", "node_exporter_port": 9200, "promtail_port": 9180}, "mon": {}})
    assert "10.0.0.8:9200" in found["node_exporter"]
    assert "10.0.0.8:9180" in found["promtail"]


def test_this_hosts_own_port_of_node_exporter_is_used() -> None:
    assert "172.29.238.1:9200" in targets({"web": {}, "mon": {}}, node_exporter_port=9200)["node_exporter"]


def test_a_host_without_a_port_of_its_own_has_the_default_and_not_the_one_of_this_host() -> None:
    ports = {f"{role}_port": 1234 for role in ("promtail", "node_exporter", "loki", "jaeger_otlp_http")}
    found = targets({"web": {"ansible_host": "10.0.0.8"}, "mon": ports}, **ports)
    default = load(ROLES / "vantage/defaults/main.yml")
    assert f"10.0.0.8:{default['promtail_port']}" in found["promtail"]
    assert f"10.0.0.8:{default['node_exporter_port']}" in found["node_exporter"]
    web = TWO | {"inventory_hostname": "web", "hostvars": {"web": ports, "mon": {}}} | ports
    for role, setting, port in (
        ("promtail", "promtail_loki_url", "loki_port"),
        ("flask_app", "flask_app_otlp_endpoint", "jaeger_otlp_http_port"),
    ):
        host = Host(role, **web)
        assert f"http://mon:{default[port]}" in host.value(host.variables[setting])
