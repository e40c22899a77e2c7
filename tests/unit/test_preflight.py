"""What preflight says of variables, without a host."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from rendering import ROLES


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
    (sentence,) = variables.app_problems([{"name": name, "port": 8000}])
    assert name in sentence


def test_two_apps_of_one_name_and_an_impossible_port_are_refused() -> None:
    problems = variables.app_problems([{"name": "hello", "port": 8000}, {"name": "hello", "port": 99999}])
    assert any("two apps are called hello" in problem for problem in problems)
    assert any("99999" in problem for problem in problems)


def test_the_demo_shop_and_ordinary_names_pass() -> None:
    apps = [
        {"name": "warehouse", "port": 8001},
        {"name": "storefront", "port": 8000},
        {"name": "my-app2", "port": 8002},
    ]
    assert variables.app_problems(apps) == []
