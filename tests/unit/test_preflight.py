"""What preflight says of variables, without a host."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rendering import ROLES, Host


def plugin(name: str) -> ModuleType:
    path = ROLES / "preflight/action_plugins" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


variables = plugin("preflight_variables")
ports = plugin("preflight_ports")


def test_known_names_pass() -> None:
    options = variables.known_options()
    assert "prometheus_port" in options
    assert variables.misspelt(set(options), options) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("prometheus_retention_tme", "prometheus_retention_time"),
        ("promethues_retention_time", "prometheus_retention_time"),
        ("vantage_publish_adress", "vantage_publish_address"),
        ("grafana_admin_pasword", "grafana_admin_password"),
    ],
)
def test_a_misspelt_name_is_told_with_the_one_that_was_meant(name: str, meant: str) -> None:
    (sentence,) = variables.misspelt({name}, variables.known_options())
    assert name in sentence
    assert f"did you mean {meant}?" in sentence


@pytest.mark.parametrize("name", ["company_region", "backup_hour", "environment_name"])
def test_a_users_own_variable_passes(name: str) -> None:
    assert variables.misspelt({name}, variables.known_options()) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "*", True),
        ("10.0.0.5", "127.0.0.1", False),
    ],
)
def test_addresses_overlap_when_they_take_a_port_from_each_other(one: str, other: str, same: bool) -> None:
    assert ports.overlaps(one, other) is same


@pytest.mark.parametrize(
    "name", ["up/../../x", "He llo", "-a;b", "a", "Hello", "x" * 41, "loki", "node-exporter", "traffic"]
)
def test_a_name_that_no_app_can_have_is_refused(name: str) -> None:
    (sentence,) = variables.app_problems([{"name": name, "image": "hello:1", "port": 8000}])
    assert name in sentence


def test_two_apps_of_one_name_and_an_impossible_port_are_refused() -> None:
    one = {"name": "hello", "image": "hello:1", "port": 8000}
    problems = variables.app_problems([one, one | {"port": 99999}])
    assert any("two apps are called hello" in problem for problem in problems)
    assert any("99999" in problem for problem in problems)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("helth_path", "/", ["helth_path", "did you mean health_path?"]),
        ("enviroment", {}, ["enviroment", "did you mean environment?"]),
        ("image", "Hello World", ["Hello World", "image with its tag"]),
        ("health_path", "health", ["'health'", "slash"]),
        ("user", "www-data", ["www-data", "10001:10001"]),
        ("memory", "lots", ["lots", "256m"]),
        ("data", "data", ["'data'", "/data"]),
        ("volumes", ["/a"], ["/a", ":ro"]),
        ("volumes", ["/var/run/docker.sock:/var/run/docker.sock"], ["docker.sock", "root"]),
        ("secrets", {"../x": "y"}, ["../x", "secrets"]),
        ("environment", {"A": "b\nc"}, ["line break", "secret"]),
        ("environment", ["A"], ["environment"]),
        ("port", "eight", ["port", "eight"]),
        ("replicas", True, ["replicas", "true", "number"]),
        ("instrument", "magic", ["instrument", "magic", "auto"]),
        ("source", "/nowhere/at/all", ["/nowhere/at/all", "not a directory"]),
    ],
)
def test_a_wrong_key_of_an_app_is_told_with_what_is_right(key: str, value: object, words: list[str]) -> None:
    problems = variables.app_problems([{"name": "hello", "image": "hello:1", "port": 8000} | {key: value}])
    assert len(problems) == 1, problems
    for word in ["hello", *words]:
        assert word in problems[0]


@pytest.mark.parametrize(("apps", "word"), [(None, "empty"), ({"name": "hello"}, "dict"), (["hello"], "'hello'")])
def test_apps_that_are_no_list_of_apps_are_refused(apps: object, word: str) -> None:
    (sentence,) = variables.app_problems(apps)
    assert word in sentence


@pytest.mark.parametrize("missing", ["name", "port", "image"])
def test_an_app_without_what_it_needs_is_refused(missing: str) -> None:
    app = {"name": "hello", "image": "hello:1", "port": 8000}
    del app[missing]  # type: ignore[arg-type]
    (sentence,) = variables.app_problems([app])
    assert missing in sentence


def test_the_demo_shop_and_ordinary_names_pass() -> None:
    host = Host("flask_app")
    host.variables["playbook_dir"] = str(ROLES.parent / "playbooks")
    shop = host.value(host.variables["vantage_apps"])
    assert [app["name"] for app in shop] == ["warehouse", "storefront"]
    assert variables.app_problems([*shop, {"name": "my-app2", "image": "hello:1", "port": 8002}]) == []


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
        ("vantage_ready_seconds", 0, "900"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_one_that_can(name: str, wrong: object, right: object) -> None:
    spec = variables.known_options()[name]
    assert variables.shape_problem(name, right, spec) == ""
    sentence = variables.shape_problem(name, wrong, spec)
    assert name in sentence
    assert str(wrong) in sentence


@pytest.mark.parametrize("name", sorted(variables.known_options()))
def test_every_default_has_its_shape(name: str) -> None:
    spec = variables.known_options()[name]
    if "default" in spec and "{{" not in str(spec["default"]):
        assert variables.shape_problem(name, spec["default"], spec) == ""


def test_a_host_is_asked_for_the_ports_of_the_roles_that_the_playbook_runs_on_it() -> None:
    assert {"loki", "grafana", "promtail", "node_exporter"} <= ports.roles_of(["monitoring"])
    assert "flask_app" not in ports.roles_of(["monitoring"])
    assert {"flask_app", "promtail"} <= ports.roles_of(["app"])
    assert not {"loki", "grafana"} & ports.roles_of(["app"])


def test_apps_given_as_text_are_told_how_to_give_a_list() -> None:
    (sentence,) = variables.all_problems({"vantage_apps": "[]"}, lambda value: value)
    assert "a text" in sentence
    assert """-e '{"vantage_apps": []}'""" in sentence


def as_given(value: object) -> object:
    return value


VISITED = {"group_names": ["app"], "traffic_enabled": "true"}
BLOG = [{"name": "blog", "image": "blog:1", "port": 8000}]


def test_visitors_without_a_shop_are_refused() -> None:
    (sentence,) = variables.all_problems(VISITED | {"vantage_apps": BLOG}, as_given)
    for word in ("traffic_enabled", "no app is called storefront", "blog", "traffic_url"):
        assert word in sentence


@pytest.mark.parametrize(
    "given",
    [
        {"traffic_enabled": "false", "vantage_apps": BLOG},
        {"traffic_url": "http://10.0.0.9:8000", "vantage_apps": BLOG},
        {"vantage_apps": [*BLOG, {"name": "storefront", "image": "shop:1", "port": 8001}]},
        {"group_names": ["monitoring"], "vantage_apps": BLOG},
    ],
)
def test_visitors_of_a_shop_pass(given: dict[str, object]) -> None:
    assert variables.all_problems(VISITED | given, as_given) == []


MONITORED = {
    "group_names": ["app", "monitoring"],
    "groups": {"app": ["vm"]},
    "inventory_hostname": "vm",
    "vantage_apps": BLOG,
}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prometheus_retention_time": "2d"}, ["prometheus_slo_days is 14", "prometheus_retention_time is 2d", "Lower the one"]),
        ({"prometheus_slos": [{"service": "blgo"}]}, ["prometheus_slos names blgo", "There are: blog."]),
        ({"prometheus_slos": [{"service": "blog", "latency_percent": 100}]}, ["latency_percent of blog is 100", "between 0 and 100"]),
        ({"prometheus_slo_availability_percent": "100"}, ["availability_percent of blog is 100"]),
    ],
)  # fmt: skip
def test_objectives_that_cannot_be_are_refused_before_anything_changes(
    given: dict[str, object], words: list[str]
) -> None:
    (sentence,) = variables.all_problems(MONITORED | given, as_given)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("apps", ["blog", None, [{"port": 8000}], [{"name": "shop", "replicas": "two"}]])
def test_wrong_apps_of_another_host_are_told_by_that_host(apps: object) -> None:
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
def test_objectives_that_can_be_pass(given: dict[str, object]) -> None:
    assert variables.all_problems(MONITORED | given, as_given) == []


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ("2blog", ["makes '2blog' the name", "a letter first", "-e flask_app_name=app-2blog"]),
        ("___", ["gives the app no name", "-e flask_app_name=my-app"]),
        ("loki", ["makes 'loki' the name", "belongs to the role loki", "flask_app_name=app-loki"]),
        ("x", ["makes 'x' the name", "two to forty", "flask_app_name=app-x"]),
    ],
)
def test_a_folder_that_gives_no_good_name_is_named_with_what_to_set(
    tmp_path: Path, called: str, words: list[str]
) -> None:
    (said,) = problems_of_folder(tmp_path / called)
    assert said.startswith(f"flask_app_source {tmp_path / called} ")
    for word in words:
        assert word in said
    assert problems_of_folder(tmp_path / called, flask_app_name="my-blog") == []


@pytest.mark.parametrize("called", ["My Blog-", "-blog", "x" * 39 + "-yz", "blog.git"])
def test_a_folder_with_an_odd_name_gives_a_good_one(tmp_path: Path, called: str) -> None:
    assert problems_of_folder(tmp_path / called) == []


def test_a_wrong_name_that_was_given_is_named_itself(tmp_path: Path) -> None:
    (said,) = problems_of_folder(tmp_path / "blog", flask_app_name="Blog")
    assert "has 'Blog' for a name" in said


def test_an_error_in_the_code_is_told_with_file_and_line(tmp_path: Path) -> None:
    (said,) = problems_of_folder(tmp_path / "blog", code="from flask import Flask\napp = Flask(\n")
    assert f"{tmp_path / 'blog' / 'app.py'}:2: syntax error: '(' was never closed" in said
    assert "<unknown>" not in said


def problems_of_folder(folder: Path, code: str = "import flask\napp = flask.Flask('x')\n", **given: str) -> list[str]:
    """What is said of flask_app_source with a folder of this name."""
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(code)
    (folder / "requirements.txt").write_text("flask\n")
    host = Host("flask_app", flask_app_source=str(folder), **given)
    return list(variables.all_problems(host.variables, host.value))


@pytest.mark.parametrize(("holder", "asked"), [("docker-proxy", True), ("nginx", False)])
def test_docker_is_asked_only_where_it_runs(tmp_path: Path, holder: str, asked: bool) -> None:
    """Its socket would start it, and with it every service: a look must change nothing."""
    line = f'LISTEN 0 4096 127.0.0.1:3100 0.0.0.0:* users:(("{holder}",pid=7,fd=8))'
    for name, prints in (
        ("ss", line),
        ("systemctl", ""),
        ("docker", "vantage-loki 127.0.0.1:3100->3100/tcp"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n: > {tmp_path}/asked-{name}\nprintf %s '{prints}'\n")
        (tmp_path / name).chmod(0o755)
    shown = subprocess.run(
        [sys.executable, ROLES / "preflight/files/look"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (listener,) = json.loads(shown)["listening"]["3100"]
    assert listener["who"] == ("the container vantage-loki" if asked else "nginx (pid 7)")
    assert (tmp_path / "asked-docker").exists() is asked
