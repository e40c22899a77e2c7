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
