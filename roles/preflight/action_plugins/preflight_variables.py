"""Checks all variables of a host against the argument specs of all roles, before the first role runs.

Ansible checks a role's arguments when it reaches the role: too late, because the roles before it have changed the
host by then. And it never sees a misspelt name, because a variable nobody reads is no argument.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
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
BYTE = r"(25[0-5]|2[0-4]\d|1?\d?\d)"
GO_DURATION = r"(\d+(\.\d+)?(h|m|s|ms))+"
DURATION = r"((\d+)(y|w|d|h|m|s|ms))+"
IMAGE = r"[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9][\w.-]*)*(:[\w][\w.-]*|@sha256:[0-9a-f]{64})"
MEMORY = r"\d+[bkmg]"
SHAPES = (
    (r"\w+_image", IMAGE, "an image with its tag, such as docker.io/grafana/loki:3.7.8"),
    (r"\w+_memory", MEMORY, "an amount of memory with its unit, such as 512m or 2g"),
    (r"jaeger_retention|alertmanager_retention", GO_DURATION, "a time in hours, minutes or seconds, such as 168h"),
    (r"loki_retention|prometheus_retention_time|prometheus_scrape_interval|alertmanager_(group_wait|\w+_interval)", DURATION, "a time such as 15s, 4h or 30d"),
    (r"prometheus_retention_size", r"\d+(B|KB|MB|GB|TB|PB)", "a size such as 5GB"),
    (r"loki_stream_rate", r"\d+(\.\d+)?(B|KB|MB|GB)", "a size such as 8MB"),
    (r"docker_journal_max_use", r"\d+[KMGT]?", "a size such as 1G"),
    (r"\w+_(publish|engine)_address|vantage_network_gateway", rf"({BYTE}\.){{3}}{BYTE}", "an IPv4 address, such as 127.0.0.1"),
    (r"vantage_network_subnet", rf"({BYTE}\.){{3}}{BYTE}/([89]|1\d|2[0-9])", "a subnet, such as 172.29.238.0/24"),
    (r"grafana_root_url|\w+_(external|loki|warehouse)_url|traffic_url|flask_app_otlp_endpoint", r"https?://\S+", "an address, such as http://localhost:3000/"),
)  # fmt: skip


def shape_problem(name: str, value: Any, spec: dict[str, Any]) -> str:
    """One sentence where a value has the right type and cannot be right, else an empty text."""
    if value in ("", None) and spec.get("default") in ("", None):
        return ""  # Left out.
    if spec["type"] == "int":
        least = 0 if name.startswith("preflight_") or name.endswith("_seed") else 1
        most = 65535 if name.endswith("_port") else None
        # Of a text such as 14.0, which is one by Ansible's spec, int makes none.
        number = int(float(value))
        if number < least or (most and number > most):
            return f"The variable {name} is {value}; give a number from {least}{f' to {most}' if most else ' on'}."
    for names, pattern, example in SHAPES:
        if re.fullmatch(names, name) and not re.fullmatch(pattern, str(value)):
            return f"The variable {name} is {str(value)!r}; it needs {example}."
    return ""


@functools.cache
def app_options() -> dict[str, dict[str, Any]]:
    """The keys of one app in vantage_apps with their specs, by name."""
    specs = yaml.safe_load((ROLES / "vantage/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    return dict(specs["app"]["options"])


@functools.cache
def filters(role: str, name: str) -> ModuleType:
    """A role's filters: what they refuse is better refused before anything changes."""
    spec = importlib.util.spec_from_file_location(f"vantage_{name}_filters", ROLES / role / f"filter_plugins/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What a text must look like, with an example of it. A name is that of a unit, of files and of a host; the others become arguments.
NAME = r"[a-z][a-z0-9-]{0,38}[a-z0-9]"
FORMS = {
    "image": (IMAGE, "an image with its tag, such as registry.example.org/hello:1.4"),
    "health_path": (r"/[^\s#]*", "a path such as /health, with a slash first"),
    "metrics_path": (r"/[^\s#]*", "a path such as /metrics, with a slash first"),
    "user": (r"\d+:\d+", "two numbers, user:group, such as 10001:10001"),
    "memory": (MEMORY, "a number with a unit, such as 256m"),
    "data": (r"/[^\s:]+", "a folder in the container such as /data"),
    "object": (r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "module:name, such as blog.web:create_app"),
}
VOLUME = r"/[^\s:]*:/[^\s:]+(:(ro|rw|z|Z|,)+)?"


# More of one app on one machine would rather be threads, or a second machine.
MOST_REPLICAS = 16


class OneLine(NamedTuple):
    """The settings that made the one app of vantage_apps, where nobody wrote that list: what they give, and the app's name if they do."""

    given: str
    name: str


def one_line(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> OneLine | None:
    """What flask_app_source or flask_app_image says, or nothing where vantage_apps is a list of its own or the demo shop."""
    if variables.get("vantage_apps") != known_options()["vantage_apps"]["default"]:
        return None
    values = {key: str(template(variables.get(f"flask_app_{key}")) or "") for key in ("source", "image", "name")}
    given = next((f"flask_app_{key} {values[key]}" for key in ("source", "image") if values[key]), "")
    return OneLine(given, values["name"]) if given else None


def app_problems(apps: Any, line: OneLine | None = None) -> list[str]:
    """One sentence for each app that cannot be: unknown and missing keys, values of a wrong form, sources without an app.

    `line` is what the apps were made of, where it was not the list itself.
    """
    if not isinstance(apps, (list, tuple)):
        return [
            f"vantage_apps is {'empty' if apps is None else 'a text' if isinstance(apps, str) else type(apps).__name__}, not a list of "
            "apps (on the command line: -e '{\"vantage_apps\": []}'). Remove the line to run "
            "the demo shop, write `vantage_apps: []` to run no app, or list apps with their name, image or source, and port."
        ]
    problems, seen = [], set()
    for number, app in enumerate(apps, 1):
        name = str(app.get("name", "")) if isinstance(app, dict) else ""
        who = line.given if line else f"vantage_apps: app {name or number}"
        if not isinstance(app, dict):
            problems.append(f"{who} is {app!r}, not a mapping with name, image or source, and port.")
            continue
        problems += [f"{who} {problem}" for problem in one_app_problems(app, bool(line and not line.name))]
        if name in seen:
            problems.append(f"vantage_apps: two apps are called {name}; one would replace the other. Rename one.")
        seen.add(name)
    return problems or replica_name_problems(apps)


def replica_name_problems(apps: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for each app that has the name of another one's replica."""
    names = {app["name"] for app in apps}
    return [
        f"vantage_apps: replica {service['number']} of the app {service['app']} is called {service['name']}, as another app is; "
        f"one would replace the other. Rename one of the apps, or give {service['app']} fewer replicas."
        for service in filters("vantage", "apps").app_services(apps)
        if service["replica_of"] and service["name"] in names
    ]


def one_app_problems(app: dict[str, Any], name_is_made: bool = False) -> list[str]:
    """What is wrong with one app; `name_is_made` of its folder's or image's, because nobody gave one."""
    options, problems = app_options(), []
    for key in sorted(set(app) - set(options)):
        near = difflib.get_close_matches(key, options, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(options)}."
        problems.append(f"has the key {key}, which does nothing: {hint}")
    given = {key: value for key, value in app.items() if key in options and value is not None}
    specs = {key: {k: v for k, v in options[key].items() if k != "required"} for key in given}
    problems += [f"is wrong: {text}" for text in ArgumentSpecValidator(specs).validate(given).error_messages]
    missing = [key for key, option in options.items() if option.get("required") and key not in given]
    problems += [f"has no {key}: {options[key]['description']}" for key in missing]
    if "image" not in given and "source" not in given:
        problems.append("has neither image nor source: give one of them, or nobody knows what to run.")
    if "name" in given:
        problems += name_problems(str(given["name"]), name_is_made)
    for key in ("port", "container_port", "replicas"):
        if isinstance(given.get(key), bool):
            problems.append(f"has {str(given[key]).lower()} as {key}; give a number.")
    for key in ("port", "container_port"):
        if str(given.get(key, 1)).isdigit() and not 1 <= int(str(given.get(key, 1))) <= 65535:
            problems.append(f"has the {key} {given[key]}, which is none; give one from 1 to 65535.")
    for key, (form, example) in FORMS.items():
        if isinstance(given.get(key), str) and not re.fullmatch(form, given[key]):
            problems.append(f"has {given[key]!r} as {key}; give {example}.")
    problems += inner_problems(given) + source_problems(given)
    # What follows needs an app that is right in itself.
    return problems or replica_problems(given)


def name_problems(name: str, is_made: bool) -> list[str]:
    """What is wrong with an app's name; one that was made of a folder's or image's has to be given instead."""
    taken = {path.parent.name.replace("_", "-") for path in ROLES.glob("*/handlers")} - {"flask-app"}
    has, instead = f"has {name!r} for a name", ""
    if is_made:
        better = re.sub(r"-+$", "", f"app-{name}"[:40])
        has = (
            f"makes {name!r} the name of the app"
            if name
            else "gives the app no name, as there is no letter or digit in it"
        )
        instead = f" Give one with flask_app_name, such as -e flask_app_name={better if name else 'my-app'}."
    if not re.fullmatch(NAME, name):
        return [
            f"{has}: a name is two to forty lower-case letters, digits and dashes, a letter first and no dash last.{instead}"
        ]
    if name in taken:
        role = name.replace("-", "_")
        return [f"{has}, which belongs to the role {role}{f'.{instead}' if instead else '; choose another.'}"]
    return []


def replica_problems(app: dict[str, Any]) -> list[str]:
    """Why an app cannot run as often as it is to."""
    replicas = int(app.get("replicas", 1))
    if not 1 <= replicas <= MOST_REPLICAS:
        hint = " To run it not at all, take it out of the list." if replicas == 0 else ""
        return [f"has {replicas} replicas; give a number from 1 to {MOST_REPLICAS}.{hint}"]
    last = int(app["port"]) + replicas - 1
    if last > 65535:
        return [
            f"has {replicas} replicas from port {app['port']} on, the last on {last}, which is none; give a lower port."
        ]
    written = written_by(app) if replicas > 1 and not boolean(app.get("shared_data", False)) else []
    if written:
        return [
            f"has {replicas} replicas, which would all write to {', '.join(written)} at a time: what is kept there gets lost where the code "
            "expects to be alone. If it may (SQLite locks its file) or if nothing is kept there, set shared_data: true (flask_app_shared_data); "
            "otherwise let it run once."
        ]
    return []


def written_by(app: dict[str, Any]) -> list[str]:
    """The folders of an app that outlive it, by what says so."""
    # The options after the second colon, of which ro is one among others: /a:/b:ro,z.
    volumes = [
        str(volume)
        for volume in app.get("volumes", [])
        if "ro" not in "".join(str(volume).split(":", 2)[2:3]).split(",")
    ]
    if app.get("data"):
        return [f"its data folder {app['data']}", *(f"the volume {volume}" for volume in volumes)]
    recipe = filters("vantage", "apps").app_recipe(app) if app.get("source") else {}
    data = [f"Flask's instance folder {recipe['data']}"] if recipe.get("data") else []
    return data + [f"the volume {volume}" for volume in volumes]


def inner_problems(app: dict[str, Any]) -> list[str]:
    """What is wrong with the lists and mappings of an app."""
    problems = []
    for volume in app.get("volumes", []) if isinstance(app.get("volumes"), (list, tuple)) else []:
        if not re.fullmatch(VOLUME, str(volume)):
            problems.append(
                f"has the volume {volume!r}; give /folder/on/the/host:/folder/in/the/container, with :ro or not."
            )
        elif "docker.sock" in str(volume):
            problems.append(
                "mounts docker.sock: with it the app is root on the host. There is no setting that allows it."
            )
    for key, form in (("environment", r"[A-Za-z_]\w*"), ("secrets", r"[A-Za-z0-9_][\w.-]*")):
        for name, value in app.get(key, {}).items() if isinstance(app.get(key), dict) else []:
            if not re.fullmatch(form, str(name)):
                problems.append(f"has the name {str(name)!r} in {key}; give letters, digits and underscores.")
            if isinstance(value, (dict, list)):
                problems.append(f"has a {type(value).__name__} as {name} in {key}; give one text.")
            elif key == "environment" and "\n" in str(value):
                problems.append(
                    f"has a line break in {name} of its environment; a unit cannot hold one. Give it as a secret."
                )
    return problems


def source_problems(app: dict[str, Any]) -> list[str]:
    """Why the app's source cannot be built, by looking at the folder: nothing of it is run."""
    if not app.get("source"):
        return []
    try:
        filters("vantage", "apps").app_recipe(app)
    except ValueError as error:
        return [f"cannot be built: {error}"]
    return []


def given_names(variables: Mapping[str, Any]) -> set[str]:
    """The user's: Ansible's own names, registered results and internals are not."""
    return {n for n in variables if not n.startswith(("ansible_", "_", "molecule_"))}


def all_problems(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> list[str]:
    """One sentence for each variable that no role knows, cannot be read, is of a wrong type, or cannot be."""
    options, names = known_options(), given_names(variables)
    problems = misspelt(names, options)
    for name in sorted(names & set(options)):
        spec = {key: value for key, value in options[name].items() if key not in {"default", "required"}}
        try:
            value = template(variables[name])
        except AnsibleError as error:
            problems.append(f"The variable {name} cannot be read: {error}")
            continue
        if name == "vantage_apps":
            problems += app_problems(value, one_line(variables, template))
            continue
        checked = ArgumentSpecValidator({name: spec}).validate({name: value})
        problems += [f"The variable {name} is wrong: {message}" for message in checked.error_messages]
        if not checked.error_messages and (problem := shape_problem(name, value, spec | options[name])):
            problems.append(problem)
    # What follows needs variables that are right in themselves.
    return problems or [
        problem for check in (visitors_problem, objectives_problem) if (problem := check(variables, template))
    ]


def visitors_problem(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> str:
    """One sentence where visitors would be sent to a shop that does not run, else an empty text."""
    url = known_options()["traffic_url"]["default"]
    sent = "app" in variables.get("group_names", []) and boolean(template(variables.get("traffic_enabled", False)))
    if not sent or template(variables.get("traffic_url", url)) != url:
        return ""
    apps = [str(app["name"]) for app in template(variables.get("vantage_apps")) or []]
    if "storefront" in apps:
        return ""
    return (
        f"traffic_enabled sends visitors to the demo shop at {url}, and no app is called storefront (there {'are' if len(apps) > 1 else 'is'} "
        f"{', '.join(apps) or 'none'}): they know no other app. Set traffic_enabled to false, or traffic_url to a shop elsewhere."
    )


def objectives_problem(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> str:
    """One sentence where an objective is of no app, leaves no error budget or outlives the store, else an empty text."""
    if "monitoring" not in variables.get("group_names", []):
        return ""

    def setting(name: str) -> Any:
        return template(variables.get(name, known_options()[name]["default"]))

    slos = filters("prometheus", "slos")
    try:
        slos.within_retention(int(float(setting("prometheus_slo_days"))), str(setting("prometheus_retention_time")))
        # Not before the shared settings were taken: the default is made of others.
        if "vantage_apps" in variables and not others_are_wrong(variables):
            own = [f"prometheus_slo_{name}" for name in ("availability_percent", "latency_percent", "latency_seconds")]
            slos.slos(targets(variables, template), setting("prometheus_slos"), *(float(setting(name)) for name in own))
    except AnsibleError as error:
        return str(error)
    return ""


def others_are_wrong(variables: Mapping[str, Any]) -> bool:
    """Whether another host has apps that cannot be, which its own preflight says."""
    others = set(variables.get("groups", {}).get("app", [])) - {variables.get("inventory_hostname")}
    given = [variables["hostvars"][host] for host in others]
    return any(app_problems(host["vantage_apps"]) for host in given if "vantage_apps" in host)


def targets(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """What Prometheus on this host would scrape of apps; where they are reached does not matter here."""
    hosts = variables.get("groups", {}).get("app", [])
    return list(
        filters("prometheus", "targets").app_targets(
            dict.fromkeys(hosts, ""),
            variables.get("inventory_hostname", ""),
            variables.get("hostvars", {}),
            hosts,
            template(variables["vantage_apps"]) or [],
        )
    )


class ActionModule(ActionBase):
    """Fails with one sentence for each misspelt name and, unless `values` is false, for each value that cannot be; changes nothing."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result, variables = super().run(tmp, task_vars), task_vars or {}
        if boolean(self._task.args.get("values", True)):
            problems = all_problems(variables, self._templar.template)
        else:
            problems = misspelt(given_names(variables), known_options())
        if problems:
            problems.append("Correct them in the inventory or on the command line and run again. Nothing was changed.")
            return result | {"failed": True, "msg": "\n".join(problems)}
        return result | {"changed": False}
