"""A service as data, as a service of docker-compose.yml."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

HEAD = """\
# Rendered by `make render` from the roles and inventory/compose: change those, not this file.
# `make compose-up` starts it, makes the password and verifies it; docs/compose.md says more.
"""
SECRETS = "compose/secrets"
# Gives the volumes to their users, as a unit does before it starts.
PREPARE = "prepare"
# 60 MB a service, and its end survives a restart of Promtail.
LOG_SIZE, LOG_FILES = "20m", "3"
DOCKER_ROOT = "/var/lib/docker"


class Dumper(yaml.SafeDumper):
    """Without anchors: each service can be read by itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def represent_string(dumper: Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, represent_string)


def plain(value: Any) -> Any:
    """The same in plain types, which YAML's dumper needs."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


def escape(value: Any) -> Any:
    """The same with every $ doubled, which Compose would take for a variable; its own stay."""
    if isinstance(value, Mapping):
        return {key: escape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escape(inner) for inner in value]
    if isinstance(value, str) and not value.startswith("${VANTAGE_"):
        return value.replace("$", "$$")
    return value


def relative(path: str, root: str) -> str:
    """The path as docker-compose.yml names it: from `root`, its project directory, if it lies below."""
    path, root = os.path.normpath(path), os.path.normpath(root)
    return "./" + os.path.relpath(path, root) if Path(path).is_relative_to(root) else path


def bind(source: str, target: str, read_only: bool = True) -> dict[str, Any]:
    """A mount of a directory; a missing one is an error, not created empty and owned by root."""
    if source.startswith(f"{DOCKER_ROOT}/"):
        source = "${VANTAGE_DOCKER_ROOT:-" + DOCKER_ROOT + "}" + source.removeprefix(DOCKER_ROOT)
    mount: dict[str, Any] = {"type": "bind", "source": source, "target": target}
    if read_only:
        mount["read_only"] = True
    return mount | {"bind": {"create_host_path": False}}


def volume(name: str, target: str) -> dict[str, Any]:
    # Without nocopy the image's own directory would decide whose the volume is.
    return {"type": "volume", "source": name, "target": target, "volume": {"nocopy": True}}


def mounts(service: Mapping[str, Any], places: Mapping[str, str]) -> list[dict[str, Any]]:
    """The mounts of a service: config, data, secrets, and further ones."""
    home = service["replica_of"] or service["name"]
    result = []
    if config := service["config"]:
        result.append(bind(f"./{places['config']}/{home}", config["mount"]))
        for file in config.get("files", []):
            if "sources" in file:
                source = f"{places['role']}/files/{Path(file['sources']).parent}"
                result.append(bind(relative(source, places["root"]), f"{config['mount']}/{file['name']}"))
    if service["data"]:
        result.append(volume(home, service["data"]))
    if service["secrets"] is not None:
        result.append(bind(f"./{SECRETS}/{home}", "/run/secrets"))
    for text in service["volumes"]:
        source, target, *options = str(text).split(":")
        # rslave, which follows later mounts, is refused where / is private, as in Docker Desktop.
        result.append(bind(source, target, read_only="ro" in (options[0].split(",") if options else [])))
    return result


def build_context(service: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, str]:
    """Where Compose builds the image; raises AnsibleFilterError without a Dockerfile, which on a VM is not needed."""
    source = str(service["build"])
    if source and not Path(source, "Dockerfile").is_file():
        raise AnsibleFilterError(
            f"app {service['name']}: no Dockerfile in its source {source}, which Docker Compose needs to build it. "
            "Write one, or build the image yourself and set `image` alone. Nothing was written."
        )
    return {"context": relative(source, places["root"])} if source else {}


def compose_service(
    service: Mapping[str, Any], ports: list[str], ready_url: str, digest: str, places: Mapping[str, str]
) -> dict[str, Any]:
    """One service of docker-compose.yml; what is empty is left out.

    `ports` are published, `digest` is that of the config files, so that a change of them recreates the container, and `places`
    has `root` (the repository) and `role` (the calling role), and `config`, the path of the config below `root`.
    """
    name, replica_of = service["name"], service["replica_of"]
    aliases = [*filter(None, [replica_of]), *service["aliases"]]
    options = {"tag": f"vantage-{name}.service", "max-size": LOG_SIZE, "max-file": LOG_FILES}
    labels = {
        "vantage.ready": ready_url,
        "vantage.replica_of": replica_of,
        "vantage.config": digest[:16] if service["config"] else "",
    }
    found = {
        "image": service["image"],
        "entrypoint": shlex.split(service["entrypoint"]),
        "command": [str(word) for word in service["command"]],
        "hostname": name,
        "network_mode": "host" if service["network"] == "host" else "",
        "networks": {"default": {"aliases": aliases}} if aliases else {},
        "user": service["user"],
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": service["capabilities"],
        "security_opt": ["no-new-privileges"],
        "group_add": [str(group) for group in service["groups"]],
        "mem_limit": service["memory"],
        "memswap_limit": service["memory"],
        "pids_limit": int(service["pids"]),
        "tmpfs": service["tmpfs"],
        "extra_hosts": service["hosts"],
        "ports": ports,
        "environment": {key: str(value) for key, value in service["environment"].items()},
        "volumes": mounts(service, places),
        "restart": "unless-stopped",
        "stop_grace_period": f"{service['stop_seconds']}s",
        "depends_on": {PREPARE: {"condition": "service_completed_successfully"}} if service["data"] else {},
        # Promtail reads these files; the tag is what the unit would be called.
        "logging": {
            "driver": "json-file",
            "options": options | ({"labels": "vantage.replica_of"} if replica_of else {}),
        },
        "labels": {key: value for key, value in labels.items() if value},
        "profiles": [service["profile"]] if service["profile"] else [],
        "build": build_context(service, places),
    }
    return {key: value for key, value in plain(found).items() if value not in ("", [], {})}


def prepare(stores: Mapping[str, str], image: str) -> dict[str, Any]:
    """Gives each volume to its user once; Promtail's image is the one of the stack with a shell and chown everywhere."""
    lines = "\n".join(
        f'[ "$(stat -c %u:%g /volumes/{name})" = {user} ] || {{ chmod 0750 /volumes/{name} && chown {user} /volumes/{name}; }}'
        for name, user in stores.items()
    )
    return {
        "image": image,
        "entrypoint": ["/bin/sh", "-euc"],
        "command": [lines],
        "user": "0:0",
        "read_only": True,
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "cap_add": ["CHOWN"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": "32m",
        "memswap_limit": "32m",
        "pids_limit": 16,
        "volumes": [volume(name, f"/volumes/{name}") for name in stores],
    }


def compose_text(described: Mapping[str, Any], subnet: str, gateway: str) -> str:
    """The text of docker-compose.yml, of what compose_service gave for each service."""
    services: dict[str, dict[str, Any]] = plain(described)
    built: set[str] = set()
    for service in services.values():
        # Two services of one image: built twice at a time, the engine refuses one.
        if service["image"] in built:
            service.pop("build", None)
        elif "build" in service:
            built.add(service["image"])
    stores: dict[str, str] = {}
    for service in services.values():
        for mount in service.get("volumes", []):
            if mount["type"] == "volume":
                stores.setdefault(mount["source"], service["user"])
    document = {
        "name": "vantage",
        "services": escape({PREPARE: prepare(stores, services["promtail"]["image"])} | services),
        "networks": {"default": {"ipam": {"config": [{"subnet": subnet, "gateway": gateway}]}}},
        "volumes": dict.fromkeys(stores),
    }
    return HEAD + yaml.dump(plain(document), Dumper=Dumper, sort_keys=False, width=140, allow_unicode=True)


class FilterModule:
    """Filters of the role."""

    def filters(self) -> dict[str, Any]:
        """Their names in templates."""
        return {"compose_service": compose_service, "compose_text": compose_text}
