"""A service as data, in the forms that its unit, its files and docker-compose.yml need."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load

SPECS = Path(__file__).resolve().parents[1] / "meta/argument_specs.yml"
CONFIG = "/etc/vantage"
SECRETS = "/etc/vantage/secrets"
PROGRAMS = "/usr/local/lib/vantage"
CANDIDATE = "/tmp/candidate.yml"
TEXTS = ("template", "content")
# Beside the secrets, whose names begin with no dot. `docker run --env-file` takes each value to the end of its line.
ENVIRONMENT = ".environment"


def plain(value: Any) -> Any:
    """The same in plain types, all templates resolved; a copy of Ansible's lazy ones would hold their engine too."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


def systemd_quote(value: Any) -> str:
    """One word of an ExecStart= line, as systemd.service(5) and systemd.syntax(7) read it.

    Specifiers (%) and variables ($) are doubled, so that a value arrives as it was given.
    """
    text = str(value)
    if "\n" in text or "\0" in text:
        raise ValueError(f"invalid text for a unit file: {text!r} (no line break, no NUL)")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = text and all(c.isalnum() or c in "-_./:=,@+%$" for c in text)
    return text if plain else f'"{text}"'


def complete_service(given: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    """The service with the defaults of its argument spec, which it must meet, and further keys:

    `home`, the service whose config, data and secrets it has; `published`, its ports as `docker run --publish` takes them;
    `ready_url`, empty without a readiness check; `no_proxy`, the exceptions that its own environment makes. `addresses` are those that a name in `ports` stands for.
    """
    spec = yaml_load(SPECS.read_text(encoding="utf-8"))["argument_specs"]["service"]["options"]
    result = ArgumentSpecValidator(spec).validate({"container_service": plain(given)})
    if result.error_messages:
        raise AnsibleFilterError(f"container_service: {'. '.join(result.error_messages)}.")
    service = result.validated_parameters["container_service"]
    for port in service["ports"]:
        port["address"] = str(addresses.get(port["address"], port["address"]))
    return service | {
        "home": service["replica_of"] or service["name"],
        "published": published_ports(service["ports"]),
        "ready_url": ready_url(service, str(addresses["engine"])),
        "no_proxy": no_proxy(service),
    }


def no_proxy(service: Mapping[str, Any]) -> list[str]:
    """The entries of NO_PROXY in the service's variables, in capitals or not: programs differ in which one they read."""
    variables = [*service["environment"].items(), *service["secret_environment"].items()]
    given = [str(value).replace(",", " ").split() for name, value in variables if name.lower() == "no_proxy"]
    return [entry for entries in given for entry in entries]


def published_ports(ports: list[dict[str, Any]]) -> list[str]:
    found: dict[str, list[str]] = {}
    for port in ports:
        found.setdefault(f"{port['host']}:{port['container']}", []).append(port["address"])
    return [
        f"{address}:{pair}"
        for pair, addresses in found.items()
        # Every address includes the others.
        for address in (["0.0.0.0"] if "0.0.0.0" in addresses else dict.fromkeys(addresses))
    ]


def ready_url(service: Mapping[str, Any], engine_address: str) -> str:
    ready = service["ready"]
    if not ready:
        return ""
    ports = {port["container"]: port for port in reversed(service["ports"])}
    if service["network"] == "host":
        ports = {ready["port"]: {"host": ready["port"], "address": engine_address}}
    if ready["port"] not in ports:
        raise AnsibleFilterError(f"{service['name']}: ready.port {ready['port']} is not published. Add it to ports.")
    port = ports[ready["port"]]
    return f"http://{port['address'].replace('0.0.0.0', '127.0.0.1')}:{port['host']}{ready['path']}"


def check_command(checker: str, image: str, check: str) -> str:
    """Command that checks a file, whose path is %s, with the image's own program."""
    first, _, rest = check.partition(" ")
    entrypoint, arguments = (f"--entrypoint={first} ", rest) if first.startswith("/") else ("", check)
    return f"{checker} {entrypoint}{image} {arguments.replace('%s', CANDIDATE)}"


def config_files(service: Mapping[str, Any], folder: str) -> list[dict[str, Any]]:
    """Directories and files of the config, as vantage_files takes them, without permissions and checks."""
    config = service["config"] or {"files": [], "prune": [], "directories": []}
    files = [
        {key: value for key, value in file.items() if value is not None} | {"path": f"{folder}/{file['name']}"}
        for file in config["files"]
    ]
    prune = [*config["prune"], *(file["name"] for file in files if "sources" in file)]
    directories = [{"path": f"{folder}/{name}/"} for name in config["directories"]]
    return [*directories, *({"path": f"{folder}/{name}/", "prune": True} for name in prune), *files]


def secret_files(service: Mapping[str, Any], folder: str) -> list[dict[str, Any]]:
    """The secrets as vantage_files takes them; raises AnsibleFilterError for a name that a file cannot have."""
    for name in service["secrets"] or {}:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", str(name)):
            raise AnsibleFilterError(
                f"invalid secret name {str(name)!r} for {service['name']} "
                "(letters, digits, `.`, `-` and `_`, and no `.` first). Rename it."
            )
    return [
        {"path": f"{folder}/{name}", "content": None if text is None else str(text), "secret": True}
        for name, text in (service["secrets"] or {}).items()
    ]


def environment_file(service: Mapping[str, Any], folder: str) -> list[dict[str, Any]]:
    """The file of the secret environment variables as vantage_files takes it, or nothing."""
    lines = [f"{name}={value}\n" for name, value in service["secret_environment"].items()]
    return [{"path": f"{folder}/{ENVIRONMENT}", "content": "".join(lines), "secret": True}] if lines else []


def service_files(service: Mapping[str, Any], checker: str, unit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Directories and files of the service on a host, its unit last; `checker` is the command that checks config."""
    uid, _, gid = service["user"].partition(":")
    found: list[dict[str, Any]] = []
    for given in config_files(service, f"{CONFIG}/{service['home']}"):
        file = {key: given[key] for key in ("path", "prune", *TEXTS, "sources") if key in given}
        if not file["path"].endswith("/"):
            file |= {"mode": "0640", "group": gid}
        if "check" in given:
            file["validate"] = check_command(checker, service["image"], given["check"])
        found.append(file)
    if service["secrets"] is not None or service["secret_environment"]:
        folder = f"{SECRETS}/{service['home']}"
        # Group 0 is that of every process of root: then the user alone reads them.
        owner = {"owner": uid} if gid == "0" else {}
        rights = owner | {"group": gid}
        found.append(
            {"path": f"{folder}/", "prune": True, "secret": True, "mode": "0500" if owner else "0750"} | rights
        )
        found += [file | rights | {"mode": "0400" if owner else "0440"} for file in secret_files(service, folder)]
        # Only Docker's command reads it, as root.
        found += [file | {"mode": "0400"} for file in environment_file(service, folder)]
    found += [{"path": f"{PROGRAMS}/{name}", "source": name, "mode": "0755"} for name in service["programs"]]
    # The check of a unit may start the service, which reads the other files.
    return [*found, {**unit, "vars": {"service": service}, "last": True}]


def compose_files(service: Mapping[str, Any], config: str, secrets: str) -> list[dict[str, Any]]:
    """Directories and files of the service for docker-compose.yml, below two directories of this machine.

    Without `secrets` none are written. On this machine the directory around them is its owner's alone. In a container each
    service sees its own, whose files its user, unknown here, must be able to read.
    """
    given = config_files(service, f"{config}/{service['home']}")
    # git keeps no empty directory, and nothing can be mounted into a missing one.
    empty = [one["path"].rstrip("/") for one in given if "sources" in one or ("name" not in one and "prune" not in one)]
    found: list[dict[str, Any]] = [{"path": f"{path}/.gitkeep", "content": ""} for path in empty]
    found += [
        {key: one[key] for key in ("path", *TEXTS) if key in one}
        for one in given
        if "name" in one and "sources" not in one
    ]
    if found:
        found.append({"path": f"{config}/{service['home']}/", "prune": True})
    if secrets and (service["secrets"] is not None or service["secret_environment"]):
        folder = f"{secrets}/{service['home']}"
        found += [{"path": f"{secrets}/", "mode": "0700"}, {"path": f"{folder}/", "prune": True, "secret": True}]
        found += [file | {"mode": "0444"} for file in secret_files(service, folder)]
        found += [file | {"mode": "0400"} for file in environment_file(service, folder)]
    return found


# docker-compose.yml ---------------------------------------------------------------------------------------------------

HEAD = """\
# Rendered by `make render` from the roles and inventory/compose: change those, not this file.
# `make compose-up` starts it, makes the password and verifies it; docs/compose.md says more.
"""
COMPOSE_SECRETS = "compose/secrets"
# Empty: the Docker client's configuration adds them to each container that does not have them.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
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
    home, result = service["home"], []
    if config := service["config"]:
        result.append(bind(f"./{places['config']}/{home}", config["mount"]))
        for file in config["files"]:
            if file["sources"]:
                source = f"{places['role']}/files/{Path(file['sources']).parent}"
                result.append(bind(relative(source, places["root"]), f"{config['mount']}/{file['name']}"))
    if service["data"]:
        result.append(volume(home, service["data"]))
    if service["secrets"] is not None:
        result.append(bind(f"./{COMPOSE_SECRETS}/{home}", "/run/secrets"))
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
            f"app {service['name']}: no Dockerfile in {source}; Docker Compose needs one. "
            "Add one, or build the image yourself and set only `image`. Nothing was written."
        )
    return {"context": relative(source, places["root"])} if source else {}


def compose_service(service: Mapping[str, Any], digest: str, places: Mapping[str, str]) -> dict[str, Any]:
    """One service of docker-compose.yml; what is empty is left out.

    `digest` is that of the config files, so that a change of them recreates the container, and `places` has `root` (the
    repository) and `role` (the calling role), and `config`, the path of the config below `root`.
    """
    name, replica_of, command = service["name"], service["replica_of"], service["before_start"]
    awaited = [PREPARE] * bool(service["data"]) + [before_start_name(service["home"])] * bool(command)
    aliases = [*filter(None, [replica_of]), *service["aliases"]]
    options = {"tag": f"vantage-{name}.service", "max-size": LOG_SIZE, "max-file": LOG_FILES}
    labels = {
        "vantage.ready": service["ready_url"],
        "vantage.replica_of": replica_of,
        "vantage.config": digest[:16] if service["config"] else "",
    }
    found = {
        "image": service["image"],
        "entrypoint": shlex.split(service["entrypoint"]),
        "command": service["command"],
        "hostname": name,
        "network_mode": "host" if service["network"] == "host" else "",
        "networks": {"default": {"aliases": aliases}} if aliases else {},
        "user": service["user"],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "group_add": service["groups"],
        "mem_limit": service["memory"],
        "memswap_limit": service["memory"],
        "pids_limit": service["pids"],
        "tmpfs": service["tmpfs"],
        "ports": service["published"],
        "environment": ({} if service["proxy"] else dict.fromkeys(PROXIES, ""))
        | {key: str(value) for key, value in service["environment"].items()},
        # Raw: Compose would replace $ and quotes in it.
        "env_file": [{"path": f"./{COMPOSE_SECRETS}/{service['home']}/{ENVIRONMENT}", "format": "raw"}]
        if service["secret_environment"]
        else [],
        "volumes": mounts(service, places),
        "restart": "unless-stopped",
        "stop_grace_period": f"{service['stop_seconds']}s",
        "depends_on": {one: {"condition": "service_completed_successfully"} for one in awaited},
        # Promtail reads these files; the tag is what the unit would be called.
        "logging": {
            "driver": "json-file",
            "options": options | ({"labels": "vantage.replica_of"} if replica_of else {}),
        },
        "labels": {key: value for key, value in labels.items() if value},
        "profiles": [service["profile"]] if service["profile"] else [],
        "build": build_context(service, places),
        # Made a service by compose_text; its replicas wait for the same.
        "before_start": "" if replica_of else command,
    }
    return {key: value for key, value in found.items() if value not in ("", [], {})}


def before_start_name(service: str) -> str:
    return f"{service}-before-start"


def before_start_service(service: Mapping[str, Any], name: str, command: str) -> dict[str, Any]:
    """The app's container with another command and without what belongs to a server; its app's service builds the image."""
    dropped = {"ports", "networks", "restart", "stop_grace_period", "labels", "build"}
    awaited = {one: how for one, how in service["depends_on"].items() if one != name}
    changed = {"entrypoint": ["/bin/sh", "-c"], "command": [command], "hostname": name, "depends_on": awaited}
    found = {key: value for key, value in service.items() if key not in dropped} | changed
    return {key: value for key, value in found.items() if value != {}}


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
    # As in a unit of an app: a proxy of the Docker client's configuration does not know the services.
    reached = ",".join(["localhost", "127.0.0.1", subnet, *services])
    for name, service in [*services.items()]:
        environment = service.get("environment", {})
        if environment.get("HTTP_PROXY") != "":
            service["environment"] = {"NO_PROXY": reached, "no_proxy": reached} | environment
        if command := service.pop("before_start", ""):
            before = before_start_name(name)
            services[before] = before_start_service(service, before, command)
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
        return {
            "complete_service": complete_service,
            "compose_files": compose_files,
            "compose_service": compose_service,
            "compose_text": compose_text,
            "service_files": service_files,
            "systemd_quote": systemd_quote,
        }
