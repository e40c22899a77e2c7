"""Checks that the host has each address that a service is to listen on, and that each port is free or its own."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

ROLES = Path(__file__).resolve().parents[2]
EVERY_ADDRESS = {"0.0.0.0", "::", "*"}


class Port(NamedTuple):
    """A port that a service is to listen on, and the setting that says so."""

    service: str
    setting: str
    address: str
    number: int
    is_app: bool = False


def roles_of(groups: list[str]) -> set[str]:
    """The roles that playbooks/site.yml runs on a host of these groups."""
    plays = yaml_load((ROLES.parent / "playbooks/site.yml").read_text(encoding="utf-8"))
    return {entry["role"] for play in plays if set(play["hosts"].split(":")) & set(groups) for entry in play["roles"]}


def overlaps(one: str, other: str) -> bool:
    """Whether two listening addresses exclude each other on the same port."""
    return one == other or bool({one, other} & EVERY_ADDRESS)


def engine_ports(settings: dict[str, Any], groups: list[str]) -> list[Port]:
    """The ports of the roles that run on a host of these groups, by their settings `<role>_…port`."""
    ports = []
    for role in sorted(roles_of(groups) - {"flask_app"}):
        if not boolean(settings.get(f"{role}_enabled", True)):
            continue
        address = settings["vantage_publish_address" if role == "grafana" else "vantage_engine_address"]
        names = [name for name in settings if name.startswith(f"{role}_") and name.endswith("_port")]
        ports += [Port(role.replace("_", "-"), name, address, int(settings[name])) for name in names]
    return ports


def app_ports(services: list[dict[str, Any]], address: str) -> list[Port]:
    """The ports of the apps and their replicas; `address` where an app sets none."""
    return [
        Port(
            service["name"],
            f"port of app {service['app']}" + (f", replica {service['number']}" if service["replica_of"] else ""),
            service["address"] or address,
            int(service["port"]),
            is_app=True,
        )
        for service in services
    ]


def port_problems(wanted: list[Port], state: dict[str, Any], host: str) -> list[str]:
    """One line for each port that two services want, or that is in use by something else."""
    problems: list[str] = []
    for number, port in enumerate(wanted):
        problems += [
            f"{port.setting} and {other.setting} are both {port.number}. Set one of them to another port."
            for other in wanted[:number]
            if other.number == port.number and overlaps(other.address, port.address)
        ]
        # An app that is removed or moved releases its port before this one starts.
        own = {f"vantage-{service}" for service in [port.service, *(state["apps"] if port.is_app else [])]}
        problems += [
            f"{port.setting}: {listener['address']}:{port.number} on {host} is already in use by {listener['holder']}. "
            f"Stop it, or set another port for {port.service}."
            for listener in state["listeners"]
            if listener["port"] == port.number
            and listener["container"] not in own
            and overlaps(listener["address"], port.address)
        ]
    return problems


def address_problems(wanted: dict[str, str], local: list[str], host: str) -> list[str]:
    """One line for each setting whose address the host does not have; all pass if `local` is empty."""
    if not local:
        return []
    own = {ip_address(address) for address in local}
    shown = ", ".join(
        str(address) for address in sorted(own, key=str) if not (address.is_loopback or address.is_link_local)
    )
    return [
        f"{setting}: {host} does not have the address {address}. Set one that it has ({shown}), or 0.0.0.0 for all."
        for setting, address in wanted.items()
        if not (ip_address(address).is_loopback or ip_address(address).is_unspecified or ip_address(address) in own)
    ]


class ActionModule(ActionBase):
    """Arguments: `state`, printed by gather_host_state.py on the host, and `services`, those of the apps."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result, variables = super().run(tmp, task_vars), task_vars or {}
        groups, settings = variables.get("group_names", []), self.settings(variables)
        state, host = self._task.args["state"], variables["inventory_hostname"]
        addresses = {name: settings[name] for name in ("vantage_publish_address", "vantage_engine_address")}
        wanted = engine_ports(settings, groups)
        if "app" in groups:
            services = self._task.args["services"]
            wanted += app_ports(services, settings["vantage_publish_address"])
            addresses |= {f"address of app {s['app']}": s["address"] for s in services if s["address"]}
        problems = address_problems(addresses, state["addresses"], host) + port_problems(wanted, state, host)
        if problems:
            return result | {"failed": True, "msg": "\n".join([*problems, "Nothing was changed."])}
        return result | {"changed": False}

    def settings(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The ports, the addresses and which roles run a service, from the roles' defaults and the host's variables over them."""
        settings: dict[str, Any] = {}
        for path in ROLES.glob("*/defaults/main.yml"):
            settings |= yaml_load(path.read_text(encoding="utf-8"))
        used = {name for name in settings if name.endswith(("_port", "_address", "_enabled"))}
        return {name: self._templar.template(variables.get(name, settings[name])) for name in sorted(used)}
