"""Validates all variables of a host before the first role runs.

Ansible validates a role's arguments when it reaches the role, after earlier roles have changed the host. It never sees a
misspelt name, because a variable that no role reads is not an argument.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader
from ansible.template import is_trusted_as_template
from ansible.utils.vars import load_extra_vars

ROLES = Path(__file__).resolve().parents[2]
# Chosen so that `loki_prot` is a slip (0.89) and `prometheus_targets` of another role is not (0.83).
SLIP_RATIO, SLIP_LETTERS = 0.85, 2
MAX_PORT = 65535
# Keys of an app that hold secrets by name; as variables they have the prefix flask_app_.
SECRET_KEYS = ("secrets", "secret_environment")
PASSWORD = re.compile(r"_(password|secret|token)$")


class Form(NamedTuple):
    """What the text of a value must match, and how a message describes it."""

    pattern: str
    allowed: str


BYTE = r"(25[0-5]|2[0-4]\d|1?\d?\d)"
PORT = r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]"
IMAGE = r"[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9][\w.-]*)*(:[\w][\w.-]*|@sha256:[0-9a-f]{64})"
FORMS = {
    "count": Form(r"0*[1-9]\d*(\.0+)?", "a whole number from 1"),
    "count_or_zero": Form(r"\d+(\.0+)?", "a whole number from 0"),
    "duration": Form(r"(\d+(y|w|d|h|m|s|ms))+", "a duration, for example 15s, 4h or 30d"),
    "go_duration": Form(r"(\d+(\.\d+)?(h|m|s|ms))+", "a duration in hours, minutes or seconds, for example 168h"),
    "image": Form(IMAGE, "an image with its tag, for example docker.io/grafana/loki:3.7.8"),
    "ipv4": Form(rf"({BYTE}\.){{3}}{BYTE}", "an IPv4 address, for example 127.0.0.1"),
    "memory": Form(r"\d+[bkmg]", "a number with the unit b, k, m or g, for example 512m"),
    "port": Form(PORT, f"1-{MAX_PORT}"),
    "subnet": Form(rf"({BYTE}\.){{3}}{BYTE}/([89]|1\d|2[0-9])", "a subnet, for example 172.29.238.0/24"),
    "url": Form(r"https?://\S+", "a URL, for example http://localhost:3000/"),
}


class Option(NamedTuple):
    """A variable of a role, or a key of an app: its spec and the form of its value."""

    spec: dict[str, Any]
    form: Form | None


@functools.cache
def known_options(entry_point: str = "main") -> dict[str, Option]:
    """The variables of every role by name; those of the entry point `app` are the keys of one app in vantage_apps."""
    options: dict[str, Option] = {}
    for meta in sorted(ROLES.glob("*/meta")):
        specs = read(meta / "argument_specs.yml").get("argument_specs", {}).get(entry_point, {}).get("options", {})
        forms = read(meta / "value_patterns.yml").get(entry_point, {})
        for name, spec in specs.items():
            # A name ends in its form: loki_port, loki_image.
            word = name.rpartition("_")[2]
            form = forms.get(name, word if word in FORMS else "count" if spec["type"] == "int" else None)
            options[name] = Option(spec, Form(**form) if isinstance(form, dict) else FORMS[form] if form else None)
    return options


def read(path: Path) -> dict[str, Any]:
    return dict(yaml_load(path.read_text(encoding="utf-8"))) if path.exists() else {}


def call_filter(name: str, *arguments: Any) -> Any:
    """The result of a filter of any role in the play, found as templates find it."""
    return filter_loader.get(name).j2_function(*arguments)


# Names -----------------------------------------------------------------------------------------------------------------


def slip_of(name: str, known: Iterable[str]) -> str:
    """The known name that a name differs from by a slip of the pen, or an empty text."""
    near = [option for option in known if abs(len(option) - len(name)) <= SLIP_LETTERS]
    return next(iter(difflib.get_close_matches(name, near, n=1, cutoff=SLIP_RATIO)), "")


def misspelt(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A problem for each name that no role knows and that is nearly one that a role knows; other roles may have theirs."""
    unknown = sorted(set(names) - set(known))
    return [f"unknown variable: {name}. Did you mean {meant}?" for name in unknown if (meant := slip_of(name, known))]


def unknown_options(names: Iterable[str], roles: Iterable[str]) -> list[str]:
    """A problem for each command-line variable that has the prefix of one of these roles and is none of its options."""
    known = known_options()
    found = []
    for role in roles:
        options = ", ".join(name for name in known if name.startswith(f"{role}_"))
        unknown = [name for name in sorted(set(names) - set(known)) if name.startswith(f"{role}_")]
        found += [f"unknown option: {name} (allowed: {options})." for name in unknown if not slip_of(name, known)]
    return found


def given_names(variables: Mapping[str, Any]) -> set[str]:
    """The names that the user gave, without those of Ansible itself, registered results and internals."""
    return {name for name in variables if not name.startswith(("ansible_", "_", "molecule_"))}


# Values ----------------------------------------------------------------------------------------------------------------


def value_problems(name: str, value: Any, option: Option) -> list[str]:
    """What is wrong with one value: its type, or else its form."""
    if changed := changed_secrets(name, value):
        texts = {key: inner for key, inner in value.items() if not kind_of(inner)} if isinstance(value, Mapping) else ""
        return changed + (value_problems(name, texts, option) if texts else [])
    spec = {key: value for key, value in option.spec.items() if key not in {"default", "required"}}
    errors = ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages
    # A variable whose default is empty may be empty; a key of an app, which has no default, is left out instead.
    may_be_empty = "default" in option.spec and option.spec["default"] in ("", None)
    if errors or not option.form or (value in ("", None) and may_be_empty):
        return [f"{error}." for error in errors]
    return [
        f"{name}: invalid value {shown!r} (allowed: {option.form.allowed})."
        for shown, text in entries(value)
        if not re.fullmatch(option.form.pattern, text)
    ]


def entries(value: Any) -> Iterator[tuple[Any, str]]:
    """What to show and what to match of a value: itself, each entry of a list, key=value of a mapping with texts."""
    if isinstance(value, Mapping):
        # The value may be a secret, so a message shows the key alone.
        yield from ((key, f"{key}" if isinstance(v, (dict, list)) else f"{key}={v}") for key, v in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((item, str(item)) for item in value)
    else:
        yield value, str(value)


# Secrets ---------------------------------------------------------------------------------------------------------------


def changed_secrets(name: str, value: Any) -> list[str]:
    """A problem for each secret that YAML has read as something else than text, such as 0123 or yes."""
    problem = "{} is {} (allowed: text). Put the value in quotes."
    if name.removeprefix("flask_app_") in SECRET_KEYS and isinstance(value, Mapping):
        return [f"{name}: {problem.format(key, kind)}" for key, inner in value.items() if (kind := kind_of(inner))]
    if PASSWORD.search(name) and value is not None and (kind := kind_of(value)):
        return [problem.format(name, kind)]
    return []


def kind_of(value: Any) -> str:
    """What a value is if it is no text; the value itself is not shown."""
    if isinstance(value, str):
        return ""
    if value is None:
        return "empty"
    kinds = {bool: "true or false", int: "a number", float: "a number", datetime.date: "a date", Mapping: "a mapping"}
    return next((text for kind, text in kinds.items() if isinstance(value, kind)), "a list")


def secrets_of(variables: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The secrets as they are written, before any template is filled in, with where they are."""
    for key in SECRET_KEYS:
        if isinstance(given := variables.get(f"flask_app_{key}"), Mapping):
            yield f"flask_app_{key}", given
    apps = variables.get("vantage_apps")
    for number, app in enumerate(apps if isinstance(apps, list) else [], 1):
        for key in SECRET_KEYS if isinstance(app, Mapping) else ():
            if isinstance(given := app.get(key), Mapping):
                yield f"app {app.get('name') or number}: {key}", given


def unreadable_secrets(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> list[str]:
    """A problem for each secret whose text is taken for a template by mistake."""
    problems = []
    for where, secrets in secrets_of(variables):
        for key, raw in secrets.items():
            # A comment would vanish without an error.
            broken = isinstance(raw, str) and "{#" in raw and is_trusted_as_template(raw)
            reason = "its {{, {% or {# begins a template"
            try:
                template(raw)
            except AnsibleUndefinedVariable as error:
                broken, reason = True, str(error).strip().splitlines()[0]
            except AnsibleError:
                # The error of the template engine would show the text.
                broken = True
            if broken:
                problems.append(
                    f"{where}: cannot read {key}: {reason}. If it is meant literally, write {key}: !unsafe '…'."
                )
    return problems


def all_problems(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> list[str]:
    """One line for each variable that is misspelt, cannot be templated, or has an invalid value."""
    options, names = known_options(), given_names(variables)
    problems = misspelt(names, options)
    if unreadable := unreadable_secrets(variables, template):
        return problems + unreadable
    for name in sorted(names & set(options)):
        try:
            value = template(variables[name])
        except AnsibleError as error:
            problems.append(f"{name}: cannot be read: {error}")
            continue
        if name == "vantage_apps":
            problems += app_problems(value, origin_of_apps(variables, template))
        else:
            problems += value_problems(name, value, options[name])
    # These need variables that are valid in themselves.
    return problems or [*traffic_problems(variables, template), *objective_problems(variables, template)]


# Apps ------------------------------------------------------------------------------------------------------------------


def origin_of_apps(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> str:
    """The setting that vantage_apps was made of, with its value; empty where it is a list or the demo shop."""
    if variables.get("vantage_apps") != known_options()["vantage_apps"].spec["default"]:
        return ""
    given = {name: template(variables.get(name)) for name in ("flask_app_source", "flask_app_image")}
    return next((f"{name} {value}" for name, value in given.items() if value), "")


def app_problems(apps: Any, origin: str = "") -> list[str]:
    """One line for each invalid app or key; `origin` is the setting that the list was made of."""
    if not isinstance(apps, (list, tuple)):
        # The value may contain secrets, and the names of Ansible's own types mean nothing to a user.
        given = "text" if isinstance(apps, str) else "a mapping" if isinstance(apps, Mapping) else type(apps).__name__
        return [
            f"vantage_apps: invalid type: {given} (allowed: a list of apps; on the command line in JSON: "
            "-e '{\"vantage_apps\": []}'). Remove the variable to run the demo shop, or set [] to run no app."
        ]
    problems = []
    for number, app in enumerate(apps, 1):
        if not isinstance(app, dict):
            problems.append(
                f"vantage_apps: invalid app {app!r} (allowed: a mapping with name, image or source, and port)."
            )
            continue
        label = f"app {app.get('name') or number}{f' (from {origin})' if origin else ''}"
        problems += [f"{label}: {problem}" for problem in one_app_problems(app, origin)]
    return problems or name_clashes(apps)


def name_clashes(apps: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each name that two services of these apps have, replicas included."""
    users: dict[str, list[str]] = {}
    for service in call_filter("app_services", apps):
        replica = f"replica {service['number']} of " if service["replica_of"] else ""
        users.setdefault(service["name"], []).append(f"{replica}app {service['app']}")
    clashes = {name: " and ".join(several) for name, several in users.items() if len(several) > 1}
    return [f"vantage_apps: duplicate name {name}: {several}. Rename one app." for name, several in clashes.items()]


def one_app_problems(app: dict[str, Any], origin: str = "") -> list[str]:
    """What is wrong with one app, without its name in front."""
    options, problems = known_options("app"), []
    for key in sorted(set(app) - set(options)):
        near = difflib.get_close_matches(key, options, n=1, cutoff=0.6)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(options)}."
        problems.append(f"unknown key: {key}. {hint}")
    given = {key: value for key, value in app.items() if key in options and value is not None}
    missing = [key for key, option in options.items() if option.spec.get("required") and given.get(key, "") == ""]
    problems += [f"missing key: {key}. {options[key].spec['description']}" for key in missing]
    if "image" not in given and "source" not in given:
        problems.append("missing key: set either image or source.")
    # Secrets that are no text were named as variables already.
    named = [key for key in SECRET_KEYS if origin and changed_secrets(key, given.get(key))]
    for key in (key for key in given if key not in [*missing, *named]):
        problems += value_problems(key, given[key], options[key])
    service_roles = {
        path.parent.name for path in ROLES.glob("*/meta") if f"{path.parent.name}_image" in known_options()
    }
    if str(given.get("name", "")).replace("-", "_") in service_roles - {"flask_app"}:
        problems.append(f"name: {given['name']!r} is reserved for the role of that name. Choose another name.")
    if origin:
        problems = [
            f"{text} Set flask_app_name." if text.startswith(("name:", "missing key: name")) else text
            for text in problems
        ]
    return problems or source_problems(given) or instrument_problems(given) or replica_problems(given)


def instrument_problems(app: dict[str, Any]) -> list[str]:
    """Why `instrument: auto` would have no effect: it is built into images that Vantage makes from requirements."""
    if app.get("instrument") != "auto":
        return []
    source = app.get("source")
    if source and not call_filter("app_recipe", app)["dockerfile"]:
        return []
    what = f"{source} has a Dockerfile" if source else f"the image {app['image']} is not built from a source"
    return [
        f"instrument: 'auto' has no effect: {what} (auto: a source without Dockerfile). Remove the "
        f"{'Dockerfile' if source else 'image and set a source'}, or set instrument to none and start the app with "
        "`opentelemetry-instrument`, or with Vantage(app) of flask_vantage, in the image itself."
    ]


def source_problems(app: dict[str, Any]) -> list[str]:
    """Why the app's source cannot be built; its files are only read."""
    try:
        if app.get("source"):
            call_filter("app_recipe", app)
            call_filter("source_files", str(app["source"]))
        call_filter("secret_environment", app)
    except ValueError as error:
        return [str(error)]
    return []


def warnings_of(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> list[str]:
    """What is valid and probably not meant: a .env in a source that no key names."""
    everywhere = template(variables.get("flask_app_environment", {}))
    found = []
    for app in template(variables.get("vantage_apps")) or [] if "app" in variables.get("group_names", []) else []:
        hint = call_filter("env_hint", {**app, "environment": {**everywhere, **(app.get("environment") or {})}})
        found += [f"app {app['name']}: {hint}"] if hint else []
    return found


def replica_problems(app: dict[str, Any]) -> list[str]:
    """Why an app cannot run with its number of replicas."""
    replicas = int(app.get("replicas", 1))
    last = int(app["port"]) + replicas - 1
    if last > MAX_PORT:
        return [
            f"replicas: {replicas} replicas from port {app['port']} need port {last} (1-{MAX_PORT}). Set a lower port."
        ]
    shared = written_by(app) if replicas > 1 and not boolean(app.get("shared_data", False)) else []
    if shared:
        return [
            f"replicas: {replicas} replicas would write to {', '.join(shared)} at the same time. Set shared_data "
            "(flask_app_shared_data) to true if the app locks what it writes, as SQLite does, or run one replica."
        ]
    return []


def written_by(app: dict[str, Any]) -> list[str]:
    """The directories that outlive the app's container and that it may write to."""
    # The options follow the second colon, for example /a:/b:ro,z.
    volumes = [v for v in map(str, app.get("volumes", [])) if "ro" not in "".join(v.split(":", 2)[2:3]).split(",")]
    data = app.get("data") or (call_filter("app_recipe", app).get("data") if app.get("source") else "")
    return [*([f"its data directory {data}"] if data else []), *(f"the volume {volume}" for volume in volumes)]


# Roles that depend on each other ---------------------------------------------------------------------------------------


def traffic_problems(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> list[str]:
    """A problem where the traffic generator is on and its target, the demo shop, does not run."""
    url = known_options()["traffic_url"].spec["default"]
    enabled = "app" in variables.get("group_names", []) and boolean(template(variables.get("traffic_enabled", False)))
    apps = [str(app["name"]) for app in template(variables.get("vantage_apps")) or []]
    if not enabled or template(variables.get("traffic_url", url)) != url or "storefront" in apps:
        return []
    return [
        f"traffic_enabled: no app is named storefront (apps: {', '.join(apps) or 'none'}), and traffic_url is {url}. "
        "Set traffic_enabled to false, or traffic_url to a demo shop elsewhere."
    ]


def objective_problems(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> list[str]:
    """A problem where an objective names no app, leaves no error budget or outlives the retention of the samples."""
    if "monitoring" not in variables.get("group_names", []):
        return []

    def setting(name: str) -> Any:
        return template(variables.get(name, known_options()[name].spec["default"]))

    hosts, here = variables.get("groups", {}).get("app", []), variables.get("inventory_hostname", "")
    own = [f"prometheus_slo_{name}" for name in ("availability_percent", "latency_percent", "latency_seconds")]
    try:
        days, retention = int(float(setting("prometheus_slo_days"))), str(setting("prometheus_retention_time"))
        call_filter("within_retention", days, retention)
        if "vantage_apps" in variables:
            apps, addresses = setting("vantage_apps"), dict.fromkeys(hosts, "")
            targets = call_filter("app_targets", addresses, here, variables.get("hostvars", {}), hosts, apps)
            unscraped = call_filter("unscraped_apps", here, variables.get("hostvars", {}), hosts, apps)
            call_filter("slos", targets, setting("prometheus_slos"), *(float(setting(name)) for name in own), unscraped)
    except AnsibleError as error:
        return [str(error)]
    except (AttributeError, KeyError, TypeError, ValueError):
        pass  # The apps of another host are invalid, which the preflight of that host reports.
    return []


class ActionModule(ActionBase):
    """Fails with one line for each invalid variable; with `values: false` it checks names alone."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result, variables = super().run(tmp, task_vars), task_vars or {}
        if boolean(self._task.args.get("values", True)):
            problems = all_problems(variables, self._templar.template)
        else:
            roles = variables.get("ansible_play_role_names", [])
            problems = misspelt(given_names(variables), known_options())
            problems += unknown_options(load_extra_vars(self._loader), roles)
        if problems:
            problems.append("Correct them in the inventory or on the command line and run again. Nothing was changed.")
            return result | {"failed": True, "msg": "\n".join(problems)}
        found = warnings_of(variables, self._templar.template) if boolean(self._task.args.get("values", True)) else []
        return result | {"changed": False, "warnings": found}
