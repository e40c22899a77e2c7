"""Renders the roles' templates with Ansible's own engine, without a VM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from compose.settings import ROLES, ROOT, load_plugins

from compose import settings

__all__ = ["FACTS", "ROLES", "ROOT", "Host", "load", "load_plugins", "roles", "specs"]

FACTS = {
    "os_family": "Debian",
    "distribution": "Debian",
    "distribution_major_version": "12",
    "getent_group": {"systemd-journal": ["x", "101", ""]},
}


def load(path: Path) -> Any:
    """A YAML file as Ansible reads it: its strings may be templates."""
    return settings.load(path) or {}


class Host:
    """One host of an inventory with the variables a role would see on it."""

    def __init__(self, role: str, **given: Any) -> None:
        self.variables: dict[str, Any] = {
            "ansible_managed": "Ansible managed",
            "ansible_facts": FACTS,
            "ansible_check_mode": False,
            "inventory_hostname": "vm",
            "group_names": ["app", "monitoring"],
            "groups": {"all": ["vm"], "app": ["vm"], "monitoring": ["vm"]},
            "hostvars": {"vm": {}},
            "playbook_dir": str(ROOT / "playbooks"),
            "role_path": str(ROLES / role),
        }
        for name in ("vantage", role):
            for kind in ("defaults", "vars"):
                path = ROLES / name / kind / "main.yml"
                if path.exists():
                    self.variables |= load(path)
        self.variables |= given
        loader = DataLoader()
        loader.set_basedir(str(ROLES / role / "templates"))
        self.templar = Templar(loader=loader, variables=self.variables)

    def value(self, template: Any) -> Any:
        """The template's value; raises AnsibleUndefinedVariable where a variable is missing."""
        return self.templar.template(template)

    def render(self, path: Path, **given: Any) -> str:
        """The text that the template module would write; raises where a variable is undefined."""
        host = Host(str(path.parents[1].name), **(self.variables | given))
        return str(host.value(trust_as_template("{{ lookup('ansible.builtin.template', '" + str(path) + "') }}")))


def roles() -> list[str]:
    return sorted(path.name for path in ROLES.iterdir() if path.is_dir())


def specs(role: str) -> dict[str, Any]:
    path = ROLES / role / "meta" / "argument_specs.yml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"])
