"""Where the services of the VM are on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vantage_tools.errors import UserError
from vantage_tools.vm.machine import Machine

NO_GRAFANA = UserError(
    "Grafana is not installed: its image is in no registry that answers, and in no package registry.",
    "save the image on another machine, then VANTAGE_GRAFANA_ARCHIVE=grafana.tar.gz make up",
)
# The port in the container of the page, or API, that a person opens.
PAGES = {"grafana": 3000, "prometheus": 9090, "jaeger": 16686, "loki": 3100}


def page_ports(services: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the port on the VM of each engine that has a page."""
    return {
        service["service"]: int(port["host"])
        for service in services
        for port in service["ports"]
        if PAGES.get(service["service"]) == port["container"]
    }


def app_ports(services: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Return each app and replica with its port on the VM, in the order of the ports."""
    found = [
        (service["service"], int(service["ports"][0]["host"]))
        for service in services
        if service["owner"] == "flask_app" and service["ports"]
    ]
    return sorted(found, key=lambda pair: pair[1])


def describe(machine: Machine, services: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    published = machine.published()

    def row(name: str, port: int, note: str = "") -> str:
        if port in published:
            return f"  {name:<16}http://localhost:{published[port]}/{note}"
        return f"  {name:<16}port {port} of the VM, not published on this machine"

    apps = app_ports(services)
    yield from (row(name, port) for name, port in apps)
    if missing := [port for _, port in apps if port not in published]:
        ports = " ".join(f"{host}:{guest}" for guest, host in published.items()) + "".join(
            f" {port}" for port in missing
        )
        yield f"  {'':<16}Port mappings are fixed at creation. To recreate the VM, which deletes its data:"
        yield f'  {"":<16}make down, then VANTAGE_PORTS="{ports}" make up'
    pages = page_ports(services)
    if grafana := pages.pop("grafana", None):
        yield row("grafana", grafana, "   user admin, password: make password")
    yield from (
        row(name, port, "   API" if name == "loki" else "") for name, port in pages.items() if port in published
    )
    yield ""
    yield '  Start with Grafana, dashboard "Service overview".' if grafana else f"  {NO_GRAFANA}".replace("\n", "\n  ")
    yield "  Next: make verify, make status, make logs S=SERVICE, make down"
