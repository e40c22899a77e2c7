"""Renders the roles' templates with Ansible's own engine, without a VM."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "roles"

FACTS = {
    "os_family": "Debian",
    "distribution": "Debian",
    "distribution_major_version": "12",
}
# With a terminal over SSH, the warnings of sudo are in stdout too.
GROUP = "sudo: unable to resolve host vm\r\nsystemd-journal:x:101:\r\n"


def load(path: Path) -> Any:
    """A YAML file as Ansible reads it: its strings may be templates."""
    return DataLoader().load_from_file(str(path), trusted_as_template=True) or {}


@functools.cache
def load_plugins() -> None:
    """Lets Ansible find the filters of the roles."""
    init_plugin_loader()
    for folder in ROLES.glob("*/filter_plugins"):
        filter_loader.add_directory(str(folder))


class Host:
    """One host of an inventory with the variables a role would see on it."""

    def __init__(self, role: str, **given: Any) -> None:
        self.variables: dict[str, Any] = {
            "ansible_managed": "Ansible managed",
            "ansible_facts": FACTS,
            "__promtail_group": {"stdout": GROUP},
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


def service(role: str, **given: Any) -> dict[str, Any]:
    """What the role passes to container_service."""
    return dict(Host(role, **given).value(trust_as_template("{{ __" + role + "_service }}")))


def unit(role: str, *, changes: dict[str, Any] | None = None, **given: Any) -> str:
    """The text of the role's unit; `changes` are keys of its service."""
    return unit_of(Host(role, **given).variables | {"container_service": service(role, **given) | (changes or {})})


def unit_of(variables: dict[str, Any]) -> str:
    """The text of the unit of the service in the variable `container_service`."""
    host = Host("container_service", **variables)
    complete = host.value(trust_as_template("{{ __container_service }}"))
    return host.render(ROLES / "container_service/templates/unit.service.j2", service=complete)


def compose_service(role: str, *, changes: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    """The role's service in docker-compose.yml."""
    given = {"vantage_runtime": "compose", "ansible_parent_role_paths": [str(ROLES / role)]} | given
    variables = Host(role, **given).variables | {"container_service": service(role, **given) | (changes or {})}
    described = load(ROLES / "container_service/tasks/compose.yml")[0]["block"][1]["vars"][
        "__container_service_described"
    ]
    return dict(
        Host("container_service", **variables, __container_service_written={"digest": "0" * 64}).value(described)
    )


def files(role: str, **given: Any) -> list[dict[str, Any]]:
    """The directories and files that the role's service has on a host, as vantage_files takes them, without its unit."""
    variables = Host(role, **given).variables | {"container_service": service(role, **given)}
    return list(Host("container_service", **variables).value(trust_as_template("{{ __container_service_files }}")))[:-1]


def roles() -> list[str]:
    return sorted(path.name for path in ROLES.iterdir() if path.is_dir())


def specs(role: str) -> dict[str, Any]:
    path = ROLES / role / "meta" / "argument_specs.yml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"])
