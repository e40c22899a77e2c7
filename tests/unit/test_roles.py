"""What must hold for every role: its specs, defaults, handlers and templates agree with each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROLES, Host, load, roles, specs

SERVICES = [r for r in roles() if (ROLES / r / "handlers").is_dir() and r not in {"docker", "flask_app"}]


def tasks(role: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((ROLES / role / "tasks").glob("*.yml")):
        found += flatten(load(path))
    return found


def flatten(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    flat = []
    for item in items:
        flat.append(item)
        for key in ("block", "rescue", "always"):
            flat += flatten(item.get(key, []))
    return flat


def service_variables(role: str) -> dict[str, Any]:
    """What the role passes to container_service for its unit."""
    for task in tasks(role):
        call = task.get("ansible.builtin.include_role", {})
        if call.get("name") == "container_service" and "tasks_from" not in call:
            return dict(task["vars"])
    raise AssertionError(f"{role} does not run container_service")


@pytest.mark.parametrize("role", roles())
def test_defaults_equal_the_argument_specs(role: str) -> None:
    path = ROLES / role / "defaults" / "main.yml"
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))
    options = specs(role)["main"]["options"]
    specified = {name: option["default"] for name, option in options.items() if "default" in option}
    assert defaults == specified


@pytest.mark.parametrize("role", roles())
def test_every_option_has_a_description_and_a_type(role: str) -> None:
    for entry in specs(role).values():
        for name, option in entry["options"].items():
            assert option.get("description"), f"{name} has no description"
            assert option.get("type"), f"{name} has no type"


@pytest.mark.parametrize("role", roles())
def test_every_default_has_the_type_of_its_spec(role: str) -> None:
    types = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "path": str}
    for name, option in specs(role)["main"]["options"].items():
        if "default" in option and "{{" not in str(option["default"]):
            assert isinstance(option["default"], types[option["type"]]), name


@pytest.mark.parametrize("role", roles())
def test_every_notified_handler_exists(role: str) -> None:
    path = ROLES / role / "handlers" / "main.yml"
    handlers = {handler["name"] for handler in load(path)} if path.exists() else set()
    notified: set[str] = set()
    for task in tasks(role):
        wanted = task.get("notify", [])
        notified |= set([wanted] if isinstance(wanted, str) else wanted)
        variables = task.get("vars", {})
        call = task.get("ansible.builtin.include_role", {})
        if call.get("name") == "container_service" and "tasks_from" not in call:
            name = variables["container_service_name"]
            notified.add(variables.get("container_service_apply", f"Apply {name}"))
    notified.discard("{{ container_service_apply }}")  # the caller's, found above
    assert notified <= handlers


@pytest.mark.parametrize("role", roles())
def test_every_role_has_a_readme_that_names_its_variables(role: str) -> None:
    text = (ROLES / role / "README.md").read_text(encoding="utf-8")
    missing = [name for name in specs(role).get("main", {}).get("options", {}) if f"`{name}`" not in text]
    assert not missing, "run `make render`"


@pytest.mark.parametrize("role", roles())
def test_task_names_are_unique_and_imperative(role: str) -> None:
    for path in (ROLES / role / "tasks").glob("*.yml"):
        names = [task["name"] for task in flatten(load(path))]
        assert len(names) == len(set(names)), path
    names = [task["name"] for task in tasks(role)]
    assert all(re.match(r"[A-Z][a-z]+ ", name) for name in names)


@pytest.mark.parametrize("template", sorted(ROLES.glob("*/templates/*.j2")), ids=lambda p: p.name)
def test_template_renders_with_defaults_alone_and_says_who_manages_it(template: Path) -> None:
    role = template.parents[1].name
    given: dict[str, Any] = {}
    if role == "container_service":
        given = {
            "container_service_name": "probe",
            "container_service_image": "probe:1",
            "container_service_user": "1:1",
        }
    if role == "flask_app":
        given = {"__flask_app_recipe": {"base": "/srv/app", "instrument": "auto", "object": "app:app"}}
    text = Host(role).render(template, **given)
    assert "Ansible managed" in text
    # What is left are templates of the engines themselves.
    text = re.sub(r"{{-?\s+(?=\$|\.|range\b|with\b|if\b|else\b|end\b|printf\b)", "", text)
    assert "{{" not in text.replace("{{ .", "").replace("{{ with", "").replace("{{ else", "").replace("{{ end", "")


@pytest.mark.parametrize("template", sorted(ROLES.glob("*/templates/*.yml.j2")), ids=lambda p: p.name)
def test_rendered_config_is_yaml(template: Path) -> None:
    assert yaml.safe_load(Host(template.parents[1].name).render(template))


@pytest.mark.parametrize(
    "role", [r for r in roles() if f"{r}_config_overrides" in specs(r).get("main", {}).get("options", {})]
)
def test_overrides_are_merged_into_the_config(role: str) -> None:
    (template,) = (ROLES / role / "templates").glob(f"{role}.yml.j2")
    text = Host(role, **{f"{role}_config_overrides": {"planted": {"key": 1}}}).render(template)
    assert yaml.safe_load(text)["planted"] == {"key": 1}


def unit(role: str, **given: Any) -> str:
    host = Host(role)
    host.variables |= load(ROLES / "container_service/defaults/main.yml") | service_variables(role) | given
    return Host("container_service", **host.variables).render(ROLES / "container_service/templates/unit.service.j2")


@pytest.mark.parametrize("role", SERVICES)
def test_unit_is_hardened(role: str) -> None:
    text = unit(role)
    for option in (
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--memory=",
        "--pids-limit=",
        "--log-driver=none",
        "--pull=never",
    ):
        assert option in text, option
    assert "docker.sock" not in text
    assert "--privileged" not in text
    assert "--cap-add" not in text
    assert re.search(r"--user=\d+:\d+", text)


@pytest.mark.parametrize("role", SERVICES)
def test_unit_publishes_on_loopback_alone_by_default(role: str) -> None:
    published = re.findall(r"--publish=(\S+)", unit(role))
    assert all(address.startswith("127.0.0.1:") for address in published)


@pytest.mark.parametrize("role", SERVICES)
def test_unit_command_is_one_unbroken_line(role: str) -> None:
    lines = unit(role).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("ExecStart="))
    end = next(i for i in range(start, len(lines)) if not lines[i].endswith("\\"))
    assert all(line.strip() != "\\" and line.strip() for line in lines[start : end + 1])
    assert lines[end + 1].startswith("# Not fatal"), lines[start : end + 2]


def test_unit_keeps_percent_and_dollar_of_a_value() -> None:
    text = unit("prometheus", container_service_command=["--a=50%", "--b=$HOME x"])
    assert "--a=50%%" in text
    assert '"--b=$$HOME x"' in text


def test_a_host_outside_monitoring_sends_to_the_monitoring_host() -> None:
    given = {
        "inventory_hostname": "web",
        "group_names": ["app"],
        "groups": {"all": ["web", "mon"], "app": ["web"], "monitoring": ["mon"]},
        "hostvars": {"web": {}, "mon": {"ansible_host": "10.0.0.9"}},
    }
    assert (
        Host("promtail", **given).value(load(ROLES / "promtail/defaults/main.yml")["promtail_loki_url"])
        == "http://10.0.0.9:3100"
    )
    otlp = load(ROLES / "flask_app/defaults/main.yml")["flask_app_otlp_endpoint"]
    assert Host("flask_app", **given).value(otlp) == "http://10.0.0.9:4318"


def test_prometheus_scrapes_the_apps_of_every_host() -> None:
    given = {
        "inventory_hostname": "mon",
        "groups": {"all": ["web", "mon"], "app": ["web"], "monitoring": ["mon"]},
        "hostvars": {"web": {"ansible_host": "10.0.0.8"}, "mon": {}},
    }
    config = yaml.safe_load(Host("prometheus", **given).render(ROLES / "prometheus/templates/prometheus.yml.j2"))
    jobs = {job["job_name"]: job["static_configs"] for job in config["scrape_configs"]}
    assert {target for group in jobs["apps"] for target in group["targets"]} == {"10.0.0.8:8001", "10.0.0.8:8000"}
    assert {target for group in jobs["node_exporter"] for target in group["targets"]} == {
        "10.0.0.8:9100",
        "172.29.238.1:9100",
    }


def test_prometheus_scrapes_every_service_of_the_playbook() -> None:
    config = yaml.safe_load(Host("prometheus").render(ROLES / "prometheus/templates/prometheus.yml.j2"))
    names = {
        group.get("labels", {}).get("service_name")
        for job in config["scrape_configs"]
        for group in job["static_configs"]
    }
    # What the visitors do shows in the shop's metrics.
    services = {role.replace("_", "-") for role in SERVICES} - {"traffic"}
    assert services | {"storefront", "warehouse"} <= names


def texts(role: str) -> dict[str, str]:
    """The numbers and switches among a role's settings as `-e name=value` gives them: texts."""
    options = specs("vantage")["main"]["options"] | specs(role).get("main", {}).get("options", {})
    return {
        name: str(option["default"])
        for name, option in options.items()
        if option["type"] in {"int", "float", "bool"} and "default" in option and "{{" not in str(option["default"])
    }


@pytest.mark.parametrize("template", sorted(ROLES.glob("*/templates/*.yml.j2")), ids=lambda p: p.name)
def test_a_number_given_as_text_renders_the_same_config(template: Path) -> None:
    role = template.parents[1].name
    assert Host(role, **texts(role)).render(template) == Host(role).render(template)


@pytest.mark.parametrize("role", SERVICES)
def test_a_number_given_as_text_renders_the_same_unit(role: str) -> None:
    assert unit(role, **texts(role)) == unit(role)


def calls() -> list[Any]:
    """Every call of container_service, with the entry point and the variables it is given."""
    found = []
    for role in roles():
        for task in tasks(role):
            call = task.get("ansible.builtin.include_role", {})
            if call.get("name") == "container_service":
                entry = Path(call.get("tasks_from", "main")).stem
                found.append(pytest.param(entry, set(task["vars"]), call, id=task["name"]))
    return found


@pytest.mark.parametrize(("entry", "given", "call"), calls())
def test_a_call_of_container_service_keeps_to_its_spec(entry: str, given: set[str], call: dict[str, Any]) -> None:
    options = specs("container_service")[entry]["options"]
    assert call["rolespec_validate"] is False, "this test stands in for the check of each run"
    assert given <= set(options)
    assert {name for name, option in options.items() if option.get("required")} <= given
