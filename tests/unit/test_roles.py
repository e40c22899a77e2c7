"""What must hold for every role: its specs, defaults, service and templates agree with each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.template import trust_as_template
from rendering import ROLES, Host, files, load, roles, service, specs, unit

VARS = {role: load(path) if (path := ROLES / role / "vars/main.yml").exists() else {} for role in roles()}
SERVICES = [role for role in roles() if f"__{role}_service" in VARS[role]]


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


def defaults(role: str) -> dict[str, Any]:
    path = ROLES / role / "defaults" / "main.yml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def specified(role: str) -> dict[str, Any]:
    options = specs(role).get("main", {}).get("options", {})
    return {name: option["default"] for name, option in options.items() if "default" in option}


# Defined in roles/vantage, because several roles need them; the role of the engine documents them.
SHARED = {name: value for name, value in defaults("vantage").items() if name not in specs("vantage")["main"]["options"]}


@pytest.mark.parametrize("role", roles())
def test_defaults_equal_the_argument_specs(role: str) -> None:
    own = defaults(role)
    documented = specified(role)
    if role == "vantage":
        own = {name: value for name, value in own.items() if name not in SHARED}
    else:
        assert not set(own) & set(SHARED)
        documented = {name: value for name, value in documented.items() if name not in SHARED}
    assert own == documented


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_default_is_documented_by_the_role_of_the_engine(name: str) -> None:
    assert [specified(role)[name] for role in roles() if name in specs(role).get("main", {}).get("options", {})] == [
        SHARED[name]
    ]


@pytest.mark.parametrize("role", SERVICES)
def test_a_service_keeps_to_its_spec(role: str) -> None:
    """As complete_service checks it in each run."""
    options = specs("container_service")["service"]["options"]
    result = ArgumentSpecValidator(options).validate({"container_service": service(role)})
    assert not result.error_messages


@pytest.mark.parametrize("role", SERVICES)
def test_a_role_of_a_service_runs_it_in_one_task(role: str) -> None:
    calls = [task for task in tasks(role) if task.get("ansible.builtin.include_role") == {"name": "container_service"}]
    assert [call["vars"] for call in calls] == [{"container_service": f"{{{{ __{role}_service }}}}"}]


@pytest.mark.parametrize("role", roles())
def test_a_role_has_no_handlers(role: str) -> None:
    assert not (ROLES / role / "handlers").exists()
    assert not [task["name"] for task in tasks(role) if "notify" in task or "ansible.builtin.meta" in task]


@pytest.mark.parametrize("role", roles())
def test_every_option_has_a_description_and_a_type(role: str) -> None:
    for entry in specs(role).values():
        for name, option in entry["options"].items():
            assert option.get("description"), f"{name} has no description"
            assert option.get("type"), f"{name} has no type"


@pytest.mark.parametrize("role", roles())
def test_every_variable_has_the_prefix_of_its_role(role: str) -> None:
    names = set(specs(role).get("main", {}).get("options", {})) | set(defaults(role)) - set(SHARED)
    internal = set(VARS[role]) | {task["register"] for task in tasks(role) if "register" in task}
    # The one mapping that the role takes has the role's name.
    assert not [name for name in names if name != "container_service" and not name.startswith(f"{role}_")]
    assert not [name for name in internal - {"__container_service"} if not name.startswith(f"__{role}_")]


@pytest.mark.parametrize("role", roles())
def test_every_default_has_the_type_of_its_spec(role: str) -> None:
    types = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "path": str}
    for name, option in specs(role).get("main", {}).get("options", {}).items():
        if "default" in option and "{{" not in str(option["default"]):
            assert isinstance(option["default"], types[option["type"]]), name


@pytest.mark.parametrize("path", sorted(ROLES.glob("*/tasks/*.yml")), ids=lambda path: str(path.relative_to(ROLES)))
def test_task_names_of_a_file_are_unique(path: Path) -> None:
    names = [task["name"] for task in flatten(load(path))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("template", sorted(ROLES.glob("*/templates/*.j2")), ids=lambda p: p.name)
def test_template_renders_with_defaults_alone_and_says_who_manages_it(template: Path) -> None:
    role = template.parents[1].name
    given: dict[str, Any] = {}
    if role == "container_service":
        given = {"container_service": {"name": "probe", "image": "probe:1", "user": "1:1"}}
        given["service"] = Host(role, **given).value(trust_as_template("{{ __container_service }}"))
    if role == "flask_app":
        given = {"__flask_app_recipe": {"python_path": ["/srv/app"], "instrument": "auto", "object": "app:app"}}
        given["__flask_app_packages_image"] = "vantage/probe:packages-0"
    text = Host(role).render(template, **given)
    assert "Ansible managed" in text
    # What is left are templates of the engines themselves.
    text = re.sub(r"{{-?\s+(?=\$|\.|now\b|range\b|with\b|if\b|else\b|end\b|printf\b)", "", text)
    assert "{{" not in text.replace("{{ .", "").replace("{{ with", "").replace("{{ else", "").replace("{{ end", "")
    if template.name.endswith(".yml.j2"):
        assert yaml.safe_load(text)


@pytest.mark.parametrize(
    "role", [r for r in roles() if f"{r}_config_overrides" in specs(r).get("main", {}).get("options", {})]
)
def test_overrides_are_merged_into_the_config(role: str) -> None:
    (template,) = (ROLES / role / "templates").glob(f"{role}.yml.j2")
    text = Host(role, **{f"{role}_config_overrides": {"planted": {"key": 1}}}).render(template)
    assert yaml.safe_load(text)["planted"] == {"key": 1}


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


@pytest.mark.parametrize("role", SERVICES)
def test_unit_returns_with_docker_and_after_each_end(role: str) -> None:
    lines = unit(role).splitlines()
    (requires,) = [line.split("=")[1].split() for line in lines if line.startswith("Requires=")]
    (wanted,) = [line.split("=")[1].split() for line in lines if line.startswith("WantedBy=")]
    assert "docker.service" in requires
    assert {"vantage.target", "docker.service"} <= set(wanted)
    assert {"Restart=always", "StartLimitIntervalSec=0"} <= set(lines)


@pytest.mark.parametrize("role", SERVICES)
def test_unit_of_an_engine_has_no_proxies_and_no_limit_of_lines(role: str) -> None:
    text = unit(role)
    # 0 would be journald's default: 10,000 lines in 30 s.
    assert "\nLogRateLimitIntervalSec=1s\n" in text
    assert int(re.search(r"^LogRateLimitBurst=(\d+)$", text, re.MULTILINE)[1]) >= 10**8  # type: ignore[index]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        assert f"--env={name}= " in text
    assert "NO_PROXY" not in text


def test_unit_of_an_app_keeps_its_proxies_and_its_own_exceptions() -> None:
    given = {"environment": {"no_proxy": "db, .example.org"}, "secret_environment": {"NO_PROXY": "vault"}}
    text = unit("loki", changes={"proxy": True} | given)
    # Both are made at each start, from the exceptions that the unit lists: the app's own, and the network.
    for name in ("NO_PROXY", "no_proxy"):
        assert re.findall(rf"--env={name}\S*", text) == [f"--env={name}"]
    assert "HTTP_PROXY" not in text
    assert "\nEnvironmentFile=-/run/vantage/loki.env\n" in text
    assert "\nNoProxy=db,.example.org,vault,172.29.238.0/24\n" in text


def test_own_exceptions_of_a_service_without_proxies_stay_its_own() -> None:
    text = unit("loki", changes={"environment": {"NO_PROXY": "db"}})
    assert "--env=NO_PROXY=db " in text
    assert "NoProxy=" not in text


def test_promtail_may_read_the_journal_by_the_number_of_its_group() -> None:
    assert "--group-add=101 " in unit("promtail")


def test_unit_keeps_percent_and_dollar_of_a_value() -> None:
    text = unit("prometheus", changes={"command": ["--a=50%", "--b=$HOME x"]})
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


def test_the_order_of_hosts_is_that_of_the_inventory() -> None:
    """Another order would be another config of Prometheus."""
    groups = {"monitoring": ["m2", "m1"], "app": ["m1", *(f"a{number}" for number in range(20, 0, -1))]}
    found = Host("prometheus", groups=groups).value(trust_as_template("{{ __vantage_hosts }}"))
    assert found == ["m2", "m1", *groups["app"][1:]]


def test_a_port_of_the_monitoring_host_is_used_by_the_others() -> None:
    given = {
        "inventory_hostname": "web",
        "groups": {"all": ["web", "mon"], "app": ["web"], "monitoring": ["mon"]},
        "hostvars": {"web": {}, "mon": {"ansible_host": "10.0.0.9", "loki_port": 3109}},
    }
    url = load(ROLES / "promtail/defaults/main.yml")["promtail_loki_url"]
    assert Host("promtail", **given).value(url) == "http://10.0.0.9:3109"


# Grafana has no checker.
@pytest.mark.parametrize("role", [r for r in SERVICES if r != "grafana" and (ROLES / r / "templates").exists()])
def test_config_is_checked_by_the_image_that_will_run_it(role: str) -> None:
    commands = [file["validate"] for file in files(role) if "validate" in file]
    assert commands
    for command in commands:
        before, _, after = command.partition(f" {service(role)['image']} ")
        assert before.startswith("/usr/bin/docker run --rm --pull=never --network=none --read-only --cap-drop=ALL")
        assert "--volume=%s:/tmp/candidate.yml:ro" in before
        assert "/tmp/candidate.yml" in after
        assert command.count("%s") == 1


def test_a_checker_beside_the_entrypoint_replaces_it() -> None:
    (command,) = (file["validate"] for file in files("alertmanager") if "validate" in file)
    assert " --entrypoint=/bin/amtool " in command
    assert command.endswith(" check-config /tmp/candidate.yml")


def test_image_of_an_archive_may_have_either_of_its_ids(tmp_path: Path) -> None:
    index = {"docker.io/grafana/loki:1": {"id": "sha256:a", "digest": "sha256:b"}, "other:1": {"id": "sha256:c"}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    source = {"vantage_image_source": "archive", "vantage_image_archive_dir": str(tmp_path)}
    wanted = trust_as_template("{{ __container_service_image }}")
    for name, ids in (
        ("docker.io/grafana/loki:1", ["sha256:a", "sha256:b"]),
        ("other:1", ["sha256:c"] * 2),
        ("none:1", []),
    ):
        host = Host("container_service", container_service={"name": "loki", "image": name}, **source)
        assert host.value(wanted) == {"name": name, "ids": ids}
    pulled = {"name": "loki", "image": "loki:1"}
    assert Host("container_service", container_service=pulled).value(wanted) == {"name": "loki:1", "ids": []}
    for unneeded in ({"state": "absent"}, {"build": "/app"}):
        assert Host("container_service", container_service=pulled | unneeded, **source).value(wanted) == {}


def test_config_is_readable_by_the_container_alone() -> None:
    for role in SERVICES:
        group = service(role)["user"].partition(":")[2]
        for file in files(role):
            if file["path"].startswith("/etc/vantage/") and not file["path"].endswith("/"):
                assert file["group"] == group
                assert int(file["mode"], 8) & 0o007 == 0


def test_secrets_are_readable_by_the_container_alone() -> None:
    given = {"prometheus_secrets": {"key": "x"}}
    (secret,) = (file for file in files("prometheus", **given) if "content" in file)
    assert secret == {
        "path": "/etc/vantage/secrets/prometheus/key", "content": "x", "secret": True, "mode": "0440", "group": "10009",
    }  # fmt: skip
    password, key = (file for file in files("grafana") if "content" in file)
    # The group is root's, so the user alone reads it; without content it is generated on the host.
    assert (password["owner"], password["mode"], password["content"]) == ("472", "0400", None)
    assert key["content"] is None
    (given_password, _) = (f for f in files("grafana", grafana_admin_password="given") if "content" in f)
    assert given_password["content"] == "given"


def test_a_secret_whose_name_no_file_can_have_is_refused() -> None:
    with pytest.raises(Exception, match=r"invalid secret name '\.\./x'"):
        files("prometheus", prometheus_secrets={"../x": "y"})


def test_readiness_is_asked_where_the_port_is_published() -> None:
    assert "ReadyUrl=http://127.0.0.1:16000/status\n" in unit(
        "jaeger", vantage_engine_address="0.0.0.0", jaeger_health_port=16000
    )
    assert "ReadyUrl=http://10.0.0.1:3300/api/health\n" in unit(
        "grafana", vantage_publish_address="10.0.0.1", grafana_port=3300
    )
    text = unit("prometheus", prometheus_port=9999)
    assert "MetricsUrl=http://127.0.0.1:9999/metrics\n" in text
    assert "Reload=true\n" in text
    assert "MetricsUrl=\n" in unit("loki")
    with pytest.raises(Exception, match=r"ready\.port 1 is not published"):
        unit("loki", changes={"ready": {"port": 1, "path": "/"}})
