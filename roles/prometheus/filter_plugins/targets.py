"""Scrape targets from the inventory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def address(host: str, hostvars: Mapping[str, Any]) -> str:
    """Where another host of the inventory is reached."""
    variables = hostvars[host]
    return str(variables.get("vantage_address") or variables.get("ansible_host") or host)


def host_targets(
    hosts: Iterable[str], here: str, hostvars: Mapping[str, Any], service: str, local: str, port: int
) -> list[dict[str, Any]]:
    """`static_configs` of a service that runs on every host.

    `local` is its address as Prometheus' own host knows it; on the others it is the host's address and `port`.
    """
    return [
        {
            "targets": [local if host == here else f"{address(host, hostvars)}:{port}"],
            "labels": {"service_name": service, "host": host},
        }
        for host in hosts
    ]


def app_targets(
    hosts: Iterable[str], here: str, hostvars: Mapping[str, Any], apps: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """`static_configs` of the apps of every host; `apps` are those of a host that sets no `vantage_apps` itself."""
    configs = []
    for host in hosts:
        for app in hostvars[host].get("vantage_apps", apps) if host != here else apps:
            if not app.get("metrics", True):
                continue
            local = f"{app['name']}:{app.get('container_port', 8000)}"
            labels = {"service_name": app["name"], "host": host}
            if "metrics_path" in app:
                labels["__metrics_path__"] = app["metrics_path"]
            configs.append(
                {"targets": [local if host == here else f"{address(host, hostvars)}:{app['port']}"], "labels": labels}
            )
    return configs


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"host_targets": host_targets, "app_targets": app_targets}
