"""Memory limits of the services, so that dashboards can show use against limit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

ROLES = Path(__file__).resolve().parents[2]
UNITS = {"b": 1, "": 1, "k": 2**10, "m": 2**20, "g": 2**30}
# Roles that run what others name.
NO_SERVICE = {"container_service", "flask_app"}


def size(text: str) -> int:
    """Bytes of a size as Docker writes it: 512m, 1g."""
    found = re.fullmatch(r"(\d+)([bkmg]?)", str(text).strip().lower())
    if not found:
        raise AnsibleFilterError(
            f"invalid memory limit: {text!r} (a number with the unit b, k, m or g, for example 512m)."
        )
    return int(found[1]) * UNITS[found[2]]


def memory_limits(given: Mapping[str, Any], apps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`service` and `bytes` of everything that may run; `given` is what the inventory says over the roles' defaults.

    The replicas of an app are one service, whose limit is that of each: the kernel ends one for what it uses alone.
    """
    limits: dict[str, Any] = {}
    for path in sorted(ROLES.glob("*/defaults/main.yml")):
        role = path.parent.parent.name
        default = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(f"{role}_memory")
        if default:
            limits[role] = given.get(f"{role}_memory", default)
    for app in apps:
        limits[str(app["name"])] = app.get("memory") or limits["flask_app"]
    return [
        {"service": name.replace("_", "-"), "bytes": size(text)}
        for name, text in sorted(limits.items())
        if name not in NO_SERVICE
    ]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"memory_limits": memory_limits}
