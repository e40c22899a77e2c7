"""Checks that every port a service is to listen on is free, or held by that very service already."""

from __future__ import annotations

import pathlib
from typing import Any

import yaml
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

ROLES = pathlib.Path(__file__).resolve().parents[2]
SITE = ROLES.parent / "playbooks/site.yml"


def roles_of(groups: list[str]) -> set[str]:
    """The roles that the playbook runs on a host of these groups."""
    return {
        entry["role"]
        for play in yaml.safe_load(SITE.read_text(encoding="utf-8"))
        if set(play["hosts"].split(":")) & set(groups)
        for entry in play["roles"]
    }


def overlaps(one: str, other: str) -> bool:
    """Whether two listening addresses take the same port from each other."""
    everywhere = {"0.0.0.0", "::", "*"}
    return one == other or bool({one, other} & everywhere)


class ActionModule(ActionBase):
    """Arguments `look`: what the script `look` printed on the host; `services`: those that the apps are. Changes nothing."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def wanted(self, variables: dict[str, Any]) -> list[tuple[str, str, str, int]]:
        """(service, variable, address, port) for all that this host is to run."""
        groups = variables.get("group_names", [])
        engine, public = (
            str(self.setting(variables, "vantage", f"vantage_{k}_address")) for k in ("engine", "publish")
        )
        ports, wanted = [], roles_of(groups)
        for path in sorted(ROLES.glob("*/defaults/main.yml")):
            role = path.parent.parent.name
            if role not in wanted or role == "flask_app":  # whose ports are those of vantage_apps, below
                continue
            if role == "grafana" and not boolean(self.setting(variables, role, "grafana_enabled")):
                continue
            for name in yaml.safe_load(path.read_text(encoding="utf-8")):
                if name.startswith(f"{role}_") and name.endswith("_port"):
                    address = public if role == "grafana" else engine
                    ports.append((role.replace("_", "-"), name, address, int(self.setting(variables, role, name))))
        if "app" in groups:
            for service in self._task.args["services"]:
                name = f"port of the app {service['app']}"
                if service["replica_of"]:
                    name = f"port of replica {service['number']} of the app {service['app']} (counted on from the app's own port)"
                ports.append((service["name"], name, service["address"] or public, int(service["port"])))
        return ports

    def setting(self, variables: dict[str, Any], role: str, name: str) -> Any:
        if name in variables:
            return self._templar.template(variables[name])
        defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text(encoding="utf-8"))
        return defaults[name]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        problems = self.clashes(self.wanted(variables), self._task.args["look"], variables["inventory_hostname"])
        if problems:
            return result | {"failed": True, "msg": "\n".join([*problems, "Nothing was changed."])}
        return result | {"changed": False}

    @staticmethod
    def clashes(wanted: list[tuple[str, str, str, int]], look: dict[str, Any], host: str) -> list[str]:
        """One sentence for each port that two services want, or that something else listens on."""
        problems: list[str] = []
        seen: dict[int, tuple[str, str]] = {}
        for service, name, address, port in wanted:
            if port in seen and overlaps(seen[port][1], address):
                problems.append(f"{name} and {seen[port][0]} are both {port}: give one of them another port.")
            seen[port] = (name, address)
            if str(port) in look["ports"].get(service, []):
                continue  # The service itself has it.
            if name.startswith("port of ") and any(str(port) in look["ports"][app] for app in look["apps"]):
                continue  # An app that is removed or moved before this one starts.
            for listener in look["listening"].get(str(port), []):
                if listener.get("container") == f"vantage-{service}":
                    continue  # The service itself, whose unit is gone.
                if overlaps(listener["address"], address):
                    problems.append(
                        f"{name} is {port}, which {listener['who']} on {host} listens on already "
                        f"({listener['address']}): {service} could not start. Stop it or set {name} to a free port."
                    )
        return problems
