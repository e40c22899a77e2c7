"""A service as data, in the forms that its unit, its files and its readiness check need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

CONFIG = "/etc/vantage"
SECRETS = "/etc/vantage/secrets"
PROGRAMS = "/usr/local/lib/vantage"
CANDIDATE = "/tmp/candidate.yml"


def systemd_quote(value: Any) -> str:
    """One word of an ExecStart= line, as systemd.service(5) and systemd.syntax(7) read it.

    Specifiers (%) and variables ($) are doubled, so that a value arrives as it was given.
    """
    text = str(value)
    if "\n" in text or "\0" in text:
        raise ValueError(f"a unit file cannot hold a line break or NUL: {text!r}")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = text and all(c.isalnum() or c in "-_./:=,@+%$" for c in text)
    return text if plain else f'"{text}"'


def published_ports(service: Mapping[str, Any], addresses: Mapping[str, str]) -> list[str]:
    """The ports as `docker run --publish` takes them, each once; `addresses` are those that a name stands for."""
    found: dict[str, list[str]] = {}
    for port in service["ports"]:
        name = port.get("address", "engine")
        found.setdefault(f"{port['host']}:{port['container']}", []).append(str(addresses.get(name, name)))
    return [
        f"{address}:{ports}"
        for ports, names in found.items()
        # Every address includes the others.
        for address in (["0.0.0.0"] if "0.0.0.0" in names else dict.fromkeys(names))
    ]


def ready_url(service: Mapping[str, Any], addresses: Mapping[str, str]) -> str:
    """URL of the readiness check, asked from the host; empty without one."""
    ready = service["ready"]
    if not ready:
        return ""
    by_container = {str(port["container"]): port for port in reversed(service["ports"])}
    if service["network"] == "host":
        port = {"host": ready["port"]}
    elif str(ready["port"]) in by_container:
        port = by_container[str(ready["port"])]
    else:
        raise AnsibleFilterError(f"{service['name']}: ready.port {ready['port']} is not published. Add it to ports.")
    name = port.get("address", "engine")
    address = str(addresses.get(name, name)).replace("0.0.0.0", "127.0.0.1")
    return f"http://{address}:{port['host']}{ready['path']}"


def check_command(checker: str, image: str, check: str) -> str:
    """Command that checks a file, whose path is %s, with the image's own program."""
    first, _, rest = check.partition(" ")
    entrypoint, arguments = (f"--entrypoint={first} ", rest) if first.startswith("/") else ("", check)
    return f"{checker} {entrypoint}{image} {arguments.replace('%s', CANDIDATE)}"


def config_files(service: Mapping[str, Any], folder: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Directories and files of the config, as vantage_files takes them, without rights and checks."""
    config = service["config"] or {}
    files = [file | {"path": f"{folder}/{file['name']}"} for file in map(dict, config.get("files", []))]
    prune = [*config.get("prune", []), *(file["name"] for file in files if "sources" in file)]
    directories = [{"path": f"{folder}/{name}"} for name in config.get("directories", [])]
    return directories + [{"path": f"{folder}/{name}", "prune": True} for name in prune], files


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


def service_files(service: Mapping[str, Any], checker: str) -> dict[str, list[dict[str, Any]]]:
    """`directories` and `files` of the service on a host; without a `checker` no file is checked."""
    home = service["replica_of"] or service["name"]
    uid, _, gid = str(service["user"]).partition(":")
    directories, files = config_files(service, f"{CONFIG}/{home}")
    found: list[dict[str, Any]] = []
    for file in files:
        given: dict[str, Any] = {key: file[key] for key in ("path", "template", "content", "sources") if key in file}
        given |= {"mode": str(file.get("mode", "0640")), "group": gid}
        if checker and file.get("check"):
            given["validate"] = check_command(checker, service["image"], file["check"])
        found.append(given)
    if service["secrets"] is not None:
        folder = f"{SECRETS}/{home}"
        # Group 0 is that of every process of root: then the user alone reads them.
        mine = {"owner": uid, "mode": "0500"} if gid == "0" else {"mode": "0750"}
        directories.append({"path": folder, "group": gid, "prune": True, "secret": True} | mine)
        rights = {"owner": uid, "mode": "0400"} if gid == "0" else {"mode": "0440"}
        found += [file | rights | {"group": gid} for file in secret_files(service, folder)]
    found += [{"path": f"{PROGRAMS}/{name}", "source": name, "mode": "0755"} for name in service["programs"]]
    return {"directories": directories, "files": found}


def compose_files(service: Mapping[str, Any], config: str, secrets: str) -> dict[str, list[dict[str, Any]]]:
    """`directories` and `files` of the service for docker-compose.yml, below two directories of this machine.

    Without `secrets` none are written. On this machine the directory around them is its owner's alone. In a container each
    service sees its own, whose files its user, unknown here, must be able to read.
    """
    home = service["replica_of"] or service["name"]
    directories, given = config_files(service, f"{config}/{home}")
    # git keeps no empty directory, and nothing can be mounted into a missing one.
    empty = [*(one["path"] for one in directories if "prune" not in one), *(f["path"] for f in given if "sources" in f)]
    files: list[dict[str, Any]] = [{"path": f"{path}/.gitkeep", "content": ""} for path in empty]
    files += [{key: f[key] for key in ("path", "template", "content") if key in f} for f in given if "sources" not in f]
    found = [{"path": f"{config}/{home}", "prune": True}] if files else []
    if secrets and service["secrets"] is not None:
        folder = f"{secrets}/{home}"
        found += [{"path": secrets, "mode": "0700"}, {"path": folder, "prune": True, "secret": True}]
        files += [file | {"mode": "0444"} for file in secret_files(service, folder)]
    return {"directories": found, "files": files}


class FilterModule:
    """Filters of the role."""

    def filters(self) -> dict[str, Any]:
        """Their names in templates."""
        return {
            "compose_files": compose_files,
            "published_ports": published_ports,
            "ready_url": ready_url,
            "service_files": service_files,
            "systemd_quote": systemd_quote,
        }
