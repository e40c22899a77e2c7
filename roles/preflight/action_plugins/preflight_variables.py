"""Checks all variables of a host against the argument specs of all roles, before the first role runs.

Ansible checks a role's arguments when it reaches the role: too late, because the roles before it have changed the
host by then. And it never sees a misspelt name, because a variable nobody reads is no argument.
"""

from __future__ import annotations

import difflib
import functools
import pathlib
import re
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

ROLES = pathlib.Path(__file__).resolve().parents[2]


@functools.cache
def known_options() -> dict[str, dict[str, Any]]:
    """Every variable of every role with its spec, by name."""
    options: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        # container_service is called with vars by other roles only; nobody sets these in an inventory.
        if path.parts[-3] != "container_service":
            options |= specs["main"]["options"]
    return options


def misspelt(names: set[str], options: dict[str, Any]) -> list[str]:
    """One sentence for each name that no role knows but that begins or looks like one that a role knows."""
    prefixes = tuple(f"{path.parent.parent.name}_" for path in ROLES.glob("*/meta/argument_specs.yml"))
    sentences = []
    for name in sorted(names - set(options)):
        near = difflib.get_close_matches(name, options, n=1, cutoff=0.85)
        if name.startswith(prefixes) or near:
            near = near or difflib.get_close_matches(name, options, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else "see the role's README for what there is."
            sentences.append(f"No role knows the variable {name}, so setting it does nothing: {hint}")
    return sentences


def app_problems(apps: list[dict[str, Any]]) -> list[str]:
    """One sentence for each app whose name or port cannot be: a name is that of a unit, of files and of a host."""
    taken = {path.parent.name.replace("_", "-") for path in ROLES.glob("*/handlers")} - {"flask-app"}
    problems, seen = [], set()
    for app in apps:
        name, port = str(app.get("name", "")), app.get("port")
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,38}[a-z0-9]", name):
            problems.append(
                f"vantage_apps: {name!r} is no name for an app: two to forty lower-case letters, digits and dashes, a letter first."
            )
        elif name in taken:
            problems.append(
                f"vantage_apps: the name {name} belongs to the role {name.replace('-', '_')}; choose another."
            )
        elif name in seen:
            problems.append(f"vantage_apps: two apps are called {name}; one would replace the other. Rename one.")
        seen.add(name)
        if str(port).isdigit() and not 1 <= int(str(port)) <= 65535:
            problems.append(f"vantage_apps: port {port} of {name} is none; give one from 1 to 65535.")
    return problems


class ActionModule(ActionBase):
    """Fails with one sentence for each misspelt name and each value of a wrong type; changes nothing."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        options = known_options()
        # Ansible's own names, registered results and internals are not the user's.
        names = {n for n in variables if not n.startswith(("ansible_", "_", "molecule_"))}
        problems = misspelt(names, options)
        for name in sorted(names & set(options)):
            spec = {key: value for key, value in options[name].items() if key not in {"default", "required"}}
            try:
                value = self._templar.template(variables[name])
            except AnsibleError as error:
                problems.append(f"The variable {name} cannot be read: {error}")
                continue
            checked = ArgumentSpecValidator({name: spec}).validate({name: value})
            problems += [f"The variable {name} is wrong: {message}" for message in checked.error_messages]
            if name == "vantage_apps" and not checked.error_messages:
                problems += app_problems(value)
        if problems:
            problems.append("Correct them in the inventory or on the command line and run again. Nothing was changed.")
            return result | {"failed": True, "msg": "\n".join(problems)}
        return result | {"changed": False}
