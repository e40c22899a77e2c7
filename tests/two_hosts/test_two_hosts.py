"""The apps on one host, the stores on another: what the first produces is found on the second."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import testinfra
import yaml
from machine import ROOT, Machine, play, succeeded, wait

PLAYS = yaml.safe_load((ROOT / "playbooks/site.yml").read_text(encoding="utf-8"))
# vantage_engine_address of each host.
ADDRESSES = {"vantage-two-app": "172.29.239.11", "vantage-two-monitoring": "172.29.239.12"}
APP, MONITORING = ADDRESSES


def services(group: str, *, optional: bool = False) -> set[str]:
    """Return the services that site.yml runs on hosts of a group, or those that a setting may leave out."""
    roles = [role["role"] for play in PLAYS if group in play["hosts"].split(":") for role in play["roles"]]
    files = [(role, ROOT / "roles" / role / "vars/main.yml") for role in roles]
    found = [yaml.safe_load(path.read_text()).get(f"__{role}_service") for role, path in files if path.exists()]
    return {service["name"] for service in found if service and ("state" in service) == optional}


APP_SERVICES = services("app") | {"storefront", "warehouse"}
MONITORING_SERVICES = services("monitoring")
STORES = MONITORING_SERVICES - APP_SERVICES


def machine(name: str) -> Machine:
    return Machine(testinfra.get_host(f"docker://{name}"), ADDRESSES[name])


@pytest.fixture(scope="session")
def app() -> Machine:
    return machine(APP)


@pytest.fixture(scope="session")
def monitoring() -> Machine:
    return machine(MONITORING)


def test_verify_playbook_finds_a_request_to_the_other_host() -> None:
    succeeded(play(os.environ["MOLECULE_INVENTORY_FILE"], "playbooks/verify.yml"))


def test_app_host_runs_no_store(app: Machine, monitoring: Machine) -> None:
    assert {"prometheus", "loki", "jaeger"} <= STORES
    assert set(app.services) - services("app", optional=True) == APP_SERVICES
    assert set(monitoring.services) - services("monitoring", optional=True) == MONITORING_SERVICES


@pytest.mark.parametrize("name", ADDRESSES)
def test_services_listen_on_own_addresses_only(name: str) -> None:
    host = machine(name)
    allowed = ("127.", "[::1]:", *(f"{address}:" for address in host.sh("hostname -I").split()))
    listening = [line.split()[3] for line in host.sh("ss -Hltn").splitlines()]
    assert any(address.startswith(ADDRESSES[name]) for address in listening)
    # SSH is the administrator's.
    foreign = [address for address in listening if not address.startswith(allowed) and not address.endswith(":22")]
    assert not foreign, host.sh("ss -ltnp")


def test_targets_of_both_hosts_are_up(monitoring: Machine) -> None:
    def targets() -> list[dict[str, Any]]:
        return list(monitoring.get(f"{monitoring.engines}:9090/api/v1/targets")["data"]["activeTargets"])

    wait(lambda: all(target["health"] == "up" for target in targets()), 30, lambda: str(targets()))
    found = {(target["labels"].get("service_name"), target["labels"].get("host")) for target in targets()}
    assert found >= {(service, APP) for service in APP_SERVICES}
    assert found >= {(service, MONITORING) for service in MONITORING_SERVICES - STORES}
    assert found >= {(service, None) for service in STORES}


def test_request_to_the_app_host_is_found_on_the_monitoring_host(app: Machine, monitoring: Machine) -> None:
    begin = time.time()
    trace_id = app.trace_id()
    query = f'{{service_name="storefront", host="{APP}"}} | trace_id = `{trace_id}`'
    wait(lambda: monitoring.log_lines(query, begin - 60), 30, monitoring.explain)
    wait(lambda: len(monitoring.trace(trace_id).get("processes", {})) == 2, 30, monitoring.explain)
    processes = monitoring.trace(trace_id)["processes"].values()
    assert {process["serviceName"] for process in processes} == {"storefront", "warehouse"}
