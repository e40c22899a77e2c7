"""Which ports of the VM are published on this machine: those of VANTAGE_PORTS, else those that the inventory's apps need."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vantage_tools.errors import UserError
from vantage_tools.paths import ROLES, ROOT
from vantage_tools.process import output

ENGINE_PORTS = (
    *("grafana_port", "prometheus_port", "alertmanager_port", "loki_port"),
    *("jaeger_port", "jaeger_otlp_grpc_port", "jaeger_otlp_http_port"),
)
MAX_PORT = 65535


class PortMapping(NamedTuple):
    """A port of this machine that leads to a port of the VM."""

    host: int
    guest: int

    def __str__(self) -> str:
        return str(self.guest) if self.host == self.guest else f"{self.host}:{self.guest}"


def parse(text: str) -> list[PortMapping]:
    """Return the mappings that VANTAGE_PORTS names, without repetitions; raise UserError for what is not a port."""
    found = []
    for entry in text.split():
        is_mapping = re.fullmatch(r"([1-9]\d{0,4}:)?[1-9]\d{0,4}", entry)
        mapped = [int(port) for port in entry.split(":")] if is_mapping else [MAX_PORT + 1]
        if max(mapped) > MAX_PORT:
            raise UserError(
                f"VANTAGE_PORTS: invalid port: {entry} (PORT or HOST:PORT, each 1-{MAX_PORT}).",
                'for example VANTAGE_PORTS="13000:3000 8000"',
            )
        found.append(PortMapping(mapped[0], mapped[-1]))
    return list(dict.fromkeys(found))


def app_ports(variables: Mapping[str, Any]) -> list[int]:
    """Return the ports of the apps that a host's variables define, one for each replica; raise ValueError if unknown."""
    apps = variables.get("vantage_apps")
    if apps is None and (variables.get("flask_app_source") or variables.get("flask_app_image")):
        apps = [{"port": variables.get("flask_app_port", 8000), "replicas": variables.get("flask_app_replicas", 1)}]
    if apps is None:
        apps = yaml.safe_load((ROLES / "vantage/vars/main.yml").read_text(encoding="utf-8"))["__vantage_demo_apps"]
    found: list[int] = []
    for app in apps:
        if "port" in app:
            port = int(app["port"])
            found += range(port, port + int(app.get("replicas") or 1))
    return sorted(found)


def of_inventory(inventory: Path, host: str) -> list[PortMapping]:
    """Return the ports that VANTAGE_PORTS names, else those of the engines and of the inventory's apps."""
    if "VANTAGE_PORTS" in os.environ:
        return parse(os.environ["VANTAGE_PORTS"])
    defaults = yaml.safe_load((ROLES / "vantage/defaults/main.yml").read_text(encoding="utf-8"))
    try:
        variables = json.loads(output("ansible-inventory", "-i", inventory, "--host", host))
        ports = [int(variables.get(name, defaults[name])) for name in ENGINE_PORTS] + app_ports(variables)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot determine the ports of {inventory}: {error}. Port mappings are fixed at creation.",
            "give each engine and app its port, and each app its replicas, as plain numbers, or name the ports: "
            'VANTAGE_PORTS="3000 9090 8000" make up',
        ) from error
    return [PortMapping(port, port) for port in dict.fromkeys(ports)]


def of_vagrantfile() -> list[PortMapping]:
    """Return the ports that VANTAGE_PORTS names, else the Vagrantfile's default."""
    default = re.search(r'fetch\("VANTAGE_PORTS", "(.*)"\)', (ROOT / "Vagrantfile").read_text(encoding="utf-8"))
    return parse(os.environ.get("VANTAGE_PORTS", default[1] if default else ""))


def refuse_new(published: Mapping[int, int], name: str) -> None:
    """Raise UserError if VANTAGE_PORTS names a port that the existing container `name` does not publish."""
    wanted = parse(os.environ.get("VANTAGE_PORTS", ""))
    missing = [str(mapping) for mapping in wanted if published.get(mapping.guest) != mapping.host]
    if missing:
        raise UserError(
            f"VANTAGE_PORTS: VM {name} exists and does not publish {' '.join(missing)}. Port mappings are fixed at creation.",
            "unset VANTAGE_PORTS to use the VM as it is, or recreate it, which deletes its data: make down, then retry.",
        )
