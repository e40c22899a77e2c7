"""Where the hosts of the inventory reach each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Addresses that mean the host itself, or all of its own.
OWN = ("127.", "0.0.0.0", "localhost", "::")


def host_address(host: str, hostvars: Mapping[str, Any]) -> str:
    """The address of one host: what it says, the private one its engines listen on, Ansible's, or its name."""
    variables = hostvars[host]
    engine = str(variables.get("vantage_engine_address", "127.0.0.1"))
    for address in (
        variables.get("vantage_address"),
        None if engine.startswith(OWN) else engine,
        variables.get("ansible_host"),
    ):
        if address:
            return str(address)
    return host


def host_addresses(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """The address of each host, by its name."""
    return {host: host_address(host, hostvars) for host in hosts}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"host_address": host_address, "host_addresses": host_addresses}
