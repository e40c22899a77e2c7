"""Checks what the host has of Docker, and what installing or starting it would do to others."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.action import ActionBase

ROLES = Path(__file__).resolve().parents[2]
DOCKER = "/usr/bin/docker"
NETWORK = "vantage"
# The network's interface, which stays while Docker is stopped.
BRIDGE = "vantage0"
# The packages that each source installs, and those that they exclude although these do not say so themselves.
WANTED = {
    "distribution": {"docker.io", "containerd", "runc"},
    "docker": {"docker-ce", "docker-ce-cli", "containerd.io"},
}
EXCLUDED = {
    "distribution": {"containerd.io", "docker-ce", "docker-ce-cli"},
    "docker": {"docker.io", "containerd", "runc", "podman-docker", "moby-engine", "moby-containerd"},
}
ADVICE = {
    "containerd.io": "Set docker_source to docker, whose packages use this containerd.io",
    "podman-docker": "Remove it if /usr/bin/docker need not be Podman (apt-get remove podman-docker keeps Podman)",
}
# A default route may be written as two halves.
MIN_ROUTE_PREFIX = 8
FREE_SUBNETS = ("172.29.238.0/24", "172.30.238.0/24", "192.168.238.0/24", "10.238.29.0/24", "198.18.238.0/24")


def problems_of_engine(engine: dict[str, Any], source: str, host: str) -> list[str]:
    """Why Docker, if it is there, cannot run the units, or why it cannot be installed."""
    docker = engine["docker"]
    if not engine["dockerd"]:
        return problems_of_installation(engine, source, host)
    problems = []
    if docker != DOCKER:
        fix = f"ln -s {docker} {DOCKER}" if docker else "install the client of this Docker"
        problems.append(f"docker on {host} is {docker or 'missing'} ({DOCKER}, which the units call). Fix: {fix}.")
    if engine["unit"] == "not-found":
        problems.append(
            f"docker.service on {host} is missing (units require it; dockerd is {engine['dockerd']}). Add a systemd unit "
            "with this name that runs dockerd, or remove this Docker so that the role installs it."
        )
    if any("name=userns" in option for option in engine["security"]):
        problems.append(
            f"userns-remap of Docker on {host}: node_exporter could not use the host's network, and the data would belong "
            "to other users than the engines. Remove userns-remap from /etc/docker/daemon.json and restart Docker, "
            "or use another host."
        )
    if any("name=rootless" in option for option in engine["security"]):
        problems.append(f"Docker on {host} is rootless (the units need Docker that runs as root). Use another host.")
    return problems


def problems_of_installation(engine: dict[str, Any], source: str, host: str) -> list[str]:
    """What apt would remove to install Docker, and what keeps apt from working; nothing is ever removed for Docker."""
    excluding = {
        package["name"]
        for package in engine["packages"]
        if package["name"] in EXCLUDED[source] or set(package["conflicts"]) & WANTED[source]
    }
    problems = [
        f"package {name} on {host} excludes the packages of Docker "
        f"(docker_source: {source}); installing it would remove {name} and stop what runs with it. "
        f"{ADVICE.get(name, f'Remove {name} if nothing uses it')}, or use another host."
        for name in sorted(excluding - WANTED[source])
    ]
    if engine["docker"].startswith("/snap/"):
        problems.append(
            f"docker on {host} is a snap: {engine['docker']} (its files and units differ). Remove it if nothing uses it "
            "(snap remove docker), or use another host."
        )
    if engine["python"]:
        found, default = engine["python"]["found"], engine["python"]["default"]
        problems.append(
            f"/usr/bin/python3 on {host} is {found}, which lacks apt's library ({default}, the distribution's, has it as "
            f"package python3-apt). Fix: ln -sf {default} /usr/bin/python3, or install Docker yourself."
        )
    return problems


def problems_of_network(state: dict[str, Any], subnet: str, gateway: str, host: str) -> list[str]:
    """Whether the network can be created: its subnet must be free, unless it exists already."""
    wanted = ip_network(subnet, strict=False)
    if ip_address(gateway) not in wanted:
        return [f"vantage_network_gateway: {gateway} is not in vantage_network_subnet ({subnet}). Set {wanted[1]}."]
    present = next((network for network in state["networks"] if network["name"] == NETWORK), None)
    if present:
        found = [*present["subnets"], *present["gateways"]]
        if found == [subnet, gateway]:
            return []
        return [
            f"the Docker network {NETWORK} on {host} has another subnet and gateway: {' '.join(found)} (settings: {subnet} "
            f"{gateway}). Set vantage_network_subnet and vantage_network_gateway to these, or stop the services "
            f"(systemctl stop vantage.target) and remove it (docker network rm {NETWORK})."
        ]
    taken = list(taken_subnets(state))
    holders = [f"{holder} ({network})" for network, holder in taken if network.overlaps(wanted)]
    if not holders:
        return []
    free = next((one for one in map(IPv4Network, FREE_SUBNETS) if not any(one.overlaps(n) for n, _ in taken)), None)
    fix = f"Set vantage_network_subnet: {free} and vantage_network_gateway: {free[1]}" if free else "Set a free pair"
    return [f"vantage_network_subnet: {subnet} is already in use on {host} by {', '.join(holders)}. {fix}."]


def taken_subnets(state: dict[str, Any]) -> Iterator[tuple[IPv4Network, str]]:
    """The IPv4 networks that the host reaches, each with what has it."""
    docker = [(text, f"the Docker network {one['name']}") for one in state["networks"] for text in one["subnets"]]
    known = {text for text, _ in docker}
    routes = [
        (one["subnet"], f"the route to {one['device']}")
        for one in state["routes"]
        if one["subnet"] not in known and one["device"] != BRIDGE
    ]
    for text, holder in [*docker, *dict(routes).items()]:
        network = ip_network(text, strict=False)
        if isinstance(network, IPv4Network) and network.prefixlen >= MIN_ROUTE_PREFIX:
            yield network, holder


class ActionModule(ActionBase):
    """Argument: `state`, printed by gather_host_state.py on the host."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result, variables = super().run(tmp, task_vars), task_vars or {}
        state, host = self._task.args["state"], variables["inventory_hostname"]
        engine = dict(state["engine"])
        options = self.setting("docker", "docker_daemon_options", variables)
        # They replace the file, and with it what Docker reports at present.
        if options:
            engine["security"] = ["name=userns"] if options.get("userns-remap") else []
        problems = problems_of_engine(engine, str(self.setting("docker", "docker_source", variables)), host)
        subnet, gateway = (
            str(self.setting("vantage", f"vantage_network_{name}", variables)) for name in ("subnet", "gateway")
        )
        problems += problems_of_network(state, subnet, gateway, host)
        if problems:
            return result | {"failed": True, "msg": "\n".join([*problems, "Nothing was changed."])}
        return result | {"changed": False}

    def setting(self, role: str, name: str, variables: dict[str, Any]) -> Any:
        """A variable of the host, or else the role's default."""
        defaults = yaml_load((ROLES / role / "defaults/main.yml").read_text(encoding="utf-8"))
        return self._templar.template(variables.get(name, defaults[name]))
