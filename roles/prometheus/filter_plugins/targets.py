"""Scrape targets from the inventory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.plugins.loader import filter_loader


def host_targets(
    addresses: Mapping[str, str], here: str, hostvars: Mapping[str, Any], service: str, local: str, port: int
) -> list[dict[str, Any]]:
    """`static_configs` of a service that runs on every host.

    `addresses` are those of all hosts by name. On Prometheus' own host the service is `local`; on the others its port is
    that host's `<service>_port`, or `port` where it says nothing.
    """
    variable = service.replace("-", "_") + "_port"
    return [
        {
            "targets": [local if host == here else f"{address}:{hostvars[host].get(variable, port)}"],
            "labels": {"service_name": service, "host": host},
        }
        for host, address in addresses.items()
    ]


def app_targets(
    addresses: Mapping[str, str],
    here: str,
    hostvars: Mapping[str, Any],
    hosts: Iterable[str],
    apps: Iterable[Mapping[str, Any]],
    exposed: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """`static_configs` of the apps of `hosts`; `apps` are those of a host that sets no `vantage_apps` itself.

    `exposed` are the ports that the images here expose, by app.
    """
    configs = []
    for host, app in apps_of(here, hostvars, hosts, apps):
        if not filter_loader.get("is_scraped").j2_function(app):
            continue
        services = filter_loader.get("app_services").j2_function([app])
        for service in services:
            port = filter_loader.get("container_port").j2_function(app, exposed or {})
            local = f"{service['name']}:{port}"
            labels = {"service_name": app["name"], "host": host}
            if "metrics_path" in app:
                labels["__metrics_path__"] = app["metrics_path"]
            if len(services) > 1 and host == here:
                # The app's name is that of all replicas, the container's of one.
                labels["instance"], local = local, f"vantage-{local}"
            target = local if host == here else f"{addresses[host]}:{service['port']}"
            configs.append({"targets": [target], "labels": labels})
    return configs


def unscraped_apps(
    here: str, hostvars: Mapping[str, Any], hosts: Iterable[str], apps: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Names of the apps that Prometheus does not scrape; their requests are known where they send spans."""
    is_scraped = filter_loader.get("is_scraped").j2_function
    return sorted({str(app["name"]) for _, app in apps_of(here, hostvars, hosts, apps) if not is_scraped(app)})


def apps_of(
    here: str, hostvars: Mapping[str, Any], hosts: Iterable[str], apps: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield host and app; `apps` are those of a host that sets no `vantage_apps` itself."""
    for host in hosts:
        for app in hostvars[host].get("vantage_apps", apps) if host != here else apps:
            yield host, app


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"host_targets": host_targets, "app_targets": app_targets, "unscraped_apps": unscraped_apps}
