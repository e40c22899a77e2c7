"""What preflight refuses and what it lets pass, without a host."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import gather_host_state
import pytest
import yaml
from ansible.errors import AnsibleError
from rendering import ROLES, Host, roles


def plugin(name: str) -> ModuleType:
    path = ROLES / "preflight/action_plugins" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


variables = plugin("preflight_variables")
ports = plugin("preflight_ports")


def as_given(value: object) -> object:
    return value


# Names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("prometheus_retention_tme", "prometheus_retention_time"),
        ("promethues_retention_time", "prometheus_retention_time"),
        ("vantage_publish_adress", "vantage_publish_address"),
        ("grafana_admin_pasword", "grafana_admin_password"),
        ("loki_prot", "loki_port"),
        ("docker_sorce", "docker_source"),
        ("vantage_app", "vantage_apps"),
        ("verify_secnds", "verify_seconds"),
        ("report_shrt", "report_short"),
    ],
)
def test_misspelt_variable_is_refused_with_the_one_that_was_meant(name: str, meant: str) -> None:
    (problem,) = variables.all_problems({name: "1"}, as_given)
    assert re.findall(r"\w+_\w+", problem) == [name, meant]


# Of geerlingguy.docker, prometheus.prometheus, grafana.grafana and other roles that people have in the same inventory.
FOREIGN = re.findall(
    r"\w+",
    """
    docker_users docker_edition docker_version docker_package docker_compose_version docker_storage_driver
    prometheus_version prometheus_targets prometheus_scrape_configs prometheus_storage_retention_size prometheus_alert_rules
    prometheus_web_external_url prometheus_web_listen_address prometheus_config_dir prometheus_agent_mode
    node_exporter_web_listen_address node_exporter_version node_exporter_enabled_collectors
    alertmanager_version alertmanager_smtp alertmanager_child_routes alertmanager_web_external_url alertmanager_config_file
    grafana_ini grafana_version grafana_url grafana_datasources grafana_admin_user loki_version promtail_loki_server_url
    jaeger_user verify_ssl report_email traffic_shaping company_region backup_hour environment_name
    """,
)


@pytest.mark.parametrize("name", FOREIGN)
def test_variable_of_another_role_passes(name: str) -> None:
    assert variables.all_problems({name: "1"}, as_given) == []


def test_known_variables_are_not_taken_for_misspellings() -> None:
    assert "prometheus_port" in variables.known_options()
    assert variables.misspelt(variables.known_options(), variables.known_options()) == []


@pytest.mark.parametrize(
    ("given", "roles", "refused"),
    [
        (["verify_tme"], ["verify"], ["verify_tme"]),
        (["report_shrt_window"], ["report"], ["report_shrt_window"]),
        (["verify_seconds", "grafana_ini", "ansible_user"], ["verify"], []),
        (["verify_ssl"], ["loki"], []),
        # This one is a slip, which `misspelt` reports.
        (["verify_secnds"], ["verify"], []),
    ],
)
def test_option_of_a_playbook_must_be_known_to_its_role(given: list[str], roles: list[str], refused: list[str]) -> None:
    problems = variables.unknown_options(given, roles)
    assert [problem.split()[2] for problem in problems] == refused
    assert all(f"{role}_" in problem for problem, role in zip(problems, roles, strict=False))


# Values ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("loki_image", "docker.io/grafana/loki", "docker.io/grafana/loki:3.7.8"),
        ("grafana_image", "Grafana:12", "registry.example.org:5000/grafana/grafana@sha256:" + "0" * 64),
        ("loki_memory", "half a gig", "512m"),
        ("prometheus_retention_time", "15 days", "15d"),
        ("prometheus_retention_size", "5 gigs", "5GB"),
        ("prometheus_scrape_interval", "15", "1m30s"),
        ("loki_retention", "a week", "7d"),
        ("jaeger_retention", "7d", "168h"),
        ("loki_stream_rate", "8 per second", "8MB"),
        ("docker_journal_max_use", "much", "1G"),
        ("vantage_publish_address", "localhost", "10.0.0.5"),
        ("vantage_publish_address", "999.1.1.1", "0.0.0.0"),
        ("vantage_network_subnet", "172.29.238.0", "10.1.0.0/16"),
        ("vantage_network_subnet", "172.29.238.0/99", "172.29.238.0/24"),
        ("grafana_root_url", "grafana.example.org", "https://grafana.example.org/"),
        ("grafana_port", 70000, 3000),
        ("grafana_port", 65536, 65535),
        ("grafana_port", "three thousand", "3000"),
        ("vantage_ready_seconds", 0, "900"),
        ("vantage_ready_seconds", "soon", "14.0"),
        ("preflight_memory_mb", -1, 0),
        ("vantage_image_source", "magic", "archive"),
    ],
)
def test_invalid_value_is_refused_by_variable_and_value(name: str, wrong: object, right: object) -> None:
    assert variables.all_problems({name: right}, as_given) == []
    (problem,) = variables.all_problems({name: wrong}, as_given)
    assert name in problem
    assert str(wrong) in problem


PATTERNS = [
    pytest.param(entry, name, id=f"{entry}-{name}")
    for entry in ("main", "app")
    for name, option in variables.known_options(entry).items()
    if option.form and option.form != variables.FORMS["count"]
]


def test_a_form_of_a_value_lies_with_the_role_that_owns_the_option() -> None:
    for path in ROLES.glob("*/meta/value_patterns.yml"):
        specs = yaml.safe_load(path.with_name("argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
        for entry, names in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            assert set(names) <= set(specs[entry]["options"])


@pytest.mark.parametrize(("entry", "name"), PATTERNS)
def test_pattern_accepts_the_default_and_refuses_a_wrong_value(entry: str, name: str) -> None:
    option = variables.known_options(entry)[name]
    kind = option.spec["type"]
    if "default" in option.spec:
        host = Host(next(role for role in roles() if name.startswith(f"{role}_")))
        default = host.value(host.variables[name])
        assert default, "a pattern needs a default to hold for"
        assert variables.value_problems(name, default, option) == []
    wrong = {"dict": {"no name": "x"}, "list": ["no volume"], "int": -1}.get(kind, "no such, value")
    (problem,) = variables.value_problems(name, wrong, option)
    assert name in problem


@pytest.mark.parametrize(
    "name", [name for name, option in variables.known_options().items() if option.spec["type"] == "int"]
)
def test_negative_whole_number_is_refused(name: str) -> None:
    (problem,) = variables.value_problems(name, -1, variables.known_options()[name])
    assert "-1" in problem


def test_value_that_cannot_be_templated_is_refused() -> None:
    def fail(_: object) -> object:
        raise AnsibleError("'region' is undefined")

    (problem,) = variables.all_problems({"loki_memory": "{{ region }}"}, fail)
    assert "loki_memory" in problem
    assert "'region' is undefined" in problem


# Apps ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["up/../../x", "He llo", "-a;b", "a", "Hello", "x" * 41, "loki", "node-exporter", "traffic"]
)
def test_invalid_or_reserved_name_of_an_app_is_refused(name: str) -> None:
    (problem,) = variables.app_problems([{"name": name, "image": "hello:1", "port": 8000}])
    assert "name: " in problem
    assert repr(name) in problem


def test_two_apps_of_one_name_are_refused() -> None:
    one = {"name": "hello", "image": "hello:1", "port": 8000}
    (problem,) = variables.app_problems([one, one | {"port": 8001}])
    assert "duplicate name hello" in problem


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("helth_path", "/", ["helth_path", "health_path"]),
        ("enviroment", {}, ["enviroment", "environment"]),
        ("image", "Hello World", ["image", "'Hello World'"]),
        ("health_path", "health", ["health_path", "'health'"]),
        *((key, "", [f"{key}: ", "''"]) for key in ("image", "user", "memory", "health_path", "metrics_path", "data")),
        ("address", "::1", ["address", "'::1'", "IPv4"]),
        ("address", "::", ["address", "'::'", "IPv4"]),
        ("user", "www-data", ["user", "'www-data'", "10001:10001"]),
        ("memory", "lots", ["memory", "'lots'"]),
        ("data", "data", ["data", "'data'"]),
        ("volumes", ["/a"], ["volumes", "'/a'", ":ro"]),
        ("volumes", ["/var/run/docker.sock:/var/run/docker.sock"], ["volumes", "docker.sock", "root"]),
        ("secrets", {"../x": "y"}, ["secrets", "'../x'"]),
        ("environment", {"A": "b\nc"}, ["environment", "'A'", "secret"]),
        ("environment", {"A": {"b": "c"}}, ["environment", "'A'"]),
        ("environment", ["A"], ["environment"]),
        ("port", 99999, ["port", "99999", "65535"]),
        ("port", "eight", ["port", "eight"]),
        ("container_port", True, ["container_port", "True"]),
        ("replicas", True, ["replicas", "True"]),
        ("instrument", "magic", ["instrument", "magic", "auto"]),
        ("source", "/nowhere/at/all", ["source", "/nowhere/at/all"]),
    ],
)
def test_invalid_key_of_an_app_is_refused_by_app_key_and_value(key: str, value: object, words: list[str]) -> None:
    problems = variables.app_problems([{"name": "hello", "image": "hello:1", "port": 8000} | {key: value}])
    assert len(problems) == 1, problems
    for word in ["app hello", *words]:
        assert word in problems[0]


def test_invalid_secret_is_not_shown() -> None:
    app = {"name": "hello", "image": "hello:1", "port": 8000, "secrets": {"../x": "hidden", "ok": ["hidden"]}}
    problems = variables.app_problems([app])
    assert len(problems) == 2
    assert "hidden" not in "".join(problems)


@pytest.mark.parametrize(
    ("apps", "word"), [(None, "NoneType"), ({"name": "hello"}, "a mapping"), ("[]", "text"), (["hello"], "'hello'")]
)
def test_apps_that_are_no_list_of_mappings_are_refused(apps: object, word: str) -> None:
    (problem,) = variables.all_problems({"vantage_apps": apps}, as_given)
    assert "vantage_apps" in problem
    assert word in problem


def test_apps_given_as_text_are_refused_with_the_command_line_for_a_list() -> None:
    (problem,) = variables.all_problems({"vantage_apps": "[]"}, as_given)
    assert """-e '{"vantage_apps": []}'""" in problem


@pytest.mark.parametrize("missing", ["name", "port", "image"])
def test_app_without_a_required_key_is_refused(missing: str) -> None:
    app = {"name": "hello", "image": "hello:1", "port": 8000}
    del app[missing]  # type: ignore[arg-type]
    (problem,) = variables.app_problems([app])
    assert "missing key" in problem
    assert missing in problem


def test_the_demo_shop_and_ordinary_names_pass() -> None:
    host = Host("flask_app")
    host.variables["playbook_dir"] = str(ROLES.parent / "playbooks")
    shop = host.value(host.variables["vantage_apps"])
    assert [app["name"] for app in shop] == ["warehouse", "storefront"]
    assert variables.app_problems([*shop, {"name": "my-app2", "image": "hello:1", "port": 8002}]) == []


@pytest.mark.parametrize("directory", ["2blog", "___", "loki", "x"])
def test_directory_that_gives_an_invalid_name_is_refused_with_the_variable_to_set(
    tmp_path: Path, directory: str
) -> None:
    (problem,) = problems_of_source(tmp_path / directory)
    assert f"flask_app_source {tmp_path / directory}" in problem
    assert "flask_app_name" in problem
    assert problems_of_source(tmp_path / directory, flask_app_name="my-blog") == []


@pytest.mark.parametrize("directory", ["My Blog-", "-blog", "x" * 39 + "-yz", "blog.git"])
def test_directory_with_an_odd_name_gives_a_valid_one(tmp_path: Path, directory: str) -> None:
    assert problems_of_source(tmp_path / directory) == []


def test_invalid_name_that_was_set_is_shown(tmp_path: Path) -> None:
    (problem,) = problems_of_source(tmp_path / "blog", flask_app_name="Blog")
    assert "'Blog'" in problem


def test_syntax_error_is_reported_with_file_line_and_reason(tmp_path: Path) -> None:
    (problem,) = problems_of_source(tmp_path / "blog", code="from flask import Flask\napp = Flask(\n")
    assert re.search(rf"{tmp_path}/blog/app\.py(:| line |, line )2\b", problem), problem
    assert "'(' was never closed" in problem
    assert "<unknown>" not in problem


def test_auto_instrumentation_of_an_image_is_refused_with_both_ways_out() -> None:
    app = {"name": "hello", "image": "hello:1", "port": 8000, "instrument": "auto"}
    (problem,) = variables.app_problems([app])
    for word in ("app hello", "instrument", "'auto'", "hello:1", "source", "opentelemetry-instrument", "Vantage(app)"):
        assert word in problem
    assert variables.app_problems([app | {"instrument": "none"}]) == []


def test_auto_instrumentation_of_a_dockerfile_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    assert problems_of_source(tmp_path / "blog", flask_app_instrument="auto") == []
    (tmp_path / "blog/Dockerfile").write_text("FROM docker.io/library/python:3.13-slim\n")
    (problem,) = problems_of_source(tmp_path / "blog", flask_app_instrument="auto")
    for word in ("instrument", "'auto'", str(tmp_path / "blog"), "Remove the Dockerfile", "opentelemetry-instrument"):
        assert word in problem
    assert problems_of_source(tmp_path / "blog") == []


def problems_of_source(
    directory: Path, code: str = "import flask\napp = flask.Flask('x')\n", **given: str
) -> list[str]:
    """The problems with flask_app_source set to a directory of this name."""
    directory.mkdir(exist_ok=True)
    (directory / "app.py").write_text(code)
    (directory / "requirements.txt").write_text("flask\n")
    host = Host("flask_app", flask_app_source=str(directory), **given)
    return list(variables.all_problems(host.variables, host.value))


# Roles that depend on each other ---------------------------------------------------------------------------------------

TRAFFIC = {"group_names": ["app"], "traffic_enabled": "true"}
BLOG = [{"name": "blog", "image": "blog:1", "port": 8000}]


def test_traffic_without_a_shop_is_refused() -> None:
    (problem,) = variables.all_problems(TRAFFIC | {"vantage_apps": BLOG}, as_given)
    for word in ("traffic_enabled", "storefront", "blog", "traffic_url"):
        assert word in problem


@pytest.mark.parametrize(
    "given",
    [
        {"traffic_enabled": "false", "vantage_apps": BLOG},
        {"traffic_url": "http://10.0.0.9:8000", "vantage_apps": BLOG},
        {"vantage_apps": [*BLOG, {"name": "storefront", "image": "shop:1", "port": 8001}]},
        {"group_names": ["monitoring"], "vantage_apps": BLOG},
    ],
)
def test_traffic_to_a_shop_passes(given: dict[str, object]) -> None:
    assert variables.all_problems(TRAFFIC | given, as_given) == []


MONITORED = {
    "group_names": ["app", "monitoring"],
    "groups": {"app": ["vm"]},
    "inventory_hostname": "vm",
    "vantage_apps": BLOG,
}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prometheus_retention_time": "2d"}, ["prometheus_slo_days", "14", "prometheus_retention_time", "2d"]),
        ({"prometheus_slos": [{"service": "blgo"}]}, ["prometheus_slos", "blgo", "blog"]),
        ({"prometheus_slos": [{"service": "blog", "latency_percent": 100}]}, ["latency_percent", "blog", "100"]),
        ({"prometheus_slo_availability_percent": "100"}, ["availability_percent", "blog", "100"]),
    ],
)  # fmt: skip
def test_impossible_objective_is_refused(given: dict[str, object], words: list[str]) -> None:
    (problem,) = variables.all_problems(MONITORED | given, as_given)
    for word in words:
        assert word in problem


@pytest.mark.parametrize("apps", ["blog", None, [{"port": 8000}], [{"name": "shop", "replicas": "two"}]])
def test_invalid_apps_of_another_host_are_left_to_its_own_preflight(apps: object) -> None:
    others = {"groups": {"app": ["vm", "other"]}, "hostvars": {"other": {"vantage_apps": apps}}}
    assert variables.all_problems(MONITORED | others | {"prometheus_slos": [{"service": "shop"}]}, as_given) == []


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prometheus_slo_days": "14.0"},
        {"prometheus_retention_time": "2d", "prometheus_slo_days": "2"},
        {"prometheus_slos": [{"service": "blog", "availability_percent": 99}]},
        {"group_names": ["app"], "prometheus_retention_time": "2d"},
        # An app on another host, which names its apps itself.
        {
            "groups": {"app": ["vm", "other"]},
            "hostvars": {"other": {"vantage_apps": [{"name": "shop", "image": "shop:1", "port": 8000}]}},
            "prometheus_slos": [{"service": "shop"}],
        },
    ],
)
def test_possible_objective_passes(given: dict[str, object]) -> None:
    assert variables.all_problems(MONITORED | given, as_given) == []


# Ports -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "*", True),
        ("10.0.0.5", "127.0.0.1", False),
    ],
)
def test_addresses_overlap_where_they_exclude_each_other(one: str, other: str, same: bool) -> None:
    assert ports.overlaps(one, other) is same


def test_ports_are_those_of_the_roles_that_the_playbook_runs_on_the_host() -> None:
    assert {"loki", "grafana", "promtail", "node_exporter"} <= ports.roles_of(["monitoring"])
    assert "flask_app" not in ports.roles_of(["monitoring"])
    assert {"flask_app", "promtail"} <= ports.roles_of(["app"])
    assert not {"loki", "grafana"} & ports.roles_of(["app"])


def settings(**given: object) -> dict[str, object]:
    addresses = {"vantage_engine_address": "127.0.0.1", "vantage_publish_address": "0.0.0.0"}
    return (
        addresses
        | {"grafana_enabled": True, "grafana_port": 3000, "loki_port": 3100, "node_exporter_port": 9100}
        | given
    )


def test_engine_listens_on_the_engine_address_and_grafana_on_the_published_one() -> None:
    found = {(p.service, p.setting, p.address, p.number) for p in ports.engine_ports(settings(), ["monitoring"])}
    assert found == {
        ("grafana", "grafana_port", "0.0.0.0", 3000),
        ("loki", "loki_port", "127.0.0.1", 3100),
        ("node-exporter", "node_exporter_port", "127.0.0.1", 9100),
    }
    assert [p.service for p in ports.engine_ports(settings(), ["app"])] == ["node-exporter"]
    without = ports.engine_ports(settings(grafana_enabled="false"), ["monitoring"])
    assert "grafana" not in {p.service for p in without}


def state(*listeners: dict[str, object], apps: list[str] | None = None) -> dict[str, object]:
    return {"listeners": list(listeners), "apps": apps or []}


def listener(container: str = "", port: int = 3100, address: str = "127.0.0.1") -> dict[str, object]:
    holder = f"container {container}" if container else "nginx (pid 7)"
    return {"address": address, "port": port, "container": container, "holder": holder}


def test_two_services_on_one_port_are_refused_by_both_variables() -> None:
    wanted = ports.engine_ports(settings(loki_port=9100), ["monitoring"])
    (problem,) = ports.port_problems(wanted, state(), "vm")
    assert re.findall(r"\w+_port|\d+", problem) == ["node_exporter_port", "loki_port", "9100"]


@pytest.mark.parametrize(
    ("found", "holder"),
    [
        (listener(), "nginx (pid 7)"),
        (listener(address="*"), "nginx (pid 7)"),
        (listener("other"), "container other"),
        (listener("vantage-prometheus"), "container vantage-prometheus"),
    ],
)
def test_port_in_use_is_refused_with_its_holder(found: dict[str, object], holder: str) -> None:
    (problem,) = ports.port_problems(ports.engine_ports(settings(), ["monitoring"]), state(found), "vm")
    for word in ("loki_port", f"{found['address']}:3100", "vm", holder):
        assert word in problem


@pytest.mark.parametrize(
    "found",
    [listener("vantage-loki"), listener(address="10.0.0.5"), listener(port=3101)],
    ids=["own", "address", "port"],
)
def test_port_that_a_service_can_have_passes(found: dict[str, object]) -> None:
    assert ports.port_problems(ports.engine_ports(settings(), ["monitoring"]), state(found), "vm") == []


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "127.0.0.1", "127.0.0.2", "10.0.0.5"])
def test_address_that_the_host_has_passes(address: str) -> None:
    assert ports.address_problems({"vantage_publish_address": address}, ["10.0.0.5"], "vm") == []


def test_address_that_the_host_does_not_have_is_refused_with_those_that_it_has() -> None:
    (problem,) = ports.address_problems(
        {"vantage_publish_address": "10.9.9.9"}, ["127.0.0.1", "10.0.0.5", "fe80::5", "fd00::5"], "vm"
    )
    for word in ("vantage_publish_address", "10.9.9.9", "vm", "10.0.0.5, fd00::5"):
        assert word in problem
    assert "127.0.0.1" not in problem and "fe80" not in problem


def test_every_address_passes_where_programs_may_listen_on_others() -> None:
    assert ports.address_problems({"vantage_publish_address": "10.9.9.9"}, [], "vm") == []


def test_addresses_of_the_host_are_those_of_its_interfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {
        "ip": "1: lo    inet 127.0.0.1/8 scope host lo\n2: eth0    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\n2: eth0    inet6 fd00::5/64 scope global\n",
    }
    monkeypatch.setattr(gather_host_state, "run", lambda *argv: shown[argv[0]])
    monkeypatch.setattr(gather_host_state, "NONLOCAL_BIND", tmp_path / "bind")
    assert gather_host_state.list_addresses() == ["127.0.0.1", "10.0.0.5", "fd00::5"]
    (tmp_path / "bind").write_text("1\n")
    assert gather_host_state.list_addresses() == []


def test_app_may_take_the_port_of_an_app_that_moves_and_not_that_of_an_engine() -> None:
    site = {"name": "site", "app": "site", "number": 1, "port": 8000, "address": "", "replica_of": ""}
    wanted = ports.app_ports([site], "127.0.0.1")
    assert ports.port_problems(wanted, state(listener("vantage-blog", 8000), apps=["blog"]), "vm") == []
    (problem,) = ports.port_problems(wanted, state(listener("vantage-loki", 8000), apps=["blog"]), "vm")
    assert "container vantage-loki" in problem


# The program on the host -----------------------------------------------------------------------------------------------


def fake_programs(folder: Path, docker_is: str, holder: str) -> None:
    line = f'LISTEN 0 4096 127.0.0.1:3100 0.0.0.0:* users:(("{holder}",pid=7,fd=8))'
    containers = f"{'a' * 64} vantage-loki 127.0.0.1:3100->3100/tcp, 127.0.0.1:9000-9002->9000-9002/tcp"
    shown = f"LoadState=loaded\nActiveState={docker_is}"
    for name, prints in (("ss", line), ("systemctl", shown), ("docker", containers)):
        (folder / name).write_text(f"#!/bin/sh\n: > {folder}/asked-{name}\nprintf '%s\\n' '{prints}'\n")
        (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("docker_is", "holder", "container", "shown"),
    [
        ("active", "docker-proxy", "vantage-loki", "container vantage-loki"),
        ("active", "nginx", "", "nginx (pid 7)"),
        ("inactive", "nginx", "", "nginx (pid 7)"),
    ],
)
def test_stopped_docker_is_not_asked(tmp_path: Path, docker_is: str, holder: str, container: str, shown: str) -> None:
    """Its socket would start it, and with it every service; preflight must change nothing."""
    fake_programs(tmp_path, docker_is, holder)
    printed = subprocess.run(
        [sys.executable, ROLES / "preflight/files/gather_host_state.py", '{"run_file": "/nowhere", "data_root": ""}'],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    gathered = json.loads(printed)
    (found,) = gathered["listeners"]
    assert found == {"address": "127.0.0.1", "port": 3100, "container": container, "holder": shown}
    assert (tmp_path / "asked-docker").exists() is (docker_is == "active")
    assert gathered["memory_mb"] > 0
    assert gathered["disks"][0]["free_mb"] > 0
    assert gathered["run"] == {}


def test_program_in_the_hosts_network_is_found_by_its_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'LISTEN 0 4096 *:9100 *:* users:(("node_exporter",pid=7,fd=3))\n'
    shown = {"ss": line, "docker": f"{'b' * 64} vantage-node-exporter \n"}
    monkeypatch.setattr(gather_host_state, "run", lambda *argv: shown[argv[0]])
    ids = {"7": ["a" * 64, "b" * 64]}
    monkeypatch.setattr(gather_host_state, "container_ids", lambda pid: ids.get(pid, []))
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/ss")
    (found,) = gather_host_state.list_listeners(docker_runs=True, own_ports={})
    assert (found["address"], found["port"], found["container"]) == ("*", 9100, "vantage-node-exporter")


def test_services_are_those_that_vantage_unit_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"service": "blog-2", "app": "blog"}, {"service": "loki", "app": None}]
    monkeypatch.setattr(gather_host_state, "PROGRAMS", ROLES / "container_service/files")
    monkeypatch.setattr(
        gather_host_state,
        "run",
        lambda *argv: json.dumps(listed) if argv[1:] == ("list", "--json", "--no-probe") else "",
    )
    assert gather_host_state.list_services() == listed
