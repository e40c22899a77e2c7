"""Reads the tasks of a role as Ansible would run them, running none: what they would write, and which units they would make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from compose.settings import OF_LAPTOP, ROLES, ROOT, Refused, load

# They prepare a host for units.
OF_HOSTS = {"preflight", "docker"}
INCLUDE_ROLE = "ansible.builtin.include_role"
INCLUDE_TASKS = "ansible.builtin.include_tasks"


@dataclass
class Findings:
    """What the roles would do to a host."""

    # The variables of container_service, without that prefix, one mapping a unit.
    units: list[dict[str, Any]] = field(default_factory=list)
    # Text of each file, by its path on the host.
    files: dict[str, str] = field(default_factory=dict)
    # Folders of a role whose files are all put into one folder of the host, by that folder.
    folders: dict[str, Path] = field(default_factory=dict)
    # Folders of the host that must be there, also empty.
    directories: list[str] = field(default_factory=list)
    # Contents of secrets, by path; they belong in no file that is committed.
    secrets: dict[str, str] = field(default_factory=dict)


def of_site() -> list[str]:
    """The roles that site.yml runs, in its order."""
    plays = load(ROOT / "playbooks" / "site.yml")
    names = [str(role["role"]) for play in plays for role in play["roles"]]
    return [name for name in dict.fromkeys(names) if name not in OF_HOSTS]


def read(given: dict[str, Any]) -> Findings:
    """What all roles of site.yml would do with the variables `given`; raises Refused with the task that cannot be read."""
    found = Findings()
    for role in of_site():
        # The visitors are there for those who call them (a profile), also where a host would have none.
        before = len(found.units)
        Reader(role, given | {"traffic_enabled": True}, found).run("main.yml", {})
        # grafana_enabled and an empty vantage_apps are meant; a call that is not understood is not.
        if len(found.units) == before and role not in {"grafana", "flask_app"}:
            raise Refused(
                f"roles/{role} was read and makes no unit: does compose/roles.py know how it calls container_service?"
            )
    return found


class Reader:
    """One role on one host."""

    def __init__(self, role: str, given: dict[str, Any], found: Findings) -> None:
        self._folder = ROLES / role
        self._found = found
        chain = [*self._dependencies(), role]
        # Ansible's own order: defaults, inventory, the role's vars.
        self._variables = {**self._layer(chain, "defaults"), **given, **self._layer(chain, "vars"), **OF_LAPTOP}
        self._variables["role_path"] = str(self._folder)
        self._unit_defaults = load(ROLES / "container_service/defaults/main.yml")

    def _dependencies(self) -> list[str]:
        meta = load(self._folder / "meta" / "main.yml")
        return [str(entry["role"]) for entry in meta.get("dependencies", [])]

    @staticmethod
    def _layer(roles: list[str], kind: str) -> dict[str, Any]:
        layer: dict[str, Any] = {}
        for role in roles:
            path = ROLES / role / kind / "main.yml"
            if path.exists():
                layer |= load(path) or {}
        return layer

    def variable(self, name: str) -> Any:
        """The value that a variable has for this role."""
        return self._value(self._variables[name], {})

    def run(self, name: str, variables: dict[str, Any]) -> None:
        """Goes through one file of tasks."""
        for task in load(self._folder / "tasks" / name):
            try:
                self._task(task, variables)
            except (AnsibleError, KeyError) as error:
                where = f"{(self._folder / 'tasks' / name).relative_to(ROOT)}, task {task.get('name')!r}"
                raise Refused(f"{where} cannot be rendered without a host: {error}") from error

    def _task(self, task: dict[str, Any], variables: dict[str, Any]) -> None:
        variables = variables | task.get("vars", {})
        if "block" in task:
            if self._wanted(task, variables):
                for inner in task["block"]:
                    self._task(inner, variables)
        elif INCLUDE_TASKS in task:
            for item in self._items(task, variables):
                if self._wanted(task, variables | item):
                    self._include(task[INCLUDE_TASKS], variables | item)
        elif self._runs(task.get(INCLUDE_ROLE, {})):
            for item in self._items(task, variables):
                if self._wanted(task, variables | item):
                    self._unit(variables | item)
        elif "vantage_files" in task and self._wanted(task, variables):
            self._write(self._value(task["vantage_files"], variables), variables)

    @staticmethod
    def _runs(call: dict[str, Any]) -> bool:
        """Whether the role is called for a unit, and not for its image."""
        return call.get("name") == "container_service" and "tasks_from" not in call

    def _include(self, given: Any, variables: dict[str, Any]) -> None:
        name = given["file"] if isinstance(given, dict) else given
        self.run(str(self._value(name, variables)), variables)

    def _templar(self, variables: dict[str, Any]) -> Templar:
        loader = DataLoader()
        loader.set_basedir(str(self._folder / "templates"))
        return Templar(loader=loader, variables=self._variables | variables)

    def _value(self, template: Any, variables: dict[str, Any]) -> Any:
        return self._templar(variables).template(template)

    def _wanted(self, task: dict[str, Any], variables: dict[str, Any]) -> bool:
        conditions = task.get("when", [])
        conditions = conditions if isinstance(conditions, list) else [conditions]
        templar = self._templar(variables)
        return all(bool(templar.evaluate_conditional(condition)) for condition in conditions)

    def _items(self, task: dict[str, Any], variables: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "loop" not in task:
            yield {}
            return
        name = task.get("loop_control", {}).get("loop_var", "item")
        for item in self._value(task["loop"], variables):
            yield {str(name): item}

    def _unit(self, variables: dict[str, Any]) -> None:
        everything = self._unit_defaults | variables
        names = [name for name in everything if name.startswith("container_service_")]
        templar = self._templar(everything)
        unit = {name.removeprefix("container_service_"): templar.template(everything[name]) for name in names}
        # What an app is built from, where there is no image of it to be had.
        app = (self._variables | variables).get("__flask_app")
        app = self._value(app, variables) if app else {}
        unit["source"] = app.get("source", "")
        unit["replicas"] = int(app.get("replicas") or 1)
        self._found.units.append(unit)

    def _write(self, arguments: dict[str, Any], variables: dict[str, Any]) -> None:
        self._found.directories += [str(item["path"]) for item in arguments.get("directories", [])]
        for file in arguments.get("files", []):
            path = str(file["path"])
            if file.get("secret"):
                self._found.secrets[path] = str(file["content"])
            elif "sources" in file:
                self._found.folders[path] = self._folder / "files" / str(file["sources"]).rpartition("/")[0]
            elif "template" in file:
                template = self._folder / "templates" / str(file["template"])
                lookup = "{{ lookup('ansible.builtin.template', '" + str(template) + "') }}"
                self._found.files[path] = str(self._value(trust_as_template(lookup), variables))
            elif "content" in file:
                self._found.files[path] = str(file["content"])
            # What is left are the helpers of units, which no container sees.
