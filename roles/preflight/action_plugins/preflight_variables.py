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


# Of which shape a text must be: names, pattern, and an example that says it all.
GO_DURATION = r"(\d+(\.\d+)?(h|m|s|ms))+"
DURATION = r"((\d+)(y|w|d|h|m|s|ms))+"
SHAPES = (
    (r"\w+_image", r"[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9][\w.-]*)*(:[\w][\w.-]*|@sha256:[0-9a-f]{64})", "an image with its tag, such as docker.io/grafana/loki:3.7.8"),
    (r"\w+_memory", r"\d+[bkmg]", "an amount of memory with its unit, such as 512m or 2g"),
    (r"jaeger_retention|alertmanager_retention", GO_DURATION, "a time in hours, minutes or seconds, such as 168h"),
    (r"loki_retention|prometheus_retention_time|prometheus_scrape_interval|alertmanager_(group_wait|\w+_interval)", DURATION, "a time such as 15s, 4h or 30d"),
    (r"prometheus_retention_size", r"\d+(B|KB|MB|GB|TB|PB)", "a size such as 5GB"),
    (r"loki_stream_rate", r"\d+(\.\d+)?(B|KB|MB|GB)", "a size such as 8MB"),
    (r"docker_journal_max_use", r"\d+[KMGT]?", "a size such as 1G"),
    (r"\w+_(publish|engine)_address|vantage_network_gateway", r"(\d{1,3}\.){3}\d{1,3}", "an IPv4 address, such as 127.0.0.1"),
    (r"vantage_network_subnet", r"(\d{1,3}\.){3}\d{1,3}/\d{1,2}", "a subnet, such as 172.29.238.0/24"),
    (r"grafana_root_url|\w+_(external|loki|warehouse)_url|traffic_url|flask_app_otlp_endpoint", r"https?://\S+", "an address, such as http://localhost:3000/"),
)  # fmt: skip


def shape_problem(name: str, value: Any, spec: dict[str, Any]) -> str:
    """One sentence where a value has the right type and cannot be right, else an empty text."""
    if value in ("", None) and spec.get("default") in ("", None):
        return ""  # Left out.
    if spec["type"] == "int":
        least = 0 if name.startswith("preflight_") or name.endswith("_seed") else 1
        most = 65535 if name.endswith("_port") else None
        if int(value) < least or (most and int(value) > most):
            return f"The variable {name} is {value}; give a number from {least}{f' to {most}' if most else ' on'}."
    for names, pattern, example in SHAPES:
        if re.fullmatch(names, name) and not re.fullmatch(pattern, str(value)):
            return f"The variable {name} is {str(value)!r}; it needs {example}."
    return ""


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
            if not checked.error_messages and (problem := shape_problem(name, value, spec | options[name])):
                problems.append(problem)
            if name == "vantage_apps" and not checked.error_messages:
                problems += app_problems(value)
        if problems:
            problems.append("Correct them in the inventory or on the command line and run again. Nothing was changed.")
            return result | {"failed": True, "msg": "\n".join(problems)}
        return result | {"changed": False}
