"""A unit as a service of docker-compose.yml: the same image, user, limits, mounts, ports and environment."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compose.roles import Findings
from compose.settings import ROOT, Refused

CONFIG = "/etc/vantage"
SECRETS = "/etc/vantage/secrets"
# The service that gives the volumes to their users, as a unit does before it starts.
PREPARE = "prepare"
# Where the config of the committed rendering lies, from docker-compose.yml's folder.
COMMITTED = "compose/config"
# 60 MB a service, and the tail of it survives a restart of Promtail.
LOG_SIZE, LOG_FILES = "20m", "3"
# Where Docker keeps its containers' logs, unless it was told otherwise.
DOCKER_ROOT = "/var/lib/docker"


def document(found: Findings, variables: Mapping[str, Any], output: Path, config: str) -> dict[str, Any]:
    """The whole of docker-compose.yml, whose paths are seen from the folder `output`; services' config lies in `config`.

    `variables` has vantage_network_subnet, vantage_network_gateway, promtail_image and traffic_enabled.
    """
    services: dict[str, Any] = {}
    built: set[str] = set()
    for unit in found.units:
        services[unit["name"]] = service(unit, found, output, config)
        if unit["name"] == "traffic" and not variables["traffic_enabled"]:
            services["traffic"]["profiles"] = ["traffic"]
        # Two services of one image: who builds it twice at a time makes the engine refuse one.
        if unit["source"] and unit["image"] not in built:
            require_dockerfile(unit)
            built.add(unit["image"])
            services[unit["name"]]["build"] = {"context": relative(Path(unit["source"]), output)}
    stores = {home(unit): unit["user"] for unit in found.units if unit["data_dir"]}
    return {
        "name": "vantage",
        "services": escaped({PREPARE: giver(stores, str(variables["promtail_image"]))} | services),
        "networks": {
            "default": {
                "ipam": {
                    "config": [
                        {
                            "subnet": variables["vantage_network_subnet"],
                            "gateway": variables["vantage_network_gateway"],
                        }
                    ]
                }
            }
        },
        "volumes": dict.fromkeys(stores),
    }


def require_dockerfile(unit: Mapping[str, Any]) -> None:
    """Raises Refused for a folder that a VM would get an image of by our recipe, which Compose does not know."""
    if not Path(str(unit["source"]), "Dockerfile").is_file():
        raise Refused(
            f"The app {unit['name']} has the source {unit['source']} without a Dockerfile: on a VM its image is made without "
            "one, Compose needs it. Write a Dockerfile there, or build the image yourself and give `image` alone. Nothing was written."
        )


def home(unit: Mapping[str, Any]) -> str:
    """The service whose data and secrets the unit has: its own, or of which it is a replica."""
    return str(unit["replica_of"] or unit["name"])


def aliases(unit: Mapping[str, Any]) -> list[str]:
    """Under which names a replica is reached beside its service's: the app's, and the one that a unit's container has."""
    return [*filter(None, [unit["replica_of"]]), f"vantage-{unit['name']}"] if unit["replicas"] > 1 else []


def service(unit: Mapping[str, Any], found: Findings, output: Path, config: str) -> dict[str, Any]:
    """One service; what a unit leaves empty is left out."""
    name, host_network = unit["name"], unit["network"] == "host"
    made = {
        "image": unit["image"],
        "entrypoint": shlex.split(unit["entrypoint"]) if unit["entrypoint"] else [],
        "command": [str(word) for word in unit["command"]],
        "hostname": name,
        "network_mode": "host" if host_network else "",
        "networks": {"default": {"aliases": names}} if (names := aliases(unit)) else {},
        "user": unit["user"],
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": list(unit["capabilities"]),
        "security_opt": ["no-new-privileges"],
        "group_add": [str(group) for group in unit["groups"]],
        "mem_limit": unit["memory"],
        "memswap_limit": unit["memory"],
        "pids_limit": int(unit["pids"]),
        "tmpfs": list(unit["tmpfs"]),
        "extra_hosts": list(unit["hosts"]),
        "ports": list(unit["publish"]),
        "environment": {key: str(value) for key, value in unit["environment"].items()},
        "volumes": mounts(unit, found, output, config),
        "restart": "unless-stopped",
        "stop_grace_period": f"{unit['stop_seconds']}s",
        "depends_on": {PREPARE: {"condition": "service_completed_successfully"}} if unit["data_dir"] else {},
        # Promtail reads these files; the tag is what the unit would be called.
        "logging": {
            "driver": "json-file",
            "options": {
                "tag": f"vantage-{name}.service",
                "max-size": LOG_SIZE,
                "max-file": LOG_FILES,
                **({"labels": "vantage.replica_of"} if unit["replica_of"] else {}),
            },
        },
        "labels": labels(unit, found),
    }
    return {key: value for key, value in made.items() if value not in ("", [], {})}


def labels(unit: Mapping[str, Any], found: Findings) -> dict[str, str]:
    """Where the service says that it is ready, and a sum over its config, so that a change of it makes a new container."""
    result = {}
    if unit["ready_url"]:
        result["vantage.ready"] = str(unit["ready_url"]).strip()
    if unit["replica_of"]:
        result["vantage.replica_of"] = str(unit["replica_of"])
    own = {path: text for path, text in sorted(found.files.items()) if path.startswith(f"{CONFIG}/{unit['name']}/")}
    if own:
        result["vantage.config"] = hashlib.sha256(repr(own).encode()).hexdigest()[:16]
    return result


def mounts(unit: Mapping[str, Any], found: Findings, output: Path, config: str) -> list[dict[str, Any]]:
    """The volumes of a service: config, data, secrets, and what the unit names."""
    name, result = unit["name"], []
    if unit["config_dir"]:
        result.append(bind(f"./{config}/{name}", unit["config_dir"]))
        for folder, files in sorted(found.folders.items()):
            if folder.startswith(f"{CONFIG}/{name}/"):
                inside = folder.removeprefix(f"{CONFIG}/{name}/")
                result.append(bind(relative(files, output), f"{unit['config_dir']}/{inside}"))
    if unit["data_dir"]:
        # Without nocopy the image's own folder would say whose the volume is, at a time that nobody chose.
        volume = {"type": "volume", "source": home(unit), "target": unit["data_dir"], "volume": {"nocopy": True}}
        result.append(volume)
    if unit["secrets"]:
        result.append(bind(f"./compose/secrets/{home(unit)}", "/run/secrets"))
    for text in unit["volumes"]:
        source, target, *options = str(text).split(":")
        # rslave, which follows later mounts, is refused where the engine's / is private, as in Docker Desktop.
        result.append(bind(source, target, read_only="ro" in (options[0].split(",") if options else [])))
    return result


def bind(source: str, target: str, read_only: bool = True) -> dict[str, Any]:
    """A folder of this machine; one that is not there is an error, not made empty and owned by root."""
    if source.startswith(f"{DOCKER_ROOT}/"):
        source = "${VANTAGE_DOCKER_ROOT:-" + DOCKER_ROOT + "}" + source.removeprefix(DOCKER_ROOT)
    mount: dict[str, Any] = {"type": "bind", "source": source, "target": target}
    if read_only:
        mount["read_only"] = True
    return mount | {"bind": {"create_host_path": False}}


def giver(stores: Mapping[str, str], image: str) -> dict[str, Any]:
    """Gives each volume to its user once; Promtail's image is the one of the stack that has a shell and chown everywhere."""
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
        "volumes": [
            {"type": "volume", "source": name, "target": f"/volumes/{name}", "volume": {"nocopy": True}}
            for name in stores
        ],
    }


def relative(path: Path, output: Path) -> str:
    """The path as docker-compose.yml in `output` names it: relative where it lies in this repository."""
    path = Path(os.path.normpath(path))
    if not path.is_relative_to(ROOT):
        return str(path)
    return "./" + os.path.relpath(path, output).removeprefix("./")


def escaped(value: Any) -> Any:
    """The same with every $ doubled, which Compose would else take for a variable; its own are left."""
    if isinstance(value, Mapping):
        return {key: escaped(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [escaped(inner) for inner in value]
    if isinstance(value, str) and not value.startswith("${VANTAGE_"):
        return value.replace("$", "$$")
    return value
